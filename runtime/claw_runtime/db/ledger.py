"""Slots, tenants and pools in SQLite: every step is recorded here before it is done."""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from claw_runtime.db.database import Database
from claw_runtime.ports import CRASH_LOOP, TIERS, PoolRow, SlotRow, TenantRow, TenantState, Tier
from claw_runtime.tenancy import TenantId

_NOTABLE = frozenset(
    {"step", "source", "base", "base_sha256", "epoch", "error", "image", "trial", "seen", "synced", "metadata"}
    | {"proven", "withheld", "sealed", "wanted", "restart", "restarted", "failures"}
)
_SETTABLE = frozenset({"min_size", "max_size", "warmth", "image", "drained"})


class SqliteLedger:
    """Implements `ports.Ledger`. Raises `ClawError` when the file cannot be opened, as `Database`."""

    def __init__(self, path: Path | Database) -> None:
        self.database = path if isinstance(path, Database) else Database(path)

    def close(self) -> None:
        self.database.close()

    # --- slots ---

    def slots(self, pool: str | None = None) -> Sequence[SlotRow]:
        """All slots, or those of one pool, oldest first."""
        rows = self.database.rows("SELECT * FROM slot WHERE ? IS NULL OR pool = ? ORDER BY made_at, id", pool, pool)
        return [SlotRow(**dict(row)) for row in rows]

    def slot(self, slot: str) -> SlotRow | None:
        """One slot, or None."""
        row = self.database.row("SELECT * FROM slot WHERE id = ?", slot)
        return SlotRow(**dict(row)) if row else None

    def add_slot(self, slot: str, pool: str, template: str, made_at: float, tier: Tier = "created") -> None:
        """Record a slot before anything of it exists."""
        with self.database.change() as db:
            db.execute(
                "INSERT INTO slot (id, pool, state, template, made_at, tier) VALUES (?, ?, 'filling', ?, ?, ?)",
                (slot, pool, template, made_at, tier),
            )

    def slot_ready(self, slot: str, container: str, port: int | None, tenant: TenantId | None = None) -> SlotRow:
        """Record that the slot's container waits: for any claim, or for the tenant that gets it at once.

        Returns the row at that moment: a claim may take, use and remove the slot immediately afterwards.
        """
        state = "claimed" if tenant else "ready"
        with self.database.change() as db:
            db.execute(
                "UPDATE slot SET state = ?, container = ?, port = ? WHERE id = ?", (state, container, port, slot)
            )
            if tenant:
                db.execute("UPDATE tenant SET slot = ?, step = 'slot' WHERE id = ?", (slot, tenant))
            row = db.execute("SELECT * FROM slot WHERE id = ?", (slot,)).fetchone()
        return SlotRow(**dict(row))

    def take_slot(
        self, pool: str, template: str, tenant: TenantId, tiers: Sequence[Tier] = TIERS[::-1]
    ) -> SlotRow | None:
        """Give the tenant, in one transaction, the oldest ready slot of the first tier that has one; None if none
        has."""
        with self.database.change() as db:
            rank = " ".join(f"WHEN '{tier}' THEN {number}" for number, tier in enumerate(tiers) if tier in TIERS)
            found = db.execute(
                "SELECT id FROM slot WHERE pool = ? AND template = ? AND state = 'ready' "  # noqa: S608 - TIERS only
                f"AND CASE tier {rank} ELSE -1 END >= 0 ORDER BY CASE tier {rank} END, made_at, id LIMIT 1",
                (pool, template),
            ).fetchone()
            if found is None:
                return None
            db.execute("UPDATE slot SET state = 'claimed' WHERE id = ?", (found["id"],))
            db.execute("UPDATE tenant SET slot = ?, step = 'slot' WHERE id = ?", (found["id"], tenant))
            row = db.execute("SELECT * FROM slot WHERE id = ?", (found["id"],)).fetchone()
        return SlotRow(**dict(row))

    def retire_slot(self, slot: str) -> bool:
        """ready → filling, so that no claim takes it while it is removed; False when it was no longer ready."""
        with self.database.change() as db:
            return (
                db.execute("UPDATE slot SET state = 'filling' WHERE id = ? AND state = 'ready'", (slot,)).rowcount == 1
            )

    def drop_slot(self, slot: str) -> None:
        """Delete a slot's row after everything of it was removed."""
        with self.database.change() as db:
            db.execute("UPDATE tenant SET slot = NULL WHERE slot = ?", (slot,))
            db.execute("DELETE FROM slot WHERE id = ?", (slot,))

    # --- tenants ---

    def tenants(self, *states: TenantState, pool: str | None = None) -> Sequence[TenantRow]:
        """Tenants that were ever claimed here, by id: all, those in some states, or those of one pool."""
        among = ", ".join(f"'{state}'" for state in states)
        where = f"state IN ({among})" if states else "TRUE"
        rows = self.database.rows(
            f"SELECT * FROM tenant WHERE {where} AND (? IS NULL OR pool = ?) ORDER BY id",  # noqa: S608 - our own words
            pool,
            pool,
        )
        return [TenantRow(**dict(row)) for row in rows]

    def tenant(self, tenant: TenantId) -> TenantRow | None:
        """One tenant, or None if it was never claimed here."""
        row = self.database.row("SELECT * FROM tenant WHERE id = ?", tenant)
        return TenantRow(**dict(row)) if row else None

    def begin_claim(self, tenant: TenantId, pool: str, now: float, *, trial: bool = False) -> None:
        """cold, kept, parked or unknown → claiming; the error of a kept tree stays until the state changes again."""
        with self.database.change() as db:
            db.execute(
                "INSERT INTO tenant (id, state, pool, since, step, trial, seen) "
                "VALUES (?1, 'claiming', ?2, ?3, 'begin', ?4, ?3) ON CONFLICT (id) DO UPDATE "
                "SET state = 'claiming', pool = ?2, step = 'begin', source = '', since = ?3, trial = ?4, seen = ?3",
                (tenant, pool, now, int(trial)),
            )

    def note(self, tenant: TenantId, *, durable: bool = False, **columns: str | int | float) -> None:
        """Write columns of a tenant's row: `step`, `source`, `base`, `epoch`, `error`, `image`, `trial`, `seen`…"""
        assert columns.keys() <= _NOTABLE  # noqa: S101 - names reach the SQL text
        with self.database.change(durable=durable) as db:
            names = ", ".join(f"{name} = ?" for name in columns)
            db.execute(f"UPDATE tenant SET {names} WHERE id = ?", (*columns.values(), tenant))  # noqa: S608

    def become(
        self,
        tenant: TenantId,
        state: TenantState,
        now: float,
        *,
        step: str = "",
        error: str = "",
        durable: bool = False,
        trial: bool = False,
        proven: str | None = None,
    ) -> None:
        """Change a tenant's state, step and error; one that becomes active is wanted, and waits for no restart.

        Args:
            trial: Whether the tenant stays on trial.
            proven: Id of the image that its state suits from now on; None leaves it unchanged.
        """
        with self.database.change(durable=durable) as db:
            db.execute(
                "UPDATE tenant SET state = ?, step = ?, error = ?, since = ?, trial = ?, proven = IFNULL(?, proven) "
                "WHERE id = ?",
                (state, step, error, now, int(trial), proven, tenant),
            )
            if state == "active":
                db.execute(
                    "UPDATE tenant SET wanted = IIF(wanted > 0, wanted, since), restart = '', restarted = '' "
                    "WHERE id = ?",
                    (tenant,),
                )

    # --- restarts ---

    def restarting(self) -> Sequence[TenantRow]:
        """Tenants that the daemon is about to claim by itself, those that are wanted for longest first."""
        rows = self.database.rows(
            "SELECT * FROM tenant WHERE restart != '' AND restart != ? ORDER BY IIF(wanted > 0, wanted, since), id",
            CRASH_LOOP,
        )
        return [TenantRow(**dict(row)) for row in rows]

    def boot(self) -> str:
        """The boot of the machine in which this ledger was used last; empty if it is not known."""
        row = self.database.row("SELECT id FROM boot")
        return str(row["id"]) if row else ""

    def begin_boot(self, boot: str, tenants: Collection[TenantId], reason: str) -> None:
        """Record that the ledger is used in this boot, and that these tenants are to be claimed, in one transaction."""
        with self.database.change(durable=True) as db:
            db.execute("DELETE FROM boot")
            db.execute("INSERT INTO boot (id) VALUES (?)", (boot,))
            db.executemany(
                "UPDATE tenant SET restart = ?, failures = 0 WHERE id = ?", [(reason, tenant) for tenant in tenants]
            )

    # --- pools ---

    def pool(self, pool: str) -> PoolRow:
        """The settings of an operator for a pool; empty when there are none."""
        row = self.database.row("SELECT * FROM pool WHERE id = ?", pool)
        if row is None:
            return PoolRow(id=pool)
        warmth: Mapping[str, int] | None = json.loads(row["warmth"]) if row["warmth"] else None
        return PoolRow(**{**dict(row), "warmth": warmth, "drained": bool(row["drained"])})

    def set_pool(self, pool: str, **columns: Any) -> None:
        """Save an operator's settings for a pool (`min_size`, `max_size`, `warmth`, `image`, `drained`); None
        unsets."""
        assert columns.keys() <= _SETTABLE  # noqa: S101 - names reach the SQL text
        if columns.get("warmth") is not None:
            columns["warmth"] = json.dumps(dict(columns["warmth"]))
        with self.database.change(durable=True) as db:
            db.execute("INSERT INTO pool (id) VALUES (?) ON CONFLICT (id) DO NOTHING", (pool,))
            names = ", ".join(f"{name} = ?" for name in columns)
            db.execute(f"UPDATE pool SET {names} WHERE id = ?", (*columns.values(), pool))  # noqa: S608

    def drop_pool(self, pool: str) -> None:
        """Delete an operator's settings for a pool."""
        with self.database.change(durable=True) as db:
            db.execute("DELETE FROM pool WHERE id = ?", (pool,))
