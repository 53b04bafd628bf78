"""Turns a copy of a SQLite database and its sidecars into one consistent file, in a restricted child process.

A database that a killed program leaves is whole only together with its -wal or -journal; copying the files alone loses
data. The child gets a private copy, an empty environment, limits on memory,
processor time and file size, and runs SQLite's backup API and quick_check. This file is also the child's program, so
it imports the standard library alone.
"""

import re
import resource
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Final

HEADER: Final = b"SQLite format 3\0"
SIDECARS: Final = ("-wal", "-shm", "-journal")
DATABASE: Final = "database"
_SNAPSHOT: Final = "snapshot"
_SUPER_JOURNAL: Final = bytes.fromhex("d9d505f920a163d7")
_MEMORY: Final = 1024 * 1024 * 1024
_PROCESSOR_SECONDS: Final = 300
_SECONDS: Final = 600.0
_ROOM: Final = 64 * 1024 * 1024
_LACKING: Final = re.compile(r"no such (?:collation sequence|function|module|tokenizer)|unknown (?:function|tokenizer)")
"""Errors of a check that needs what only the tenant's program has. A backup copies pages and needs none of it."""


class NoSnapshot(Exception):
    """SQLite cannot make a consistent file of the copy; the text gives the reason in a few words."""


def snapshot(directory: Path) -> Path:
    """Make one consistent file of the database copy in a private directory.

    Args:
        directory: Holds the copy as `database`, with its `database-wal` and `database-journal` if there were any, and
            nothing else; the caller removes it. Must be 0700.

    Returns:
        The file to keep: the copy itself when no sidecar holds anything, so that an unchanged database gives
        unchanged bytes; else a backup of it.

    Raises:
        NoSnapshot: It is damaged, too big for the limits, or its journal names files elsewhere.
        OSError: The private directory cannot be read.
    """
    journal = directory / f"{DATABASE}-journal"
    if journal.exists() and _names_super_journal(journal):
        # SQLite would open, and may delete, whatever path the journal names: the tenant wrote that path.
        raise NoSnapshot("its journal names a super-journal")
    argv = [sys.executable, "-I", "-S", str(Path(__file__).resolve())]
    try:
        done = subprocess.run(
            argv, cwd=directory, env={}, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise NoSnapshot(f"SQLite took longer than {_SECONDS:.0f} s") from error
    if done.returncode != 0:
        words = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or [f"ended with {done.returncode}"]
        raise NoSnapshot(words[0][:200])
    backup = directory / _SNAPSHOT
    return backup if backup.exists() else directory / DATABASE


def _names_super_journal(journal: Path) -> bool:
    with journal.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - len(_SUPER_JOURNAL)))
        return file.read() == _SUPER_JOURNAL


def _limit(directory: Path) -> None:
    size = 2 * sum(path.stat().st_size for path in directory.iterdir()) + _ROOM
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (_PROCESSOR_SECONDS, _PROCESSOR_SECONDS))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=1)
    # OpenClaw 2026.9 calls json_valid in CHECK constraints, which SQLite 3.40 refuses in a schema that is not trusted.
    # What a schema can call in this process are SQLite's own functions; extensions cannot be loaded.
    connection.execute("PRAGMA trusted_schema=ON")
    connection.execute("PRAGMA cell_size_check=ON")
    connection.execute("PRAGMA mmap_size=0")
    return connection


def _check(connection: sqlite3.Connection) -> None:
    try:
        answer = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        if _LACKING.search(str(error)):
            return
        raise
    if answer is None or answer[0] != "ok":
        raise NoSnapshot(f"quick_check: {' '.join(str(answer and answer[0]).split())}")


def _has_sidecar(database: Path) -> bool:
    sidecars = (database.with_name(f"{DATABASE}{suffix}") for suffix in ("-wal", "-journal"))
    return any(path.exists() and path.stat().st_size for path in sidecars)


def _backup(database: Path, target: Path) -> None:
    with closing(_open(database)) as source:
        target.touch(0o600)
        with closing(_open(target)) as copy:
            copy.execute("PRAGMA journal_mode=OFF")
            copy.execute("PRAGMA synchronous=OFF")
            source.backup(copy)
    with closing(_open(target)) as copy:
        _check(copy)


def main() -> int:
    """The child: works in its current directory; 0, or 1 with the reason as the last line of standard error."""
    directory = Path.cwd()
    database = directory / DATABASE
    try:
        _limit(directory)
        if _has_sidecar(database):
            _backup(database, directory / _SNAPSHOT)
        else:
            # The check works on a second copy: opening a database may write to it.
            shutil.copyfile(database, directory / "checked")
            with closing(_open(directory / "checked")) as connection:
                _check(connection)
    except (sqlite3.Error, NoSnapshot, OSError, MemoryError) as error:
        print(f"{type(error).__name__}: {error}" if not isinstance(error, NoSnapshot) else error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
