"""Tenants that clients wait for are claimed, a few at a time; one that does not wake is tried again ever more slowly.

A wake waits while another operation on its tenant is under way: the operation decides then whether it is still needed.
"""

import threading
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from claw_runtime.concurrency import Workers
from claw_runtime.errors import ClawError
from claw_runtime.ingress.link import RouterLink
from claw_runtime.ports import CRASH_LOOP, Clock, Ledger, TenantRow
from claw_runtime.telemetry.events import Recorder
from claw_runtime.tenancy import TenantId
from claw_runtime.tenants.tenants import Claim

log = structlog.get_logger(__name__)

WANTED: Final = 40.0
"""Seconds after a request in which its tenant is still to be claimed: longer than any request waits."""

FIRST: Final = 2.0
LONGEST: Final = 300.0
"""Seconds from a first failure to the next attempt; each further failure doubles them, up to the second number."""

_BUSY: Final = ("claiming", "releasing")


class Claims(Protocol):
    """The public face of `tenants`, as far as wakes need it."""

    def claim(self, tenant: TenantId, pool: str) -> Claim: ...


@dataclass(slots=True)
class _Failure:
    """Attempts that failed in a row, the last one's reason, and when the next may begin."""

    count: int
    why: str
    next_at: float


class Wakes:
    """Claims tenants for clients.

    Args:
        thaws: Do what is quick: the claims of frozen tenants. `claims` do all others.
    """

    def __init__(
        self,
        tenants: Claims,
        ledger: Ledger,
        link: RouterLink,
        clock: Clock,
        *,
        record: Recorder,
        thaws: Workers,
        claims: Workers,
    ) -> None:
        self._tenants, self._ledger, self._link, self._clock = tenants, ledger, link, clock
        self._record = record
        self.thaws, self.claims = thaws, claims
        self._lock = threading.Lock()
        self._wanted = dict[TenantId, tuple[float, str]]()
        self._failures = dict[TenantId, _Failure]()

    def want(self, tenant: TenantId, trigger: str) -> None:
        """A client waits for the tenant; returns at once.

        Args:
            trigger: What the client sent, for the event.
        """
        with self._lock:
            self._wanted[tenant] = (self._clock.monotonic(), trigger)
        self._look(tenant)

    def look(self) -> None:
        """Look again at tenants that had to wait for another operation."""
        for tenant in list(self._wanted):
            self._look(tenant)

    def _look(self, tenant: TenantId) -> None:
        row = self._ledger.tenant(tenant)
        with self._lock:
            asked = self._wanted.get(tenant)
            failure = self._failures.get(tenant)
        if asked is None:
            return
        if self._clock.monotonic() - asked[0] > WANTED:
            self._done(tenant)
        elif row is None or not row.pool:
            self._refuse(tenant, "not-claimed", LONGEST)
        elif self._link.is_fenced(tenant):
            return
        elif row.state == "active":
            self._woke(tenant)
        elif row.restart == CRASH_LOOP:
            self._refuse(tenant, CRASH_LOOP, LONGEST)
        elif row.restart:  # the daemon claims it by itself, in its own time: more tries would hide a crash loop
            return
        elif failure and (left := failure.next_at - self._clock.monotonic()) > 0:
            self._refuse(tenant, failure.why, left)
        elif row.state not in _BUSY:
            workers = self.thaws if row.state == "frozen" else self.claims
            workers.offer(tenant, lambda: self._claim(row, asked[1]))

    def _claim(self, row: TenantRow, trigger: str) -> bool:
        """Claim the tenant; False if there was no need any more."""
        if row.id not in self._wanted or self._link.is_fenced(row.id):
            return False
        began = self._clock.monotonic()
        try:
            claim = self._tenants.claim(row.id, row.pool or "")
        except ClawError as error:
            self._failed(row.id, error.slug, float(error.facts.get("retry_after") or 0.0))
            log.warning("a tenant did not wake", tenant=row.id, trigger=trigger, why=str(error), hint=error.hint)
            return True
        except Exception:
            self._failed(row.id, ClawError.slug, 0.0)
            raise
        self._woke(row.id)
        if not claim.already:
            seconds = round(self._clock.monotonic() - began, 3)
            self._record("woken", tenant=row.id, pool=row.pool, trigger=trigger, rung=row.state, seconds=seconds)
        return True

    def _woke(self, tenant: TenantId) -> None:
        """It runs. A router that still waits has a table from before."""
        with self._lock:
            self._failures.pop(tenant, None)
        self._done(tenant)
        self._link.push()

    def _failed(self, tenant: TenantId, why: str, least: float) -> None:
        with self._lock:
            count = self._failures[tenant].count + 1 if tenant in self._failures else 1
            pause = max(least, min(LONGEST, FIRST * 2.0 ** min(count - 1, 16)))
            self._failures[tenant] = _Failure(count, why, self._clock.monotonic() + pause)
        self._refuse(tenant, why, pause)

    def _refuse(self, tenant: TenantId, why: str, again: float) -> None:
        self._done(tenant)
        self._link.failed(tenant, f"the tenant did not wake: {why}", round(again, 3))

    def _done(self, tenant: TenantId) -> None:
        with self._lock:
            self._wanted.pop(tenant, None)
