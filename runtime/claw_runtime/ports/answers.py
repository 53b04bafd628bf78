"""Answers that are given once."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRow:
    """What an Idempotency-Key stands for: digest of its request, and the answer unless that is under way."""

    request: str
    status: int | None
    body: bytes | None


class AnswerStore(Protocol):
    """Answers by the key of their request."""

    def begin(self, who: str, key: str, request: str, at: float, *, lifetime: float) -> AnswerRow | None:
        """Announce a request; the row that has the key already, if one has. Rows older than `lifetime` seconds go."""

    def finish(self, who: str, key: str, status: int, body: bytes) -> None: ...

    def forget(self, who: str, key: str) -> None: ...
