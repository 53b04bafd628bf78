"""What the pools measured since the daemon began: counts, and the last durations, in memory."""

import threading
from collections import Counter, defaultdict, deque
from dataclasses import dataclass
from math import ceil

KEPT = 512
"""Durations of each kind that percentiles are made of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Durations:
    """How often something happened, and seconds of the last 512 times."""

    count: int
    p50: float
    p95: float
    last: float


class Timings:
    """Counts and durations by pool and name; safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self._last: defaultdict[tuple[str, str, str], deque[float]] = defaultdict(lambda: deque(maxlen=KEPT))

    def add(self, pool: str, kind: str, name: str, seconds: float | None = None) -> None:
        """One more of a kind (`claim`, `fill`, `failure`), by name (a source, a tier), that took so long."""
        with self._lock:
            self._counts[pool, kind, name] += 1
            if seconds is not None:
                self._last[pool, kind, name].append(seconds)

    def counts(self, pool: str, kind: str) -> dict[str, int]:
        """How often, by name."""
        with self._lock:
            return {name: count for (at, of, name), count in self._counts.items() if (at, of) == (pool, kind)}

    def durations(self, pool: str, kind: str) -> dict[str, Durations]:
        """How long, by name."""
        with self._lock:
            found = {name: list(last) for (at, of, name), last in self._last.items() if (at, of) == (pool, kind)}
            return {
                name: Durations(
                    count=self._counts[pool, kind, name],
                    p50=_percentile(last, 0.5),
                    p95=_percentile(last, 0.95),
                    last=last[-1],
                )
                for name, last in found.items()
            }


def _percentile(values: list[float], share: float) -> float:
    """The smallest value that at least this share of all does not exceed."""
    return sorted(values)[ceil(len(values) * share) - 1]
