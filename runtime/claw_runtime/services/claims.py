"""Claim and release: the way a tenant gets its container and its memory, and gives them back.

Claim: lease → slot → tree (restored and verified, or the kept one) → values → start → ready.
Release: stop → commit (snapshots, packs, manifest, HEAD) → only then is anything local destroyed.

Each step is written to the ledger before it is done. What a crash leaves behind is decided by one question, whether
the workload may have run: before `start` the claim is undone, from `start` on the tree is newer than the store and is
committed like a release. A tree that cannot be committed is kept, never wiped, and tried again.
"""

import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from claw_runtime.clock import Stopwatch
from claw_runtime.errors import ClawError, DiskFull, Fenced, NotClaimed, RestoreFailed, TenantLocked, UploadFailed
from claw_runtime.fsutil import no_room
from claw_runtime.ports import Clock, Container, Engine, Ledger, Prober, Secrets, SlotRow, TenantRow
from claw_runtime.services.health import wait_ready
from claw_runtime.services.leases import Lease, UploadRight
from claw_runtime.services.pools import Pools
from claw_runtime.services.syncing import Generation, Syncing
from claw_runtime.services.trees import Trees
from claw_runtime.services.values import Values
from claw_runtime.spec.plan import Workload
from claw_runtime.tenancy import Layout, TenantId

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A tenant's running container.

    Attributes:
        source: `warm` (a slot made ahead), `cold` (made on the spot) or `active` (it already ran).
        image: Digest of the image that it runs.
        generation: The generation that its tree grew from; 0 for a tenant without state.
        phases: Milliseconds of each step, in order.
        token_file: The 0600 file that holds the generated secret of the workload, if it has one.
    """

    tenant: TenantId
    pool: str
    container: str
    port: int | None
    source: str
    image: str
    generation: int
    already: bool
    phases: dict[str, float] = field(default_factory=dict)
    token_file: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What a release did; `generation` is None when it was told not to sync and dropped the tree."""

    tenant: TenantId
    generation: Generation | None


