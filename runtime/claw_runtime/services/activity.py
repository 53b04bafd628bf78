"""Activity: what happened to tenants and pools, kept for operators, and counted for a pool's metrics.

`record` is given to the services that do things. It never raises and never waits for the disk: an event that is lost
in a power failure is no harm, a claim that fails because its event could not be written would be.
"""

import math
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from claw_runtime.logs import masked
from claw_runtime.ports import Clock, Event, EventStore

log = structlog.get_logger(__name__)

REMEMBERED = 1000
"""How many of the last durations of a pool its quantiles are taken from."""


@dataclass(slots=True)
class Tally:
    """What happened in one pool since the daemon's start.

    Attributes:
        events: Kind → how often.
        sources: Where claims got their container → how often.
        milliseconds: Of the last claims, newest last.
    """

    events: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    milliseconds: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED))


class Activity:
    """The events of one host."""

    def __init__(self, store: EventStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._tallies: defaultdict[str, Tally] = defaultdict(Tally)

    def record(self, kind: str, *, tenant: str | None = None, pool: str | None = None, **detail: Any) -> None:
        """Keep one event. Secrets in `detail` are masked, `phases` of a claim (milliseconds) are added up."""
        phases = detail.get("phases")
        if kind == "claimed" and isinstance(phases, Mapping):
            detail.setdefault("milliseconds", round(sum(phases.values()), 1))
        if pool is not None:
            with self._lock:
                tally = self._tallies[pool]
                tally.events[kind] += 1
                if kind == "claimed":
                    tally.sources[str(detail.get("source", "unknown"))] += 1
                    if "milliseconds" in detail:
                        tally.milliseconds.append(float(detail["milliseconds"]))
        try:
            self._store.add(self._clock.now(), kind, tenant, pool, masked(detail))
        except Exception:
            log.exception("an event was not kept", kind=kind, tenant=tenant, pool=pool)

    def events(
        self,
        limit: int = 100,
        *,
        tenant: str | None = None,
        pool: str | None = None,
        since: float = 0.0,
        after: int = 0,
    ) -> Sequence[Event]:
        """The newest events that fit, oldest first; `since` in seconds since the epoch, `after` an event's id."""
        return self._store.newest(limit, tenant=tenant, pool=pool, since=since, after=after)

    def tally(self, pool: str) -> Tally:
        """A copy of what was counted for a pool."""
        with self._lock:
            now = self._tallies[pool] if pool in self._tallies else Tally()
            return Tally(Counter(now.events), Counter(now.sources), deque(now.milliseconds, maxlen=REMEMBERED))


def quantile(values: Sequence[float], share: float) -> float | None:
    """The least value that `share` of all do not exceed (nearest rank); None of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(round(len(ordered) * share, 6)) - 1)] if ordered else None
