"""What happened to tenants and pools, in SQLite; implements `ports.EventStore`."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from claw_runtime.db.database import Database
from claw_runtime.ports import Event


class SqliteEvents:
    """The last events of one host.

    Args:
        most: How many are kept; the oldest are removed, some hundred at a time.
    """

    def __init__(self, database: Database, most: int = 10_000) -> None:
        self._database = database
        self._most = most
        self._slack = max(1, most // 50)

    def add(self, at: float, kind: str, tenant: str | None, pool: str | None, detail: Mapping[str, Any]) -> None:
        """Keep one event."""
        with self._database.change() as db:
            made = db.execute(
                "INSERT INTO event (at, kind, tenant, pool, detail) VALUES (?, ?, ?, ?, ?)",
                (at, kind, tenant, pool, json.dumps(detail, ensure_ascii=False)),
            ).lastrowid
            if made and made % self._slack == 0:
                db.execute("DELETE FROM event WHERE id <= ?", (made - self._most,))

    def newest(
        self, limit: int, *, tenant: str | None = None, pool: str | None = None, since: float = 0.0, after: int = 0
    ) -> Sequence[Event]:
        """The newest matching events, oldest first: of a tenant, of a pool, since a time, after an event."""
        rows = self._database.rows(
            "SELECT * FROM event WHERE (?1 IS NULL OR tenant = ?1) AND (?2 IS NULL OR pool = ?2) "
            "AND at >= ?3 AND id > ?4 ORDER BY id DESC LIMIT ?5",
            tenant,
            pool,
            since,
            after,
            limit,
        )
        return [Event(**{**dict(row), "detail": json.loads(row["detail"])}) for row in reversed(rows)]
