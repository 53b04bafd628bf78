"""The system calls that a tenant's program may make, group by group, and what each group is for.

A profile is a list of what is allowed. Every other call, also one that a newer kernel adds, is answered with ENOSYS, as
if the kernel did not have it: programs and the C library then fall back, for example from `clone3` to `clone`. The
groups below are the source of `strict.json` and `browser.json` beside this file (`python docs/generate_seccomp.py`).

Left out on purpose:

- Namespaces and mounts (`unshare`, `setns`, `mount`, `umount2`, `pivot_root`, `chroot`, `open_tree`, `move_mount`,
  `fsopen`, `fsmount`, `fsconfig`, `fspick`, `mount_setattr`; `clone` with their flags; `clone3`, whose flags no filter
  can see). A process without capabilities has all of them in a new user namespace, and so reaches kernel code that
  was written for root.
- Sockets beyond UNIX, TCP, UDP, ICMP and route queries: AF_ALG, AF_VSOCK, AF_PACKET, AF_RXRPC, AF_TIPC, AF_CAN,
  nfnetlink, xfrm, SCTP, DCCP, L2TP… They load modules that hardly any program needs.
- Programs in the kernel and other ways past the calls: `bpf`, `io_uring_*`, `userfaultfd`, `perf_event_open`.
- Keys (`keyctl`, `add_key`, `request_key`), message queues (`mq_*`, `msg*`), asynchronous I/O (`io_setup`…) and
  `fanotify_init`: the kernel counts them for each user of the host, and all tenants share one. One tenant could use
  up the share of all others.
- Other processes' memory and files: `ptrace`, `process_vm_readv`, `process_vm_writev`, `process_madvise`,
  `pidfd_getfd`, `kcmp`.
- The host: modules, `kexec_load`, `reboot`, `swapon`, `acct`, clocks, host names, quotas, `syslog`, `iopl`, `ioperm`,
  `open_by_handle_at`.
- `vmsplice`, `memfd_secret`, `modify_ldt`, `uselib`, `remap_file_pages`, NUMA placement: surface without use here.

Only the processor's native calls exist: 32-bit calls (`int 0x80`) and x32 end the process. Their numbers and packed
arguments would lead around the rules for sockets.
"""

from dataclasses import dataclass

NEW_NAMESPACES = 0x7E02_0000
"""Flags of `clone` that make namespaces: mount, cgroup, UTS, IPC, user, PID, network."""

NEW_FOR_ROOT = 0x0602_0000
"""Those of them that no browser's sandbox uses: mount, cgroup, UTS."""

NEW_TIME = 0x80
"""The time namespace, for `unshare` alone: in `clone` this bit belongs to the signal."""

