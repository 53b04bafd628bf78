"""One tenant's way to another image, and back: seal a generation, try the image on it, watch it, accept or reject.

Each step is written to the journal before it is done. Image and state go back together: what the new image writes is on
trial until it is accepted, so that going back is dropping it. A tenant that was up is brought up again in every case.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from claw_runtime.errors import ClawError, NotClaimed, UpgradeFailed
from claw_runtime.logs import mask
from claw_runtime.ports import MoveRow, MoveState, Prober, TenantRow, UpgradeRow, UpgradeStore
from claw_runtime.tenancy import TenantId
from claw_runtime.tenants.tenants import Host, Occupancy, Tenants

log = structlog.get_logger(__name__)

ROOM = 60.0
"""Seconds that a tenant on its way waits for a slot: others may have taken its place."""

TICK = 1.0
"""Seconds between two looks at a tenant that is watched."""

LOOKS, LOOK_PAUSE = 3, 0.5
"""Probes, and seconds between them, before a tenant that was watched counts as not ready."""

PORT_PATIENCE = 3.0
"""Seconds in which the ports of an ended container must come free."""

INTERRUPTED = "the daemon ended during the upgrade"
"""Why a tenant returns whose move a dead daemon left unfinished."""

MIDDLE: tuple[MoveState, ...] = ("sealing", "trying", "soaking", "returning")
"""States of a move at which its tenant may be down, or on trial."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """Ways of all tenants of this host."""

    host: Host
    tenants: Tenants
    store: UpgradeStore
    prober: Prober

    # --- forward ---

    def forward(self, upgrade: UpgradeRow, tenant: TenantId, go_on: Callable[[], bool]) -> None:
        """Move a tenant; afterwards its move is `done`, `left` or `returned`, or `soaking` if the upgrade is to stop.

        Raises:
            ClawError: It failed, and the tenant could not be brought up again either; its move stays `returning`.
        """
        with self.host.fence.fenced(tenant):  # until it runs again: its clients would claim it in between
            try:
                tried = self._seal(upgrade, tenant) and self._try(upgrade, tenant)
            except ClawError as error:
                self.back(upgrade, tenant, str(error), port=error.facts.get("port"))
                return
        if not tried:
            return
        try:
            self.watch(upgrade, tenant, go_on)
        except ClawError as error:
            self.back(upgrade, tenant, str(error), port=error.facts.get("port"))

    def _seal(self, upgrade: UpgradeRow, tenant: TenantId) -> bool:
        """Commit the tenant's state and end its container; False when there is nothing to move."""
        here = self._look(tenant)
        row, found = here.row, here.container
        if row.pool != upgrade.pool or found is None or not here.is_live:
            self._note(upgrade, tenant, state="left")
            return False
        if found.image_id == upgrade.image and not row.trial:
            self._note(upgrade, tenant, state="done")
            return False
        self._note(
            upgrade,
            tenant,
            state="sealing",
            image=found.image_id,
            ports=[found.host_port] if found.host_port else [],
            down_at=self.host.clock.now(),
            generation=row.base,
        )
        # Held to the new image from now on: a claim by its user, who may be quicker, tries that one too.
        self.host.ledger.note(tenant, image=upgrade.image)
        try:
            self.tenants.release(tenant, affinity=False)
        except NotClaimed:
            self.host.ledger.note(tenant, image="")
            self._note(upgrade, tenant, state="left")
            return False
        return True

    def _try(self, upgrade: UpgradeRow, tenant: TenantId) -> bool:
        """Start the new image on the state; False when the tenant's user was quicker, and it works."""
        generation = self._row(tenant).base
        self._note(upgrade, tenant, state="trying", generation=generation)
        claim = self.tenants.claim(tenant, upgrade.pool, image=upgrade.image, trial=True, wait=ROOM)
        move, found = self._move(upgrade, tenant), self._look(tenant).container
        if found is None or found.image_id != upgrade.image:
            raise UpgradeFailed(
                "its claim returned a container of another image", why=claim.fell_back or "the new image failed"
            )
        ports = [*move.ports, *([claim.port] if claim.port else [])]
        self._note(upgrade, tenant, state="soaking", outage=self._outage(move), ports=ports)
        if self._row(tenant).trial:
            return True
        self._done(upgrade, tenant)
        return False

    def watch(self, upgrade: UpgradeRow, tenant: TenantId, go_on: Callable[[], bool]) -> None:
        """Accept the new image if the tenant is still ready after the soak.

        Raises:
            UpgradeFailed: It is not.
        """
        until = self.host.clock.monotonic() + upgrade.soak
        while (left := until - self.host.clock.monotonic()) > 0:
            if not go_on():
                return
            if not self._on_trial(upgrade, tenant):
                break
            self.host.clock.sleep(min(TICK, left))
        if self._on_trial(upgrade, tenant):
            self._probe(tenant)
            self.tenants.accept(tenant)
        if self._row(tenant).proven != upgrade.image:
            row = self._row(tenant)
            raise UpgradeFailed(
                "it did not stay ready", why=row.error or "it was released, and its writes were dropped"
            )
        self._done(upgrade, tenant)

    def _on_trial(self, upgrade: UpgradeRow, tenant: TenantId) -> bool:
        """False when its user has released it meanwhile. Raises `UpgradeFailed` when its container ended."""
        here = self._look(tenant)
        if here.row.state != "active" or not here.row.trial:
            return False
        if not self._runs(upgrade, here):
            raise UpgradeFailed("its container ended during the soak", why=self.tenants.missing(tenant) or "")
        return True

    def _probe(self, tenant: TenantId) -> None:
        missing = None
        for _ in range(LOOKS):
            missing = self.tenants.missing(tenant)
            if missing is None:
                return
            self.host.clock.sleep(LOOK_PAUSE)
        raise UpgradeFailed("it did not stay ready", why=missing or "")

    def _done(self, upgrade: UpgradeRow, tenant: TenantId) -> None:
        self._note(upgrade, tenant, state="done", error="")
        move = self._move(upgrade, tenant)
        told = {"image": upgrade.reference, "generation": move.generation, "outage_ms": round(move.outage)}
        log.info("upgraded", tenant=tenant, pool=upgrade.pool, **told)
        self.host.observer.record("upgraded", tenant=tenant, pool=upgrade.pool, **told)

    # --- back ---

    def back(
        self, upgrade: UpgradeRow, tenant: TenantId, why: str, *, port: int | None = None, then: MoveState = "returned"
    ) -> None:
        """Bring the tenant up with the image and the state from before.

        Args:
            why: What went wrong.
            port: Of the container that failed.
            then: What the move becomes.

        Raises:
            ClawError: It could not; the same call may be made again.
        """
        move, row = self._move(upgrade, tenant), self._row(tenant)
        if row.proven == upgrade.image and not row.trial and move.image != upgrade.image:
            self._done(upgrade, tenant)  # its state is the new image's by now
            return
        ports = [*move.ports, *([port] if port else [])]
        self._note(upgrade, tenant, state="returning", error=mask(why), ports=ports)
        with self.host.fence.fenced(tenant):
            self.tenants.reject(tenant, why)
            self.host.ledger.note(tenant, image="")
            claim = self.tenants.claim(tenant, upgrade.pool, image=move.image or None, wait=ROOM)
        outage = 0.0 if claim.already else self._outage(move)
        if held := self._held(ports):
            log.error("ports are still held", tenant=tenant, ports=held)
            why += f"; port {', '.join(map(str, held))} is still held by a process outside claw's containers"
        self._note(upgrade, tenant, state=then, outage=outage, error=mask(why) if then == "returned" else "")
        log.warning(
            "tenant is back on its earlier image",
            tenant=tenant,
            pool=upgrade.pool,
            why=mask(why),
            outage_ms=round(outage),
        )
        self.host.observer.record(
            "upgrade-returned", tenant=tenant, pool=upgrade.pool, why=mask(why), outage_ms=round(outage)
        )

    def _held(self, ports: Sequence[int]) -> list[int]:
        """Those of the ports that neither are free nor belong to a container of ours."""
        until = self.host.clock.monotonic() + PORT_PATIENCE
        while True:
            ours = {slot.port for slot in self.host.ledger.slots()}
            held = [port for port in dict.fromkeys(ports) if port not in ours and not self.prober.is_free(port)]
            if not held or self.host.clock.monotonic() >= until:
                return held
            self.host.clock.sleep(0.1)

    def bring_home(self, upgrade: UpgradeRow, tenant: TenantId, go_on: Callable[[], bool], *, why: str = "") -> None:
        """End a move that was interrupted: watch a tenant that is on trial to the end, else bring it back.

        Args:
            why: Bring it back in any case.

        Raises:
            ClawError: As `back`.
        """
        move, here = self._move(upgrade, tenant), self._look(tenant)
        on_trial = move.state in ("trying", "soaking") and here.row.trial
        if not why and on_trial and self._runs(upgrade, here):
            if move.state == "trying":
                port = here.container.host_port if here.container else None
                ports = [*move.ports, *([port] if port else [])]
                self._note(upgrade, tenant, state="soaking", outage=self._outage(move), ports=ports)
            try:
                self.watch(upgrade, tenant, go_on)
            except ClawError as error:
                self.back(upgrade, tenant, str(error))
            return
        # An end of the daemon is no fault of the image, also when the first attempt to return had to be repeated.
        reason = why or ("" if move.error == INTERRUPTED else move.error)
        self.back(upgrade, tenant, reason or INTERRUPTED, then="returned" if reason else "waiting")

    # --- what is there ---

    def _note(self, upgrade: UpgradeRow, tenant: TenantId, **columns: object) -> None:
        self.store.note_move(upgrade.pool, tenant, **columns)

    def _move(self, upgrade: UpgradeRow, tenant: TenantId) -> MoveRow:
        return self.store.move(upgrade.pool, tenant)

    def _row(self, tenant: TenantId) -> TenantRow:
        return self.tenants.find(tenant)[0]

    def _look(self, tenant: TenantId) -> Occupancy:
        return self.tenants.occupancy(tenant)

    def _runs(self, upgrade: UpgradeRow, here: Occupancy) -> bool:
        """Whether the tenant runs the new image."""
        return here.is_live and here.container is not None and here.container.image_id == upgrade.image

    def _outage(self, move: MoveRow) -> float:
        return max(0.0, self.host.clock.now() - move.down_at) * 1e3
