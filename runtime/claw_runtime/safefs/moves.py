"""Moves of a tree's entries from one directory to another, by renames below directory fds that follow no link."""

import os
import stat
from collections.abc import Collection
from contextlib import closing
from pathlib import Path

from claw_runtime.fsutil import rename_new
from claw_runtime.safefs.opening import AT_FDCWD, Directory, names


def move_entries(source: Path, target: Path, *, into: Collection[str] = ()) -> int:
    """Rename every top-level entry of one directory into another of the same file system; how many there were.

    A second call after a crash moves what is left.

    Args:
        into: Paths of directories that may be in both, because a container has that of `target` mounted: it stays,
            and the entries of the other move into it.

    Raises:
        FileExistsError: Another name is taken in `target`; entries moved so far stay moved.
        OSError: Another file system (EXDEV), or a path that is no directory.
    """
    with _writable(os.fspath(source), AT_FDCWD) as above, _writable(os.fspath(target), AT_FDCWD) as below:
        return _join(above.fd, below.fd, into)


def _move(name: str, source_fd: int, target_fd: int) -> None:
    try:
        rename_new(name, name, source_fd=source_fd, target_fd=target_fd)
    except PermissionError:
        # A read-only directory cannot change its parent entry: add permissions during the move.
        with _writable(name, source_fd):
            rename_new(name, name, source_fd=source_fd, target_fd=target_fd)


def _is_there(name: str, parent: int) -> bool:
    try:
        os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _is_directory(name: str, parent: int) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _join(source: int, target: int, into: Collection[str]) -> int:
    found = names(source)
    for name in found:
        below = [path.removeprefix(f"{name}/") for path in into if path.startswith(f"{name}/")]
        shared = bool(below) or name in into
        if shared and _is_directory(name, source) and _is_directory(name, target):
            _join_child(name, source, target, below)
        elif shared and _is_there(name, target):  # its tenant replaced it by something else: keep that too
            rename_new(name, f"{name}.aside-{os.urandom(4).hex()}", source_fd=source, target_fd=target)
        else:
            _move(name, source, target)
    return len(found)


def _join_child(name: str, source: int, target: int, into: Collection[str]) -> None:
    """Move the entries of a directory into its namesake, and remove it."""
    with _writable(name, source) as above, _writable(name, target) as below:
        _join(above.fd, below.fd, into)
    os.rmdir(name, dir_fd=source)


def _writable(name: str, parent: int) -> "closing[Directory]":
    """A directory whose entries can be renamed, whatever mode its tenant gave it, for as long as the block."""
    return closing(Directory(name, parent, bits=0o700))
