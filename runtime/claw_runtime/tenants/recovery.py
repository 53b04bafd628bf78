"""Recovery after a crash, and retries in the background: of a daemon, a container or a store that failed.

It needs no lock file and no timeout: each row shows which remedy it needs (tenants/lifecycle.py). A remedy may stop a
program and commit a large tree, so the workers of the host do it, each for one tenant: no tenant waits for another.
"""

import threading
from dataclasses import dataclass, replace
from functools import partial

import structlog

from claw_runtime.errors import Fenced, RestoreFailed
from claw_runtime.ports import LIVE, TenantRow
from claw_runtime.telemetry.redaction import when_needed
from claw_runtime.tenancy import TenantId
from claw_runtime.tenants.drives.values import Values
from claw_runtime.tenants.host import Host, Occupancy
from claw_runtime.tenants.lifecycle import Remedy, remedy
from claw_runtime.tenants.locks import Locks, alone
from claw_runtime.tenants.readiness import how_it_ended
from claw_runtime.tenants.release import Releaser
from claw_runtime.tenants.restarts import Reason, Restarts
from claw_runtime.tenants.sleep.standby import Standby
from claw_runtime.tenants.trees import Trees

log = structlog.get_logger(__name__)


FRESH = 5.0
"""Seconds for which a container that was seen to have ended is not looked at again."""


@dataclass(frozen=True, slots=True)
class _Ended:
    """A container that ended by itself: what its tenant had here, why it ended, and when that was seen."""

    here: Occupancy
    why: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryProgress:
    """How many of the tenants that the last daemon left here are recovered since this one started."""

    recovered: int
    tenants: int


