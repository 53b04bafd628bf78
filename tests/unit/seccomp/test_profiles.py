"""claw's own seccomp profiles: that the files are what the groups say, what they leave out, and how others are read."""

import importlib.util
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from claw_runtime.errors import InvalidSpec
from claw_runtime.seccomp import groups, profiles

ROOT = Path(__file__).resolve().parents[3]
NEVER = frozenset(
    [
        "unshare",
        "setns",
        "mount",
        "umount2",
        "pivot_root",
        "chroot",
        "open_tree",
        "move_mount",
        "fsopen",
        "fsmount",
        "fsconfig",
        "fspick",
        "mount_setattr",
        "clone3",
        "bpf",
        "io_uring_setup",
        "io_uring_enter",
        "io_uring_register",
        "userfaultfd",
        "perf_event_open",
        "keyctl",
        "add_key",
        "request_key",
        "mq_open",
        "msgget",
        "msgsnd",
        "io_setup",
        "fanotify_init",
        "ptrace",
        "process_vm_readv",
        "process_vm_writev",
        "process_madvise",
        "pidfd_getfd",
        "kcmp",
        "init_module",
        "finit_module",
        "delete_module",
        "kexec_load",
        "kexec_file_load",
        "reboot",
        "swapon",
        "swapoff",
        "acct",
        "settimeofday",
        "clock_settime",
        "clock_adjtime",
        "adjtimex",
        "sethostname",
        "setdomainname",
        "quotactl",
        "syslog",
        "iopl",
        "ioperm",
        "open_by_handle_at",
        "name_to_handle_at",
        "vmsplice",
        "memfd_secret",
        "modify_ldt",
        "uselib",
        "remap_file_pages",
        "mbind",
        "set_mempolicy",
        "move_pages",
        "migrate_pages",
        "socketcall",
        "ipc",
        "lookup_dcookie",
        "nfsservctl",
        "vhangup",
        "ustat",
        "sysfs",
        "_sysctl",
    ]
)
NEW = {
    "time": 0x80,
    "mnt": 0x2_0000,
    "cgroup": 0x200_0000,
    "uts": 0x400_0000,
    "ipc": 0x800_0000,
    "user": 0x1000_0000,
    "pid": 0x2000_0000,
    "net": 0x4000_0000,
}
"""Flags of new namespaces (linux/sched.h)."""


