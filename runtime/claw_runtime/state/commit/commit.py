"""From a tree to the next generation: packs, manifest, HEAD by compare-and-swap, so it appears whole or not at all."""

import hashlib
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal

import structlog

from claw_runtime.errors import ClawError, Conflict, Fenced, UploadFailed
from claw_runtime.formats import manifest as manifests
from claw_runtime.formats.envelope import Sealer, wrap
from claw_runtime.formats.head import Head, new_commit_id, released, timestamp
from claw_runtime.formats.manifest import Manifest, Parent, Past
from claw_runtime.ports import Clock, ObjectMissing, ObjectStore
from claw_runtime.spec.parts import Retention, SyncLimits
from claw_runtime.state.commit.archiver import Archiver
from claw_runtime.state.commit.guards import (
    Collected,
    CommitResult,
    Draft,
    fence,
    mass_delete,
    refuse_empty,
    refuse_mass_delete,
    refuse_upload,
    unchanged,
)
from claw_runtime.state.commit.pack_upload import PackUpload, Shipment, put_immutable
from claw_runtime.state.commit.progress import Transfers
from claw_runtime.state.commit.stat_cache import Known, StatCache
from claw_runtime.state.history.generations import Generations
from claw_runtime.state.history.pins import Pins
from claw_runtime.state.history.retention import kept
from claw_runtime.state.keyring import Keyring
from claw_runtime.state.lease.heads import HeadLost, Heads
from claw_runtime.state.lease.leases import Leases, UploadRight
from claw_runtime.state.rules.selection import Selection
from claw_runtime.tenancy import Keys, TenantId

log = structlog.get_logger(__name__)

UNLIMITED: Final = SyncLimits()
MASS_DELETE: Final = "before-mass-delete"
"""Tag of the pin that a generation gets before one in which most of its files are gone."""


