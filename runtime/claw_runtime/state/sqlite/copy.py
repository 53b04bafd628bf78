"""Consistent copies of databases that a program may be writing to.

Three files make a database, and no call copies them at one moment. In WAL mode the database itself is changed by
checkpoints alone: they are kept out by the lock that checkpoints take, which stops neither readers nor writers. What is
appended to the -wal meanwhile does no harm, and a -wal that is begun again shows it by its header, which is written
first. With a rollback journal neither file may change. Whether all this held is seen afterwards; if it did not, the
copy is thrown away and made again, the last times with the lock under which readers read: a writer then waits with its
commit, the database is whole without the journal that it has begun, and that is left out.
"""

import fcntl
import os
import shutil
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from claw_runtime.fsutil import Stamp, chunks, room, stamp, write_all
from claw_runtime.safefs.opening import Attributes, NotRegular, attributes
from claw_runtime.safefs.tree import Cursor
from claw_runtime.state.sqlite import backup
from claw_runtime.state.sqlite.backup import NoSnapshot

ATTEMPTS: Final = 6
_POLITE: Final = 3
_TRIES: Final = 100
_PAUSE: Final = 0.03
_SUFFIXES: Final = ("-wal", "-journal")
_TICK: Final = 2 * 10**7
_BLOCK: Final = 1024 * 1024
_WAL_HEADER: Final = 32
_WRITE_VERSION: Final = 18
_IN_WAL: Final = 2
_CHECKPOINT: Final = (fcntl.F_WRLCK, 121, 1)
_SHARED: Final = (fcntl.F_RDLCK, 0x40000002, 510)
_RESERVED: Final = (fcntl.F_WRLCK, 0x40000001, 1)
_FLOCK: Final = struct.Struct("hhqqi4x")


Files = dict[str, int]
"""Open files of a database by suffix: the database itself has none."""


class Unstable(Exception):
    """The database changed during every attempt to read it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseCopy:
    """A private copy in a separate directory.

    Attributes:
        mtime_ns: The newest of its files' times.
        statuses: Of the database and those of its sidecars that there are, as `names` orders them, before the copy.
        xattrs: Of the database.
    """

    directory: Path
    mtime_ns: int
    statuses: tuple[os.stat_result, ...]
    xattrs: Attributes

    @property
    def files(self) -> dict[str, os.stat_result]:
        """The statuses of its files by suffix, in the order of `names`."""
        there = [suffix for suffix in ("", *_SUFFIXES) if (self.directory / f"{backup.DATABASE}{suffix}").exists()]
        return dict(zip(there, self.statuses, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sight:
    """The files of a database at one moment: what must not change, and the head of its -wal."""

    stamps: dict[str, Stamp]
    wal: tuple[int, bytes] | None
    newest: int


def names(path: str) -> tuple[str, ...]:
    """The names of a database that hold content; of these only the first is sure to be there."""
    return path, *(f"{path}{suffix}" for suffix in _SUFFIXES)


def copy(
    cursor: Cursor,
    path: str,
    scratch: Path,
    *,
    pause: Callable[[float], None] = time.sleep,
    go_on: Callable[[], None] = lambda: None,
) -> DatabaseCopy:
    """Copy a database and its sidecars under the names that SQLite expects, into a new directory below `scratch`.

    Args:
        go_on: Called after each piece; raises when the copy is to end.

    Raises:
        Unstable: They changed each time.
        NoSnapshot: One of its files is a link or worse, or there is no room for two copies.
        FileNotFoundError: There is no such file.
        OSError: The tree cannot be read, or the scratch directory not written.
    """
    private = Path(tempfile.mkdtemp(prefix="sqlite-", dir=scratch))

    def take(files: Files) -> None:
        _check_room(files, scratch)
        for leftover in private.iterdir():
            leftover.unlink()
        for suffix, fd in files.items():
            with (private / f"{backup.DATABASE}{suffix}").open("xb") as target:
                for block in chunks(fd, _BLOCK):
                    write_all(target.fileno(), block)
                    go_on()

    try:
        statuses, xattrs = read(cursor, path, take, pause=pause)
    except BaseException as error:
        shutil.rmtree(private)
        if isinstance(error, NotRegular):
            raise NoSnapshot(str(error)) from error
        raise
    return DatabaseCopy(
        directory=private,
        mtime_ns=max(status.st_mtime_ns for status in statuses),
        statuses=statuses,
        xattrs=xattrs,
    )


def read(
    cursor: Cursor,
    path: str,
    take: Callable[[Files], None],
    *,
    regular: bool = False,
    pause: Callable[[float], None] = time.sleep,
) -> tuple[tuple[os.stat_result, ...], Attributes]:
    """Read the files of a database as they were at one moment.

    Args:
        take: Called with the open files, which it reads; again, after what it got turned out to be of two moments.
        regular: A sidecar that is no regular file is left out; else it is an error.

    Returns:
        The statuses of the files before they were read, and the extended attributes of the database.

    Raises:
        Unstable: They changed each time.
        FileNotFoundError, NotRegular: There is no such file, or one is a link or worse.
        OSError: The tree cannot be read; or what `take` raises.
    """
    for attempt in range(ATTEMPTS):
        if attempt:
            pause(_PAUSE * attempt)
        try:
            with (
                cursor.reading(path) as fd,
                _locked(cursor, path, fd, firm=attempt >= _POLITE) as held,
                _opened(cursor, path, fd, regular=regular) as files,
            ):
                alone = held and not _is_hot(files)
                chosen = {"": fd} if alone else files
                return _read_once(cursor, path, chosen, take, pause, alone=alone, regular=regular)
        except Unstable:
            if attempt == ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")


def _read_once(
    cursor: Cursor,
    path: str,
    files: Files,
    take: Callable[[Files], None],
    pause: Callable[[float], None],
    *,
    alone: bool,
    regular: bool,
) -> tuple[tuple[os.stat_result, ...], Attributes]:
    """One attempt. `alone`: the database needs no sidecar, and no program can change it now."""
    before = _sight(files)
    if not alone and time.time_ns() - before.newest < _TICK:  # a second change in the same clock tick would not show
        pause(_TICK / 10**9)
        before = _sight(files)
    statuses = tuple(os.fstat(fd) for fd in files.values())
    take(files)
    with cursor.reading(path) as fd, _opened(cursor, path, fd, regular=regular) as again:
        after = _sight({"": fd} if alone else again)
    if (after.stamps, after.wal) != (before.stamps, before.wal):
        raise Unstable
    return statuses, attributes(files[""])


@contextmanager
def _opened(cursor: Cursor, path: str, fd: int, *, regular: bool) -> Iterator[Files]:
    """The database, which is open, its -wal and its -journal, as far as they are there, by suffix."""
    with ExitStack() as stack:
        files = {"": fd}
        for suffix in _SUFFIXES:
            with suppress(FileNotFoundError, *((NotRegular,) if regular else ())):
                files[suffix] = stack.enter_context(cursor.reading(f"{path}{suffix}"))
        yield files


def _sight(files: Files) -> _Sight:
    stamps = {suffix: stamp(fd) for suffix, fd in files.items()}
    newest = max(max(one.mtime_ns, one.ctime_ns) for one in stamps.values())
    if not _in_wal(files[""]) or "-wal" not in files:
        return _Sight(stamps=stamps, wal=None, newest=newest)
    wal = stamps.pop("-wal")
    header = os.pread(files["-wal"], _WAL_HEADER, 0)
    newest = max(max(one.mtime_ns, one.ctime_ns) for one in stamps.values())
    return _Sight(stamps=stamps, wal=(wal.inode, header), newest=newest)


def _check_room(files: Files, scratch: Path) -> None:
    """Check the room for the copy: a tenant's sparse database of a terabyte would need a terabyte as a copy."""
    size, left = sum(os.fstat(fd).st_size for fd in files.values()), room(scratch).size
    if 2 * size > left:
        raise NoSnapshot(f"two copies of {size} bytes do not fit into the {left} that are left")


