"""Slots and tenants in SQLite (WAL): every change is one transaction, durable before the step that it announces.

Only the daemon that holds the data directory's lock opens it, so one connection behind one lock is enough.
"""

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from claw_runtime.errors import ClawError, DiskFull
from claw_runtime.ports import SlotRow, TenantRow, TenantState
from claw_runtime.tenancy import TenantId


class SqliteLedger:
    """The database of one runtime; implements `ports.Ledger`.

    Raises:
        ClawError: The file is of a newer version than this program, or is not a database.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._db.row_factory = sqlite3.Row
            self._db.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;")
            _migrate(self._db)
        except sqlite3.DatabaseError as error:
            raise ClawError(
                f"the ledger {path} cannot be opened",
                why=str(error),
                hint="move the file away and start again: running containers are then removed, "
                "states are in the object store",
            ) from error

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException as error:
                if self._db.in_transaction:  # SQLite has ended it by itself when, for one, the disk is full
                    self._db.execute("ROLLBACK")
                if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
                    hint = "make room on the disk that holds the data directory; nothing was done"
                    raise DiskFull("there is no room to write to the ledger", why=str(error), hint=hint) from error
                raise

    def _rows(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        with self._lock:
            return self._db.execute(sql, values).fetchall()

    # --- slots ---

    def slots(self, pool: str | None = None) -> Sequence[SlotRow]:
        """All slots, or those of one pool, oldest first."""
        rows = self._rows("SELECT * FROM slot WHERE ? IS NULL OR pool = ? ORDER BY made_at, id", pool, pool)
        return [SlotRow(**dict(row)) for row in rows]

    def slot(self, slot: str) -> SlotRow | None:
        """One slot, or None."""
        rows = self._rows("SELECT * FROM slot WHERE id = ?", slot)
        return SlotRow(**dict(rows[0])) if rows else None

    def add_slot(self, slot: str, pool: str, recipe: str, made_at: float) -> None:
        """Announce a slot, before anything of it exists."""
        with self._change() as db:
            db.execute(
                "INSERT INTO slot (id, pool, state, recipe, made_at) VALUES (?, ?, 'filling', ?, ?)",
                (slot, pool, recipe, made_at),
            )

    def slot_ready(self, slot: str, container: str, port: int | None) -> None:
        """The slot's container is initialised and waits."""
        with self._change() as db:
            db.execute("UPDATE slot SET state = 'ready', container = ?, port = ? WHERE id = ?", (container, port, slot))

    def take_slot(self, pool: str, recipe: str, tenant: TenantId) -> SlotRow | None:
        """Give the oldest ready slot of that recipe to the tenant, in one transaction; None when there is none."""
        with self._change() as db:
            found = db.execute(
                "SELECT id FROM slot WHERE pool = ? AND recipe = ? AND state = 'ready' ORDER BY made_at, id LIMIT 1",
                (pool, recipe),
            ).fetchone()
            if found is None:
                return None
            db.execute("UPDATE slot SET state = 'claimed' WHERE id = ?", (found["id"],))
            db.execute("UPDATE tenant SET slot = ?, step = 'slot' WHERE id = ?", (found["id"], tenant))
            row = db.execute("SELECT * FROM slot WHERE id = ?", (found["id"],)).fetchone()
        return SlotRow(**dict(row))

    def retire_slot(self, slot: str) -> bool:
        """ready → filling, so that no claim takes it while it is removed; False when it was not ready any more."""
        with self._change() as db:
            return (
                db.execute("UPDATE slot SET state = 'filling' WHERE id = ? AND state = 'ready'", (slot,)).rowcount == 1
            )

    def drop_slot(self, slot: str) -> None:
        """Forget a slot, once nothing of it is left."""
        with self._change() as db:
            db.execute("UPDATE tenant SET slot = NULL WHERE slot = ?", (slot,))
            db.execute("DELETE FROM slot WHERE id = ?", (slot,))

    # --- tenants ---

    def tenants(self) -> Sequence[TenantRow]:
        """All tenants that were ever claimed here, by id."""
        return [TenantRow(**dict(row)) for row in self._rows("SELECT * FROM tenant ORDER BY id")]

    def tenant(self, tenant: TenantId) -> TenantRow | None:
        """One tenant, or None if it was never claimed here."""
        rows = self._rows("SELECT * FROM tenant WHERE id = ?", tenant)
        return TenantRow(**dict(rows[0])) if rows else None

    def begin_claim(self, tenant: TenantId, pool: str, now: float) -> None:
        """cold, kept or unknown → claiming; why a tree was kept stays until the state changes again."""
        with self._change() as db:
            db.execute(
                "INSERT INTO tenant (id, state, pool, since) VALUES (?1, 'claiming', ?2, ?3) "
                "ON CONFLICT (id) DO UPDATE "
                "SET state = 'claiming', pool = ?2, step = 'begin', source = '', since = ?3",
                (tenant, pool, now),
            )

    def note(self, tenant: TenantId, **columns: str | int) -> None:
        """Write `step`, `source`, `base`, `epoch` or `error` of a tenant."""
        known = {"step", "source", "base", "epoch", "error"}
        assert columns.keys() <= known  # noqa: S101 - names reach the SQL text
        with self._change() as db:
            names = ", ".join(f"{name} = ?" for name in columns)
            db.execute(f"UPDATE tenant SET {names} WHERE id = ?", (*columns.values(), tenant))  # noqa: S608

    def become(self, tenant: TenantId, state: TenantState, now: float, *, step: str = "", error: str = "") -> None:
        """Change a tenant's state, and what its row says of step and error."""
        with self._change() as db:
            db.execute(
                "UPDATE tenant SET state = ?, step = ?, error = ?, since = ? WHERE id = ?",
                (state, step, error, now, tenant),
            )


def _migrate(db: sqlite3.Connection) -> None:
    scripts = sorted(
        (entry for entry in resources.files("claw_runtime.db").iterdir() if entry.name.endswith(".sql")),
        key=lambda entry: entry.name,
    )
    done = db.execute("PRAGMA user_version").fetchone()[0]
    if done > len(scripts):
        message = f"it is of version {done}, this program knows {len(scripts)}"
        raise sqlite3.DatabaseError(message)
    for number, script in enumerate(scripts[done:], done + 1):
        db.executescript(f"BEGIN; {script.read_text('utf-8')} PRAGMA user_version = {number}; COMMIT;")
