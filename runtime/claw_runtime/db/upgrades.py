"""Upgrades and the progress of each tenant, in SQLite; implements `ports.UpgradeStore`.

Every change is durable: an upgrade has few steps, and must not lose a running tenant halfway.
"""

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from claw_runtime.db.database import Database
from claw_runtime.ports import MoveRow, UpgradeRow
from claw_runtime.tenancy import TenantId

_NOTABLE = frozenset({"state", "switched", "error", "hint"})
_MOVING = frozenset({"state", "image", "generation", "ports", "down_at", "outage", "error"})


class SqliteUpgrades:
    """The last upgrade of each pool of one host."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def upgrade(self, pool: str) -> UpgradeRow | None:
        """The pool's last upgrade, or None if it never had one."""
        row = self._database.row("SELECT * FROM upgrade WHERE pool = ?", pool)
        return _upgrade(row) if row else None

    def upgrades(self) -> Sequence[UpgradeRow]:
        """The last upgrade of every pool that had one."""
        return [_upgrade(row) for row in self._database.rows("SELECT * FROM upgrade ORDER BY pool")]

    def begin(self, row: UpgradeRow, waves: Sequence[Sequence[TenantId]]) -> None:
        """Save a new upgrade with its waves, and delete the previous one, in one transaction."""
        with self._database.change(durable=True) as db:
            db.execute("DELETE FROM upgrade WHERE pool = ?", (row.pool,))
            db.execute(
                "INSERT INTO upgrade (pool, reference, image, state, canary, batch, soak, begun, changed) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (row.pool, row.reference, row.image, row.state, row.canary, row.batch, row.soak, row.begun, row.begun),
            )
            db.executemany(
                "INSERT INTO move (pool, tenant, wave) VALUES (?, ?, ?)",
                [(row.pool, tenant, number) for number, wave in enumerate(waves) for tenant in wave],
            )

    def note(self, pool: str, at: float, **columns: Any) -> None:
        """Write `state`, `switched`, `error` and `hint` of a pool's upgrade, and the time."""
        assert columns.keys() <= _NOTABLE  # noqa: S101 - names reach the SQL text
        names = ", ".join(f"{name} = ?" for name in columns)
        with self._database.change(durable=True) as db:
            db.execute(
                f"UPDATE upgrade SET {names}, changed = ? WHERE pool = ?",  # noqa: S608 - our own words
                (*columns.values(), at, pool),
            )

    def moves(self, pool: str) -> Sequence[MoveRow]:
        """Every tenant's move, in the order of waves."""
        rows = self._database.rows("SELECT * FROM move WHERE pool = ? ORDER BY wave, rowid", pool)
        return [_move(row) for row in rows]

    def move(self, pool: str, tenant: TenantId) -> MoveRow:
        """One tenant's move, which must be planned."""
        row = self._database.row("SELECT * FROM move WHERE pool = ? AND tenant = ?", pool, tenant)
        assert row is not None  # noqa: S101 - as it says above
        return _move(row)

    def plan(self, pool: str, wave: int, tenants: Sequence[TenantId]) -> None:
        """Assign tenants to a wave, even those that had one before."""
        with self._database.change(durable=True) as db:
            db.executemany(
                "INSERT INTO move (pool, tenant, wave) VALUES (?, ?, ?) ON CONFLICT (pool, tenant) DO UPDATE "
                "SET wave = excluded.wave, state = 'waiting', error = '', outage = 0",
                [(pool, tenant, wave) for tenant in tenants],
            )

    def note_move(self, pool: str, tenant: TenantId, **columns: Any) -> None:
        """Write columns of one tenant's move."""
        assert columns.keys() <= _MOVING  # noqa: S101 - names reach the SQL text
        if "ports" in columns:
            columns["ports"] = json.dumps(list(columns["ports"]))
        names = ", ".join(f"{name} = ?" for name in columns)
        with self._database.change(durable=True) as db:
            db.execute(
                f"UPDATE move SET {names} WHERE pool = ? AND tenant = ?",  # noqa: S608 - our own words
                (*columns.values(), pool, tenant),
            )


def _move(row: sqlite3.Row) -> MoveRow:
    return MoveRow(**{**dict(row), "ports": tuple(json.loads(row["ports"]))})


def _upgrade(row: sqlite3.Row) -> UpgradeRow:
    return UpgradeRow(**{**dict(row), "switched": bool(row["switched"])})
