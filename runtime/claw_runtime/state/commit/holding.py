"""Private copies of what changes all the time, made while the programs that write to a tree are held for a moment.

A commit of a running tenant keeps the parent's version of a file that changes each time it is read. If the commit
before kept it as well, this one may hold the programs. Only copies are made meanwhile; they are split and sent later.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from claw_runtime.fsutil import cut, room, write_all
from claw_runtime.ports import Clock
from claw_runtime.safefs.opening import Attributes, attributes
from claw_runtime.safefs.tree import Cursor
from claw_runtime.state.commit.chunker import changed
from claw_runtime.state.sqlite import backup, copy
from claw_runtime.state.sqlite.copy import DatabaseCopy, Unstable
from claw_runtime.tenancy import TenantId

Hold = Callable[[], AbstractContextManager[bool]]
"""While the context is open, no program writes to the tree; it gives whether that is so. The end may raise a
`ClawError`, which fails the commit."""

MOST_BYTES: Final = 256 * 1024 * 1024
"""Bytes that are copied in one hold, at most; those of a clone do not count."""
MOST_SECONDS: Final = 0.5
"""Seconds after which a hold ends, whatever is copied by then."""
SHARE: Final = 50
"""A tenant is held for one part in so many of the time, at most."""
LATER: Final = 600.0
"""Seconds until a hold that was refused, or a file that did not fit into one, is tried again."""
_BLOCK: Final = 1024 * 1024
_FICLONE: Final = 0x40049409


class _TooLong(Exception):
    """The hold has lasted long enough."""


class FileCopy(NamedTuple):
    """A private copy of a file, and the file's status and attributes when it was made."""

    path: Path
    status: os.stat_result
    xattrs: Attributes


Copied = FileCopy | DatabaseCopy