class Committer:
    """Commits of one runtime.

    Args:
        scratch: Directory for private copies of databases; made if missing, 0700.
        transfers: Is told how far each commit has come.
    """

    def __init__(
        self,
        store: ObjectStore,
        clock: Clock,
        heads: Heads,
        generations: Generations,
        holding: Leases,
        pins: Pins,
        vault: Keyring,
        cache: StatCache,
        scratch: Path,
        transfers: Transfers,
    ) -> None:
        self._store, self._clock, self._scratch, self._transfers = store, clock, scratch, transfers
        self._heads, self._generations, self._holding = heads, generations, holding
        self._cache, self._pins, self._vault, self._uplink = cache, pins, vault, PackUpload()

    def commit(
        self,
        right: UploadRight,
        tree: Path,
        *,
        selection: Selection,
        image_digest: str,
        application: str,
        release: bool,
        allow_empty: bool = False,
        limits: SyncLimits = UNLIMITED,
        on_mass_delete: Literal["pin", "refuse"] = "pin",
        retention: Retention | None = None,
    ) -> CommitResult:
        """Seal the tree as the next generation, and give the tenant back with the same write when `release`.

        A tree that is what HEAD names makes no generation. After an `UploadFailed` the same call may be made again
        with the same right, whatever became of the first.

        Args:
            selection: Which names are stored, and which of the parent generation's are kept without them.
            release: Nobody writes to the tree any more and nobody will.
            allow_empty: A tree without a file may replace one that has files.
            limits: A tree that is more is refused.
            on_mass_delete: When most files are gone, pin the generation that has them, or refuse.
            retention: Which of the earlier generations stay; None is all.

        Raises:
            Fenced: Another runtime took the tenant over; nothing that it sees was changed.
            UploadFailed: Anything else; the tree is untouched and must be kept.
        """
        started = self._clock.monotonic()
        try:
            right = self._refresh(right)
            known = self._cache.recall(right.tenant, right.head.sha256)
            parent = known.manifest if known else self._parent(right)
            sealer = self._vault.sealer(right.tenant)
            collected = self._collect(right, parent, known, tree, selection, limits, sealer, still=release)
            refuse_empty(right, parent, collected, allow_empty=allow_empty)
            if unchanged(parent, collected):
                head, sent, document = right.head, 0, parent
            else:
                self._guard(right, parent, collected, on_mass_delete)
                draft = Draft(
                    entries=collected.entries,
                    packs=collected.packs,
                    image=image_digest,
                    application=application,
                    retention=retention,
                )
                head, sent, document = self._put_manifest(right.tenant, right.head, parent, draft, sealer)
            after = self._publish(right, released(head) if release else head)
            if release:
                self._holding.remember(right.tenant, after.head, after.etag)
            known = self._note(after, document, selection, collected, known)
        except (Fenced, UploadFailed):
            raise
        except (ClawError, ObjectMissing, OSError) as error:
            refuse_upload(right.tenant, error)
        return CommitResult(
            number=head.generation,
            created=head is not right.head,
            files=known.files if known else 0,
            bytes=known.size if known else 0,
            uploaded_bytes=collected.uploaded + sent,
            seconds=self._clock.monotonic() - started,
            reported=collected.reported,
            right=None if release else after,
        )

    def reseal(self, tenant: TenantId, head: Head, etag: str | None, draft: Draft) -> Head:
        """Seal a generation that no tree was read for, on top of a HEAD that nobody holds; the HEAD that it came to.

        One swap takes the tenant and gives it back, under an epoch of its own: nothing is left to undo after a crash.

        Raises:
            HeadLost: HEAD is not that one any more; nothing that anybody sees was changed.
            UploadFailed, StoreUnavailable, StoreDenied, BucketMissing, RestoreFailed: Nor then, or it is not known.
        """
        parent = self._generations.of_head(tenant, head) if head.manifest else None
        sealed, _, _ = self._put_manifest(tenant, head, parent, draft, self._vault.sealer(tenant))
        sealed = replace(released(sealed), epoch=head.epoch + 1)
        self._holding.remember(tenant, sealed, self._heads.swap(tenant, sealed, etag=etag))
        return sealed

    def _refresh(self, right: UploadRight) -> UploadRight:
        """The right as HEAD is now: an earlier commit of ours may have landed after we gave it up."""
        found = self._heads.read(right.tenant)
        if found is None or found[0].epoch != right.epoch:
            fence(right, found and found[0])
        return replace(right, head=found[0], etag=found[1], base_generation=found[0].generation)

    def _parent(self, right: UploadRight) -> Manifest | None:
        return self._generations.of_head(right.tenant, right.head) if right.head.manifest else None

    def _collect(
        self,
        right: UploadRight,
        parent: Manifest | None,
        known: Known | None,
        tree: Path,
        selection: Selection,
        limits: SyncLimits,
        sealer: Sealer,
        *,
        still: bool,
    ) -> Collected:
        self._scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        shipment = Shipment(
            self._store,
            self._clock,
            Keys(right.tenant),
            self._uplink,
            epoch=right.epoch,
            sealer=sealer,
        )
        before = known.size if known else parent.size if parent else 0
        with closing(shipment), self._transfers.begun(right.tenant, before) as transfer:
            collector = Archiver(
                shipment,
                self._clock,
                parent=parent,
                known=known.sealed() if known and sealer.seals else known,
                selection=selection,
                limits=limits,
                scratch=self._scratch,
                still=still,
                report=transfer.add,
            )
            return collector.collect(tree)

    def _guard(
        self,
        right: UploadRight,
        parent: Manifest | None,
        collected: Collected,
        on_mass_delete: Literal["pin", "refuse"],
    ) -> None:
        """Most files are gone: that is a wish, or an accident that is seen too late; what had them stays either way."""
        if parent is None or right.head.sha256 is None or not (gone := mass_delete(parent, collected)):
            return
        if on_mass_delete == "refuse":
            refuse_mass_delete(right, parent, gone)
        if self._pins.find(right.tenant, parent.generation) is None:
            with suppress(Conflict):  # with so many pins nothing was lost yet
                self._pins.put(right.tenant, parent.past(right.head.sha256), MASS_DELETE)
        log.warning("most files are gone", tenant=right.tenant, gone=gone, of=parent.files, pinned=parent.generation)

    def _note(
        self,
        after: UploadRight,
        document: Manifest | None,
        selection: Selection,
        collected: Collected,
        old: Known | None,
    ) -> Known | None:
        """Remember what the next commit need not read."""
        if document is None or after.head.sha256 is None:
            return None
        counted = old is not None and old.manifest is document
        known = Known(
            manifest=document,
            selection=selection,
            records=collected.records,
            databases=collected.databases,
            files=old.files if old and counted else document.files,
            size=old.size if old and counted else document.size,
        )
        self._cache.remember(after.tenant, after.head.sha256, known)
        return known

    def _put_manifest(
        self, tenant: TenantId, head: Head, parent: Manifest | None, draft: Draft, sealer: Sealer
    ) -> tuple[Head, int, Manifest]:
        now = timestamp(self._clock)
        document = Manifest(
            tenant=tenant,
            generation=head.generation + 1,
            parent=_parent(head),
            created=now,
            image=draft.image,
            application=draft.application,
            entries=draft.entries,
            packs=draft.packs,
            history=self._history(parent, head, draft.retention),
        )
        data = wrap(sealer, manifests.encode(document))
        sha256 = hashlib.sha256(data).hexdigest()
        key = Keys(tenant).manifest(head.generation + 1, sha256)
        put_immutable(self._store, self._clock, key, data)
        sealed = replace(
            head, generation=head.generation + 1, manifest=key, sha256=sha256, sealed_at=now, deleted=False
        )
        return replace(sealed, commit_id=new_commit_id()), len(data), document

    def _history(self, parent: Manifest | None, head: Head, retention: Retention | None) -> tuple[Past, ...]:
        if parent is None or head.sha256 is None:
            return ()
        history = (*self._generations.earlier(parent), parent.past(head.sha256))
        return kept(history, retention) if retention else history

    def _publish(self, right: UploadRight, head: Head) -> UploadRight:
        """The atomic switch; a HEAD that says what it should is not written again."""
        if head is right.head:
            return right
        try:
            etag = self._heads.swap(right.tenant, head, etag=right.etag)
        except HeadLost as lost:
            if lost.current is None or lost.current[0].epoch != right.epoch:
                fence(right, lost.current and lost.current[0])
            raise UploadFailed(
                f"an earlier commit of tenant {right.tenant} landed late",
                why="HEAD was changed under our own lease",
                hint="release again; nothing is lost",
                tenant=right.tenant,
            ) from lost
        return replace(right, head=head, etag=etag, base_generation=head.generation)


def _parent(head: Head) -> Parent | None:
    if head.manifest is None or head.sha256 is None:
        return None
    return Parent(generation=head.generation, key=head.manifest, sha256=head.sha256)
