"""Whether the published ports of running tenants still have their listener, and the repair of those that lost it.

Processes outside the container (rootlessport, slirp4netns or pasta) listen on a tenant's port. If they die, the program
runs on and nobody reaches it. Podman cannot start them again, so the tenant gets a new container with the same image:
its state is committed, and the daemon claims it again (tenants/restarts.py). A slow program still has its listener.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import structlog

from claw_runtime.concurrency import Workers
from claw_runtime.errors import ClawError
from claw_runtime.ports import Prober, SlotRow, TenantRow
from claw_runtime.telemetry.redaction import when_needed
from claw_runtime.tenancy import TenantId
from claw_runtime.tenants.drives.values import Values
from claw_runtime.tenants.hooks import run_hooks
from claw_runtime.tenants.host import Host, Occupancy
from claw_runtime.tenants.locks import Locks, alone
from claw_runtime.tenants.release import Releaser
from claw_runtime.tenants.restarts import FIRST_PAUSE, HEALTHY, LONGEST_PAUSE, Restarts

log = structlog.get_logger(__name__)

LOOKS = 2
"""Looks in a row at which a port must refuse connections until it counts as lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loss:
    """A port that refused at so many looks in a row, since `since` (monotonic seconds), of the tenant's `slot`."""

    slot: str
    since: float
    looks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Repair:
    """The last of so many repairs without ten quiet minutes between them; `at` in monotonic seconds."""

    at: float
    count: int


class PortWatch:
    """Looks after the published ports of all active tenants and waiting slots of this host."""

    def __init__(
        self,
        host: Host,
        *,
        releaser: Releaser,
        restarts: Restarts,
        values: Values,
        prober: Prober,
        locks: Locks,
    ) -> None:
        self._host = host
        self._engine, self._ledger, self._clock, self._observer = host.engine, host.ledger, host.clock, host.observer
        self._workers: Workers = host.workers
        self._releaser = releaser
        self._restarts = restarts
        self._values = values
        self._prober = prober
        self._locks = locks
        self._losses: dict[TenantId, _Loss] = {}
        self._waiting: dict[str, int] = {}
        self._repairs: dict[TenantId, _Repair] = {}

    def look(self) -> None:
        """Find ports that refuse connections. The workers repair tenants, and remove waiting slots, whose port did so
        at the last look too."""
        slots = {slot.id: slot for slot in self._ledger.slots() if slot.port}
        refusing = self._prober.refusing({slot.port or 0 for slot in slots.values()}) if slots else frozenset()
        lost = {slot.id: slot for slot in slots.values() if slot.port in refusing}
        self._look_at_waiting([slot for slot in lost.values() if slot.state == "ready"])
        rows = {row.id: row for row in self._ledger.tenants("active") if not row.trial and row.slot in lost}
        now, before = self._clock.monotonic(), self._losses
        self._losses = {row.id: _counted(before.get(row.id), row, now) for row in rows.values()}
        for tenant, loss in self._losses.items():
            if loss.looks >= LOOKS and self._may_repair(tenant, now):
                self._workers.offer(tenant, partial(self._repair, rows[tenant], loss))

    def _look_at_waiting(self, lost: Sequence[SlotRow]) -> None:
        """Replace slots that wait and lost their port: a claim would only find out when it takes one."""
        self._waiting = {slot.id: self._waiting.get(slot.id, 0) + 1 for slot in lost}
        for slot in lost:
            if self._waiting[slot.id] >= LOOKS:
                self._workers.offer(f"slot {slot.id}", partial(self._retire, slot))

    def _retire(self, slot: SlotRow) -> None:
        if self._host.pools.retire(slot):
            log.warning("slot removed: nothing listens on its port", slot=slot.id, pool=slot.pool, port=slot.port)
            self._observer.changed()

    def _may_repair(self, tenant: TenantId, now: float) -> bool:
        """Whether the last repair is long enough ago: longer after each one."""
        last = self._repairs.get(tenant)
        return last is None or now - last.at >= min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(last.count - 1, 30))

    def _repair(self, row: TenantRow, loss: _Loss) -> None:
        with alone(row.id), self._locks.tried(row.id) as free:
            current = self._ledger.tenant(row.id) if free else None
            if current is None or (current.state, current.slot, current.trial) != ("active", row.slot, 0):
                return
            here = self._host.look(current)
            port = here.slot.port if here.slot else None
            if port is None or not here.is_live or port not in self._prober.refusing({port}):
                return  # its program ended, which is noticed elsewhere, or the port answers again
            self._note_repair(row.id)
            log.warning("port lost: nothing listens on it, its tenant is claimed again", tenant=row.id, port=port)
            self._observer.record("port-lost", tenant=row.id, pool=row.pool, port=port)
            # The store must answer, or the tenant would be down until it does: its program may still do useful work.
            self._releaser.sync(here)
            self._hooks(here)
            self._restarts.port_lost(current, loss.since)
            self._releaser.settle(self._host.look(self._ledger.tenant(row.id) or current), rest="parked")
        self._observer.changed()

    def _note_repair(self, tenant: TenantId) -> None:
        now, last = self._clock.monotonic(), self._repairs.get(tenant)
        count = last.count + 1 if last and now - last.at < HEALTHY else 1
        self._repairs[tenant] = _Repair(at=now, count=count)

    def _hooks(self, here: Occupancy) -> None:
        """The hooks of a release; a failure does not keep the tenant from its repair."""
        row, workload = here.row, here.workload
        try:
            run_hooks(
                self._engine,
                here.container.id if here.container else "",
                workload.hooks.pre_release,
                tenant=row.id,
                phase="pre_release",
                clock=self._clock,
                redact=when_needed(lambda: self._values.secrets_of(row.id, workload)),
            )
        except ClawError as error:
            log.warning("hook failed, the port is repaired all the same", tenant=row.id, error=str(error))


def _counted(before: _Loss | None, row: TenantRow, now: float) -> _Loss:
    """The loss after one more look at which the port refused; a new slot begins anew."""
    if before is None or before.slot != row.slot:
        return _Loss(slot=row.slot or "", since=now, looks=1)
    return _Loss(slot=before.slot, since=before.since, looks=before.looks + 1)
