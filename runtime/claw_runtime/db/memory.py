"""What this host remembers of its object store, in SQLite; implements `ports.StoreMemory`.

A power failure may lose the last HEADs. An older one is remembered then, which refuses less and nothing wrongly.
"""

from collections.abc import Sequence

from claw_runtime.db.database import Database
from claw_runtime.ports import KnownHead
from claw_runtime.tenancy import TenantId

_PUT = (
    "INSERT INTO head (tenant, generation, sha256, epoch) VALUES (?, ?, ?, ?) ON CONFLICT (tenant) DO UPDATE "
    "SET generation = excluded.generation, sha256 = excluded.sha256, epoch = excluded.epoch"
)


class SqliteMemory:
    """The store of one host, and its tenants' HEADs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def store(self) -> str:
        """Id of the store that the tenants' states are in; empty if none is known yet."""
        row = self._database.row("SELECT id FROM store")
        return str(row["id"]) if row else ""

    def set_store(self, store: str, url: str, *, forget: bool = False) -> None:
        """Remember the store; with `forget`, no HEAD or lease of the previous one any more."""
        with self._database.change(durable=True) as db:
            if forget:
                db.execute("DELETE FROM head")
                db.execute("DELETE FROM lease")
            db.execute("DELETE FROM store")
            db.execute("INSERT INTO store (id, url) VALUES (?, ?)", (store, url))

    def is_empty(self) -> bool:
        """Whether no generation of any tenant is remembered."""
        return self._database.row("SELECT 1 FROM head WHERE generation > 0 LIMIT 1") is None

    def head(self, tenant: TenantId) -> KnownHead | None:
        """The tenant's HEAD; None if this host never read one."""
        row = self._database.row("SELECT generation, sha256, epoch FROM head WHERE tenant = ?", tenant)
        return KnownHead(**dict(row)) if row else None

    def remember(self, tenant: TenantId, head: KnownHead) -> None:
        """Remember a HEAD, unless the remembered one is newer."""
        newer = f"{_PUT} WHERE excluded.generation >= head.generation AND excluded.epoch >= head.epoch"
        with self._database.change() as db:
            db.execute(newer, (tenant, head.generation, head.sha256, head.epoch))

    def replace(self, tenant: TenantId, head: KnownHead) -> None:
        """Remember this HEAD even if the remembered one is newer, because a person accepted it."""
        with self._database.change(durable=True) as db:
            db.execute(_PUT, (tenant, head.generation, head.sha256, head.epoch))

    def hold(self, tenant: TenantId) -> None:
        """Remember, before it is acquired, that this host may hold the tenant's lease."""
        with self._database.change() as db:
            db.execute("INSERT INTO lease (tenant) VALUES (?) ON CONFLICT (tenant) DO NOTHING", (tenant,))

    def let_go(self, tenant: TenantId) -> None:
        """Forget that, once the lease has ended."""
        with self._database.change() as db:
            db.execute("DELETE FROM lease WHERE tenant = ?", (tenant,))

    def held(self) -> Sequence[TenantId]:
        """The tenants whose lease this host may hold, by id."""
        return [TenantId(row["tenant"]) for row in self._database.rows("SELECT tenant FROM lease ORDER BY tenant")]
