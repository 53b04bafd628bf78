"""Liveness: whether running workloads still answer. The daemon probes, since Podman's health checks need systemd.

A workload that fails `retries` probes in a row, after its start period, is unhealthy: its status shows that and the
reason, and an event is recorded. Nothing is stopped: a person, or a client that reads the status, decides. A port on
which nothing listens any more is repaired, whatever the workload's probe is (tenants/port_watch.py).
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import structlog

from claw_runtime.errors import ClawError
from claw_runtime.ports import Prober, TenantRow
from claw_runtime.spec.plan import Workload
from claw_runtime.tenancy import TenantId
from claw_runtime.tenants.drives.values import Values
from claw_runtime.tenants.host import Host
from claw_runtime.tenants.readiness import probe_of

log = structlog.get_logger(__name__)

AT_ONCE = 8
"""Probes that run at the same time: one that hangs must not delay the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulse:
    """The result of a tenant's last probes.

    Attributes:
        slot: The slot that was probed; a new slot resets the result.
        next_at: Monotonic seconds of the next probe.
        failures: Consecutive failures up to now.
        healthy: False after `retries` failures, until a probe succeeds.
        why: Why the last failed probe failed.
    """

    slot: str
    next_at: float
    failures: int = 0
    healthy: bool = True
    why: str = ""


class Liveness:
    """Probes of all active tenants of this host."""

    def __init__(self, host: Host, values: Values, prober: Prober) -> None:
        self._engine, self._ledger, self._pools, self._clock = host.engine, host.ledger, host.pools, host.clock
        self._observer = host.observer
        self._values = values
        self._prober = prober
        self._pulses: dict[TenantId, Pulse] = {}

    def of(self, tenant: TenantId) -> Pulse | None:
        """The tenant's last result; None when it was not probed since its claim, or since this daemon started."""
        return self._pulses.get(tenant)

    def probe_all(self) -> None:
        """Let the next look probe every tenant that runs: at a start of the daemon, their start periods are over."""
        now = self._clock.monotonic()
        for row in self._ledger.tenants("active"):
            if row.slot:
                self._pulses[row.id] = Pulse(slot=row.slot, next_at=now)

    def look(self) -> None:
        """Probe every tenant whose next probe is due, in parallel."""
        rows = {row.id: row for row in self._ledger.tenants("active") if row.slot}
        self._pulses = {tenant: pulse for tenant, pulse in self._pulses.items() if tenant in rows}
        now = self._clock.monotonic()
        due = [row for row in rows.values() if self._pulse(row, now).next_at <= now]
        if due:
            with ThreadPoolExecutor(min(AT_ONCE, len(due)), thread_name_prefix="probe") as pool:
                list(pool.map(self._probe, due))

    def _pulse(self, row: TenantRow, now: float) -> Pulse:
        """The tenant's pulse; a slot that is new is first probed after its start period or first interval."""
        pulse = self._pulses.get(row.id)
        if pulse is None or pulse.slot != row.slot:
            try:
                probe = self._pools.workload(row.pool or "").probe
                first = now + max(probe.start_period, probe.interval)
            except ClawError:
                first = now
            pulse = self._pulses[row.id] = Pulse(slot=row.slot or "", next_at=first)
        return pulse

    def _probe(self, row: TenantRow) -> None:
        try:
            workload = self._pools.workload(row.pool or "")
            missing = self._ask(row, workload)
        except (ClawError, OSError) as error:  # it may be ending: the next probe will tell
            log.debug("not probed", tenant=row.id, error=str(error))
            return
        before = self._pulses[row.id]
        failures = before.failures + 1 if missing else 0
        after = replace(
            before,
            next_at=self._clock.monotonic() + workload.probe.interval,
            failures=failures,
            healthy=failures < workload.probe.retries,
            why=missing or "",
        )
        self._pulses[row.id] = after
        if after.healthy != before.healthy:
            kind = "healthy" if after.healthy else "unhealthy"
            log.warning(kind, tenant=row.id, why=after.why, failures=after.failures)
            self._observer.record(kind, tenant=row.id, pool=row.pool, why=after.why)

    def _ask(self, row: TenantRow, workload: Workload) -> str | None:
        slot = self._ledger.slot(row.slot or "")
        if slot is None:
            return None
        bearer = self._values.of(row.id, workload).get(workload.ready_bearer or "") if workload.ready_bearer else None
        ask = probe_of(workload, slot, self._engine, self._prober, bearer, timeout=workload.probe.timeout)
        return ask() if ask else None
