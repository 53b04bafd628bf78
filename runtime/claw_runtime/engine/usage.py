"""Resource usage of a container's processes, read from kernel files: cheap, and right without a memory controller.

The processes of a rootless container belong to this user, so reading them needs no privilege.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from claw_runtime.engine.host import number_in
from claw_runtime.ports import Container, Usage

CGROUPS = Path("/sys/fs/cgroup")
PROC = Path("/proc")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


def of(container: Container, *, proc: Path = PROC, cgroups: Path = CGROUPS) -> Usage | None:
    """The present usage of a container; None when it has no process."""
    group = _group(container, proc, cgroups)
    if group is not None and (charged := number_in(group / "memory.current")) is not None:
        return Usage(container=container, memory=charged, kind="cgroup", cpu=_cpu(group) or 0.0)
    pids = list(_members(group)) if group else list(_descendants(container.pid, proc))
    seen = [use for pid in pids if (use := _process(proc / str(pid)))]
    if not seen:
        return None
    spent = _cpu(group) if group else None
    return Usage(
        container=container,
        memory=sum(memory for memory, _ in seen),
        kind="rss",
        cpu=sum(cpu for _, cpu in seen) if spent is None else spent,
    )


def _group(container: Container, proc: Path, cgroups: Path) -> Path | None:
    """The container's own control group; None if it has none, as on cgroup v1."""
    try:
        lines = (proc / str(container.pid) / "cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if not line.startswith("0::/"):
            continue
        parts = line.removeprefix("0::/").split("/")
        own = next((at for at, part in enumerate(parts, 1) if container.id in part), None)
        if own and (cgroups.joinpath(*parts[:own]) / "cgroup.procs").exists():
            return cgroups.joinpath(*parts[:own])
    return None


def _members(group: Path) -> Iterator[int]:
    for path in (group / "cgroup.procs", *group.glob("*/**/cgroup.procs")):
        try:
            yield from map(int, path.read_text().split())
        except OSError:
            continue


def _descendants(pid: int, proc: Path) -> Iterator[int]:
    yield pid
    for thread in (proc / str(pid) / "task").glob("*/children"):
        try:
            children = thread.read_text().split()
        except OSError:
            continue
        for child in children:
            yield from _descendants(int(child), proc)


def _process(directory: Path) -> tuple[int, float] | None:
    """Resident bytes and seconds of processor time of a process."""
    try:
        resident = int((directory / "statm").read_text().split()[1]) * _PAGE
        fields = (directory / "stat").read_text().rpartition(")")[2].split()
    except (OSError, IndexError):
        return None
    return resident, (int(fields[11]) + int(fields[12])) / _TICKS


def _cpu(group: Path) -> float | None:
    try:
        words = (group / "cpu.stat").read_text().split()
        return int(words[words.index("usage_usec") + 1]) / 1e6
    except (OSError, ValueError, IndexError):
        return None
