"""A digest that follows what is written."""

import hashlib
import os
import random
import tempfile
from collections.abc import Iterator
from itertools import pairwise

import pytest
from claw_runtime.state.restore.trailing import TrailingDigest


@pytest.fixture
def fd() -> Iterator[int]:
    """An empty file."""
    with tempfile.TemporaryFile() as file:
        yield file.fileno()


@pytest.mark.parametrize("seed", range(5))
def test_pieces_may_come_in_any_order(fd: int, seed: int) -> None:
    """The digest is that of the whole file."""
    dice = random.Random(seed)
    content = dice.randbytes(3_000_000)
    cuts = sorted({0, len(content), *(dice.randrange(len(content)) for _ in range(40))})
    pieces = list(pairwise(cuts))
    dice.shuffle(pieces)
    with TrailingDigest(fd, len(content)) as digest:
        for start, end in pieces:
            os.pwrite(fd, content[start:end], start)
            digest.wrote(start, end - start)
        assert digest.whole() == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_piece_that_never_came_leaves_none(fd: int, missing: int) -> None:
    """However much came after it."""
    with TrailingDigest(fd, 30) as digest:
        for number in {0, 1, 2} - {missing}:
            os.pwrite(fd, b"x" * 10, number * 10)
            digest.wrote(number * 10, 10)
        assert digest.whole() == ""


def test_an_error_ends_the_reader(fd: int) -> None:
    """No thread waits for what will never come."""
    with pytest.raises(OSError, match="the wire"), TrailingDigest(fd, 10) as digest:
        raise OSError("the wire")
    assert not digest._reader.is_alive()


def test_a_disk_that_cannot_be_read_is_told() -> None:
    """As what it is, and not as a file that was damaged in the store."""
    fd = os.open(os.devnull, os.O_WRONLY)
    try:
        with TrailingDigest(fd, 10) as digest:
            digest.wrote(0, 10)
            with pytest.raises(OSError, match="Bad file descriptor"):
                digest.whole()
    finally:
        os.close(fd)


def test_an_empty_file_has_one_too(fd: int) -> None:
    """That of nothing."""
    with TrailingDigest(fd, 0) as digest:
        assert digest.whole() == hashlib.sha256().hexdigest()
