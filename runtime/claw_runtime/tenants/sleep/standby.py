"""Tenants at rest: a released tenant keeps its own container, frozen, or its tree, parked.

The store already has both; they only make the next claim faster. So a doubtful one is ended, the oldest is ended when
room is needed, and no other tenant ever sees one.
"""

from functools import partial
from math import inf

import structlog

from claw_runtime.errors import ClawError, UnknownPool
from claw_runtime.ports import TenantRow
from claw_runtime.spec.plan import Workload
from claw_runtime.tenants.host import Host
from claw_runtime.tenants.locks import Locks, alone
from claw_runtime.tenants.release import Releaser, Rest

log = structlog.get_logger(__name__)


class Standby:
    """Tenants at rest on this host."""

    def __init__(self, host: Host, releaser: Releaser, locks: Locks) -> None:
        self._ledger, self._pools, self._clock = host.ledger, host.pools, host.clock
        self._observer, self._workers = host.observer, host.workers
        self._releaser = releaser
        self._locks = locks

    def rest_of(self, workload: Workload) -> Rest | None:
        """How a tenant of the workload may rest after its release. The caller must make room for it."""
        warmth = workload.pool.warmth
        if not workload.pool.affinity_timeout:
            return None
        if warmth.frozen and not self._pools.is_crowded(workload.id):
            return "frozen"
        return "parked" if warmth.tree else None

    def make_room(self, workload: Workload, rest: Rest) -> None:
        """End the oldest tenants at rest until there is room for one more."""
        most = workload.pool.warmth.frozen if rest == "frozen" else workload.pool.warmth.tree
        resting = sorted(self._ledger.tenants(rest, pool=workload.id), key=lambda row: row.since)
        for row in resting[: max(0, len(resting) - most + 1)]:
            self._end(row, "there was no room")

    def evict(self, pool: str) -> bool:
        """Free the slot of the tenant that has been frozen longest; False when none can be freed."""
        resting = sorted(self._ledger.tenants("frozen", pool=pool), key=lambda row: row.since)
        return any(self._end(row, "its slot was needed") for row in resting)

    def relieve(self) -> None:
        """Free slots of frozen tenants for waiting claims: those tenants may have run when the wait began."""
        for pool in {row.pool for row in self._ledger.tenants("frozen") if row.pool}:
            if self._pools.is_crowded(pool):
                self._workers.offer(f"pool {pool}", partial(self.evict, pool))

    def expire(self) -> None:
        """End all tenants at rest whose affinity timeout has passed, or whose pool is gone."""
        now, timeouts = self._clock.now(), dict[str, float]()
        for row in self._ledger.tenants("frozen", "parked"):
            pool = row.pool or ""
            if pool not in timeouts:
                timeouts[pool] = self._timeout(pool)
            # If the wall clock jumps forward it ends early, which costs a restore; if it jumps back, late, which costs
            # room.
            if not 0 <= now - row.since < timeouts[pool]:
                self._workers.offer(row.id, partial(self._end, row, "its affinity timeout passed"))

    def _timeout(self, pool: str) -> float:
        try:
            return self._pools.sizes(pool).affinity_timeout
        except UnknownPool:
            return 0.0
        except ClawError:  # no timeout passes because the engine does not answer
            return inf

    def _end(self, row: TenantRow, why: str) -> bool:
        """End one; False when another operation works on the tenant, or the store does not answer."""
        with self._locks.tried(row.id) as free:
            current = self._ledger.tenant(row.id) if free else None
            if current is None or current.state != row.state:
                return False
            ended = False
            with alone(row.id):
                self._releaser.end_rest(current)
                ended = True
        if not ended:
            return False
        self._observer.record("rest-ended", tenant=row.id, pool=row.pool, was=row.state, why=why)
        return True