_UNIX, _INET, _INET6, _NETLINK = 1, 2, 10, 16
_PROTOCOLS = (0, 1, 6, 17, 58)  # the default, ICMP, TCP, UDP, ICMPv6


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """A condition on one argument: it equals `value`, or its bits in `mask` do. The kernel compares 64 bits."""

    index: int
    value: int
    mask: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Calls that serve one purpose. With `arguments` each is allowed only if all conditions hold."""

    purpose: str
    names: tuple[str, ...]
    arguments: tuple[Argument, ...] = ()


def _group(purpose: str, names: str, *arguments: Argument) -> Group:
    return Group(purpose=purpose, names=tuple(names.split()), arguments=arguments)


def _same(index: int, value: int) -> Argument:
    return Argument(index=index, value=value)


COMMON: tuple[Group, ...] = (
    _group(
        "Names in the file system: open, list, create, rename and remove files, directories, links and FIFOs.",
        "access chdir chmod chown creat faccessat faccessat2 fchdir fchmod fchmodat fchmodat2 fchown fchownat getcwd"
        " getdents getdents64 lchown link linkat mkdir mkdirat mknod mknodat open openat openat2 readlink readlinkat"
        " rename renameat renameat2 rmdir symlink symlinkat truncate umask unlink unlinkat",
    ),
    _group(
        "What is known of a file: status, times, file system, extended attributes.",
        "fgetxattr flistxattr fremovexattr fsetxattr fstat fstatfs futimesat getxattr lgetxattr listxattr llistxattr"
        " lremovexattr lsetxattr lstat newfstatat removexattr setxattr stat statfs statx utime utimensat utimes",
    ),
    _group(
        "Contents of files, pipes and devices: read, write, copy, lock, sync.",
        "cachestat close close_range copy_file_range dup dup2 dup3 fadvise64 fallocate fcntl fdatasync flock fsync"
        " ftruncate ioctl lseek memfd_create pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead"
        " readv sendfile splice sync sync_file_range syncfs tee write writev",
    ),
    _group(
        "Wait for many things at once: files, timers, signals, changes in directories.",
        "epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 inotify_add_watch"
        " inotify_init inotify_init1 inotify_rm_watch poll ppoll pselect6 select signalfd signalfd4 timerfd_create"
        " timerfd_gettime timerfd_settime",
    ),
    _group(
        "Use sockets that exist; which may be made is said below.",
        "accept accept4 bind connect getpeername getsockname getsockopt listen recvfrom recvmmsg recvmsg sendmmsg"
        " sendmsg sendto setsockopt shutdown",
    ),
    _group("Sockets within the container.", "socket socketpair", _same(0, _UNIX)),
    *(
        _group(f"Internet, family {family}, protocol {protocol}.", "socket", _same(0, family), _same(2, protocol))
        for family in (_INET, _INET6)
        for protocol in _PROTOCOLS
    ),
    _group(
        "Ask for addresses and routes, as the C library does; protocol 0 of netlink and no other.",
        "socket",
        _same(0, _NETLINK),
        _same(2, 0),
    ),
    _group(
        "Memory of the process, and what it shares with its own processes: System V segments and semaphores.",
        "brk madvise membarrier mincore mlock mlock2 mlockall mmap mprotect mremap mseal msync munlock munlockall"
        " munmap pkey_alloc pkey_free pkey_mprotect semctl semget semop semtimedop shmat shmctl shmdt shmget",
    ),
    _group(
        "Processes and threads: make, wait for, end and signal them, and wait for one another.",
        "execve execveat exit exit_group fork futex futex_requeue futex_wait futex_waitv futex_wake get_robust_list"
        " getpgid getpgrp getpid getppid getsid gettid kill pidfd_open pidfd_send_signal prctl rseq rt_sigqueueinfo"
        " rt_tgsigqueueinfo set_robust_list set_tid_address setpgid setsid tgkill tkill vfork wait4 waitid",
    ),
    _group(
        "Signals, and interrupted calls that continue.",
        "alarm getitimer pause restart_syscall rt_sigaction rt_sigpending rt_sigprocmask rt_sigreturn rt_sigsuspend"
        " rt_sigtimedwait setitimer sigaltstack",
    ),
    _group(
        "Users and groups: ask, and change to what the process is already; it has no capability for more.",
        "capget capset getegid geteuid getgid getgroups getresgid getresuid getuid setfsgid setfsuid setgid setgroups"
        " setregid setresgid setresuid setreuid setuid",
    ),
    _group(
        "Priorities, processors and limits, within what the container has.",
        "getcpu getpriority getrlimit getrusage ioprio_get ioprio_set prlimit64 sched_get_priority_max"
        " sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler"
        " sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield"
        " setpriority setrlimit times",
    ),
    _group(
        "Read clocks, sleep, set own timers, read the system's name and load, get random bytes.",
        "clock_getres clock_gettime clock_nanosleep getrandom gettimeofday nanosleep sysinfo time timer_create"
        " timer_delete timer_getoverrun timer_gettime timer_settime uname",
    ),
    _group("Thread-local storage of x86-64.", "arch_prctl"),
    _group(
        "Ask for the execution domain, or set the usual one; no other, as one turns off address randomisation.",
        "personality",
        _same(0, 0),
    ),
    _group("Ask for the execution domain.", "personality", _same(0, 0xFFFF_FFFF)),
    _group(
        "Give up rights: a program may filter and confine itself further.",
        "landlock_add_rule landlock_create_ruleset landlock_restrict_self seccomp",
    ),
)
"""Of both profiles."""

STRICT: tuple[Group, ...] = (
    *COMMON,
    _group("Processes and threads, in no new namespace.", "clone", Argument(index=0, value=0, mask=NEW_NAMESPACES)),
)
"""For programs that need no namespace of their own; the default."""

BROWSER: tuple[Group, ...] = (
    *COMMON,
    _group(
        "Processes in new user, PID, network and IPC namespaces, as a browser's sandbox makes them.",
        "clone",
        Argument(index=0, value=0, mask=NEW_FOR_ROOT),
    ),
    _group(
        "The same namespaces, for the calling process.",
        "unshare",
        Argument(index=0, value=0, mask=NEW_FOR_ROOT | NEW_TIME),
    ),
    _group("An empty root for the sandboxed process; it has the right to it only in its own user namespace.", "chroot"),
)
"""For images with a browser. Weaker: in a user namespace of its own, a process has capabilities over what is in there,
such as a network namespace of its own, and reaches the kernel code behind them."""
