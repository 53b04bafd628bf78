"""Activity: what happened to tenants and pools, kept for operators.

Services call `record`, which never raises and never waits for the disk: losing an event in a power failure is harmless,
but a claim must not fail because its event could not be written.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import structlog

from claw_runtime.logs import masked
from claw_runtime.ports import Clock, Event, EventStore
from claw_runtime.spec.plan import Workload
from claw_runtime.tenancy import TenantId

log = structlog.get_logger(__name__)


class EventLog:
    """The events of one host."""

    def __init__(self, store: EventStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def record(self, kind: str, *, tenant: str | None = None, pool: str | None = None, **detail: Any) -> None:
        """Keep one event; secrets in `detail` are masked, and values that are not JSON become text."""
        try:
            self._store.add(self._clock.now(), kind, tenant, pool, masked(detail))
        except Exception:
            log.exception("an event was not stored", kind=kind, tenant=tenant, pool=pool)

    def newest(
        self,
        limit: int = 100,
        *,
        tenant: str | None = None,
        pool: str | None = None,
        since: float = 0.0,
        after: int = 0,
    ) -> Sequence[Event]:
        """The newest matching events, oldest first; `since` in seconds since the epoch, `after` an event's id."""
        return self._store.newest(limit, tenant=tenant, pool=pool, since=since, after=after)


Recorder = Callable[..., Any]


def unrecorded(_kind: str, **_facts: Any) -> None:
    """A recorder that keeps nothing."""


class Observer(Protocol):
    """Is called after services acted. No method raises, and none waits for a disk or a network."""

    def record(self, kind: str, **facts: Any) -> None:
        """Record an event for operators; as `EventLog.record`."""

    def committed(self, tenant: TenantId, workload: Workload) -> None:
        """A generation of the tenant is in the store."""

    def changed(self) -> None:
        """A slot was taken or given back: pools may have work to do."""
