"""The files of one pass that change each time they are read, and what is stored of them after all."""

import os
import time
from collections.abc import Callable
from typing import Final

from claw_runtime.fsutil import write_back
from claw_runtime.safefs.opening import NotRegular
from claw_runtime.safefs.tree import Cursor, Skipped
from claw_runtime.state.commit.chunker import Chunker, File
from claw_runtime.state.commit.databases import Databases, Item, Later
from claw_runtime.state.commit.holding import FileCopy, Holding
from claw_runtime.state.commit.stat_cache import RACY, Record, stillness
from claw_runtime.state.sqlite import backup

CHANGES: Final = "changed each time it was read"
"""Why a file is left out, or its version from before is kept: the beginning of the reason that is reported."""


class MovingFiles:
    """What moves in a running tenant's tree.

    Args:
        reported: Of the pass; names that are stored after all are removed from it.
        read: Reads a file as it is while the programs run.
        keep: Returns the parent generation's version of a file that changed each time, and reports it.

    Attributes:
        paths: Files whose parent's version is kept, or that are left out.
        holding: May hold the programs; None when nothing does.
    """

    def __init__(
        self,
        reader: Chunker,
        databases: Databases,
        reported: list[Skipped],
        read: Callable[[Cursor, str], Item],
        keep: Callable[[str], Item],
    ) -> None:
        self._reader, self._databases, self._reported = reader, databases, reported
        self._read, self._keep = read, keep
        self.paths = set[str]()
        self.holding: Holding | None = None
        self._deferred = set[str]()

    def defers(self, cursor: Cursor, path: str) -> bool:
        """Whether a file is read in the hold alone: it may be, and changes all the time. Raises `OSError`."""
        if self.holding is None or path not in self.holding.due:
            return False
        if path not in self._deferred:
            try:
                with cursor.reading(path) as fd:
                    write_back(fd)
                    rests = stillness(os.fstat(fd), time.time_ns()) > RACY
                    if rests or os.pread(fd, len(backup.HEADER), 0) == backup.HEADER:
                        return False
            except (NotRegular, FileNotFoundError):
                return False
            self._deferred.add(path)
        return True

    def store(self, cursor: Cursor, items: list[Item]) -> bool:
        """Store what moves from copies that are made in the hold; what did not get into it is read as it is.

        Args:
            items: Of all names; new ones come at the end.

        Returns:
            Whether any was replaced or added.

        Raises:
            ClawError: The hold did not end well, or the store failed.
            OSError: The tree cannot be read, or the scratch directory not written.
        """
        if self.holding is None:
            return False
        stored = set[str]()
        with self.holding.copies(cursor, self.paths | self._deferred) as copies:
            for path, copied in copies.items():
                if isinstance(copied, FileCopy):
                    _put(items, path, self._read_copy(path, copied))
                    stored.add(path)
                else:
                    stored |= self._databases.store_copy(items, path, copied)
        self.paths -= stored
        self._reported[:] = [one for one in self._reported if one.path not in stored or CHANGES not in one.reason]
        late, self.holding = sorted(self._deferred - stored), None
        for path in late:
            item = self._read(cursor, path)
            _put(items, path, self._keep(path) if isinstance(item, Later) else item)  # it became a database meanwhile
        return bool(stored or late)

    def _read_copy(self, path: str, copied: FileCopy) -> File:
        with copied.path.open("rb") as file:
            xattrs = self._reader.fit(path, copied.xattrs)
            return self._reader.read_part(file.fileno(), path, copied.status, xattrs)


def _put(items: list[Item], path: str, item: Item) -> None:
    """Store an item under its path, in place of what is stored there."""
    for number, old in enumerate(items):
        if old is not None and (old.entry.path if isinstance(old, Record) else old.path) == path:
            items[number] = item
            return
    items.append(item)
