"""What happened."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened; `at` in seconds since the epoch, `detail` plain JSON."""

    id: int
    at: float
    kind: str
    tenant: str | None
    pool: str | None
    detail: Mapping[str, Any]


class EventStore(Protocol):
    """The last events, a bounded number."""

    def add(self, at: float, kind: str, tenant: str | None, pool: str | None, detail: Mapping[str, Any]) -> None: ...

    def newest(
        self, limit: int, *, tenant: str | None = None, pool: str | None = None, since: float = 0.0, after: int = 0
    ) -> Sequence[Event]:
        """The newest that fit, oldest first."""
