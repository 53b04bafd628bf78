"""Time."""

from typing import Protocol


class Clock(Protocol):
    """Time, injected so that tests own it."""

    def now(self) -> float:
        """Seconds since the epoch; for records, never for decisions."""

    def monotonic(self) -> float:
        """Seconds that only grow; for every decision."""

    def sleep(self, seconds: float) -> None: ...
