"""One directory of a walk: its names, and the status by which a later change of its names shows.

Only `safefs.tree` uses the open directories; others compare what `Listing` holds.
"""

import os
import time
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from claw_runtime.safefs.opening import Directory, names

TICK: Final = 2 * 10**7
"""Nanoseconds within which a file system may give two changes the same time."""
_OPEN: Final = 0o500


class Listing(NamedTuple):
    """A directory's status when the listing of its names began.

    Attributes:
        ctime_ns: 0 for a directory whose permissions this module adds for a moment, which sets its time.
        began_ns: The wall clock then.
    """

    inode: int
    mtime_ns: int
    ctime_ns: int
    began_ns: int

    def holds(self, status: os.stat_result) -> bool:
        """Whether a directory with this status still has the names that were listed."""
        inode, mtime_ns, ctime_ns, began_ns = self
        changed_ns = status.st_ctime_ns
        return (
            mtime_ns == status.st_mtime_ns
            and inode == status.st_ino
            and ctime_ns == (changed_ns if status.st_mode & _OPEN == _OPEN else 0)
            and not -TICK < began_ns - changed_ns < TICK  # a later change could have the same time
        )


class Level:
    """A directory on the way down and the names in it that are still to come."""

    __slots__ = ("_directory", "fd", "listing", "names", "prefix")

    def __init__(self, root: int, prefix: str, directory: Directory | None = None) -> None:
        self.fd, self.prefix, self._directory = directory.fd if directory else root, prefix, directory
        try:
            began, status = time.time_ns(), os.fstat(self.fd)
            forced = directory.is_forced if directory else status.st_mode & _OPEN != _OPEN
            self.listing = Listing(status.st_ino, status.st_mtime_ns, 0 if forced else status.st_ctime_ns, began)
            self.names = iter(names(self.fd))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._directory is not None:
            self._directory.close()


def changed(root_fd: int, listings: Mapping[str, Listing]) -> Iterator[tuple[str, os.stat_result | None]]:
    """As `Tree.changed`."""
    way = list[tuple[str, Directory]]()
    try:
        for path, listing in listings.items():
            parent, _, name = path.rpartition("/")
            while way and parent != way[-1][0] and not parent.startswith(f"{way[-1][0]}/"):
                way.pop()[1].close()
            try:
                fd = _reach(root_fd, way, parent)
                status = os.stat(name, dir_fd=fd, follow_symlinks=False) if path else os.fstat(fd)
            except (FileNotFoundError, NotADirectoryError):
                yield path, None
            else:
                if not listing.holds(status):
                    yield path, status
    finally:
        while way:
            way.pop()[1].close()


def _reach(root_fd: int, way: list[tuple[str, Directory]], path: str) -> int:
    """The fd of a directory at or below the last one of the way, which gets all that are opened."""
    while (last := way[-1][0] if way else "") != path:
        end = path.find("/", len(last) + 1)
        step = path[:end] if end > 0 else path
        way.append((step, Directory(step.rpartition("/")[2], way[-1][1].fd if way else root_fd)))
    return way[-1][1].fd if way else root_fd
