"""Periodic work for tenants: commits of those that run, and collections of unneeded objects.

Both are spread over time by the tenant's name, so that a thousand tenants never come at once, also after a restart. One
whose turn fails is tried again, later each time, and nobody waits for it. Nor does anyone wait for a tenant that is
busy: a claim, release or collection of it may take long, and its commit is tried again when the others had theirs.
"""

import threading
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import structlog

from claw_runtime.concurrency import Workers
from claw_runtime.errors import ClawError, Conflict, NotClaimed, StoreUnavailable, TenantLocked
from claw_runtime.ports import Clock, Ledger, ObjectMissing, ObjectStore, TenantRow
from claw_runtime.tenancy import TenantId
from claw_runtime.tenants.commits import saved_at
from claw_runtime.tenants.tenants import Tenants

log = structlog.get_logger(__name__)

DAY = 24 * 3600.0
"""Seconds between two collections of one tenant."""

LONGEST = 3600.0
"""Seconds that a turn which failed waits at most."""

LONGEST_AWAY = 300.0
"""Likewise, when the store did not answer: asking costs little, and until it is back nothing is saved."""

SHORTEST = 0.1
"""Seconds between two looks for due commits, at least: each reads the rows of all running tenants."""

PARTS = 10
"""Parts of a collection that one tenant gets in a row."""

NEXT_PARTS = 60.0
"""Seconds until a collection that is not complete continues, after those of others."""


@dataclass(slots=True)
class _Turn:
    """When a tenant is due, in monotonic seconds; how often it failed, and when last, in seconds since the epoch."""

    due: float
    failures: int = 0
    failed: float = 0.0


@dataclass(slots=True)
class _Turns:
    """Who is due when; `pause` between two turns of a tenant."""

    clock: Clock
    turns: dict[TenantId, _Turn] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def due(self, pauses: Mapping[TenantId, float]) -> list[TenantId]:
        """Those whose turn it is, the longest overdue first; who is new is due after a part of the first pause."""
        now = self.clock.monotonic()
        with self.lock:
            for gone in self.turns.keys() - pauses.keys():
                del self.turns[gone]
            for tenant, pause in pauses.items():
                if tenant not in self.turns:
                    self.turns[tenant] = _Turn(now + pause * (zlib.crc32(tenant.encode()) % 1000 + 1) / 1000)
            return sorted((one for one in pauses if self.turns[one].due <= now), key=lambda one: self.turns[one].due)

    def until_next(self, longest: float) -> float:
        """Seconds until the next turn that is not due yet, `longest` at most."""
        now = self.clock.monotonic()
        with self.lock:
            return min((left for turn in self.turns.values() if (left := turn.due - now) > 0), default=longest)

    def done(self, tenant: TenantId, pause: float, took: float = 0.0) -> None:
        """The turn is over. The pause counts from its beginning, so that a long turn makes nothing older than it must.

        A tenant whose turns take longer than the pause is left in peace for half of it.
        """
        with self.lock:
            self.turns[tenant] = _Turn(self.clock.monotonic() + max(pause - took, min(pause, took) / 2))

    def failed(self, tenant: TenantId, pause: float, longest: float = LONGEST) -> None:
        now = self.clock.monotonic()
        with self.lock:
            failures = (self.turns[tenant].failures if tenant in self.turns else 0) + 1
            later = min(max(longest, pause), pause * 2 ** min(failures, 10))
            self.turns[tenant] = _Turn(now + later, failures, self.clock.now())

    def saved(self, tenant: TenantId, pause: float, at: float) -> None:
        """The tenant was saved otherwise at that time, by a person or at its claim: a failure before it is over."""
        with self.lock:
            turn = self.turns.get(tenant)
            if turn and turn.failures and at > turn.failed:
                self.turns[tenant] = _Turn(self.clock.monotonic() + pause)


def remove_unfinished(store: ObjectStore) -> None:
    """Remove what killed processes left of writes to the store. Failures are logged: the store works without it."""
    try:
        if removed := store.remove_unfinished(DAY):
            log.info("unfinished writes removed", store=store.url, writes=removed)
    except (ClawError, ObjectMissing) as error:
        log.warning("unfinished writes cannot be removed; tried again in a day", store=store.url, why=str(error))


class Maintenance:
    """The turns of all tenants of this host.

    Args:
        interval: Seconds between the beginnings of two commits of a running tenant, by its pool; None is none.
        workers: Do the commits; by default each is done at once.
    """

    def __init__(
        self,
        tenants: Tenants,
        ledger: Ledger,
        clock: Clock,
        interval: Callable[[str], float | None],
        workers: Workers | None = None,
    ) -> None:
        self._tenants, self._ledger, self._clock, self._interval = tenants, ledger, clock, interval
        self._commits, self._collections = _Turns(clock), _Turns(clock)
        self.workers = workers or Workers("commit", 0)

    def until_commit(self, longest: float) -> float:
        """Seconds until the next commit is due, `SHORTEST` to `longest`; a tenant that is overdue does not count."""
        return min(longest, max(SHORTEST, self._commits.until_next(longest)))

    def commit(self) -> None:
        """Have the running tenants committed whose interval is over, the longest overdue first."""
        pauses = dict[TenantId, float]()
        for row in self._ledger.tenants("active"):
            if pause := self._pause(row):
                pauses[row.id] = pause
                self._commits.saved(row.id, pause, saved_at(row))
        for tenant in self._commits.due(pauses):
            self.workers.offer(tenant, partial(self._commit, tenant, pauses[tenant]))

    def _commit(self, tenant: TenantId, pause: float) -> bool:
        """Commit a tenant; False while another operation works on it: it stays due."""
        began = self._clock.monotonic()
        try:
            done = self._tenants.sync_unless_busy(tenant)
        except (Conflict, NotClaimed):  # it is on trial, or was released meanwhile
            self._commits.done(tenant, pause)
        except ClawError as error:
            away = isinstance(error.__cause__ or error, StoreUnavailable)
            self._commits.failed(tenant, pause, LONGEST_AWAY if away else LONGEST)
            log.warning("the commit of a running tenant failed; it is retried", tenant=tenant, why=str(error))
        except Exception:  # the workers log it
            self._commits.failed(tenant, pause)
            raise
        else:
            if done is None:
                return False
            self._commits.done(tenant, pause, self._clock.monotonic() - began)
        return True

    def collect(self) -> None:
        """Collect the garbage of one tenant whose turn it is, a bounded part of it."""
        pauses = {row.id: DAY for row in self._ledger.tenants() if row.base}
        for tenant in self._collections.due(pauses)[:1]:
            try:
                done = self._tenants.collect(tenant, parts=PARTS)
            except TenantLocked:  # another runtime has it now
                self._collections.done(tenant, DAY)
            except ClawError as error:
                self._collections.failed(tenant, LONGEST)
                log.warning("garbage collection failed; it is retried", tenant=tenant, why=str(error), hint=error.hint)
            else:
                self._collections.done(tenant, NEXT_PARTS if done and done.left else DAY)

    def _pause(self, row: TenantRow) -> float | None:
        return None if row.trial else self._interval(row.pool or "")
