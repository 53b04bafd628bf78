"""Claims that the daemon makes by itself, of tenants that lost their container and are still wanted.

What is to be done is in the ledger (`TenantRow.restart`), so a daemon that is killed in the middle continues after its
next start. The tree of a tenant with such a note is committed first; only what is settled is claimed.
"""

import threading
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

import structlog

from claw_runtime.errors import Fenced, ImageMissing, TenantLocked, UnknownPool
from claw_runtime.ports import CRASH_LOOP, Container, TenantRow
from claw_runtime.tenancy import TenantId
from claw_runtime.tenants.claim import Claim, ClaimOptions
from claw_runtime.tenants.host import Host
from claw_runtime.tenants.lifecycle import Step
from claw_runtime.tenants.locks import Locks
from claw_runtime.tenants.trials import FAULTS, Trials

log = structlog.get_logger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 300.0
"""Seconds before a tenant that failed is claimed again: doubled after each failure in a row."""

HEALTHY = 600.0
"""Seconds for which a program must have run so that its next failure is the first."""

MOST_FAILURES = 5
"""Failures in a row after which a tenant stays down until a person claims it."""

SETTLED = ("cold", "parked")
"""States in which all of a tenant's state is in the store."""


class Reason(StrEnum):
    """Why the daemon claims a tenant by itself, in a row's `restart` and `restarted`."""

    REBOOT = "reboot"
    """The machine was restarted, which ended its container."""
    ENDED = "ended"
    """Its program ended by itself with a failure."""
    OUT_OF_MEMORY = "out-of-memory"
    """The kernel killed its program at its memory limit."""
    PORT_LOST = "port-lost"
    """Nothing listened on its published port any more (tenants/port_watch.py)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """A claim that the daemon is about to make, or no longer makes.

    Attributes:
        reason: A `Reason`, or `CRASH_LOOP`.
        failures: How often in a row the program failed.
        at: Seconds since the epoch of the next attempt; None without one, or when it is due.
    """

    reason: str
    failures: int
    at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BootProgress:
    """Of so many tenants that this boot claims again, how many are done; and for how many the last attempt failed."""

    tenants: int
    done: int
    failing: int


@dataclass(frozen=True, slots=True)
class _Pause:
    """A tenant waits until `until` (monotonic seconds) after so many attempts that failed, the last one by `why`."""

    until: float
    attempts: int
    why: str


class Restarts:
    """Claims by the daemon itself, for all tenants of this host."""

    def __init__(self, host: Host, trials: Trials, locks: Locks) -> None:
        self._host = host
        self._ledger, self._pools, self._clock, self._observer = host.ledger, host.pools, host.clock, host.observer
        self.workers = host.restarts
        self._trials = trials
        self._locks = locks
        self._pauses: dict[TenantId, _Pause] = {}
        self._unreachable: dict[TenantId, float] = {}
        self._booted: frozenset[TenantId] = frozenset()
        self._lock = threading.Lock()

    # --- after a start of the daemon ---

    def note_boot(self) -> None:
        """After a start of the daemon, before the recovery: note which tenants are to run again after a reboot."""
        boot, last = self._host.boot(), self._ledger.boot()
        if boot and boot != last:
            chosen = [row.id for row in self._ledger.tenants() if last and self._comes_back(row)]
            self._ledger.begin_boot(boot, chosen, Reason.REBOOT)
            if last:
                log.warning("the machine was restarted", tenants=len(chosen))
                self._observer.record("rebooted", tenants=len(chosen))
        self._booted = frozenset(self._of_boot())

    def _comes_back(self, row: TenantRow) -> bool:
        if row.trial:  # the upgrade that holds the trial brings its tenants up again
            return False
        # A power failure may have lost that a claim came to its end, but not that its program began.
        ran = row.state == "active" or (row.state, row.step) == ("claiming", Step.START)
        try:
            policy = self._pools.document(row.pool or "").workload.policy.on_boot
        except UnknownPool:
            return False
        return policy != "never" and (ran or (policy == "always" and row.wanted > 0))

    def _of_boot(self) -> Collection[TenantId]:
        return [row.id for row in self._ledger.restarting() if row.restart == Reason.REBOOT]

    def progress(self) -> BootProgress:
        """How far the claims after a reboot have come."""
        pending = self._booted & set(self._of_boot())
        failing = sum(tenant in self._pauses for tenant in pending)
        return BootProgress(tenants=len(self._booted), done=len(self._booted) - len(pending), failing=failing)

    # --- after an end ---

    def ended(self, row: TenantRow, container: Container | None, why: str) -> tuple[TenantRow, str]:
        """Note, before its state is committed, whether a tenant is claimed again whose container ended by itself.

        The caller holds the tenant's lock, and commits its tree next.

        Args:
            container: None if it is gone.
            why: How it ended.

        Returns:
            The row as it is now, and the error text for the time after the commit.
        """
        failed = container is None or container.exit_code != 0
        if not failed or row.trial or row.restart or not row.wanted or self._policy(row) != "on_failure":
            return row, why
        failures = self._failures(row)
        if failures >= MOST_FAILURES:
            why = self.give_up(row, failures, why)
        else:
            oom = container is not None and container.oom_killed
            self._ledger.note(row.id, restart=Reason.OUT_OF_MEMORY if oom else Reason.ENDED, failures=failures)
            self.pause(row.id, failures, why)
        return self._ledger.tenant(row.id) or row, why

    def port_lost(self, row: TenantRow, since: float) -> None:
        """Note, before its state is committed, that a tenant is claimed again whose port nothing listens on.

        Args:
            since: Monotonic seconds of the first look that found it so.
        """
        self._ledger.note(row.id, restart=Reason.PORT_LOST)
        with self._lock:
            self._unreachable[row.id] = since

    def _failures(self, row: TenantRow) -> int:
        """How often in a row it has failed, this time included."""
        return 1 if self._clock.now() - row.since >= HEALTHY else row.failures + 1

    def _policy(self, row: TenantRow) -> str:
        try:
            return self._pools.document(row.pool or "").workload.policy.restart
        except UnknownPool:
            return "never"

    # --- in the background ---

    def of(self, row: TenantRow) -> Restart | None:
        """The claim that the daemon is about to make of a tenant, or `CRASH_LOOP`; None when there is neither."""
        if not row.restart:
            return None
        pause = self._pauses.get(row.id)
        left = pause.until - self._clock.monotonic() if pause else 0.0
        at = self._clock.now() + left if left > 0 and row.restart != CRASH_LOOP else None
        return Restart(reason=row.restart, failures=row.failures, at=at)

    def look(self) -> None:
        """Claim the tenants whose turn it is, those first that are wanted for longest."""
        rows, now = self._ledger.restarting(), self._clock.monotonic()
        with self._lock:
            for gone in self._pauses.keys() - {row.id for row in rows}:
                del self._pauses[gone]
        for row in rows:
            pause = self._pauses.get(row.id)
            if row.state in SETTLED and (pause is None or pause.until <= now):
                self.workers.offer(row.id, partial(self._restart, row.id))

    def _restart(self, tenant: TenantId) -> None:
        with self._locks.tried(tenant) as free:
            row = self._ledger.tenant(tenant) if free else None
            if row is None or row.restart in ("", CRASH_LOOP) or row.state not in SETTLED:
                return  # a person claimed or released it since
            try:
                done = self._claim(row)
            except Exception as error:  # noqa: BLE001 - whatever it was, the tenant is still wanted
                self._failed(row, error)
            else:
                self._succeeded(row, done)
        self._observer.changed()

    def _claim(self, row: TenantRow) -> Claim:
        pool = row.pool or ""
        self._pools.check(pool)
        options = ClaimOptions(
            pool=pool, take_over=False, wait=0.0, image=self._image(row), trial=False, metadata=row.metadata
        )
        return self._trials.claim(row.id, options)

    def _image(self, row: TenantRow) -> str | None:
        """The image that it is held to; after the loss of a port also the one that it ran, while that is there."""
        if not row.image and row.proven and row.restart == Reason.PORT_LOST:
            with suppress(ImageMissing):
                return self._host.engine.image(row.proven).id
        return row.image or None

    def _succeeded(self, row: TenantRow, done: Claim) -> None:
        self._ledger.note(row.id, restarted=row.restart)
        log.info("claimed again", tenant=row.id, reason=row.restart, state=done.state)
        self._pools.observe(done.pool, done.source, sum(done.phases.values()) / 1e3)
        self._observer.record("claimed", tenant=row.id, pool=done.pool, source=done.source, generation=done.generation)
        self._observer.record("restarted", tenant=row.id, pool=done.pool, reason=row.restart, failures=row.failures)
        if row.restart == Reason.PORT_LOST:
            with self._lock:
                since = self._unreachable.pop(row.id, None)
            outage = None if since is None else round((self._clock.monotonic() - since) * 1e3)
            self._observer.record("port-repaired", tenant=row.id, pool=done.pool, port=done.port, outage_ms=outage)

    def _failed(self, row: TenantRow, error: Exception) -> None:
        before = self._pauses.get(row.id)
        attempts = before.attempts + 1 if before else 1
        failures = row.failures + isinstance(error, FAULTS)
        log.warning("not claimed again", tenant=row.id, reason=row.restart, error=str(error), attempts=attempts)
        if isinstance(error, TenantLocked | Fenced):  # its user is elsewhere now
            self._ledger.note(row.id, restart="", wanted=0, error=f"not claimed again: {error}")
        elif failures >= MOST_FAILURES:
            self.give_up(row, failures, str(error))
            return
        else:
            self._ledger.note(row.id, failures=failures, error=f"not claimed again yet: {error}")
            self.pause(row.id, attempts, str(error))
        if before is None or before.why != str(error):
            self._observer.record("restart-failed", tenant=row.id, pool=row.pool, reason=row.restart, why=str(error))

    def pause(self, tenant: TenantId, attempts: int, why: str) -> None:
        """Let a tenant wait before its next claim: longer after each of `attempts` ≥ 1 that failed."""
        seconds = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(attempts - 1, 30))
        with self._lock:
            self._pauses[tenant] = _Pause(self._clock.monotonic() + seconds, attempts, why)

    def give_up(self, row: TenantRow, failures: int, why: str) -> str:
        """Leave a tenant down until a person claims it; the error text of its row."""
        log.error("crash loop: it stays down until its next claim", tenant=row.id, failures=failures, why=why)
        told = f"crash loop: it failed {failures} times in a row and stays down until it is claimed; last: {why}"
        self._ledger.note(row.id, restart=CRASH_LOOP, failures=failures, error=told)
        self._observer.record(CRASH_LOOP, tenant=row.id, pool=row.pool, failures=failures, why=why)
        return told
