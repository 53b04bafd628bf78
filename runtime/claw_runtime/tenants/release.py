"""What happens to a tenant's tree at the end of a claim: undone, committed, kept, left at rest or removed.

Nothing local is destroyed before the store has it. A tree whose upload fails is kept and retried. Every method may be
repeated after a crash in its middle. The caller holds the tenant's lock.
"""

from collections import abc
from functools import partial
from pathlib import Path
from typing import Literal

import structlog

from claw_runtime.errors import ClawError, Fenced, RestoreFailed, TenantLocked, UploadFailed
from claw_runtime.formats.head import Head, HeadRefused
from claw_runtime.ports import CRASH_LOOP, TenantRow, TenantState
from claw_runtime.spec.plan import Workload
from claw_runtime.state.history.garbage import Collection, Survey
from claw_runtime.state.lease.leases import Lease, UploadRight
from claw_runtime.state.repository import CommitRequest, CommitResult, Repository
from claw_runtime.state.rules.selection import selection_of
from claw_runtime.tenancy import TenantId
from claw_runtime.tenants.commits import CommitRecords
from claw_runtime.tenants.drives.values import Values
from claw_runtime.tenants.holds import Holds, resume
from claw_runtime.tenants.host import Host, Occupancy
from claw_runtime.tenants.lifecycle import HOLDING, MAY_BE_STORED, OVER, Remedy, Step, TreeSource, remedy
from claw_runtime.tenants.locks import alone
from claw_runtime.tenants.trees import Trees

log = structlog.get_logger(__name__)

Rest = Literal["frozen", "parked"]

_ELSEWHERE = (Fenced, RestoreFailed, TenantLocked)
"""Errors of a commit whose tenant another runtime has or continued, `HeadRefused` apart, which is a `RestoreFailed`."""


