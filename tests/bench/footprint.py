"""This user's processes, mounts, ports and files on this host, and the cost of processes, as the kernel reports them.

Memory is the proportional set size: a page that several processes share counts once, divided among them.
"""

import os
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from claw_runtime.ports import Container

PROC = Path("/proc")
_TICKS = os.sysconf("SC_CLK_TCK")
_LISTEN = "0A"


def pids_of(container: Container, port: int | None) -> tuple[list[int], list[int]]:
    """The container's own processes, and those that Podman keeps for it: conmon, slirp4netns and port forwarders."""
    children = _children()
    own = list(_below(container.pid, children))
    listeners = set(_listening(port)) if port else set()
    helpers: set[int] = set()
    for pid in _ours():
        words = _words(pid)
        name = words[0].rpartition("/")[2] if words else ""
        conmon = name == "conmon" and container.id in words
        if conmon or (name == "slirp4netns" and str(container.pid) in words):
            helpers.add(pid)
        elif name == "rootlessport" and listeners & set(_below(pid, children)):
            helpers |= set(_below(pid, children))
    return own, sorted(helpers)


def memory(pids: Iterable[int]) -> float:
    """MB of the processes together; those that have ended count nothing."""
    return sum(map(_pss, pids)) / 1e6


def seconds_of(pids: Iterable[int]) -> float:
    """Seconds of processor time that the processes, and children that they waited for, have used so far."""
    spent = 0
    for pid in pids:
        if fields := _stat(pid):
            spent += sum(int(field) for field in fields[11:15])
    return spent / _TICKS


def open_files(pid: int) -> int:
    """How many descriptors a process has open."""
    return len(list((PROC / str(pid) / "fd").iterdir()))


def below(pid: int) -> list[int]:
    """A process and its descendants."""
    return list(_below(pid, _children()))


def mentioning(texts: Iterable[str]) -> list[int]:
    """This user's processes that have one of the texts in their command line; those that have ended do not count."""
    wanted = tuple(texts)
    return [pid for pid in _ours() if any(text in word for word in _words(pid) for text in wanted)]


def listening() -> int:
    """How many TCP ports this user listens on."""
    return sum(uid == os.getuid() for uid, _, _ in _sockets())


def mounts() -> int:
    """How many mounts there are in the namespace where Podman makes its own."""
    listed = subprocess.run(["podman", "unshare", "cat", "/proc/self/mounts"], check=True, capture_output=True)
    return listed.stdout.count(b"\n")


def files(directory: Path) -> int:
    """How many names there are below a directory."""
    return sum(len(folders) + len(names) for _, folders, names in os.walk(directory))


def _ours() -> Iterator[int]:
    for entry in PROC.iterdir():
        try:
            if entry.name.isdigit() and entry.stat().st_uid == os.getuid() and int(entry.name) != os.getpid():
                yield int(entry.name)
        except OSError:
            continue


def _words(pid: int) -> list[str]:
    try:
        return (PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def _stat(pid: int) -> list[str]:
    """The fields after the name: state, parent, …"""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _children() -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for pid in _ours():
        fields = _stat(pid)
        if fields and fields[0] != "Z":
            found.setdefault(int(fields[1]), []).append(pid)
    return found


def _below(pid: int, children: dict[int, list[int]]) -> Iterator[int]:
    yield pid
    for child in children.get(pid, ()):
        yield from _below(child, children)


def _pss(pid: int) -> int:
    try:
        lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def _sockets() -> Iterator[tuple[int, int, str]]:
    """User, port and inode of what listens on this host."""
    for table in ("tcp", "tcp6"):
        for line in (PROC / "net" / table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTEN:
                yield int(fields[7]), int(fields[1].rpartition(":")[2], 16), fields[9]


def _listening(port: int) -> Iterator[int]:
    """This user's processes that listen on a port."""
    links = {f"socket:[{inode}]" for _, at, inode in _sockets() if at == port}
    for pid in _ours():
        try:
            if any(os.readlink(fd) in links for fd in (PROC / str(pid) / "fd").iterdir()):
                yield pid
        except OSError:
            continue