class Claims:
    """Tenants of this host."""

    def __init__(
        self,
        *,
        engine: Engine,
        ledger: Ledger,
        pools: Pools,
        syncing: Syncing,
        secrets: Secrets,
        prober: Prober,
        layout: Layout,
        clock: Clock,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._engine = engine
        self._ledger = ledger
        self._pools = pools
        self._syncing = syncing
        self._values = Values(secrets, layout)
        self._prober = prober
        self._layout = layout
        self._trees = Trees(layout)
        self._clock = clock
        self._changed = changed
        self._rights: dict[TenantId, UploadRight] = {}
        self._locks: defaultdict[TenantId, threading.Lock] = defaultdict(threading.Lock)

    # --- claim ---

    def claim(self, tenant: TenantId, pool: str, *, take_over: bool = False) -> Claim:
        """Give the tenant a container with its state; the same container again while it runs.

        Args:
            take_over: Take the tenant from another runtime that holds it; that one's next commit is then refused.

        Raises:
            UnknownPool, PoolExhausted, ImageMissing, EngineFailed: There is no slot.
            TenantLocked, StoreUnavailable, RestoreFailed, DiskFull: There is no verified state; nothing was started.
            NotReady: The workload did not become ready; what it wrote was committed, and its slot destroyed.
        """
        self._pools.check(pool)
        with self._locks[tenant]:
            row = self._ledger.tenant(tenant)
            if row and row.state == "active":
                if running := self._running(row):
                    return self._active(row, running)
                self._settle(row)  # it ended by itself: its tree is newer than the store
            elif row and row.state == "kept" and self._is_needless(row):
                self._clear(row)  # moved away by the operator, or in the store after all
            elif row and row.state in ("claiming", "releasing"):
                self._finish(row)  # an error ends the claim here: the old slot may hold the only copy
            try:
                return self._claim(tenant, pool, take_over=take_over)
            finally:
                self._changed()

    def _claim(self, tenant: TenantId, pool: str, *, take_over: bool) -> Claim:
        timer = Stopwatch(self._clock.monotonic)
        self._ledger.begin_claim(tenant, pool, self._clock.now())
        try:
            with timer("slot"):
                taken = self._pools.take(pool, tenant)
                slot, workload = taken.slot, taken.recipe.workload
            with timer("lease"):
                lease = self._syncing.acquire(tenant, take_over=take_over)
                self._ledger.note(tenant, step="lease", epoch=lease.epoch)
            with timer("restore"):
                right = self._restore(tenant, lease, slot)
            with timer("values"):
                values = self._values.of(tenant, workload)
                self._hand_over(tenant, workload, slot, values)
        except Exception as error:
            self._undo(tenant)
            if no_room(error):
                raise DiskFull(
                    f"there is no room to claim {tenant!r}",
                    why=f"{self._layout.home}: {error}",
                    hint="free some, or move the data directory to a larger disk (CLAW_HOME); nothing was started",
                ) from error
            raise
        row = self._announce_start(tenant)
        try:
            with timer("start"):
                self._engine.start(slot.container or "")
            with timer("ready"):
                hint = f"its log files are in {self._layout.logs(tenant)}"
                wait_ready(
                    workload,
                    slot.port,
                    self._prober,
                    self._clock,
                    bearer=values.get(workload.ready_bearer or ""),
                    ended=lambda: self._how_it_ended(slot),
                    hint=hint,
                )
        except Exception:
            log.warning("claim failed after the start; keeping what the workload wrote", tenant=tenant)
            self._finish_quietly(row)
            raise
        self._ledger.become(tenant, "active", self._clock.now())
        log.info(
            "claimed",
            tenant=tenant,
            pool=pool,
            source=taken.source,
            generation=right.base_generation,
            image=taken.recipe.image,
        )
        return Claim(
            tenant=tenant,
            pool=pool,
            container=slot.container or "",
            port=slot.port,
            source=taken.source,
            image=taken.recipe.image,
            generation=right.base_generation,
            already=False,
            phases=timer.spent,
            token_file=self._values.token_file(tenant, workload),
        )

    def _restore(self, tenant: TenantId, lease: Lease, slot: SlotRow) -> UploadRight:
        """Put the tenant's verified tree into the slot; from a kept tree when there is one, else from the store."""
        row = self._ledger.tenant(tenant)
        if row and self._trees.kept(tenant):
            right = self._adopt(lease, row.base)
            self._ledger.note(tenant, step="tree", source="kept")
            self._trees.kept_into_slot(tenant, slot.id)
        else:
            right = self._syncing.restore(lease, self._trees.staging(tenant))
            self._ledger.note(tenant, step="tree", source="restored", base=right.base_generation)
            self._trees.staging_into_slot(tenant, slot.id)
        self._rights[tenant] = right
        return right

    def _hand_over(self, tenant: TenantId, workload: Workload, slot: SlotRow, values: Mapping[str, str]) -> None:
        """Logs and values into the slot."""
        self._trees.logs_into_slot(tenant, slot.id)
        self._values.write(slot.id, workload, values)

    def _announce_start(self, tenant: TenantId) -> TenantRow:
        self._ledger.note(tenant, step="start")
        row = self._ledger.tenant(tenant)
        assert row is not None  # noqa: S101 - begin_claim wrote it
        return row

    def _undo(self, tenant: TenantId) -> None:
        """Take back a claim whose workload has not run: the store is as new as the tree, or newer."""
        row = self._ledger.tenant(tenant)
        if row is None:
            return
        if row.slot:
            if row.source == "kept":  # the only copy goes back first
                self._trees.keep(tenant, row.slot)
            self._trees.save_logs(tenant, row.slot)
            self._pools.destroy(row.slot)
        self._trees.drop_staging(tenant)
        self._rights.pop(tenant, None)
        kept = self._trees.kept(tenant)
        if not kept and row.step not in ("begin", "slot"):  # while the newest tree is here, nobody else may go on
            self._give_back(tenant, row.epoch)
        self._ledger.become(tenant, "kept" if kept else "cold", self._clock.now(), error=row.error)

    def _adopt(self, lease: Lease, base: int) -> UploadRight:
        """The right for a tree that is here. When others went on from another generation the tenant is theirs."""
        try:
            return self._syncing.adopt(lease, base)
        except ClawError:
            self._give_back(lease.tenant, lease.epoch)
            raise

    def _give_back(self, tenant: TenantId, epoch: int) -> None:
        try:
            self._syncing.give_back(tenant, epoch)
        except ClawError as error:  # a lease that stays ours is only re-taken at the next claim
            log.warning("lease not given back", tenant=tenant, error=str(error))

    # --- release ---

    def release(self, tenant: TenantId, *, sync: bool = True) -> Release:
        """Stop the tenant's container, commit its state, destroy its slot.

        Args:
            sync: False drops what changed since the last commit.

        Raises:
            NotClaimed: It holds no container and no kept tree.
            UploadFailed, Fenced: The state could not be committed; the tree is kept on this host.
        """
        with self._locks[tenant]:
            row = self._ledger.tenant(tenant)
            if row and _has_not_run(row):  # its tree may be half restored, and is older than the store
                self._undo(tenant)
                row = self._ledger.tenant(tenant)
            if row is None or row.state == "cold":
                raise NotClaimed(
                    f"tenant {tenant!r} is not claimed",
                    why="it holds no container here",
                    hint=f"claw-runtime claim {tenant}",
                )
            try:
                if not sync:
                    return self._drop(row)
                return Release(tenant=tenant, generation=self._settle(row))
            finally:
                self._changed()

    def _drop(self, row: TenantRow) -> Release:
        if row.state == "kept":
            self._clear(row)
            self._give_back(row.id, row.epoch)
            return Release(tenant=row.id, generation=None)
        self._stop(row)
        self._ledger.note(row.id, source="dropped")
        self._ledger.become(row.id, "claiming", self._clock.now())  # a crash from here on is undone, not committed
        self._undo(row.id)
        return Release(tenant=row.id, generation=None)

    def _settle(self, row: TenantRow) -> Generation | None:
        """Commit whatever tree the tenant has on this host, then destroy its slot; repeatable after any crash."""
        if row.step == "clear":  # it was committed; what is left of the tree must not be committed again
            self._clear(row)
            return None
        if row.state not in ("kept", "releasing"):  # else its step still tells whether a commit may have landed
            self._ledger.become(row.id, "releasing", self._clock.now())
        self._stop(row)
        tree = self._trees.whole(row)
        if tree is None:
            self._clear(row)
            self._give_back(row.id, row.epoch)
            return None
        try:
            generation = self._commit(row, tree)
        except ClawError as error:
            self._keep_tree(row, error)
            raise self._upload_failed(row.id, error) from error
        self._clear(row)
        log.info("released", tenant=row.id, generation=generation.number if generation else row.base)
        return generation

    def _commit(self, row: TenantRow, tree: Path) -> Generation | None:
        """None when an earlier try's commit had already landed."""
        right = self._rights.get(row.id)
        if right is None:  # the daemon was restarted since the claim, or an earlier try failed
            if self._landed(row):
                return None
            lease = self._syncing.acquire(row.id)
            # An epoch beside the step `commit` says that HEAD is ours: this one has committed nothing yet.
            self._ledger.note(row.id, step="lease", epoch=lease.epoch)
            right = self._adopt(lease, row.base)
        workload, image = self._workload_of(row)
        self._ledger.note(row.id, step="commit", epoch=right.epoch)
        return self._syncing.commit(
            right,
            tree,
            exclude=workload.exclude,
            image_digest=self._engine.image(image).digest,
            application=f"{workload.promise.application} {workload.promise.version}" if workload.promise else "",
            release=True,
        )

    def _is_needless(self, row: TenantRow) -> bool:
        """Whether a kept tree is gone, was being removed, or turns out to be in the store."""
        return row.step == "clear" or not self._trees.kept(row.id) or self._landed(row)

    def _landed(self, row: TenantRow) -> bool:
        """Whether a commit whose answer we never saw is in the store: nobody but us writes under our epoch."""
        if row.step != "commit":
            return False
        head = self._syncing.head(row.id)
        return head is not None and head.epoch == row.epoch and head.generation == row.base + 1

    def _workload_of(self, row: TenantRow) -> tuple[Workload, str]:
        """What the tenant's container runs, and its image id: the tag may have moved to another image since."""
        slot = self._ledger.slot(row.slot) if row.slot else None
        found = self._engine.inspect(slot.container) if slot and slot.container else None
        workload = self._pools.workload(row.pool or "", found.image_id if found else None)
        return workload, found.image_id if found else workload.image

    def _clear(self, row: TenantRow) -> None:
        """Everything local is in the store now, or nobody wants it."""
        self._ledger.note(row.id, step="clear")
        self._rights.pop(row.id, None)
        if row.slot:
            self._trees.save_logs(row.id, row.slot)
            self._pools.destroy(row.slot)
        self._trees.drop(row.id)
        self._ledger.become(row.id, "cold", self._clock.now())

    def _keep_tree(self, row: TenantRow, error: ClawError) -> None:
        """The tree is the only copy of what is new: move it out of the slot, so that the slot can go."""
        self._rights.pop(row.id, None)
        if row.slot:
            self._trees.save_logs(row.id, row.slot)
            self._trees.keep(row.id, row.slot)
            self._pools.destroy(row.slot)
        step = (self._ledger.tenant(row.id) or row).step
        since = row.since if row.state == "kept" else self._clock.now()
        self._ledger.become(row.id, "kept", since, step=step, error=f"{error.slug}: {error}")

    def _upload_failed(self, tenant: TenantId, error: ClawError) -> ClawError:
        kept = self._layout.kept_tree(tenant)
        if isinstance(error, Fenced | RestoreFailed | TenantLocked):
            return Fenced(
                f"the state of {tenant!r} was not committed",
                why=str(error),
                hint=f"another runtime went on from an older generation; this host's tree is kept in {kept}: compare, "
                "then move it away",
            )
        return UploadFailed(
            f"the state of {tenant!r} was not committed; nothing is lost",
            why=str(error),
            hint=f"the tree is kept in {kept}; the daemon tries again, and so does: claw-runtime release {tenant}",
        )

    def _stop(self, row: TenantRow) -> None:
        slot = self._ledger.slot(row.slot) if row.slot else None
        if slot and slot.container:
            workload, _ = self._workload_of(row)
            self._engine.stop(slot.container, workload.stop_timeout)

    # --- what is there ---

    def _running(self, row: TenantRow) -> Container | None:
        slot = self._ledger.slot(row.slot) if row.slot else None
        found = self._engine.inspect(slot.container) if slot and slot.container else None
        return found if found and found.state in ("running", "paused") else None

    def _active(self, row: TenantRow, found: Container) -> Claim:
        return Claim(
            tenant=row.id,
            pool=row.pool or "",
            container=found.id,
            port=found.host_port,
            source="active",
            image=self._engine.image(found.image_id).digest,
            generation=row.base,
            already=True,
            token_file=self._values.token_file(row.id, self._workload_of(row)[0]),
        )

    def find(self, tenant: TenantId) -> tuple[TenantRow, SlotRow | None]:
        """The tenant's row and its slot's, without asking the engine.

        Raises:
            NotClaimed: It was never claimed here.
        """
        row = self._ledger.tenant(tenant)
        if row is None:
            raise NotClaimed(
                f"tenant {tenant!r} is not known here", why="it was never claimed", hint=f"claw-runtime claim {tenant}"
            )
        return row, self._ledger.slot(row.slot) if row.slot else None

    def _how_it_ended(self, slot: SlotRow) -> str | None:
        found = self._engine.inspect(slot.container or "")
        if found is None:
            return "its container is gone"
        if found.state in ("running", "paused", "initialized", "created"):
            return None
        tail = self._engine.logs(found.id, tail=5).decode("utf-8", "replace").strip()
        return f"exit code {found.exit_code}" + (f"; its last words: {tail}" if tail else "")

    # --- after a crash, and in the background ---

    def recover(self) -> None:
        """After a start: finish or undo every claim and release that the last daemon left half done."""
        for row in self._ledger.tenants():
            with self._locks[row.id]:
                half_cleared = row.state == "kept" and row.step == "clear"
                ended = row.state == "active" and not self._running(row)
                if row.state in ("claiming", "releasing") or half_cleared or ended:
                    log.info("recovering", tenant=row.id, state=row.state, step=row.step)
                    self._finish_quietly(row)
                elif row.state == "active":
                    log.info("adopted", tenant=row.id)

    def _finish(self, row: TenantRow) -> None:
        """Undo or settle; a tree that the store did not take is kept, which is an end too.

        Raises:
            ClawError, OSError: Engine or disk failed; row and slot are as they were, and the same call may be repeated.
        """
        if _has_not_run(row):
            self._undo(row.id)
            return
        try:
            self._settle(row)
        except (UploadFailed, Fenced) as error:
            log.warning("tree kept", tenant=row.id, error=str(error), hint=error.hint)

    def _finish_quietly(self, row: TenantRow) -> None:
        """Where nobody waits for the answer, and where one tenant's trouble must not be another's."""
        try:
            self._finish(row)
        except (ClawError, OSError) as error:
            log.warning("tenant left as it was; it is tried again", tenant=row.id, error=str(error))

    def retry_kept(self) -> None:
        """Try again what failed: trees whose upload failed, and claims and releases that the engine or disk stopped.

        Not trees that another runtime has overtaken, and no tenant that is being worked on.
        """
        for tenant in [row.id for row in self._ledger.tenants() if _may_be_tried(row)]:
            lock = self._locks[tenant]
            if lock.acquire(blocking=False):
                try:
                    row = self._ledger.tenant(tenant)  # it may have been claimed since, and be running
                    if row and _may_be_tried(row):
                        self._finish_quietly(row)
                finally:
                    lock.release()


def _has_not_run(row: TenantRow) -> bool:
    """Whether it is a claim that was left before its workload was started."""
    return row.state == "claiming" and row.step != "start"


def _may_be_tried(row: TenantRow) -> bool:
    if row.state == "kept":
        return not row.error.startswith((Fenced.slug, RestoreFailed.slug))
    return row.state in ("claiming", "releasing")
