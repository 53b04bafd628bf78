"""A tree with every kind of link, and a neighbour's directory."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@pytest.fixture
def neighbour(tmp_path: Path) -> Path:
    """Somebody else's directory, whose content must never be seen or changed."""
    root = tmp_path / "bob"
    root.mkdir()
    (root / "cred").write_text("BOB")
    return root


@pytest.fixture
def zoo(tmp_path: Path, neighbour: Path) -> Path:
    """A tree with every kind of link and special file."""
    root = tmp_path / "alice"
    (root / "d").mkdir(parents=True)
    (root / "d" / "cred").write_text("alice")
    (root / "absolute").symlink_to(neighbour)
    (root / "upwards").symlink_to("../bob")
    (root / "file").symlink_to(neighbour / "cred")
    (root / "dangling").symlink_to("nowhere")
    (root / "loop").symlink_to("loop")
    (root / "self").symlink_to(".")
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as unix, _in(root):
        unix.bind("socket")
    return root


@contextmanager
def _in(directory: Path) -> Iterator[None]:
    """A Unix socket's path must be short."""
    before = Path.cwd()
    os.chdir(directory)
    try:
        yield
    finally:
        os.chdir(before)
