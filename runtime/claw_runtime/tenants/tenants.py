"""Claim and release: how a tenant gets its container and state, and how it gives them back.

Claim: slot → lease → tree (parked, kept, or restored and verified) → values → start → ready → hooks.
Release: hooks → stop (or pause) → commit (snapshots, packs, manifest, HEAD) → only then is anything local removed.

Each step is written to the ledger before it is done (tenants/lifecycle.py). tenants/release.py decides what happens to
the tree at the end, also after a crash.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import repeat

import structlog

from claw_runtime.errors import Conflict, NotClaimed, PoolExhausted
from claw_runtime.pools.wait_queue import QueuedClaim
from claw_runtime.ports import CRASH_LOOP, Container, SlotRow, TenantRow
from claw_runtime.state.history.garbage import GRACE_PERIOD, Collection
from claw_runtime.state.repository import CommitResult
from claw_runtime.telemetry.redaction import when_needed
from claw_runtime.tenancy import TenantId
from claw_runtime.tenants.claim import Claim, Claimer, ClaimOptions
from claw_runtime.tenants.drives.values import Values
from claw_runtime.tenants.hooks import run_hooks
from claw_runtime.tenants.host import Host, Occupancy
from claw_runtime.tenants.lifecycle import OVER, Remedy, remedy
from claw_runtime.tenants.locks import Locks
from claw_runtime.tenants.release import Releaser, Rest
from claw_runtime.tenants.sleep.standby import Standby
from claw_runtime.tenants.trials import Trials

__all__ = ["Claim", "Host", "Occupancy", "Release", "Tenants"]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What a release did.

    Attributes:
        generation: None when the release dropped the tree without a sync, or an earlier attempt committed it.
        affinity: What stays on this host for the tenant's next claim: `frozen`, `parked` or nothing.
    """

    tenant: TenantId
    generation: CommitResult | None
    affinity: Rest | None = None


