"""Tenants at rest: a released tenant keeps its own container, frozen, or its tree, parked.

The store already has both; they only make the next claim faster. So a doubtful one is ended, the oldest is ended when
room is needed, and no other tenant ever sees one.
"""

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from math import inf

import structlog

from claw_runtime.errors import ClawError, UnknownPool
from claw_runtime.ports import TenantRow
from claw_runtime.spec.plan import Workload
from claw_runtime.tenancy import TenantId
from claw_runtime.tenants.host import Host
from claw_runtime.tenants.lifecycle import OVER, remedy
from claw_runtime.tenants.locks import Locks, alone
from claw_runtime.tenants.release import Releaser, Rest

log = structlog.get_logger(__name__)


class Standby:
    """Tenants at rest on this host."""

    def __init__(self, host: Host, releaser: Releaser, locks: Locks) -> None:
        self._host = host
        self._ledger, self._pools, self._clock = host.ledger, host.pools, host.clock
        self._observer, self._workers = host.observer, host.workers
        self._releaser = releaser
        self._locks = locks
        self._lock = threading.Lock()
        self._coming: dict[TenantId, tuple[str, Rest]] = {}
        self._going: set[TenantId] = set()

    @contextmanager
    def room(self, tenant: TenantId, workload: Workload) -> Iterator[Rest | None]:
        """How a tenant may rest after its release; its place is reserved until the block ends.

        The oldest tenants at rest make room, and workers stop their programs: the release does not wait for that.
        Where only tenants rest that are being released at this moment, or that cannot be ended, there is none: the
        tenant is parked instead of frozen, or does not rest. So never more rest than the workload allows, however many
        are released at once.
        """
        try:
            yield self._place(tenant, workload)
        finally:
            with self._lock:
                self._coming.pop(tenant, None)

    def _place(self, tenant: TenantId, workload: Workload) -> Rest | None:
        pool, sizes = workload.id, workload.pool
        with suppress(ClawError):  # an operator may have changed them; they are the file's if that cannot be found out
            sizes = self._pools.sizes(pool)
        if not sizes.affinity_timeout:
            return None
        if not self._pools.is_crowded(pool) and self._reserve(tenant, pool, "frozen", sizes.warmth.frozen):
            return "frozen"
        return "parked" if self._reserve(tenant, pool, "parked", sizes.warmth.tree) else None

    def _reserve(self, tenant: TenantId, pool: str, rest: Rest, most: int) -> bool:
        """Reserve one of so many places, which the oldest tenants at rest may have to leave first."""
        while most > 0:
            with self._lock:
                rows = {row.id: row for row in self._ledger.tenants(rest, pool=pool) if row.step not in OVER}
                rows.pop(tenant, None)
                coming = {one for one, place in self._coming.items() if place == (pool, rest)} - rows.keys() - {tenant}
                if len(rows) + len(coming) < most:
                    self._coming[tenant] = pool, rest
                    return True
                free = sorted(rows.keys() - self._going - self._coming.keys(), key=lambda one: rows[one].since)
                if not free or len(coming) + len(rows.keys() & self._coming.keys()) >= most:
                    return False
                self._going.add(free[0])
            try:
                if not self._vacate(rows[free[0]], "there was no room"):
                    return False
            finally:
                with self._lock:
                    self._going.discard(free[0])
        return False

    def trim(self) -> None:
        """End the oldest tenants at rest where more rest than the workload allows: it was changed, or a claim of one
        was undone after another had taken its place."""
        rests: tuple[Rest, ...] = ("frozen", "parked")
        for rest in rests:
            by_pool = defaultdict[str, list[TenantRow]](list)
            for row in sorted(self._ledger.tenants(rest), key=lambda row: row.since):
                by_pool[row.pool or ""].append(row)
            for pool, rows in by_pool.items():
                for row in rows[: max(0, len(rows) - self._most(pool, rest, len(rows)))]:
                    self._workers.offer(row.id, partial(self._end, row, "more rested than the workload allows"))

    def _most(self, pool: str, rest: Rest, now: int) -> int:
        """Tenants of a pool that may rest so; as many as do `now` if that cannot be found out."""
        try:
            warmth = self._pools.sizes(pool).warmth
        except ClawError:  # one whose file is gone: `expire` ends them all
            return now
        # Where a host cannot freeze, trees are parked in place of frozen containers.
        return warmth.frozen if rest == "frozen" else warmth.tree or warmth.frozen

    def evict(self, pool: str) -> bool:
        """Free the slot of the tenant that has been frozen longest; False when none can be freed."""
        resting = sorted(self._ledger.tenants("frozen", pool=pool), key=lambda row: row.since)
        return any(self._end(row, "its slot was needed") for row in resting)

    def relieve(self) -> None:
        """Free slots of frozen tenants for waiting claims: those tenants may have run when the wait began."""
        for pool in {row.pool for row in self._ledger.tenants("frozen") if row.pool}:
            if self._pools.is_crowded(pool):
                resting = sorted(self._ledger.tenants("frozen", pool=pool), key=lambda row: row.since)
                lacking = self._pools.queued(pool) - len(self._ledger.tenants("releasing", pool=pool))
                for row in resting[: max(0, lacking)]:
                    self._workers.offer(row.id, partial(self._end, row, "its slot was needed"))

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

    def _vacate(self, row: TenantRow, why: str) -> bool:
        """Let one rest no more, and a worker end what is left of it; False as `_end`."""
        left = False
        with self._locks.tried(row.id) as free:
            current = self._ledger.tenant(row.id) if free else None
            if current is None or current.state != row.state:
                return False
            with alone(row.id):
                self._releaser.leave_rest(current)
                left = True
        if left:
            self._workers.offer(row.id, partial(self._end, row, why))
        return left

    def _end(self, row: TenantRow, why: str) -> bool:
        """End one; False when another operation works on the tenant, or the store does not answer."""
        ended = False
        with self._locks.tried(row.id) as free:
            current = self._ledger.tenant(row.id) if free else None
            if current is None or current.state not in (row.state, "releasing"):
                return False
            with alone(row.id):
                if current.state == "releasing":  # it has left its place before
                    here = self._host.look(current)
                    self._releaser.finish(here, remedy(current, here.state))
                else:
                    self._releaser.end_rest(current)
                ended = True
        if ended:
            self._observer.record("rest-ended", tenant=row.id, pool=row.pool, was=row.state, why=why)
            self._observer.changed()
        return ended