def _in_wal(fd: int) -> bool:
    return os.pread(fd, 1, _WRITE_VERSION) == bytes([_IN_WAL])


def _is_hot(files: Files) -> bool:
    """Whether a killed writer's journal takes something back, while nobody commits: a live writer has reserved the
    database, and one that ended well left no journal, or none with a head."""
    journal = files.get("-journal")
    return journal is not None and bool(os.pread(journal, 1, 0).strip(b"\0")) and not _is_locked(files[""], _RESERVED)


@contextmanager
def _locked(cursor: Cursor, path: str, fd: int, *, firm: bool) -> Iterator[bool]:
    """Checkpoints kept out, where the database has any; `firm` keeps out commits beside a rollback journal, and gives
    whether it does.

    The locks are those of SQLite, of the kind that belongs to the open file: a tenant's program, in its container on
    the same kernel, honours them. One that cannot be had is done without: whether it was needed is seen afterwards.
    """
    held = False
    with ExitStack() as stack:
        with suppress(OSError):
            if _in_wal(fd):
                _lock(stack.enter_context(cursor.patching(f"{path}-shm")), _CHECKPOINT)
            elif firm:
                _lock(fd, _SHARED, tries=_TRIES)
                held = True
        yield held


def _lock(fd: int, what: tuple[int, int, int], *, tries: int = 1) -> None:
    """Lock a range until the file is closed. Raises `OSError` when another process has it."""
    kind, start, length = what
    for left in reversed(range(tries)):
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, start, length, 0))
        except BlockingIOError:
            if not left:
                raise
            time.sleep(_TICK / 10**9 / 10)
        else:
            return


def _is_locked(fd: int, what: tuple[int, int, int]) -> bool:
    """Whether another process has the lock. Raises `OSError`."""
    kind, start, length = what
    answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _FLOCK.pack(kind, os.SEEK_SET, start, length, 0))
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)
