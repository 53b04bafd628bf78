"""Snapshots: list, compare, pin and restore a tenant's generations.

A restore makes the old entries the next generation, so nothing is lost, and the restore can be undone. It copies no
content, needs no container, and is one swap of HEAD.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from heapq import nlargest
from typing import Final

from claw_runtime.errors import Conflict, InvalidSpec, RestoreFailed
from claw_runtime.formats.head import Head
from claw_runtime.formats.manifest import Entry, Manifest, PackRef
from claw_runtime.ports import Clock, ObjectMissing, ObjectStore
from claw_runtime.state.commit.guards import Draft
from claw_runtime.state.history.pins import LATEST
from claw_runtime.state.lease.heads import HeadLost
from claw_runtime.state.repository import Repository
from claw_runtime.state.restore.restore import refuse_restore
from claw_runtime.state.rules.handed_out import SecretSearch
from claw_runtime.state.snapshots.diff import Change, compare, put_back, same
from claw_runtime.state.snapshots.lookup import Snapshot, View, Views
from claw_runtime.state.snapshots.precautions import (
    Along,
    Precautions,
    older_logins,
    refuse_secrets,
    without_excluded,
    without_logins,
)
from claw_runtime.state.snapshots.repack import Repack
from claw_runtime.telemetry.events import Recorder, unrecorded
from claw_runtime.tenancy import Keys, TenantId

BIGGEST: Final = 10
"""Files that `show` names."""

_NONE: Final = Precautions()
_NOTHING: Final = Along()

Still = Callable[[TenantId], AbstractContextManager[Callable[[int], None]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One snapshot in full. `stored` bytes lie in its packs, which others may share; `biggest` files, largest first."""

    snapshot: Snapshot
    parent: int | None
    application: str
    image: str
    directories: int
    links: int
    databases: int
    packs: int
    stored: int
    biggest: tuple[Entry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Diff:
    """What differs between two snapshots."""

    before: Snapshot
    after: Snapshot
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """The result of a restore, or what a dry run would do.

    Attributes:
        tenant: The tenant whose state changed.
        of: The tenant of the snapshot: another one for a copy.
        source: The restored snapshot.
        onto: The generation before the new one; 0 when the tenant had none.
        generation: The new generation; None when nothing was done: on a dry run, or without a change.
        changes: The changes to the tenant's state.
        warnings: What a person should know before the next claim.
    """

    tenant: TenantId
    of: TenantId
    source: Snapshot
    onto: int
    generation: int | None
    changes: tuple[Change, ...]
    warnings: tuple[str, ...]


class Snapshots:
    """Snapshots of all tenants in the store.

    Raises (every method): StateMissing when there is no such snapshot, RestoreFailed when its manifest is damaged,
    StoreUnavailable, StoreDenied, BucketMissing.

    Args:
        still: Keeps a tenant from running on this host while its HEAD changes (`Tenants.still`).
        record: Called with a kind of event and its facts.
        precautions: What to leave out of copies, and to warn of.
    """

    def __init__(
        self,
        *,
        repository: Repository,
        store: ObjectStore,
        clock: Clock,
        still: Still,
        record: Recorder = unrecorded,
        precautions: Precautions = _NONE,
    ) -> None:
        self._repository, self._store, self._clock = repository, store, clock
        self._views = Views(repository, clock)
        self._still, self._record, self._precautions = still, record, precautions

    # --- read ---

    def list(self, tenant: TenantId) -> tuple[Snapshot, ...]:
        """The snapshots in the store, oldest first; the last one is HEAD's."""
        return self._views.of(tenant).snapshots

    def resolve(self, tenant: TenantId, wanted: str) -> Snapshot:
        """The snapshot for a number, tag or time.

        Args:
            wanted: A generation's number, `latest`, a tag (the newest that has it), or a time for the newest sealed
                until then: `@2h` ago, or `@2026-11-20T10:00`, in UTC unless it has an offset.

        Raises:
            InvalidSpec: The text after `@` is not a time.
        """
        return self._views.pick(self._views.of(tenant), wanted)

    def show(self, tenant: TenantId, wanted: str) -> Shown:
        """One snapshot in full."""
        view = self._views.of(tenant)
        snapshot = self._views.pick(view, wanted)
        document = self._views.manifest(view, snapshot)
        kinds = [entry.type for entry in document.entries]
        files = (entry for entry in document.entries if entry.type == "f")
        return Shown(
            snapshot=snapshot,
            parent=document.parent.generation if document.parent else None,
            application=document.application,
            image=document.image,
            directories=kinds.count("d"),
            links=kinds.count("l"),
            databases=sum(entry.kind == "sqlite" for entry in document.entries),
            packs=len(document.packs),
            stored=sum(pack.size for pack in document.packs),
            biggest=tuple(nlargest(BIGGEST, files, key=lambda entry: entry.size)),
        )

    def diff(self, tenant: TenantId, before: str, after: str = LATEST) -> Diff:
        """The changes from the first snapshot to the second."""
        view = self._views.of(tenant)
        old, new = self._views.pick(view, before), self._views.pick(view, after)
        changes = compare(self._views.manifest(view, old).entries, self._views.manifest(view, new).entries)
        return Diff(before=old, after=new, changes=changes)

    # --- pin ---

    def pin(self, tenant: TenantId, wanted: str, tag: str | None = None) -> Snapshot:
        """Keep a snapshot despite retention, under a new tag or the one that it has.

        Raises:
            InvalidSpec: The text is not a tag.
            Conflict: The tenant has too many pins.
        """
        snapshot = self.resolve(tenant, wanted)
        pin = self._repository.pins.put(tenant, snapshot.past, snapshot.tag if tag is None else tag)
        self._record("pinned", tenant=tenant, generation=snapshot.generation, tag=pin.tag)
        return replace(snapshot, pin=pin)

    def unpin(self, tenant: TenantId, wanted: str) -> Snapshot:
        """Unpin a snapshot and drop its tag, so that retention applies again. No error if it is not pinned."""
        snapshot = self.resolve(tenant, wanted)
        self._repository.pins.drop(tenant, snapshot.generation)
        if snapshot.pin:
            self._record("unpinned", tenant=tenant, generation=snapshot.generation, tag=snapshot.tag)
        return replace(snapshot, pin=None)

    # --- restore ---

    def restore(self, tenant: TenantId, wanted: str, *, paths: Sequence[str] = (), dry_run: bool = False) -> Restored:
        """Seal a snapshot's entries as the tenant's next generation, or only those at and below some paths.

        Args:
            dry_run: Only report what would be done.

        Raises:
            Conflict: The tenant runs here, or its HEAD changed meanwhile.
            TenantLocked: Another runtime holds the tenant.
            RestoreFailed: The snapshot is not whole.
            UploadFailed: There are more names than a generation can have.
        """
        view = self._views.of(tenant)
        if dry_run:
            return self._plan(view, wanted, paths)[0]
        self._views.pick(view, wanted)  # a mistyped name must not end a tenant at rest
        with self._still(tenant) as moved:
            head, etag = self._repository.leases.free(tenant)
            view = self._views.of(tenant, head)
            plan, draft = self._plan(view, wanted, paths)
            if same(view.newest.entries, draft.entries):
                return plan
            self._check_whole(tenant, plan.source, draft)
            generation = self._seal(tenant, head, etag, draft)
            moved(generation)
        self._record("went-back", tenant=tenant, generation=generation, source=plan.source.generation)
        return replace(plan, generation=generation)

    def copy_into(
        self,
        tenant: TenantId,
        wanted: str,
        target: TenantId,
        *,
        replace_state: bool = False,
        along: Along = _NOTHING,
        dry_run: bool = False,
    ) -> Restored:
        """Seal a snapshot's content, packed again, as the next generation of another tenant.

        Args:
            replace_state: The target may have a state; it stays as the previous generation.
            along: Whether logins of channels, and files with secrets of the tenant, are copied too.
            dry_run: Only report what would be done. The content is not searched for secrets.

        Raises:
            Conflict: The target has a state, runs here, or changed meanwhile; or a file holds a secret.
            TenantLocked: Another runtime holds the target.
            InvalidSpec: Source and target are the same tenant.
            RestoreFailed, VerifyMismatch: The snapshot is not whole; nothing visible was changed.
        """
        if target == tenant:
            raise InvalidSpec(f"{target} is the same tenant", hint=f"claw-runtime snapshot restore {tenant} SNAPSHOT")
        view = self._views.of(tenant)
        source = self._views.pick(view, wanted)
        document = self._views.manifest(view, source)
        document, told = without_logins(document, self._precautions.logins(tenant), target, along)
        rules = [self._precautions.unexcluded(one) for one in (tenant, target)]
        entries, excluded = without_excluded(document.entries, *rules)
        document, told = replace(document, entries=entries), (*told, *excluded)
        if dry_run:
            head = self._repository.generations.head(target)
            return self._copy_plan(source, document, self._state_of(target, head, replace_state), target, told)
        with self._still(target) as moved:
            head, etag = self._repository.leases.free(target, create=True)
            now = self._state_of(target, head, replace_state)
            plan = self._copy_plan(source, document, now, target, told)
            if now and same(now.entries, document.entries):
                return plan
            try:
                draft = self._repack(document, target, head.epoch + 1, along)
            except ObjectMissing as error:
                refuse_restore(tenant, source.generation, error)
            generation = self._seal(target, head, etag, draft)
            moved(generation)
        self._record("copied", tenant=target, generation=generation, of=tenant, source=source.generation)
        return replace(plan, generation=generation)

    def _repack(self, document: Manifest, target: TenantId, epoch: int, along: Along) -> Draft:
        opens, seals = self._repository.keyring.sealer(document.tenant), self._repository.keyring.sealer(target)
        search = SecretSearch(() if along.secrets else self._precautions.secrets(document.tenant, target))
        copy = Repack(self._store, self._clock, document, target, epoch=epoch, opens=opens, seals=seals, search=search)
        draft = copy.copy()
        refuse_secrets(search, document.tenant, target)
        return draft

    def _state_of(self, target: TenantId, head: Head | None, replace_state: bool) -> Manifest | None:
        """The present state of a copy's target."""
        if head is None or head.manifest is None:
            return None
        if not replace_state:
            raise Conflict(
                f"tenant {target} has a state",
                why=f"it is at generation {head.generation}",
                hint="with --replace the copy becomes its next generation, and the present one can be restored",
                tenant=target,
            )
        return self._repository.generations.newest(target, head)

    def _copy_plan(
        self, source: Snapshot, document: Manifest, now: Manifest | None, target: TenantId, told: tuple[str, ...]
    ) -> Restored:
        return Restored(
            tenant=target,
            of=document.tenant,
            source=source,
            onto=now.generation if now else 0,
            generation=None,
            changes=compare(now.entries if now else (), document.entries),
            warnings=(*(_warnings(document, now) if now else ()), *told),
        )

    def _plan(self, view: View, wanted: str, paths: Sequence[str]) -> tuple[Restored, Draft]:
        source, now = self._views.pick(view, wanted), view.newest
        old, rules = self._views.manifest(view, source), self._precautions.unexcluded(view.tenant)
        entries, excluded = without_excluded(old.entries, rules, paths=paths or ("",))
        if paths:
            entries = put_back(view.tenant, now.entries, entries, paths)
            draft = _draft(now, entries, now.packs + old.packs)
        else:
            draft = _draft(old, entries, old.packs)
        plan = Restored(
            tenant=view.tenant,
            of=view.tenant,
            source=source,
            onto=now.generation,
            generation=None,
            changes=compare(now.entries, draft.entries),
            warnings=(
                *_warnings(old, now),
                *older_logins(now.entries, draft.entries, self._precautions.logins(view.tenant)),
                *excluded,
            ),
        )
        return plan, draft

    def _check_whole(self, tenant: TenantId, source: Snapshot, draft: Draft) -> None:
        """Check that an old generation's objects exist, so that HEAD never names missing ones."""
        keys = Keys(tenant)
        needed = [keys.pack(pack.sha256) for pack in draft.packs]
        blobs = [keys.blob(entry.blob) for entry in draft.entries if entry.blob]
        there = {item.key for item in self._store.list(keys.packs)}
        if blobs:
            there |= {item.key for item in self._store.list(keys.blobs)}
        missing = next((key for key in needed + blobs if key not in there), None)
        if missing is not None:
            raise RestoreFailed(
                f"generation {source.generation} of tenant {tenant} is not whole",
                why=f"an object is missing: {missing}",
                hint=f"nothing was changed; choose another: claw-runtime snapshot list {tenant}",
                tenant=tenant,
            )

    def _seal(self, tenant: TenantId, head: Head, etag: str | None, draft: Draft) -> int:
        try:
            return self._repository.publisher.reseal(tenant, head, etag, draft).generation
        except HeadLost as error:
            raise Conflict(
                f"tenant {tenant} changed meanwhile",
                why="another runtime claimed or continued it",
                hint="this changed nothing; check the tenant, then retry",
                tenant=tenant,
            ) from error


def _draft(of: Manifest, entries: tuple[Entry, ...], packs: Iterable[PackRef]) -> Draft:
    """A generation of these entries, written by the program that wrote `of`."""
    known = {pack.sha256: pack for pack in packs}
    used = dict.fromkeys(extent.pack for entry in entries for extent in entry.extents if not extent.hole)
    return Draft(
        entries=entries, packs=tuple(known[sha256] for sha256 in used), image=of.image, application=of.application
    )


def _warnings(old: Manifest, now: Manifest) -> tuple[str, ...]:
    if not old.application or old.application == now.application:
        return ()
    wrote = f"generation {old.generation} was written by {old.application}"
    since = f"generation {now.generation} by {now.application or 'an unknown program'}"
    return (f"{wrote}, {since}: an older program may refuse databases that a newer one has changed",)
