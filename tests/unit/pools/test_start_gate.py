"""The start gate of a waiting slot: one line, to a process that waits, or a clear error."""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from claw_runtime.errors import EngineFailed
from claw_runtime.pools import start_gate


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[[], int]]:
    """Opens the FIFO as the process that waits does."""
    fds: list[int] = []

    def wait() -> int:
        fds.append(os.open(tmp_path / "door", os.O_RDWR | os.O_NONBLOCK))
        return fds[-1]

    yield wait
    for fd in fds:
        os.close(fd)


def test_gate_is_ours_alone(tmp_path: Path) -> None:
    """It is a FIFO that only its owner may open."""
    start_gate.make(tmp_path)

    mode = (tmp_path / "door").stat().st_mode
    assert stat.S_ISFIFO(mode)
    assert stat.S_IMODE(mode) == 0o600


def test_looking_does_not_open_it(tmp_path: Path, opened: Callable[[], int]) -> None:
    """However often somebody looks whether a process waits, that process reads nothing."""
    start_gate.make(tmp_path)
    assert not start_gate.waits(tmp_path)
    fd = opened()

    assert [start_gate.waits(tmp_path) for _ in range(3)] == [True, True, True]
    with pytest.raises(BlockingIOError):
        os.read(fd, 100)


def test_it_is_opened_by_one_line(tmp_path: Path, opened: Callable[[], int]) -> None:
    """The process reads the protocol's line, once, and nothing of a tenant."""
    start_gate.make(tmp_path)
    fd = opened()

    start_gate.open_gate(tmp_path)

    assert os.read(fd, 100) == b'{"v":1}\n'


@pytest.mark.parametrize("made", [True, False], ids=["nobody", "no gate"])
def test_nobody_waits(tmp_path: Path, made: bool) -> None:
    """Without a process, opening the gate is an error at once, and a look says no."""
    if made:
        start_gate.make(tmp_path)

    assert not start_gate.waits(tmp_path)
    with pytest.raises(EngineFailed, match="no process waits"):
        start_gate.open_gate(tmp_path)


def test_file_is_no_gate(tmp_path: Path) -> None:
    """A file in its place is never written to."""
    (tmp_path / "door").write_text("")

    assert not start_gate.waits(tmp_path)
    with pytest.raises(EngineFailed):
        start_gate.open_gate(tmp_path)
    assert (tmp_path / "door").read_text() == ""


def test_an_ended_process_shows(tmp_path: Path) -> None:
    """When the process ends, the gate says so."""
    start_gate.make(tmp_path)
    fd = os.open(tmp_path / "door", os.O_RDWR | os.O_NONBLOCK)
    os.close(fd)

    assert not start_gate.waits(tmp_path)
