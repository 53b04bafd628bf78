"""Frames of a WebSocket are counted by kind, in whatever pieces they come."""

import random

import pytest
from claw_runtime.router.frames import Frames


def frame(opcode: int, size: int, *, masked: bool) -> bytes:
    mask = 0x80 if masked else 0
    if size < 126:
        head = bytes((0x80 | opcode, mask | size))
    elif size < 1 << 16:
        head = bytes((0x80 | opcode, mask | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((0x80 | opcode, mask | 127)) + size.to_bytes(8, "big")
    return head + (b"\xff" * 4 if masked else b"") + b"\x89" * size


@pytest.mark.parametrize("seed", range(50))
def test_frames_are_counted_by_kind(seed: int) -> None:
    """Data and control frames of all lengths, masked or not, cut anywhere; pings count as no data."""
    dice = random.Random(seed)
    kinds = [(dice.choice((0, 1, 2, 8, 9, 10)), dice.choice((0, 1, 125, 126, 200, 65_535, 65_536))) for _ in range(30)]
    data = b"".join(frame(kind, size, masked=bool(seed % 2)) for kind, size in kinds)
    frames, told, at = Frames(), 0, 0
    while at < len(data):
        size = dice.choice((1, 2, 13, 1000, 70_000))
        told += frames.count(data[at : at + size])
        at += size
    of_data = sum(kind < 3 for kind, _ in kinds)
    assert (frames.data, frames.control, told) == (of_data, len(kinds) - of_data, of_data)
    assert frames.is_between


def test_the_middle_of_a_frame_is_known() -> None:
    """Between two frames another can be put in; within one it cannot."""
    frames = Frames()
    assert frames.is_between
    frames.count(frame(1, 300, masked=True)[:10])
    assert not frames.is_between