def generator() -> ModuleType:
    """docs/generate_seccomp.py."""
    spec = importlib.util.spec_from_file_location("generate_seccomp", ROOT / "docs/generate_seccomp.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rules(name: str) -> list[dict[str, Any]]:
    """The rules of one of claw's own profiles, as its file has them."""
    found: list[dict[str, Any]] = json.loads(profiles.text(name))["syscalls"]
    return found


def allowed(name: str) -> set[str]:
    return {call for rule in rules(name) for call in rule["names"]}


def permits(name: str, call: str, *arguments: int) -> bool:
    """Whether the profile lets this call through, as the kernel decides it: on 64 bits of each argument."""

    def holds(condition: dict[str, Any]) -> bool:
        given = arguments[condition["index"]]
        if condition["op"] == "SCMP_CMP_MASKED_EQ":
            return bool(given & condition["value"] == condition["valueTwo"])
        return bool(given == condition["value"])

    return any(call in rule["names"] and all(map(holds, rule.get("args", ()))) for rule in rules(name))


@pytest.mark.parametrize("name", profiles.OWN)
def test_the_files_are_what_the_groups_say(name: str) -> None:
    """The committed JSON is what the script writes from the groups."""
    made = generator()
    assert profiles.path_of(name).read_text() == made.description(made.GROUPS[name]), "run: docs/generate_seccomp.py"


def test_the_files_are_installed() -> None:
    """The package's data names them: without the files no container could be created."""
    assert '"seccomp/*.json"' in (ROOT / "runtime/pyproject.toml").read_text()


@pytest.mark.parametrize("name", profiles.OWN)
def test_what_is_not_named_does_not_exist(name: str) -> None:
    """Other calls are answered as by a kernel without them, and calls of other kinds of processor end the process."""
    profile = json.loads(profiles.text(name))
    assert (profile["defaultAction"], profile["defaultErrnoRet"]) == ("SCMP_ACT_ERRNO", 38)
    assert {rule["action"] for rule in profile["syscalls"]} == {"SCMP_ACT_ALLOW"}
    assert all(entry["subArchitectures"] == [] for entry in profile["archMap"])


def test_strict_has_no_dangerous_call() -> None:
    """No call that makes namespaces, mounts, traces, loads code or counts against all tenants together."""
    assert allowed("strict") & NEVER == set()


def test_browser_adds_namespaces_alone() -> None:
    """It is strict with two more calls, and with namespaces for `clone`."""
    assert allowed("browser") - allowed("strict") == {"unshare", "chroot"}
    assert allowed("strict") <= allowed("browser")
    for flag in ("user", "pid", "net", "ipc"):
        assert permits("browser", "clone", NEW[flag] | 17)
        assert permits("browser", "unshare", NEW[flag])
    for flag in ("mnt", "cgroup", "uts"):
        assert not permits("browser", "clone", NEW["user"] | NEW[flag])
        assert not permits("browser", "unshare", NEW["user"] | NEW[flag])
    assert not permits("browser", "unshare", NEW["time"])


@pytest.mark.parametrize("flag", sorted(NEW.keys() - {"time"}))
def test_strict_makes_no_namespace(flag: str) -> None:
    """`clone` makes processes and threads, and with no flag of a namespace."""
    assert permits("strict", "clone", 17)
    assert permits("strict", "clone", 0x3D_0F00)  # a thread
    assert not permits("strict", "clone", NEW[flag] | 17)
    assert not permits("strict", "clone", NEW[flag] | 1 << 32 | 17)


@pytest.mark.parametrize("name", profiles.OWN)
def test_only_harmless_sockets(name: str) -> None:
    """UNIX, TCP, UDP, ICMP and route queries; no other family or protocol, also with garbage in the upper half."""
    made = {
        (family, protocol)
        for family in range(50)
        for protocol in range(300)
        if permits(name, "socket", family, 1, protocol)
    }
    internet = {(family, protocol) for family in (2, 10) for protocol in (0, 1, 6, 17, 58)}
    assert made == {*internet, (16, 0), *((1, protocol) for protocol in range(300))}
    assert not permits(name, "socket", 38 | 1 << 32, 5, 0)
    assert not permits(name, "socketpair", 30, 1, 0)


@pytest.mark.parametrize("name", profiles.OWN)
def test_no_call_is_ruled_twice(name: str) -> None:
    """A call with conditions has no rule without: libseccomp refuses some overlaps and lets others win silently."""
    free = [call for rule in rules(name) if "args" not in rule for call in rule["names"]]
    bound = {call for rule in rules(name) if "args" in rule for call in rule["names"]}
    assert len(free) == len(set(free))
    assert not set(free) & bound


@pytest.mark.parametrize("name", profiles.OWN)
def test_every_group_says_what_it_is_for(name: str) -> None:
    """Each rule carries a sentence, in the JSON too."""
    assert all(rule["comment"].endswith(".") for rule in rules(name))
    assert {"strict": groups.STRICT, "browser": groups.BROWSER}[name]


# --- an operator's profile ----------------------------------------------------------------------------------------

WHOLE = '{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": []}'


def test_a_file_is_taken_as_it_is(tmp_path: Path) -> None:
    """Byte for byte: the engine gets what the operator wrote."""
    path = tmp_path / "own.json"
    path.write_text(WHOLE + "\n")
    assert profiles.text(str(path)) == WHOLE + "\n"


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: None, "No such file"),
        (lambda path: path.mkdir(), "not a regular file"),
        (os.mkfifo, "not a regular file"),
        (lambda path: path.write_text("root:x:0:0:secret"), "not a JSON object"),
        (lambda path: path.write_text("[]"), "not a JSON object"),
        (lambda path: path.write_text('{"syscalls": []}'), "not a JSON object"),
        (lambda path: path.write_text('{"defaultAction": 1}'), "not a JSON object"),
        (lambda path: path.write_text('{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": {}}'), "not a JSON object"),
        (lambda path: path.write_bytes(WHOLE.encode("utf-16")), "not a JSON object"),
        (lambda path: path.write_text("[" * 100_000), "not a JSON object"),
        (lambda path: path.write_text(" " * (profiles.MOST_BYTES + 1)), "more than"),
    ],
)
def test_what_is_no_profile_is_refused(tmp_path: Path, make: Callable[[Path], object], why: str) -> None:
    """With its path and the reason, at once, and never with what the file holds."""
    path = tmp_path / "own.json"
    make(path)
    with pytest.raises(InvalidSpec) as caught:
        profiles.text(str(path))
    assert why in str(caught.value)
    assert str(path) in caught.value.brief
    assert "strict" in caught.value.hint
    assert "secret" not in f"{caught.value}{caught.value.hint}"


@pytest.mark.parametrize(
    ("action", "weak"), [("SCMP_ACT_ALLOW", True), ("SCMP_ACT_LOG", True), ("SCMP_ACT_ERRNO", False)]
)
def test_a_profile_that_allows_the_rest_is_known(action: str, weak: bool) -> None:
    """A list of what is forbidden misses what a newer kernel adds."""
    assert profiles.permissive(json.dumps({"defaultAction": action})) is weak
