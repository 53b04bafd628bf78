"""The door of a waiting slot: one line, to somebody who waits, or a clear error."""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from claw_runtime.errors import EngineFailed
from claw_runtime.pools import start_gate


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[[], int]]:
    """Opens the door as who waits behind it does."""
    fds: list[int] = []

    def wait() -> int:
        fds.append(os.open(tmp_path / "door", os.O_RDWR | os.O_NONBLOCK))
        return fds[-1]

    yield wait
    for fd in fds:
        os.close(fd)


def test_door_is_ours_alone(tmp_path: Path) -> None:
    """It is a FIFO that only its owner may open."""
    start_gate.make(tmp_path)

    mode = (tmp_path / "door").stat().st_mode
    assert stat.S_ISFIFO(mode)
    assert stat.S_IMODE(mode) == 0o600


def test_looking_does_not_ring(tmp_path: Path, opened: Callable[[], int]) -> None:
    """However often somebody looks whether anybody waits, who waits hears nothing."""
    start_gate.make(tmp_path)
    assert not start_gate.waits(tmp_path)
    fd = opened()

    assert [start_gate.waits(tmp_path) for _ in range(3)] == [True, True, True]
    with pytest.raises(BlockingIOError):
        os.read(fd, 100)


def test_ring_is_one_line(tmp_path: Path, opened: Callable[[], int]) -> None:
    """Who waits reads the protocol's line, once, and nothing of a tenant."""
    start_gate.make(tmp_path)
    fd = opened()

    start_gate.ring(tmp_path)

    assert os.read(fd, 100) == b'{"v":1}\n'


@pytest.mark.parametrize("made", [True, False], ids=["nobody", "no door"])
def test_nobody_waits(tmp_path: Path, made: bool) -> None:
    """Without somebody behind it a ring is an error at once, and a look says no."""
    if made:
        start_gate.make(tmp_path)

    assert not start_gate.waits(tmp_path)
    with pytest.raises(EngineFailed, match="nobody waits"):
        start_gate.ring(tmp_path)


def test_file_is_no_door(tmp_path: Path) -> None:
    """A file in its place is never written to."""
    (tmp_path / "door").write_text("")

    assert not start_gate.waits(tmp_path)
    with pytest.raises(EngineFailed):
        start_gate.ring(tmp_path)
    assert (tmp_path / "door").read_text() == ""


def test_who_waited_is_gone(tmp_path: Path) -> None:
    """When the process ends, the door says so."""
    start_gate.make(tmp_path)
    fd = os.open(tmp_path / "door", os.O_RDWR | os.O_NONBLOCK)
    os.close(fd)

    assert not start_gate.waits(tmp_path)
