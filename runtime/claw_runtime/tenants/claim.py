"""One claim, from the slot to the answer: slot → lease → tree → values → start → ready → hooks.

The claim uses a slot of the pool or the tenant's own frozen container. The caller holds the tenant's lock.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import structlog

from claw_runtime.clock import Stopwatch
from claw_runtime.errors import ClawError, DiskFull, EngineFailed, NotClaimed, NotReady, PoolExhausted
from claw_runtime.formats.head import Head
from claw_runtime.fsutil import no_room
from claw_runtime.logs import mask
from claw_runtime.pools.pools import Allocation
from claw_runtime.pools.wait_queue import QueuedClaim
from claw_runtime.ports import Prober, SlotRow, TenantRow
from claw_runtime.spec.plan import Workload
from claw_runtime.state.lease.leases import Lease, UploadRight
from claw_runtime.state.repository import Repository
from claw_runtime.state.rules.selection import Selection, selection_of
from claw_runtime.telemetry.redaction import when_needed
from claw_runtime.tenancy import TenantId
from claw_runtime.tenants.drives.values import Values
from claw_runtime.tenants.hooks import run_hooks
from claw_runtime.tenants.host import Host, Occupancy
from claw_runtime.tenants.lifecycle import Step, TreeSource
from claw_runtime.tenants.readiness import how_it_ended, probe_of, wait_ready
from claw_runtime.tenants.release import Releaser, mounted
from claw_runtime.tenants.seeds import plant
from claw_runtime.tenants.sleep.standby import Standby
from claw_runtime.tenants.trees import Trees

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A tenant's running container.

    Attributes:
        source: How warm its container was: `frozen` (its own), `prewarmed`, `interpreter`, `entrypoint` or `created`
            (made ahead), `cold` (made for this claim), `active` (it already ran).
        state: Where its tree came from: `frozen`, `tree` (parked here), `kept`, `restored` or `empty`.
        image: Digest of the image that the container runs.
        generation: The generation that its tree grew from; 0 for a tenant without state.
        phases: Milliseconds of each step, in order.
        token_file: The 0600 file that holds the generated secret of the workload, if it has one.
        fell_back: Why it runs its previous image instead of the requested one; empty when it runs the requested one.
    """

    tenant: TenantId
    pool: str
    container: str
    port: int | None
    source: str
    state: str
    image: str
    generation: int
    already: bool
    phases: dict[str, float] = field(default_factory=dict)
    token_file: Path | None = None
    fell_back: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimOptions:
    """What a caller asks of a claim.

    Attributes:
        image: Reference or id of an image to run instead of the pool's.
        trial: If the tenant does not become ready, what it wrote is dropped.
        hold: The tenant stays on trial until `Tenants.accept` or `Tenants.reject`.
        gone: Returns whether the caller no longer waits.
        first: The claim's place in the pool's line, which is first.
        suits: Id of the image that the tenant's state suits; a claim with another image is on trial. Empty when
            unknown.
        fresh: Make a slot although others wait.
    """

    pool: str
    take_over: bool
    wait: float
    image: str | None
    trial: bool
    metadata: str
    hold: bool = False
    suits: str = ""
    fresh: bool = False
    gone: Callable[[], bool] = lambda: False
    first: QueuedClaim | None = None


class SlotLost(Exception):
    """A slot that waited could not be started, so no tenant has used it; the tenant is as before its claim.

    Args:
        error: Why it could not be started.
    """

    def __init__(self, error: ClawError) -> None:
        super().__init__(str(error))
        self.error = error


