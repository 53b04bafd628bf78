"""Removal of a tree: below directory fds that follow no link."""

import os
from contextlib import suppress
from pathlib import Path

from claw_runtime.safefs.opening import open_directory
from claw_runtime.safefs.tree import MAX_DEPTH


def remove_tree(path: Path) -> None:
    """Delete a directory and all below it: no link is followed, no mode of ours is an obstacle, no depth too deep.

    A path that is gone is fine.

    Raises:
        NotADirectoryError: `path` is a link or a file; it is left alone.
        OSError: Something below belongs to somebody else.
    """
    try:
        parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        root = open_directory(path.name, parent)
        try:
            while not _empty(root, root, 0):
                pass
        finally:
            os.close(root)
        os.rmdir(path.name, dir_fd=parent)
    except FileNotFoundError:
        return
    finally:
        os.close(parent)


def _empty(fd: int, root: int, depth: int) -> bool:
    """Delete what is in a directory; False when something too deep was moved up to the root for another round."""
    os.fchmod(fd, 0o700)
    done = True
    for name in os.listdir(fd):
        try:
            os.unlink(name, dir_fd=fd)
            continue
        except IsADirectoryError:
            pass
        if depth >= MAX_DEPTH:
            with suppress(FileNotFoundError):
                os.rename(name, f".removed-{os.urandom(8).hex()}", src_dir_fd=fd, dst_dir_fd=root)
            done = False
            continue
        below = open_directory(name, fd)
        try:
            done = _empty(below, root, depth + 1) and done
        finally:
            os.close(below)
        os.rmdir(name, dir_fd=fd)
    return done