class Recovery:
    """Background work for all tenants of this host; it never waits for a tenant's lock."""

    def __init__(
        self, host: Host, *, releaser: Releaser, standby: Standby, restarts: Restarts, values: Values, locks: Locks
    ) -> None:
        self._host = host
        self._engine, self._ledger, self._pools, self._clock = host.engine, host.ledger, host.pools, host.clock
        self._observer, self.workers = host.observer, host.workers
        self._releaser = releaser
        self._standby = standby
        self._restarts = restarts
        self._values = values
        self._locks = locks
        self._trees = Trees(host.layout)
        self._not_before: dict[TenantId, float] = {}
        self._ended: dict[TenantId, _Ended] = {}
        self._progress = RecoveryProgress(recovered=0, tenants=0)
        self._pending: set[TenantId] = set()
        self._counting = threading.Lock()

    def recover(self) -> None:
        """After a start: finish or undo every claim and release that the last daemon left unfinished.

        The workers do it, so a claim may come first: it finds the same row and applies the same remedy. Only trials are
        over when this returns: their writes are dropped, which is quick, and upgrades continue from there.
        """
        rows = self._ledger.tenants("claiming", "active", "releasing", "kept", "frozen", "parked")
        with self._counting:
            self._progress = RecoveryProgress(recovered=0, tenants=len(rows))
            self._pending = {row.id for row in rows}
        for row in sorted(rows, key=lambda row: (not row.restart, row.wanted)):  # what is claimed again comes first
            if row.trial:
                self._recover_one(row)
            elif not self.workers.offer(row.id, partial(self._recover_one, row)):
                self._recovered(row.id)
        for tenant in self._trees.staged():
            self.workers.offer(tenant, partial(self._drop_staging, tenant))
        self._return_leases()

    def _return_leases(self) -> None:
        for tenant in self._releaser.unused_leases():
            self.workers.offer(f"lease of {tenant}", partial(self._return_lease, tenant))

    def _return_lease(self, tenant: TenantId) -> None:
        """Give back an unused lease: this host's heartbeat would keep it from all others for ever."""
        with self._locks.tried(tenant) as free, alone(tenant):
            if free and tenant in self._releaser.unused_leases() and self._releaser.give_back(tenant):
                log.info("unused lease given back", tenant=tenant)

    def progress(self) -> RecoveryProgress:
        """How far the recovery has come. A tenant that is claimed meanwhile counts once its turn has come."""
        with self._counting:
            return replace(self._progress, recovered=self._progress.tenants - len(self._pending))

    def _recovered(self, tenant: TenantId) -> None:
        with self._counting:
            self._pending.discard(tenant)

    def _recover_one(self, row: TenantRow) -> None:
        try:
            self._recover(row)
        finally:
            self._recovered(row.id)

    def _drop_staging(self, tenant: TenantId) -> None:
        """Remove the tree that an import or restore was making when its process ended: no row records it."""
        with self._locks.tried(tenant) as free, alone(tenant):
            row = self._ledger.tenant(tenant) if free else None
            if free and (row is None or row.state == "cold"):
                self._trees.drop_staging(tenant)

    def _recover(self, row: TenantRow) -> None:
        with self._locks.tried(row.id) as free, alone(row.id):
            if not free or self._ledger.tenant(row.id) != row:
                return  # it was claimed since
            here = self._host.look(row)
            wanted = remedy(row, here.state)
            if wanted in (Remedy.UNDO, Remedy.SETTLE, Remedy.CLEAR, Remedy.RESUME):
                log.info("recovering", tenant=row.id, state=row.state, step=row.step, remedy=wanted.name)
                why = self._why(here)
                if row.state == "active" and wanted is Remedy.SETTLE:
                    here, why = self._followed(here, why)
                self._releaser.finish_quietly(here, error=why)
            elif row.state == "active":
                if row.restart:
                    self._ledger.note(row.id, restart="")
                log.info("adopted", tenant=row.id)

    def _followed(self, here: Occupancy, why: str) -> tuple[Occupancy, str]:
        """What the tenant has here and why it ended, once its row shows what follows (`Restarts.ended`)."""
        row, why = self._restarts.ended(here.row, here.container, why)
        return (here if row is here.row else self._host.look(row)), why

    def _why(self, here: Occupancy) -> str:
        """The error text for the row of a container that ended by itself."""
        row = here.row
        if row.state != "active":
            return row.error
        if row.restart == Reason.REBOOT:
            return "ended: the machine was restarted"
        try:
            workload = here.workload
            redact = when_needed(lambda: self._values.secrets_of(row.id, workload))
            return redact(f"ended: {how_it_ended(self._engine, here.container)}")
        except Exception as error:  # noqa: BLE001 - the remedy does not depend on the last output
            log.warning("a container's last output cannot be read", tenant=row.id, error=str(error))
            return "ended: its last output cannot be read"

    def end_pauses(self, timeout: float) -> None:
        """Wait for so many seconds until no container is paused for a commit, and pause none any more."""
        self._releaser.holds.end(timeout)

    def supervise(self) -> None:
        """Notice containers that ended by themselves, and tell why, now; the workers commit or remove their trees.

        A container that is still paused for a commit which is over is resumed.
        """
        rows = self._ledger.tenants("active", "frozen")
        slots = {row.id: row.slot for row in rows}
        self._ended = {one: ended for one, ended in self._ended.items() if slots.get(one) == ended.here.row.slot}
        if not rows:
            return
        states = {found.id: found.state for found in self._engine.list(self._pools.owner_labels)}
        for row in rows:
            slot = self._host.look(row).slot
            state = states.get(slot.container or "") if slot else None
            if state in LIVE:
                if remedy(row, state) is Remedy.RESUME:
                    self.workers.offer(row.id, partial(self._recover, row))
            elif ended := self._notice(row):
                self.workers.offer(row.id, partial(self._bury, ended))

    def _notice(self, row: TenantRow) -> "_Ended | None":
        """Note and tell once that a tenant's container ended; None when it has not, or an operation works on it."""
        if found := self._ended.get(row.id):
            return found
        with alone(row.id), self._locks.tried(row.id) as free:
            here = self._same(row) if free else None
            if here is None or here.is_live:
                return None
            why = self._why(here)
            log.warning("container ended by itself", tenant=row.id, state=row.state, why=why)
            oom = {"oom": True} if here.container and here.container.oom_killed else {}
            self._observer.record("ended", tenant=row.id, pool=row.pool, why=why, **oom)
            if row.state == "active":
                here, why = self._followed(here, why)
                self._ledger.note(row.id, error=why)
            found = self._ended[row.id] = _Ended(here, why, self._clock.monotonic())
        return found

    def _bury(self, ended: "_Ended") -> None:
        row = ended.here.row
        with alone(row.id), self._locks.tried(row.id) as free:
            here = self._same(row) if free else None
            if here is None:
                return
            unchanged = replace(here.row, error=row.error) == row  # a commit at its interval may have come between
            if unchanged and self._clock.monotonic() - ended.at < FRESH:
                here = ended.here
            elif here.is_live:  # somebody has started it again
                self._ended.pop(row.id, None)
                self._ledger.note(row.id, error="")
                return
            self._releaser.finish_quietly(here, error=ended.why)
            self._observer.changed()

    def _same(self, row: TenantRow) -> Occupancy | None:
        """What a tenant has here, unless an operation has changed that since its row was read."""
        current = self._ledger.tenant(row.id)
        if current is None or (current.state, current.slot) != (row.state, row.slot):
            return None
        return self._host.look(current)

    def expire(self) -> None:
        """End tenants at rest for longer than their pool's affinity timeout, that are too many, or whose slot a claim
        needs."""
        self._standby.expire()
        self._standby.trim()
        self._standby.relieve()

    def retry(self) -> None:
        """Retry what failed: trees whose upload failed, leases that could not be given back, and claims and releases
        that the engine or disk stopped.

        Trees of tenants that another runtime continued are left out, and tenants that an operation works on.
        """
        rows, now = self._ledger.tenants("kept", "claiming", "releasing"), self._clock.monotonic()
        for gone in self._not_before.keys() - {row.id for row in rows}:
            self._not_before.pop(gone, None)
        for row in rows:
            if self._not_before.get(row.id, now) <= now:
                self.workers.offer(row.id, partial(self._retry, row.id))
        self._return_leases()

    def _retry(self, tenant: TenantId) -> bool:
        with self._locks.tried(tenant) as free:
            current = self._ledger.tenant(tenant) if free else None  # it may have been claimed since
            if current is None or not _may_be_tried(current):
                return False
            began = self._clock.monotonic()
            self._releaser.finish_quietly(self._host.look(current))
            ended = self._clock.monotonic()
            self._not_before[tenant] = 2 * ended - began  # as long as it took: others have their turn meanwhile
        return True


def _may_be_tried(row: TenantRow) -> bool:
    if row.state == "kept":
        return not row.error.startswith((Fenced.slug, RestoreFailed.slug))
    return row.state in ("claiming", "releasing")
