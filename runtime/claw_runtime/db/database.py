"""One SQLite file in WAL mode with numbered migrations; each change is one transaction.

A killed process loses no finished transaction. A power failure may lose the last ones, in order, except a `durable` one
and all before it, which are on the disk. Most changes need no durability, since a power failure also ends every
container; each caller that needs it gives the reason (the sync takes 0.4 ms, the change itself 0.05 ms).
"""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from claw_runtime.errors import ClawError, DiskFull
from claw_runtime.reserve import Reserve


class Database:
    """The connection that all stores of one runtime share. Only the daemon with the directory's lock opens it.

    Args:
        reserve: Room on the same disk for changes on a full one.

    Raises:
        ClawError: The file is of a newer version than this program, or is not a database.
    """

    def __init__(self, path: Path, reserve: Reserve | None = None) -> None:
        self._lock = threading.RLock()
        self._reserve = reserve
        self._changing: int | None = None  # the thread
        self._reading = threading.Lock()
        self._durable: bool | None = None
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self.connection.row_factory = sqlite3.Row
            self.connection.executescript("PRAGMA journal_mode = WAL; PRAGMA foreign_keys = ON;")
            _migrate(self.connection)
            # Reads have a connection of their own: they see what is committed, and wait for no change, which may wait
            # long for a slow disk.
            self._reader = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._reader.row_factory = sqlite3.Row
            self._reader.execute("PRAGMA query_only = ON")
        except sqlite3.DatabaseError as error:
            raise ClawError(
                f"the ledger {path} cannot be opened",
                why=str(error),
                hint="rename the file and start again; running containers are then removed, and "
                "states remain in the object store",
            ) from error

    def close(self) -> None:
        """Close the connection after the running change; a later use raises `sqlite3.ProgrammingError`."""
        # SQLite crashes the process when a connection is closed during a statement of another thread.
        with self._reading:
            self._reader.close()
        with self._lock:
            self.connection.close()

    @contextmanager
    def change(self, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """One transaction, committed or rolled back at the end of the block.

        Raises:
            DiskFull: There is no room; nothing was changed.
        """
        with self._lock:
            if self._reserve:
                self._reserve.check()
            if durable != self._durable:
                self.connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                self._durable = durable
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                self._changing = threading.get_ident()
                yield self.connection
                self.connection.execute("COMMIT")
            except BaseException as error:
                if self.connection.in_transaction:  # SQLite has already ended it, for example because the disk is full
                    self.connection.execute("ROLLBACK")
                if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
                    hint = "free space on the disk that holds the data directory; nothing was changed"
                    if self._reserve and self._reserve.give_up():  # a quota, which the free room does not show
                        hint = f"repeat it: 8 MiB of reserve were given up; {hint}"
                    raise DiskFull("there is no room to write to the ledger", why=str(error), hint=hint) from error
                raise
            finally:
                self._changing = None

    def rows(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        """All rows of a query; within a change of this thread, also what that has changed."""
        if self._changing == threading.get_ident():
            return self.connection.execute(sql, values).fetchall()
        with self._reading:
            return self._reader.execute(sql, values).fetchall()

    def row(self, sql: str, *values: Any) -> sqlite3.Row | None:
        """The first row of a query, or None; otherwise as `rows`."""
        found = self.rows(sql, *values)
        return found[0] if found else None


def _migrate(db: sqlite3.Connection) -> None:
    scripts = sorted(
        (entry for entry in resources.files("claw_runtime.db").iterdir() if entry.name.endswith(".sql")),
        key=lambda entry: entry.name,
    )
    done = db.execute("PRAGMA user_version").fetchone()[0]
    if done > len(scripts):
        message = f"its version is {done}; this program supports up to {len(scripts)}"
        raise sqlite3.DatabaseError(message)
    for number, script in enumerate(scripts[done:], done + 1):
        db.executescript(f"BEGIN; {script.read_text('utf-8')} PRAGMA user_version = {number}; COMMIT;")
