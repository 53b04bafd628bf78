"""Removal of a tree, or of some names of it: below directory fds that follow no link."""

import os
import stat
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from claw_runtime.safefs.opening import Directory, open_directory
from claw_runtime.safefs.tree import MAX_DEPTH, Tree

_KEPT_DEPTH = 16
"""Directories above a file that `bound` keeps."""


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
        _remove_directory(path.name, parent)
    except FileNotFoundError:
        return
    finally:
        os.close(parent)


def prune(root: Path, goes: Callable[[str, bool], bool]) -> int:
    """Delete names of a tree that nobody writes to, with all below them; how many there were. Modes and times of the
    directories that hold them stay.

    Args:
        goes: Whether a path goes; the second argument is whether it is a directory.

    Raises:
        OSError: `root` is missing, or something below belongs to somebody else.
    """
    doomed = dict[str, bool]()
    with Tree(root) as tree, tree.cursor() as cursor:
        for path, status in tree.scan(lambda path: path not in doomed, deep=lambda _path: None):
            is_directory = status is not None and stat.S_ISDIR(status.st_mode)
            if status is not None and goes(path, is_directory):
                doomed[path] = is_directory
        for path, is_directory in doomed.items():
            parent, name = cursor.parent(path)
            with closing(Directory(".", parent, bits=0o700)) as above:
                before = os.fstat(above.fd)
                if is_directory:
                    _remove_directory(name, above.fd)
                else:
                    os.unlink(name, dir_fd=above.fd)
                os.utime(above.fd, ns=(before.st_atime_ns, before.st_mtime_ns))
    return len(doomed)


def bound(root: Path, *, size: int, count: int) -> int:
    """Delete the oldest files of a tree that nobody writes to: at most `size` bytes of disk and `count` files stay.

    A tree that fits, also with its number of directories, is left alone. Otherwise directories without a file go too.
    Of ten times as many names, nothing is kept.

    Returns:
        How many names were deleted, a directory with what is in it as one.

    Raises:
        OSError: `root` is missing, or something below belongs to somebody else.
    """
    files, directories, deep = list[tuple[int, str, int]](), 0, list[str]()
    with Tree(root) as tree:
        for path, status in tree.scan(deep=deep.append):
            if status is None:
                continue
            if len(files) + directories > 10 * count:
                break
            if stat.S_ISDIR(status.st_mode):
                directories += 1
            else:
                files.append((status.st_mtime_ns, path, status.st_blocks * 512))
    if not deep and len(files) <= count and directories <= count and sum(one[2] for one in files) <= size:
        return 0
    if len(files) + directories > 10 * count:
        remove_tree(root)
        root.mkdir(mode=0o700)
        return len(files) + directories
    kept, left, free = set[str](), count, size
    for _, path, taken in sorted(files, reverse=True):
        *above, _ = path.split("/")
        if left and taken <= free and len(above) <= _KEPT_DEPTH:
            left, free = left - 1, free - taken
            kept.update([path, *("/".join(above[: end + 1]) for end in range(len(above)))])
    return prune(root, lambda path, _: path not in kept)


def _remove_directory(name: str, parent: int) -> None:
    root = open_directory(name, parent)
    try:
        while not _empty(root, root, 0):
            pass
    finally:
        os.close(root)
    os.rmdir(name, dir_fd=parent)


def _make_writable(name: str, parent: int) -> None:
    fd = open_directory(name, parent)
    try:
        os.fchmod(fd, 0o700)
    finally:
        os.close(fd)


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
                _make_writable(name, fd)  # a directory that gets another parent is itself written to
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