class Claimer:
    """Starts tenants of this host: new claims, and frozen containers that run again."""

    def __init__(
        self,
        host: Host,
        repository: Repository,
        *,
        releaser: Releaser,
        standby: Standby,
        values: Values,
        prober: Prober,
    ) -> None:
        self._host = host
        self._engine, self._ledger, self._pools, self._clock = host.engine, host.ledger, host.pools, host.clock
        self._repository = repository
        self._releaser = releaser
        self._standby = standby
        self._values = values
        self._prober = prober
        self._trees = Trees(host.layout)

    def claim(self, tenant: TenantId, options: ClaimOptions) -> Claim:
        """Claim a new slot for the tenant and start it.

        A slot that waited and cannot be started is replaced, once by the next one, then by a new one. So the claim
        fails only when the pool cannot make one.
        """
        timer = Stopwatch(self._clock.monotonic)
        for _ in range(2):
            try:
                return self._claim(tenant, options, timer)
            except SlotLost as lost:
                log.warning("slot replaced: it could not be started", tenant=tenant, why=str(lost))
        try:
            return self._claim(tenant, replace(options, fresh=True), timer)
        except SlotLost as lost:
            raise lost.error from lost

    def _claim(self, tenant: TenantId, options: ClaimOptions, timer: Stopwatch) -> Claim:
        row = self._ledger.tenant(tenant)
        if options.trial and row and row.state == "kept":
            self._releaser.settle(self._host.look(row))  # what a trial writes is dropped, and this is the only copy
        self._ledger.begin_claim(tenant, options.pool, self._clock.now(), trial=options.trial)
        try:
            if options.metadata:
                self._ledger.note(tenant, metadata=options.metadata)
            with timer("slot"):
                taken = self._take(tenant, options)
                slot, workload = taken.slot, taken.template.workload
                if options.suits not in ("", taken.template.image_id):
                    self._ledger.note(tenant, trial=1)
            with timer("lease"):
                lease = self._lease(tenant, options)
            with timer("restore"):
                state, right = self._restore(tenant, lease, slot, workload)
                self._releaser.put(right)
            with timer("values"):
                values = self._values.of(tenant, workload)
                self._hand_over(tenant, workload, slot, values)
        except Exception as error:
            self._releaser.undo(tenant)
            if no_room(error):
                raise DiskFull(
                    f"there is no room to claim {tenant!r}",
                    why=f"{self._host.layout.home}: {error}",
                    hint="free space, or move the data directory to a larger disk (CLAW_HOME); nothing was started",
                ) from error
            raise
        self._start(tenant, taken, values, timer, hold=options.hold)
        return Claim(
            tenant=tenant,
            pool=options.pool,
            container=slot.container or "",
            port=slot.port,
            source=taken.source,
            state=state,
            image=taken.template.image,
            generation=right.base_generation,
            already=False,
            phases=timer.spent,
            token_file=self._values.token_file(tenant, workload),
        )

    def _take(self, tenant: TenantId, options: ClaimOptions) -> Allocation:
        """A slot. Tenants at rest give up theirs before a claim waits or is refused."""
        try:
            return self._pools.take(options.pool, tenant, image=options.image, fresh=options.fresh, first=options.first)
        except PoolExhausted:
            evicted = self._standby.evict(options.pool)
            if not evicted and not options.wait:
                raise
        return self._pools.take(
            options.pool,
            tenant,
            wait=options.wait,
            image=options.image,
            fresh=options.fresh,
            gone=options.gone,
            first=options.first,
        )

    def _lease(self, tenant: TenantId, options: ClaimOptions) -> Lease:
        lease = self._repository.leases.acquire(tenant, take_over=options.take_over)
        self._ledger.note(tenant, step=Step.LEASE, epoch=lease.epoch)
        return lease

    def _restore(
        self, tenant: TenantId, lease: Lease, slot: SlotRow, workload: Workload
    ) -> tuple[TreeSource, UploadRight]:
        """Put the tenant's tree into the slot: kept, parked if it is HEAD's, else restored and verified."""
        row = self._ledger.tenant(tenant)
        shared, selection = mounted(workload), selection_of(workload)
        if row and self._trees.kept(tenant):
            right = self._releaser.adopt(lease, row.base, row.base_sha256)
            # Durable: without this note after a power failure, the slot with the only copy would look unowned.
            self._ledger.note(tenant, durable=True, step=Step.TREE, source=TreeSource.KEPT)
            self._trees.kept_into_slot(tenant, slot.id, shared)
            source = TreeSource.KEPT
        elif row and _is_current(row, lease.head) and self._trees.parked(tenant) and _is_whole(row, selection):
            right = self._releaser.adopt(lease, row.base, row.base_sha256)
            source = TreeSource.TREE
            self._ledger.note(tenant, step=Step.TREE, source=source)
            self._trees.parked_into_slot(tenant, slot.id, shared)
        else:
            donor, staging = self._trees.donor(tenant), self._trees.staging(tenant)
            right = self._brought(tenant, lease, staging, selection, donor)
            if right.head.manifest is None:
                for seed in workload.seeds:
                    plant(seed, staging)
            source = TreeSource.RESTORED if right.head.manifest else TreeSource.EMPTY
            self._ledger.note(
                tenant,
                step=Step.TREE,
                source=source,
                base=right.base_generation,
                base_sha256=right.head.sha256 or "",
                withheld=selection.withheld,
            )
            self._trees.staging_into_slot(tenant, slot.id, shared)
        return source, right

    def _brought(
        self, tenant: TenantId, lease: Lease, staging: Path, selection: Selection, donor: Path | None
    ) -> UploadRight:
        """Restore, reusing files of a tree that was parked here; retry without it if the disk cannot hold both."""
        try:
            return self._repository.restorer.restore(lease, staging, selection, donor)
        except DiskFull:
            if donor is None:
                raise
        finally:
            self._trees.drop_donor(tenant)
        return self._repository.restorer.restore(lease, staging, selection)

    def _hand_over(self, tenant: TenantId, workload: Workload, slot: SlotRow, values: Mapping[str, str]) -> None:
        """Put logs and values into the slot."""
        self._trees.logs_into_slot(tenant, slot.id)
        self._values.write(slot.id, workload, values)

    def _announce_start(self, tenant: TenantId) -> TenantRow:
        """Note durably, against a power failure, that the tree may be newer than the store from here on."""
        self._ledger.note(tenant, durable=True, step=Step.START)
        row = self._ledger.tenant(tenant)
        assert row is not None  # noqa: S101 - begin_claim wrote it
        return row

    def _start(
        self,
        tenant: TenantId,
        taken: Allocation,
        values: Mapping[str, str],
        timer: Stopwatch,
        *,
        hold: bool,
    ) -> None:
        slot, template = taken.slot, taken.template
        row = self._announce_start(tenant)
        try:
            with timer("start"):
                self._start_slot(row, taken)
            self._until_ready(tenant, slot, template.workload, values, timer)
        except SlotLost:
            raise
        except Exception as error:
            log.warning("claim failed after the start", tenant=tenant, kept=not row.trial)
            if isinstance(error, ClawError):
                self._tell(error, slot)
                error.facts.setdefault("trial", bool(row.trial))
            self._releaser.finish_quietly(self._host.look(self._ledger.tenant(tenant) or row))
            raise
        proven = None if hold else template.image_id
        self._ledger.become(tenant, "active", self._clock.now(), trial=hold, proven=proven)

    def _start_slot(self, row: TenantRow, taken: Allocation) -> None:
        try:
            self._check_port(taken)
            self._pools.start(taken.slot)
        except (EngineFailed, NotClaimed) as error:
            if taken.source != "cold" and self._releaser.take_back(self._host.look(row)):
                raise SlotLost(error) from error
            raise

    def _lost_port(self, slot: SlotRow) -> bool:
        """Whether nothing listens on the slot's port any more: its program would never be reached."""
        return slot.port is not None and bool(self._prober.refusing({slot.port}))

    def _check_port(self, taken: Allocation) -> None:
        """Raises `EngineFailed` for a slot that waited and lost its port."""
        if taken.source != "cold" and self._lost_port(taken.slot):
            raise EngineFailed(
                f"port {taken.slot.port} of a waiting slot is lost", why="the process that listened on it has ended"
            )

    def _tell(self, error: ClawError, slot: SlotRow) -> None:
        """Add to the error what is gone with the container: its port and the program's last output."""
        error.facts.setdefault("port", slot.port)
        if isinstance(error, NotReady) and "last output" not in error.why:
            with suppress(ClawError):
                said = self._engine.logs(slot.container or "", tail=5).decode("utf-8", "replace").strip()
                error.why += f"; last output: {mask(said)}" if said else "; it printed nothing"

    def _until_ready(
        self, tenant: TenantId, slot: SlotRow, workload: Workload, values: Mapping[str, str], timer: Stopwatch
    ) -> None:
        with timer("ready"):
            wait_ready(
                workload,
                slot,
                self._engine,
                self._prober,
                self._clock,
                bearer=values.get(workload.ready_bearer or ""),
                ended=lambda: how_it_ended(self._engine, self._engine.inspect(slot.container or "")),
                hint=f"its log files are in {self._host.layout.logs(tenant)}",
            )
        if workload.hooks.post_claim:
            with timer("hooks"):
                run_hooks(
                    self._engine,
                    slot.container or "",
                    workload.hooks.post_claim,
                    tenant=tenant,
                    phase="post_claim",
                    clock=self._clock,
                    redact=when_needed(lambda: self._values.secrets_of(tenant, workload)),
                )

    def missing(self, here: Occupancy) -> str | None:
        """None while an active tenant's program runs and is ready; else what is missing, or how it ended."""
        slot = here.slot
        if slot is None:
            return "its container is gone"
        if how := how_it_ended(self._engine, here.container):
            return how
        values = self._values.of(here.row.id, here.workload)
        bearer = values.get(here.workload.ready_bearer or "")
        ask = probe_of(here.workload, slot, self._engine, self._prober, bearer)
        return ask() if ask else None

    # --- claim of the tenant's own frozen container ---

    def thaw(self, row: TenantRow, options: ClaimOptions) -> Claim | None:
        """Run the tenant's own container again if its generation is still HEAD's; else destroy it and return None."""
        tenant, here = row.id, self._host.look(row)
        slot, template = here.slot, self._pools.template(options.pool, options.image)
        timer, workload = Stopwatch(self._clock.monotonic), template.workload
        values = self._values.of(tenant, workload)
        same = slot is not None and (row.pool, slot.template) == (options.pool, template.digest)
        same = same and row.withheld == selection_of(workload).withheld  # else it lacks what a claim would restore now
        told = slot is not None and self._values.are_told(slot.id, workload, values)
        lost = slot is not None and self._lost_port(slot)
        if slot is None or here.container is None or not same or not told or lost or options.trial:
            self._releaser.end_rest(row)
            return None
        self._pools.refuse_drained(options.pool)
        self._ledger.begin_claim(tenant, options.pool, self._clock.now(), trial=options.trial)
        self._ledger.note(tenant, step=Step.SLOT, source=TreeSource.FROZEN, metadata=options.metadata or row.metadata)
        try:
            with timer("lease"):
                lease = self._lease(tenant, options)
            is_current = _is_current(row, lease.head)
            right = self._releaser.adopt(lease, row.base, row.base_sha256) if is_current else None
        except Exception:
            self._releaser.undo(tenant)
            raise
        if right is None:  # another runtime continued: the frozen container is obsolete
            self._releaser.clear(row)
            return None
        self._releaser.put(right)
        started = self._announce_start(tenant)
        try:
            with timer("start"):
                self._engine.unpause(slot.container or "")
            self._until_ready(tenant, slot, workload, values, timer)
        except ClawError as error:  # a new container may work; what this one wrote is committed first
            log.warning("frozen container did not become ready", tenant=tenant, error=str(error))
            self._releaser.settle(self._host.look(started))
            return None
        self._ledger.become(tenant, "active", self._clock.now(), proven=template.image_id)
        return Claim(
            tenant=tenant,
            pool=options.pool,
            container=slot.container or "",
            port=slot.port,
            source="frozen",
            state=TreeSource.FROZEN,
            image=template.image,
            generation=right.base_generation,
            already=False,
            phases=timer.spent,
            token_file=self._values.token_file(tenant, workload),
        )


def _is_current(row: TenantRow, head: Head) -> bool:
    """Whether what rests here grew from HEAD's generation, not only from one of the same number."""
    return head.is_at(row.base, row.base_sha256)


def _is_whole(row: TenantRow, selection: Selection) -> bool:
    """Whether a parked tree equals what a restore would make: no rule withheld or keeps any file."""
    return selection.keeps_none and not row.withheld
