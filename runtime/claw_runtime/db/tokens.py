"""Tokens of the API in SQLite; implements `ports.TokenStore`."""

from collections.abc import Sequence

from claw_runtime.db.database import Database
from claw_runtime.ports import TokenRow


class SqliteTokens:
    """The tokens of one host."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> Sequence[TokenRow]:
        """Every token, by name."""
        return [TokenRow(**dict(row)) for row in self._database.rows("SELECT * FROM token ORDER BY name")]

    def add(self, row: TokenRow) -> bool:
        """Save a token; False when its name is in use."""
        with self._database.change(durable=True) as db:
            return (
                db.execute(
                    "INSERT INTO token (id, name, sha256, scope, tenant, made_at, expires_at) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO NOTHING",
                    (row.id, row.name, row.sha256, row.scope, row.tenant, row.made_at, row.expires_at),
                ).rowcount
                == 1
            )

    def used(self, token: str, at: float) -> None:
        """Note the time of the last use."""
        with self._database.change() as db:
            db.execute("UPDATE token SET used_at = ? WHERE id = ?", (at, token))

    def remove(self, name: str) -> bool:
        """Delete a token; False when there is none of that name. Durable: a revoked token must not become valid
        again."""
        with self._database.change(durable=True) as db:
            return db.execute("DELETE FROM token WHERE name = ?", (name,)).rowcount == 1