class Tenants:
    """Tenants of this host: the interface through which other packages claim, release, sync and inspect them."""

    def __init__(
        self,
        host: Host,
        *,
        releaser: Releaser,
        standby: Standby,
        claimer: Claimer,
        trials: Trials,
        values: Values,
        locks: Locks,
    ) -> None:
        self._host = host
        self._engine, self._ledger, self._pools, self._clock = host.engine, host.ledger, host.pools, host.clock
        self._observer = host.observer
        self._releaser = releaser
        self._standby = standby
        self._claimer = claimer
        self._trials = trials
        self._values = values
        self._locks = locks

    # --- claim ---

    def claim(
        self,
        tenant: TenantId,
        pool: str,
        *,
        take_over: bool = False,
        wait: float = 0.0,
        image: str | None = None,
        trial: bool = False,
        metadata: str = "",
        gone: Callable[[], bool] = lambda: False,
        first: QueuedClaim | None = None,
    ) -> Claim:
        """Give the tenant a container with its state; the same container again while it runs.

        Args:
            take_over: Take the tenant from another runtime that holds it; the next commit of that runtime is refused.
            wait: Seconds to wait for a slot when the pool is full.
            image: Reference or id of an image to run instead of the pool's.
            trial: Drop what the tenant wrote, instead of committing it, if it does not become ready, if its container
                ends before `accept`, or at `reject`. A claim with an image that its state is not known to suit is on
                trial automatically until it is ready (tenants/trials.py).
            metadata: JSON to remember with the tenant.
            gone: Returns whether the caller no longer waits: a claim without a slot then ends.
            first: The claim's place in the pool's line, if it has one and is first.

        Raises:
            UnknownPool, PoolExhausted, ImageMissing, EngineFailed: There is no slot.
            TenantLocked, StoreUnavailable, RestoreFailed, DiskFull: There is no verified state; nothing was started.
            Conflict: The tenant runs in another pool.
            NotReady, HookFailed: The workload did not become ready; what it wrote was committed (not after a trial),
                its slot destroyed.
        """
        self._pools.check(pool)
        with self._locks.held(tenant):
            if gone():  # while another request for the same tenant was under way
                raise PoolExhausted(f"the claim of {tenant!r} was cancelled", why="the client closed the connection")
            row = self._ledger.tenant(tenant)
            options = ClaimOptions(
                pool=pool,
                take_over=take_over,
                wait=wait,
                image=image or (row.image if row else "") or None,
                trial=trial,
                hold=trial,
                metadata=metadata,
                gone=gone,
                first=first,
            )
            if row and (claim := self._still_running(row)):
                if claim.pool != pool:
                    raise Conflict(
                        f"tenant {tenant!r} runs in pool {claim.pool!r}",
                        why=f"a tenant has one container, so it cannot be claimed from pool {pool!r} as well",
                        hint=f"claw-runtime release {tenant}, then claim it again with --pool {pool}",
                    )
                return claim
            row = self._ledger.tenant(tenant)
            if row and row.failures:
                self._ledger.note(tenant, failures=0)  # a person's claim is a new beginning
            try:
                thawed = self._claimer.thaw(row, options) if row and row.state == "frozen" else None
                done = thawed or self._trials.claim(tenant, options)
            finally:
                self._observer.changed()
        self._pools.observe(pool, done.source, sum(done.phases.values()) / 1e3)
        self._observer.record("claimed", tenant=tenant, pool=pool, source=done.source, generation=done.generation)
        log.info("claimed", tenant=tenant, pool=pool, source=done.source, state=done.state, generation=done.generation)
        return done

    def _still_running(self, row: TenantRow) -> Claim | None:
        """The tenant's running container; if there is none, finish what an earlier claim or release left."""
        if row.step in OVER:  # an error ended its removal: a partial tree must not pass for the whole
            self._releaser.clear(row)
        elif row.state == "active":
            here = self._host.look(row)
            if running := self._running(here):
                self._ledger.note(row.id, seen=self._clock.now())
                return self._active(here, running)
            if row.trial:
                self._releaser.undo(row.id)
            else:
                self._releaser.settle(here)  # its program ended: its tree is newer than the store
        elif row.state == "kept" and self._releaser.is_needless(row):
            self._releaser.clear(row)  # moved away by the operator, or in the store after all
        elif row.state in ("claiming", "releasing"):  # an error ends the claim: the old slot may hold the only copy
            here = self._host.look(row)
            self._releaser.finish(here, remedy(row, here.state))
        return None

    # --- release ---

    def release(self, tenant: TenantId, *, sync: bool = True, affinity: bool = True) -> Release:
        """Save the tenant's state and give its container back; of one without a container, give back the lease.

        Meanwhile its clients' requests are held, and those under way may end first.

        Args:
            sync: False drops what changed since the last commit.
            affinity: False leaves nothing on this host for the tenant's next claim.

        Raises:
            NotClaimed: The tenant has no container and no kept tree, and this runtime does not hold its lease.
            HookFailed: A pre_release hook failed; the tenant keeps running.
            HeadRefused: The store may have lost the tenant's state; what is here stays.
            UploadFailed, Fenced: The state could not be committed; the tree is kept on this host.
        """
        with self._locks.held(tenant):
            row = self._ledger.tenant(tenant)
            if row and self._asks_for_undo(self._host.look(row)):
                self._releaser.undo(tenant)
                row = self._ledger.tenant(tenant)
            if row is None or row.state == "cold":
                waited = row is not None and self._unwanted(row)
                if self._releaser.give_back(tenant) or waited:  # of a ledger that was lost, or of a killed operation
                    return Release(tenant=tenant, generation=None)
                raise self._not_claimed(tenant)
            here = self._host.look(row)
            fence = self._host.fence.fenced(tenant) if row.state == "active" else nullcontext()
            try:
                with fence:
                    if not sync:
                        self._unwanted(row)
                        self._releaser.drop(here)
                        return Release(tenant=tenant, generation=None)
                    if row.state in ("frozen", "parked"):
                        return self._already_released(row, affinity=affinity)
                    return self._release(here, affinity=affinity)
            finally:
                self._observer.changed()

    def _release(self, here: Occupancy, *, affinity: bool) -> Release:
        row = here.row
        if row.state == "active" and (running := self._running(here)):
            workload = here.workload
            run_hooks(
                self._engine,
                running.id,
                workload.hooks.pre_release,
                tenant=row.id,
                phase="pre_release",
                clock=self._clock,
                redact=when_needed(lambda: self._values.secrets_of(row.id, workload)),
            )
            self._passed(row, running)  # it was used and ended regularly: what it wrote is kept
            if affinity:
                with self._standby.room(row.id, workload) as rest:
                    return self._settle(here, rest, affinity=True)
        return self._settle(here, None, affinity=affinity)

    def _settle(self, here: Occupancy, rest: Rest | None, *, affinity: bool) -> Release:
        row = here.row
        self._unwanted(row)
        generation, rest = self._releaser.settle(here, rest=rest)
        if rest and not affinity:  # an earlier attempt left it at rest
            self._releaser.end_rest(self._ledger.tenant(row.id) or row)
            rest = None
        self._observer.record(
            "released", tenant=row.id, pool=row.pool, generation=generation.number if generation else None, rest=rest
        )
        return Release(tenant=row.id, generation=generation, affinity=rest)

    def _asks_for_undo(self, here: Occupancy) -> bool:
        """Whether its tree may be half restored, or was on trial in a container that ended."""
        state = here.state if here.row.trial else "running"
        return remedy(here.row, state) is Remedy.UNDO

    def _already_released(self, row: TenantRow, *, affinity: bool) -> Release:
        """A second release changes nothing, unless its caller wants nothing to stay on this host."""
        waited = self._unwanted(row)
        if affinity and not waited:
            raise self._not_claimed(row.id)
        if not affinity:
            self._releaser.end_rest(row)
        return Release(tenant=row.id, generation=None)

    def _unwanted(self, row: TenantRow) -> bool:
        """Note that the tenant is no longer wanted; whether the daemon was about to claim it or had given up."""
        if row.wanted or row.restart:  # durable: a power failure must not undo a release that was answered
            self._ledger.note(row.id, durable=True, wanted=0, restart="", failures=0)
        return bool(row.restart)

    def sync(self, tenant: TenantId) -> CommitResult:
        """Commit the state of a running tenant.

        Raises:
            NotClaimed: The tenant is not running.
            Conflict: The tenant is on trial: its writes may have to be dropped.
            UploadFailed, Fenced, HeadRefused: The state could not be committed; the tenant keeps running.
        """
        with self._locks.held(tenant):
            row, generation = self._sync(tenant)
        self._observer.record("synced", tenant=tenant, pool=row.pool, generation=generation.number)
        return generation

    def sync_unless_busy(self, tenant: TenantId) -> CommitResult | None:
        """`sync`, without a wait for another operation on the tenant: None while there is one. It is no event."""
        with self._locks.tried(tenant) as ours:
            return self._sync(tenant)[1] if ours else None

    def _sync(self, tenant: TenantId) -> tuple[TenantRow, CommitResult]:
        row = self._ledger.tenant(tenant)
        if row is None or row.state != "active" or row.step in OVER:
            raise self._not_claimed(tenant)
        if row.trial:
            raise Conflict(
                f"tenant {tenant!r} cannot be synced now",
                why="it is on trial with another image, so its writes may have to be dropped",
                hint=f"retry when the trial has ended: claw-runtime upgrade {row.pool}",
                retry_after=10,
            )
        return row, self._releaser.sync(self._host.look(row))

    def collect(
        self, tenant: TenantId, *, grace: float = GRACE_PERIOD, dry_run: bool = False, parts: int | None = None
    ) -> Collection | None:
        """Remove from the store what none of the tenant's kept generations needs.

        The tenant can be claimed, committed and released at any time: its lock is held only while some objects are
        removed, and is free between two such parts.

        None when the tenant cannot be collected now: it is being claimed or released, its newest state is not in the
        store yet, or another operation holds its lock.

        Args:
            parts: How many parts to do at most; None does all.

        Raises:
            TenantLocked, Fenced: Another runtime has the tenant, and runs its own collections.
            RestoreFailed, VerifyMismatch: A kept generation cannot be read; nothing was removed.
            StoreUnavailable, StoreDenied, BucketMissing: The store failed.
        """
        if not _can_be_collected(self._ledger.tenant(tenant)) or (survey := self._releaser.survey(tenant)) is None:
            return None
        done: Collection | None = None
        for _ in range(parts) if parts is not None else repeat(None):
            with self._locks.tried(tenant) as ours:
                row = self._ledger.tenant(tenant) if ours else None
                part = None
                if row and _can_be_collected(row):
                    part = self._releaser.collect(row, survey, grace=grace, dry_run=dry_run)
            if part is None:
                break
            done = part.after(done)
            if not part.left:
                break
        return done

    @contextmanager
    def still(self, tenant: TenantId) -> Iterator[Callable[[int], None]]:
        """Keep a tenant from running on this host while the caller moves its HEAD and reports the new generation.

        What is at rest here would be obsolete: it is ended first, and what a frozen program still writes is committed.

        Raises:
            Conflict: The tenant runs here or is about to, or its newest tree is kept here.
            StoreUnavailable, UploadFailed: What is at rest here could not be ended.
        """
        with self._locks.held(tenant):
            row = self._ledger.tenant(tenant)
            if row and row.restart not in ("", CRASH_LOOP):
                raise _moving(row)
            if row and row.step in OVER:
                self._releaser.clear(row)
            elif row and row.state in ("frozen", "parked"):
                self._releaser.end_rest(row)
            row = self._ledger.tenant(tenant)
            if row and row.state != "cold":
                raise _moving(row)
            yield lambda generation: self._ledger.note(tenant, base=generation, base_sha256="")
        self._observer.changed()

    @contextmanager
    def exclusive(self, tenant: TenantId) -> Iterator[Callable[[str], None]]:
        """Keep other operations on this host from a tenant while the caller rebuilds its HEAD.

        Gives a function that turns a tree at rest here into a kept tree, for the reason in its argument. A running
        tenant keeps running: its next commit takes a lease of the new HEAD, if its tree grew from that generation.
        """
        with self._locks.held(tenant):
            row = self._ledger.tenant(tenant)
            yield lambda why: self._releaser.keep_rest(row, why) if row else None
            self._releaser.forget_right(tenant)
        self._observer.changed()

    # --- trials ---

    def accept(self, tenant: TenantId) -> bool:
        """End a trial with success: what the tenant has written is kept. False when it is not on trial."""
        with self._locks.held(tenant):
            row = self._ledger.tenant(tenant)
            running = self._running(self._host.look(row)) if row and row.trial and row.state == "active" else None
            return bool(row and running and self._passed(row, running))

    def _passed(self, row: TenantRow, running: Container) -> bool:
        if row.trial:  # durable: a power failure must not drop what was written since
            self._ledger.note(row.id, durable=True, trial=0, proven=running.image_id)
        return bool(row.trial)

    def reject(self, tenant: TenantId, why: str) -> bool:
        """End a trial with failure: the tenant is cold, with its state from before. False when it is not on trial."""
        with self._locks.held(tenant):
            row = self._ledger.tenant(tenant)
            if row is None or not row.trial:
                return False
            self._releaser.undo(tenant, error=why)
        self._observer.record("rejected", tenant=tenant, pool=row.pool, why=why)
        self._observer.changed()
        return True

    # --- what runs here ---

    def _running(self, here: Occupancy) -> Container | None:
        if here.container and here.state == "paused":  # an operator paused it: a claim runs it again
            self._engine.unpause(here.container.id)
        return here.container if here.is_live else None

    def _active(self, here: Occupancy, found: Container) -> Claim:
        row = here.row
        return Claim(
            tenant=row.id,
            pool=row.pool or "",
            container=found.id,
            port=found.host_port,
            source="active",
            state=row.source,
            image=here.image.digest,
            generation=row.base,
            already=True,
            token_file=self._values.token_file(row.id, here.workload),
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
        return row, self._host.look(row).slot

    def occupancy(self, tenant: TenantId) -> Occupancy:
        """The tenant's container on this host, and what it runs.

        Raises:
            NotClaimed: It was never claimed here.
        """
        return self._host.look(self.find(tenant)[0])

    def enter(self, tenant: TenantId) -> str:
        """The id of its running container, for a command that begins in it at once; raises as `Holds.enter`."""
        return self._releaser.holds.enter(self.occupancy(tenant))

    def missing(self, tenant: TenantId) -> str | None:
        """None while the tenant's program runs and is ready; else what is missing, or how the program ended.

        Raises:
            NotClaimed: It was never claimed here.
        """
        return self._claimer.missing(self.occupancy(tenant))

    def touch(self, tenant: TenantId) -> None:
        """Note that the tenant is active now."""
        self._ledger.note(tenant, seen=self._clock.now())

    def _not_claimed(self, tenant: TenantId) -> NotClaimed:
        return NotClaimed(
            f"tenant {tenant!r} is not claimed", why="it holds no container here", hint=f"claw-runtime claim {tenant}"
        )


def _can_be_collected(row: TenantRow | None) -> bool:
    return row is not None and row.state not in ("claiming", "releasing", "kept") and not row.trial


def _moving(row: TenantRow) -> Conflict:
    coming = "it is about to be claimed again by the daemon"
    why = {
        "active": "it runs here, so the change would miss what it wrote since its last commit",
        "kept": "this host keeps a tree of it that is not in the store yet",
        "cold": coming,
        "parked": coming,
    }
    return Conflict(
        f"the state of tenant {row.id!r} cannot be changed now",
        why=why.get(row.state, f"it is {row.state}"),
        hint=f"release it first: claw-runtime release {row.id}",
    )