class Releaser:
    """Ends claims of this host's tenants. Holds the upload rights of tenants that were claimed here.

    Attributes:
        holds: Pauses of running containers, for commits.
    """

    def __init__(self, host: Host, repository: Repository, values: Values, commits: CommitRecords) -> None:
        self._values = values
        self._host = host
        self._engine, self._ledger, self._pools, self._clock = host.engine, host.ledger, host.pools, host.clock
        self._observer = host.observer
        self._repository, self._commits = repository, commits
        self._trees = Trees(host.layout)
        self._rights: dict[TenantId, UploadRight] = {}
        self.holds = Holds()

    def put(self, right: UploadRight) -> None:
        """Keep the upload right of a claim until the tenant's last commit uses it."""
        self._rights[right.tenant] = right

    def rights(self) -> abc.Collection[TenantId]:
        """Tenants whose upload right is kept."""
        return tuple(self._rights)

    # --- undo a claim ---

    def undo(self, tenant: TenantId, *, error: str = "") -> None:
        """Undo a claim whose workload did not run or was on trial: the store is at least as new as the tree."""
        row = self._ledger.tenant(tenant)
        if row is None:
            return
        asleep = row.source == TreeSource.FROZEN and row.step in (Step.SLOT, Step.LEASE)
        asleep = asleep or (row.step == Step.BEGIN and row.slot is not None)  # only a frozen one begins with a slot
        if row.state == "frozen" or asleep:
            self._rights.pop(tenant, None)  # with another lease's right, a later claim might resume it
            self.give_back(tenant)
            self._ledger.become(tenant, "frozen", row.since, error=row.error)
            return
        if row.slot:
            if row.source == TreeSource.KEPT:  # the only copy goes back first
                self._trees.keep(tenant, row.slot, mounted(self._host.look(row).workload))
            self._trees.save_logs(tenant, row.slot)
            self._pools.destroy(row.slot)
        self._trees.drop_staging(tenant)
        self._commits.ended(tenant)
        self._rights.pop(tenant, None)
        kept = self._trees.kept(tenant)
        if not kept and row.step != Step.BEGIN:  # while this host has the newest tree, no other runtime may continue
            self.give_back(tenant)
        parked = row.step in (Step.BEGIN, Step.SLOT, Step.LEASE) and self._trees.parked(tenant)
        if not parked:
            self._trees.drop_parked(tenant)
        state: TenantState = "kept" if kept else "parked" if parked else "cold"
        self._ledger.become(tenant, state, self._clock.now(), error=error or row.error)

    def take_back(self, here: Occupancy) -> bool:
        """End a claim whose slot could not be started, so that it can be repeated; False if what is here must be kept.

        A container that never ran has written nothing. Any other may have run, so its tree is committed; both leave the
        tree on this host for the next attempt, if it is in the store.
        """
        row = here.row
        with alone(row.id):
            never_ran = here.state in (None, "created", "initialized")
            if row.trial or (never_ran and row.source in (TreeSource.EMPTY, TreeSource.KEPT)):
                self.undo(row.id)
            else:
                self.settle(here, rest="parked")
            return True
        return False

    def give_back(self, tenant: TenantId) -> bool:
        """End this runtime's lease, if it has one; whether it did. A failure is logged; `unused_leases` names it."""
        try:
            return self._repository.leases.give_back(tenant)
        except ClawError as error:
            log.warning("lease not released", tenant=tenant, error=str(error))
            return False

    def unused_leases(self) -> abc.Sequence[TenantId]:
        """Tenants whose lease this host may hold although none of its claims needs it: an import, a collection or the
        end of a claim was interrupted. One that an operation takes now is among them too."""
        using = {row.id for row in self._ledger.tenants() if row.state in HOLDING}
        return [tenant for tenant in self._repository.leases.held() if tenant not in using]

    def adopt(self, lease: Lease, base: int, base_sha256: str) -> UploadRight:
        """The upload right for a tree on this host. Gives the lease back if another runtime continued the tenant."""
        try:
            return self._repository.restorer.adopt(lease, base, base_sha256)
        except ClawError:
            self.give_back(lease.tenant)
            raise

    # --- into the store ---

    def settle(
        self, here: Occupancy, *, rest: Rest | None = None, error: str = ""
    ) -> tuple[CommitResult | None, Rest | None]:
        """Commit the tenant's tree on this host, then leave the tenant at rest or destroy its slot.

        Args:
            rest: `frozen` pauses the container instead of stopping it; `parked` keeps the tree. This is a preference.
            error: The row's error text afterwards.

        Returns:
            The commit, None if there was nothing to commit; and how the tenant rests now.

        Raises:
            UploadFailed, Fenced, HeadRefused: The tree could not be committed; this host keeps it.
            EngineFailed, EngineUnavailable, OSError: Row and slot are as they were; the same call may be repeated.
        """
        row = here.row
        if row.step in OVER:
            self.clear(row, error=error)
            return None, None
        if self._froze(here, error):
            return None, "frozen"
        if row.state not in ("kept", "releasing"):  # otherwise its step still shows whether a commit may have succeeded
            step = Step.SYNC if row.step in (Step.SYNC, Step.HOLD) else Step.NONE
            self._ledger.become(row.id, "releasing", self._clock.now(), step=step)
        rest = self._quiet(here, rest)
        tree = self._trees.whole(row, mounted(here.workload))
        if tree is None:
            self.clear(row, error=error)
            return None, None
        try:
            generation = self._commit(here, tree, last=True)
        except ClawError as failure:
            self._stop(here)  # a frozen program may still write; it writes to the tree that is kept
            self._keep_tree(here, failure)
            raise self._upload_failed(row.id, failure) from failure
        if generation:
            self._commits.committed(row, generation.reported)
        if generation:
            base = generation.number, generation.sha256
        else:
            base = self._stored(row) or self._caught_up(row, self._own_head(row))
        rest = self._leave(here, rest if generation else None, base, error)
        log.info("released", tenant=row.id, generation=base[0], rest=rest or "none")
        return generation, rest

    def _froze(self, here: Occupancy, error: str) -> bool:
        """Finish a freeze whose note was lost: a stop after the commit would lose the program's last writes."""
        row = here.row
        is_paused = (row.state, row.step) == ("releasing", Step.COMMIT) and here.state == "paused"
        stored = self._stored(row) if is_paused else None
        if stored is None:
            return False
        self._leave(here, "frozen", stored, error)
        return True

    def _quiet(self, here: Occupancy, rest: Rest | None) -> Rest | None:
        """Make sure that nothing writes to the tree: pause the container if wanted and possible, else stop it."""
        slot = here.slot
        if rest == "frozen" and slot and slot.container:
            try:
                self._engine.pause(slot.container)
            except ClawError as error:
                log.warning("container not paused; stopping it", tenant=here.row.id, error=str(error))
            else:
                return rest
            rest = "parked"
        self._stop(here)
        return rest

    def _leave(self, here: Occupancy, rest: Rest | None, base: tuple[int, str], error: str) -> Rest | None:
        """Leave the committed tree at rest, frozen or parked, or remove it; `base` is its generation and digest."""
        row, now = here.row, self._clock.now()
        self._ledger.note(row.id, base=base[0], base_sha256=base[1], synced=now)
        self._rights.pop(row.id, None)
        if rest == "frozen" and row.slot:
            self._ledger.become(row.id, "frozen", now, error=error)
            return rest
        if rest == "parked" and row.slot:
            self._ledger.note(row.id, step=Step.REST)
            self._trees.drop_parked(row.id)
            self._remove_excluded(here, row.slot)
            self._trees.park(row.id, row.slot)
            self._trees.save_logs(row.id, row.slot)
            self._pools.destroy(row.slot)
            self._ledger.become(row.id, "parked", now, error=error)
            return rest
        self.clear(row, error=error, free=True)
        return None

    def _remove_excluded(self, here: Occupancy, slot: str) -> None:
        """Remove from a tree that outlives its container what the state excludes: a program may have written a secret
        there, which may be another one at the next claim."""
        selection = selection_of(here.workload, here.row.withheld)
        if not selection.forgets_none:
            self._trees.forget(slot, selection.forgets)

    def sync(self, here: Occupancy) -> CommitResult:
        """Commit the tree of a running tenant. Raises `UploadFailed`, `Fenced`, `HeadRefused`."""
        row = here.row
        try:
            generation = self._sync(here)
        except Exception as error:
            self._commits.failed(row, error)
            raise
        if generation.right:
            self.put(generation.right)
        number, sha256 = generation.number, generation.sha256
        self._ledger.note(row.id, step=Step.NONE, base=number, base_sha256=sha256, synced=self._clock.now())
        self._commits.committed(row, generation.reported)
        return generation

    def _sync(self, here: Occupancy) -> CommitResult:
        resume(here)
        tree = self._trees.whole(here.row, mounted(here.workload))
        if tree is None:
            raise UploadFailed(f"the tree of {here.row.id!r} is gone", hint=f"claw-runtime release {here.row.id}")
        generation = self._commit(here, tree, last=False)
        assert generation is not None  # noqa: S101 - only a last commit can have landed before
        return generation

    def _commit(self, here: Occupancy, tree: Path, *, last: bool) -> CommitResult | None:
        """Commit the tree; None when an earlier attempt's last commit is already in the store."""
        row, workload = here.row, here.workload
        right = self._rights.get(row.id)
        if right is None:  # the daemon was restarted since the claim, or an earlier attempt failed
            head = self._own_head(row)
            if self._stored(row):
                if head:
                    self._observer.committed(row.id, workload)
                return None
            base, sha256 = self._caught_up(row, head)
            lease = self._repository.leases.acquire(row.id)
            # The step `commit` with this epoch would mean that HEAD is this runtime's commit: nothing is committed yet.
            self._ledger.note(row.id, step=Step.LEASE, epoch=lease.epoch, base=base, base_sha256=sha256)
            right = self.adopt(lease, base, sha256)
        # Without this note, a commit that succeeded would look like another runtime's.
        self._ledger.note(row.id, durable=True, step=Step.COMMIT if last else Step.SYNC, epoch=right.epoch, sealed="")
        request = CommitRequest(
            right=right,
            tree=tree,
            selection=selection_of(workload, row.withheld),
            limits=workload.sync_limits,
            on_mass_delete=workload.sync_policy.on_mass_delete,
            image_digest=here.image.digest,
            application=f"{workload.promise.application} {workload.promise.version}" if workload.promise else "",
            release=last,
            retention=workload.retention,
            secrets=self._secrets(here),
            sealed=(lambda sha256: self._ledger.note(row.id, sealed=sha256)) if last else _ignored,
            hold=None if last else partial(self.holds.held, here),
        )
        done = self._repository.committer.commit(request)
        self._commits.stored_secrets(row.id, done.secrets)
        if last:
            self._rights.pop(row.id, None)  # even if the following notes fail
        self._observer.committed(row.id, workload)
        return done

    def _secrets(self, here: Occupancy) -> list[tuple[str, str]]:
        """What to look for in a commit, which must not fail because a secret file cannot be read."""
        try:
            return self._values.handed_out(here.row.id, here.workload, here.row.slot)
        except (ClawError, OSError) as error:
            log.warning("a commit is not searched for secrets", tenant=here.row.id, why=str(error))
            return []

    def _caught_up(self, row: TenantRow, head: Head | None) -> tuple[int, str]:
        """The tree's generation and its digest. A successful commit whose note was lost is noted before a new epoch
        hides it; an unchanged tree made none."""
        base, sha256 = (head.generation, head.sha256 or "") if head else (row.base, row.base_sha256)
        if base != row.base:
            self._ledger.note(row.id, durable=True, base=base, base_sha256=sha256)
        return base, sha256

    def _own_head(self, row: TenantRow) -> Head | None:
        """HEAD, if only a commit of this runtime can have changed it: an epoch of a lineage has one writer."""
        if row.step not in MAY_BE_STORED:
            return None
        generations = self._repository.generations
        head = generations.head(row.id)
        is_own = head and head.epoch == row.epoch and generations.follows(row.id, head, row.base, row.base_sha256)
        return head if is_own else None

    def _stored(self, row: TenantRow) -> tuple[int, str] | None:
        """Generation and digest of the last commit of a claim, if it is in the store although that was not noted; also
        where another runtime has continued from it."""
        if head := self._own_head(row):
            return (head.generation, head.sha256 or "") if _has_landed(row, head) else None
        is_sealed = row.step == Step.COMMIT and row.sealed
        number = self._repository.generations.number_of(row.id, row.sealed) if is_sealed else None
        return (number, row.sealed) if number else None

    def is_needless(self, row: TenantRow) -> bool:
        """Whether a kept tree is gone, was being removed, or is in the store after all."""
        if row.step == Step.CLEAR or not self._trees.kept(row.id):
            return True
        self._caught_up(row, self._own_head(row))
        return self._stored(row) is not None

    def survey(self, tenant: TenantId) -> Survey | None:
        """The part of a collection that needs no lock; None when there is nothing in the store."""
        return self._repository.survey_garbage(tenant)

    def collect(self, row: TenantRow, survey: Survey, *, grace: float, dry_run: bool = False) -> Collection | None:
        """One part of `Tenants.collect`, for a tenant whose newest state is in the store."""
        right = self._rights.get(row.id)
        if row.state == "active" and right is None and not dry_run:  # its next commit acquires the lease again
            return None
        return self._repository.collect_garbage(row.id, right, survey=survey, grace=grace, dry_run=dry_run)

    # --- remove ---

    def drop(self, here: Occupancy) -> None:
        """Discard what changed since the last commit; a frozen container is destroyed without running again.

        Raises:
            HeadRefused: The store may have lost the last commit too; nothing was discarded.
        """
        try:
            self._repository.generations.head(here.row.id)
        except HeadRefused:
            raise
        except ClawError as error:
            log.warning("a tree is discarded without a look at HEAD", tenant=here.row.id, why=str(error))
        if here.row.state != "frozen":
            self._stop(here)
        self.clear(here.row)

    def clear(self, row: TenantRow, *, error: str = "", free: bool = False) -> None:
        """Remove everything local: it is in the store, or obsolete.

        Args:
            free: HEAD has no owner, as a last commit leaves it. Otherwise this runtime's lease is given back first,
                while the row still records it.
        """
        self._ledger.note(row.id, step=Step.CLEAR)
        self._commits.ended(row.id)
        self._rights.pop(row.id, None)
        if row.slot:
            self._trees.save_logs(row.id, row.slot)
            self._pools.destroy(row.slot)
        self._trees.drop(row.id)
        if not free:
            self.give_back(row.id)
        self._ledger.become(row.id, "cold", self._clock.now(), error=error)

    def end_rest(self, row: TenantRow) -> None:
        """End a frozen container or parked tree, and commit what the program still had to write.

        If another runtime has the tenant or continued it, the container is destroyed without running again.

        Raises:
            HeadRefused: The store may have lost what is here; the tenant stays at rest.
            StoreUnavailable, UploadFailed: The store did not answer; the tenant stays at rest, or its tree is kept.
        """
        left = self.leave_rest(row)
        if left.step in OVER:
            self.clear(left, free=row.state == "parked" and row.step not in OVER)
        else:
            self.settle(self._host.look(left))

    def leave_rest(self, row: TenantRow) -> TenantRow:
        """The first part of `end_rest`, which asks the store and waits for no program; raises as it does.

        Afterwards the tenant is `releasing`, or its step is `clear`: it rests no more, and `end_rest` or `finish` does
        what is left, also after a crash.
        """
        if row.state == "frozen" and row.step not in OVER:
            self._ledger.note(row.id, step=Step.LEASE)
            try:
                lease = self._repository.leases.acquire(row.id)
                self._ledger.note(row.id, epoch=lease.epoch)
                self.put(self.adopt(lease, row.base, row.base_sha256))
            except HeadRefused:
                self.undo(row.id)
                raise
            except (TenantLocked, RestoreFailed) as error:
                log.info("frozen container dropped: its tenant continued elsewhere", tenant=row.id, why=str(error))
            except ClawError:
                self.undo(row.id)
                raise
            else:
                self._ledger.become(row.id, "releasing", self._clock.now())
                return self._ledger.tenant(row.id) or row
        elif row.step not in OVER:  # what is parked may be the only copy of what the store lost
            self._repository.leases.give_back(row.id)
        self._ledger.note(row.id, step=Step.CLEAR)
        return self._ledger.tenant(row.id) or row

    def _clear_rest(self, row: TenantRow, *, error: str = "") -> None:
        """Remove what rests here, after a look at HEAD: it may be the only copy of what the store lost."""
        is_whole = row.step not in OVER
        if is_whole:
            self._repository.leases.give_back(row.id)
        self.clear(row, error=error, free=is_whole)

    def keep_rest(self, row: TenantRow, why: str) -> None:
        """Turn what rests here into a kept tree: it may be the newest copy, and a person decides about it."""
        if row.step in OVER or row.state not in ("frozen", "parked"):
            return
        here = self._host.look(row)
        if row.state == "frozen":
            self._stop(here)
        self._trees.keep_parked(row.id)
        self._keep_tree(here, RestoreFailed(f"this tree grew from generation {row.base}", why=why))

    def forget_right(self, tenant: TenantId) -> None:
        """Forget the tenant's upload right: its next commit takes the lease again."""
        self._rights.pop(tenant, None)

    def _keep_tree(self, here: Occupancy, error: ClawError) -> None:
        """Move the tree, the only copy of what is new, out of the slot, so that the slot can be destroyed."""
        row = here.row
        self._commits.ended(row.id)
        self._rights.pop(row.id, None)
        if row.slot:
            self._trees.save_logs(row.id, row.slot)
            try:
                self._remove_excluded(here, row.slot)
            except (ClawError, OSError) as failure:
                log.warning("a kept tree has what its state excludes", tenant=row.id, why=str(failure))
            self._trees.keep(row.id, row.slot)
            self._pools.destroy(row.slot)
        step = (self._ledger.tenant(row.id) or row).step
        since = row.since if row.state == "kept" else self._clock.now()
        slug = UploadFailed.slug if isinstance(error, HeadRefused) else error.slug  # retried, unlike other refusals
        if row.restart and isinstance(error, _ELSEWHERE) and not isinstance(error, HeadRefused):
            self._ledger.note(row.id, restart="", wanted=0)  # its user is on another host now
        self._ledger.become(row.id, "kept", since, step=step, error=f"{slug}: {error}")
        self._observer.record("kept", tenant=row.id, pool=row.pool, why=str(error))

    def _upload_failed(self, tenant: TenantId, error: ClawError) -> ClawError:
        kept = self._host.layout.kept_tree(tenant)
        if isinstance(error, HeadRefused):
            return HeadRefused(
                f"the state of {tenant!r} was not committed; nothing is lost",
                why=str(error),
                hint=f"the tree is kept in {kept}, and the daemon retries; {error.hint}",
            )
        if isinstance(error, _ELSEWHERE):
            return Fenced(
                f"the state of {tenant!r} was not committed",
                why=str(error),
                hint=f"another runtime continued from the last stored generation; this host keeps its tree in {kept}: "
                "compare both, then move it away",
            )
        return UploadFailed(
            f"the state of {tenant!r} was not committed; nothing is lost",
            why=str(error),
            hint=f"the tree is kept in {kept}; the daemon retries; to retry now: claw-runtime release {tenant}",
        )

    # --- after a crash, and in the background ---

    def finish(self, here: Occupancy, remedied: Remedy, *, error: str = "") -> None:
        """Apply the remedy for a row. A tree that cannot be committed is kept, which also ends the claim.

        Raises:
            ClawError, OSError: Engine or disk failed; row and slot are unchanged, and the same call may be repeated.
        """
        row = here.row
        match remedied:
            case Remedy.NOTHING:
                return
            case Remedy.UNDO:
                self.undo(row.id, error=error)
            case Remedy.CLEAR:
                self._clear_rest(row, error=error)
            case Remedy.SETTLE | Remedy.RETRY:
                try:
                    self.settle(here, rest=_rest_before(row), error=error)
                except (UploadFailed, Fenced, HeadRefused) as failure:
                    log.warning("tree kept", tenant=row.id, error=str(failure), hint=failure.hint)
            case Remedy.RESUME:
                resume(here)

    def finish_quietly(self, here: Occupancy, *, error: str = "") -> None:
        """`finish` for background work: errors are logged, so that one tenant's failure does not affect others."""
        with alone(here.row.id):
            self.finish(here, remedy(here.row, here.state), error=error)

    def _stop(self, here: Occupancy) -> None:
        if found := here.container:
            # A container that never ran does not receive SIGTERM; waiting for it is useless (measured on Podman 4.3.1).
            ran = found.state not in ("created", "initialized")
            timeout = int(here.workload.policy.drain_timeout) if ran else 0
            with self._host.workers.waiting():  # a program may ignore the signal until its time is over
                self._engine.stop(found.id, timeout)


def _ignored(_sha256: str) -> None:
    """Only the last commit of a claim can be distinguished, by its digest, from another runtime's."""


def _has_landed(row: TenantRow, head: Head) -> bool:
    """Whether a last commit whose answer was lost is in the store: the same write gives the tenant back."""
    return row.step == Step.COMMIT and head.owner is None


def _rest_before(row: TenantRow) -> Rest | None:
    """How the tree is left here: one that the daemon claims again at once need not be fetched from the store."""
    return "parked" if row.restart not in ("", CRASH_LOOP) else None


def mounted(workload: Workload) -> abc.Collection[str]:
    """Directories within the state that are separate mounts of the container."""
    return {mount.subdirectory for mount in workload.extra_mounts}
