"""A file that holds a little room on the disk of the data directory, for the moment when the disk is full.

Without room nobody can make room: `release --no-sync`, which removes a tenant's tree, must first write to the ledger.
So before a change, if the disk has almost no room, the file's room is given up; when the disk has room again, the file
takes it back.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

SIZE = 8 << 20
"""Bytes that are held: some thousand changes of the ledger."""

LOW = 2 << 20
"""Bytes of free room under which the reserve is given up."""

ENOUGH = 8 * SIZE
"""Bytes of free room from which the reserve is taken again."""


def free_room(path: Path) -> int:
    """Bytes that this user can still write on the disk of a directory."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


class Reserve:
    """The file; empty while its room is given up.

    Args:
        path: In the data directory.
        free: Bytes of free room of a directory.
    """

    def __init__(self, path: Path, *, size: int = SIZE, free: Callable[[Path], int] = free_room) -> None:
        self._path, self._size, self._free = path, size, free
        self._held = path.exists() and path.stat().st_size >= size

    def check(self) -> None:
        """Before a change: give the room up if the disk has almost none."""
        if self._held and self._free(self._path.parent) < LOW:
            self.give_up()

    def give_up(self) -> bool:
        """Give the room up; False if that was done before."""
        if not self._held:
            return False
        self._held = False
        with suppress(OSError):
            os.truncate(self._path, 0)
        _log().error("the disk is full: the reserve was given up", path=str(self._path), bytes=self._size)
        return True

    def refill(self) -> None:
        """Take the room, if the disk has enough of it."""
        if self._held or self._free(self._path.parent) < ENOUGH:
            return
        try:
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                os.posix_fallocate(file, 0, self._size)
            finally:
                os.close(file)
        except OSError as error:
            _log().warning("the reserve could not be made", path=str(self._path), error=str(error))
            return
        self._held = True
        _log().info("the reserve is whole", path=str(self._path), bytes=self._size)


def _log() -> Any:
    import structlog  # not at once: `status` looks at the file too, and a person waits for each import

    return structlog.get_logger(__name__)


def is_given_up(path: Path) -> bool:
    """Whether the reserve at this path was given up; False if there never was one."""
    try:
        return path.stat().st_size == 0
    except OSError:
        return False
