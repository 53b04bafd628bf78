"""Answers to requests that carried an Idempotency-Key, in SQLite; implements `ports.AnswerStore`."""

from claw_runtime.db.database import Database
from claw_runtime.ports import AnswerRow

TIDY_EVERY = 600.0
"""Seconds between two removals of all expired answers; one that is asked for is removed at once."""


class SqliteAnswers:
    """The answers of the last day.

    At the start, requests that were running when the last daemon ended are removed: their work was finished or undone
    (tenants/recovery.py), so the same request may be repeated.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._tidied = 0.0
        with database.change() as db:
            db.execute("DELETE FROM answer WHERE status IS NULL")

    def begin(self, who: str, key: str, request: str, at: float, *, lifetime: float) -> AnswerRow | None:
        """Record a request, and remove answers older than `lifetime` seconds; returns the earlier request of the key,
        if any."""
        with self._database.change() as db:
            old = "at < ? AND status IS NOT NULL"
            db.execute(f"DELETE FROM answer WHERE who = ? AND key = ? AND {old}", (who, key, at - lifetime))  # noqa: S608
            if abs(at - self._tidied) >= TIDY_EVERY:  # it reads every answer
                db.execute(f"DELETE FROM answer WHERE {old}", (at - lifetime,))  # noqa: S608 - our own words
                self._tidied = at
            made = db.execute(
                "INSERT INTO answer (who, key, request, at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (who, key, request, at),
            ).rowcount
            if made:
                return None
            row = db.execute(
                "SELECT request, status, body FROM answer WHERE who = ? AND key = ?", (who, key)
            ).fetchone()
        return AnswerRow(**dict(row))

    def finish(self, who: str, key: str, status: int, body: bytes) -> None:
        """Keep the answer."""
        with self._database.change(durable=True) as db:
            db.execute("UPDATE answer SET status = ?, body = ? WHERE who = ? AND key = ?", (status, body, who, key))

    def forget(self, who: str, key: str) -> None:
        """Free the key."""
        with self._database.change() as db:
            db.execute("DELETE FROM answer WHERE who = ? AND key = ?", (who, key))
