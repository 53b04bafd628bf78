"""What containers use is read from the kernel's files, with and without a controller, and when they are going away."""

import os
from pathlib import Path

import pytest
from claw_runtime.engine import usage
from claw_runtime.ports import Container

ID = "c" * 64
PAGE = os.sysconf("SC_PAGE_SIZE")
TICKS = os.sysconf("SC_CLK_TCK")


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A kernel's files: `proc` with processes 7 → 8 → 9 of a container, `cgroups` without anything of it."""
    for pid, children in {7: "8", 8: "9", 9: ""}.items():
        task = tmp_path / "proc" / str(pid) / "task" / str(pid)
        task.mkdir(parents=True)
        (task / "children").write_text(children)
        (tmp_path / "proc" / str(pid) / "statm").write_text(f"900 {pid} 0 0 0 0 0")
        words = ["S", *["0"] * 10, str(2 * TICKS), str(TICKS), "0"]
        (tmp_path / "proc" / str(pid) / "stat").write_text(f"{pid} (a) b) {' '.join(words)}")
    (tmp_path / "proc" / "7" / "cgroup").write_text("3:cpu:/\n0::/\n")
    (tmp_path / "cgroups").mkdir()
    return tmp_path


def own_group(host: Path, **files: str) -> Path:
    """Give the container a control group with these files."""
    group = host / "cgroups" / "claw" / f"libpod-{ID}.scope"
    (group / "container").mkdir(parents=True)
    (group / "cgroup.procs").write_text("")
    (group / "container" / "cgroup.procs").write_text("7\n8\n")
    for name, text in files.items():
        (group / name.replace("__", ".")).write_text(text)
    (host / "proc" / "7" / "cgroup").write_text(f"0::/claw/libpod-{ID}.scope/container\n")
    return group


def look(host: Path, pid: int = 7) -> tuple[int, str, float] | None:
    """Memory in bytes, kind and seconds of processor time."""
    container = Container(id=ID, name="c", state="running", image_id="i", labels={}, pid=pid)
    found = usage.of(container, proc=host / "proc", cgroups=host / "cgroups")
    return (found.memory, found.kind, found.cpu) if found else None


def test_the_kernels_account_is_taken_where_there_is_one(host: Path) -> None:
    """`memory.current` and `cpu.stat` of the container's own group, not of the one that its program is in."""
    own_group(host, memory__current="12345\n", cpu__stat="usage_usec 2500000\nuser_usec 1\n")
    assert look(host) == (12345, "cgroup", 2.5)


def test_without_a_memory_controller_its_processes_are_summed(host: Path) -> None:
    """All that are in the group or below it, also when they are nobody's children; the group still counts time."""
    own_group(host, cpu__stat="usage_usec 500000\n")
    assert look(host) == ((7 + 8) * PAGE, "rss", 0.5)


def test_without_a_group_of_its_own_the_family_is_summed(host: Path) -> None:
    """As with cgroup v1, where this user's containers have none: from the first process down."""
    assert look(host) == ((7 + 8 + 9) * PAGE, "rss", 9.0)


def test_a_group_that_is_not_the_containers_own_is_not_taken(host: Path) -> None:
    """Otherwise it would be told what others use."""
    (host / "cgroups" / "memory.current").write_text("999\n")
    (host / "cgroups" / "cgroup.procs").write_text("9\n")
    assert look(host) == ((7 + 8 + 9) * PAGE, "rss", 9.0)


def test_what_ended_meanwhile_uses_nothing(host: Path) -> None:
    """There is no figure then, rather than a zero that looks measured."""
    assert look(host, pid=66) is None