class Holding:
    """The hold of one commit, used at most once.

    Args:
        hold: Holds the programs; None when nothing can.
        due: Paths for which it may be used.
        scratch: Directory for the copies.

    Attributes:
        seconds: How long it lasted; None when there was none.
        refused: Whether the programs could not be held.
        slow: The path that was being copied when the time was over; empty when it was enough.
    """

    def __init__(self, clock: Clock, scratch: Path, hold: Hold | None = None, due: Collection[str] = ()) -> None:
        self._clock, self._scratch, self._hold = clock, scratch, hold
        self.due = frozenset(due) if hold else frozenset[str]()
        self.seconds: float | None = None
        self.refused, self.slow = False, ""
        self._until = 0.0

    @contextmanager
    def copies(self, cursor: Cursor, moving: Collection[str]) -> Iterator[Mapping[str, Copied]]:
        """Copies of those that are due among the moving paths, as far as they fit; they are removed with the block.

        Raises:
            ClawError: The hold did not end well.
            OSError: The scratch directory cannot be written.
        """
        with ExitStack() as stack:
            wanted = self._fitting(cursor, self.due.intersection(moving))
            yield self._held(cursor, wanted, stack) if wanted and self._hold else {}

    def _fitting(self, cursor: Cursor, paths: Collection[str]) -> list[str]:
        """The paths whose copies fit, the smallest first. What is to be copied is in memory, or on the disk, later: a
        read or a clone before the hold makes the one in it short."""
        sizes = dict[str, int]()
        for path in paths:
            with suppress(OSError):
                sizes[path] = 0 if self._clones(cursor, path) else _size(cursor, path)
        left = min(MOST_BYTES, room(self._scratch).size // 3)
        fitting = list[str]()
        for path in sorted(sizes, key=lambda path: (sizes[path], path)):
            left -= sizes[path]
            if left < 0:
                break
            with suppress(OSError), cursor.reading(path) as fd:
                for _ in _pieces(fd, os.fstat(fd)) if sizes[path] else ():
                    pass
                fitting.append(path)
        return fitting

    def _clones(self, cursor: Cursor, path: str) -> bool:
        """Whether a copy of a file shares its blocks, so that its size does not matter. Raises `OSError`."""
        with cursor.reading(path) as fd, tempfile.TemporaryFile(dir=self._scratch) as trial:
            return not _is_database(fd) and clone(fd, trial.fileno())

    def _held(self, cursor: Cursor, wanted: list[str], stack: ExitStack) -> Mapping[str, Copied]:
        assert self._hold is not None  # noqa: S101 - asked before
        found = dict[str, Copied]()
        directory = Path(tempfile.mkdtemp(prefix="held-", dir=self._scratch))
        stack.callback(shutil.rmtree, directory)
        hold = self._hold()  # it may wait for others, which is not counted
        began = self._clock.monotonic()
        with hold as held:
            self._until = self._clock.monotonic() + MOST_SECONDS
            self.refused = not held
            for path in wanted if held else ():
                try:
                    found[path] = copied = self._copy(cursor, path, directory / str(len(found)))
                except _TooLong:
                    self.slow = path
                    break
                except (Unstable, backup.NoSnapshot, OSError):
                    continue  # it keeps its version from before, and is reported
                if isinstance(copied, DatabaseCopy):
                    stack.callback(shutil.rmtree, copied.directory)
        self.seconds = self._clock.monotonic() - began
        return found

    def _copy(self, cursor: Cursor, path: str, target: Path) -> Copied:
        """Raises `Unstable` when something still writes to it."""
        with cursor.reading(path) as fd:
            if _is_database(fd):
                return copy.copy(cursor, path, self._scratch, go_on=self._check_time)
            xattrs = attributes(fd)  # may change its mode for a moment, which its time shows
            status, at = os.fstat(fd), 0
            with target.open("xb") as file:
                if clone(fd, file.fileno()):
                    at = os.fstat(file.fileno()).st_size
                else:
                    os.ftruncate(file.fileno(), status.st_size)
                    for raw, length in _pieces(fd, status):
                        write_all(file.fileno(), raw, offset=at)
                        at += length
                        self._check_time()
            if at != status.st_size or changed(status, os.fstat(fd)):
                raise Unstable
            return FileCopy(target, status, xattrs)

    def _check_time(self) -> None:
        if self._clock.monotonic() > self._until:
            raise _TooLong


@dataclass(slots=True)
class _Known:
    """What is remembered of one tenant, times in monotonic seconds."""

    left: frozenset[str] = frozenset()
    free_at: float = 0.0
    not_before: dict[str, float] = field(default_factory=dict)


class Restless:
    """What the last commit of each running tenant left out because it changes all the time. It is only in memory.

    The caller of a tenant's methods has the tenant for itself.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: dict[TenantId, _Known] = {}

    def due(self, tenant: TenantId) -> frozenset[str]:
        """Paths for which the next commit may hold the tenant's programs: the last commit left them out as well."""
        known, now = self._known.get(tenant, _Known()), self._clock.monotonic()
        if now < known.free_at:
            return frozenset()
        return frozenset(path for path in known.left if known.not_before.get(path, now) <= now)

    def committed(self, tenant: TenantId, left: frozenset[str], holding: Holding) -> None:
        """A commit has left these paths out."""
        if not left and holding.seconds is None and tenant not in self._known:
            return
        known, now = self._known.setdefault(tenant, _Known()), self._clock.monotonic()
        known.left = left
        known.not_before = {path: at for path, at in known.not_before.items() if at > now and path in left}
        if holding.slow:
            known.not_before[holding.slow] = now + LATER
        if holding.seconds is not None:
            known.free_at = now + (LATER if holding.refused else SHARE * holding.seconds)

    def forget(self, tenant: TenantId) -> None:
        """The tenant runs no more."""
        self._known.pop(tenant, None)


def clone(source: int, target: int) -> bool:
    """Let a new file share all blocks of another one, where the file system can (XFS, Btrfs); whether it did.

    It takes milliseconds, and as long as the disk needs for what is not written back yet.
    """
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    return True


def _is_database(fd: int) -> bool:
    return os.pread(fd, len(backup.HEADER), 0) == backup.HEADER


def _pieces(fd: int, status: os.stat_result) -> Iterator[tuple[bytes, int]]:
    """A file's content and the lengths of its pieces; of a hole no bytes."""
    return cut(fd, status.st_size, _BLOCK, holes=status.st_blocks * 512 < status.st_size)


def _size(cursor: Cursor, path: str) -> int:
    """Bytes that a copy takes: of a file, and of the sidecars that a database has. Raises `OSError`."""
    size = 0
    for name in copy.names(path):
        with suppress(*(() if name == path else (OSError,))), cursor.reading(name) as fd:
            status = os.fstat(fd)
            size += min(status.st_size, status.st_blocks * 512)
    return size
