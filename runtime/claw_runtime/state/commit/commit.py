"""Commit a tree as the next generation: packs, manifest, HEAD by compare-and-swap; it appears whole or not at all."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Final

import structlog

from claw_runtime.errors import ClawError, Fenced, UploadFailed
from claw_runtime.formats.envelope import Sealer
from claw_runtime.formats.head import HeadRefused, timestamp
from claw_runtime.formats.manifest import Manifest
from claw_runtime.ports import Clock, ObjectMissing, ObjectStore
from claw_runtime.state.commit.archiver import Archiver
from claw_runtime.state.commit.compaction import Packing, packing_at
from claw_runtime.state.commit.guards import (
    ArchivedTree,
    Draft,
    check_lineage,
    mass_delete,
    refuse_empty,
    refuse_mass_delete,
    refuse_upload,
    unchanged,
)
from claw_runtime.state.commit.holding import Holding, Restless
from claw_runtime.state.commit.pack_upload import CommitUpload, UploadPool
from claw_runtime.state.commit.progress import Transfers
from claw_runtime.state.commit.publisher import Publisher
from claw_runtime.state.commit.request import CommitRequest, CommitResult
from claw_runtime.state.commit.stat_cache import CachedTree, StatCache
from claw_runtime.state.history.pins import Pins
from claw_runtime.state.keyring import Keyring
from claw_runtime.state.lease.leases import UploadRight
from claw_runtime.state.rules.handed_out import SecretSearch
from claw_runtime.tenancy import Keys

log = structlog.get_logger(__name__)

MASS_DELETE: Final = "before-mass-delete"
"""Tag of the pin for a generation whose successor lacks most of its files."""


class Committer:
    """Commits of one runtime.

    Args:
        scratch: Directory for private copies of databases and of what changes all the time; made if missing, 0700.
        transfers: Records the progress of each commit.
    """

    def __init__(
        self,
        store: ObjectStore,
        clock: Clock,
        publisher: Publisher,
        pins: Pins,
        keyring: Keyring,
        cache: StatCache,
        scratch: Path,
        transfers: Transfers,
    ) -> None:
        self._store, self._clock, self._scratch, self._transfers = store, clock, scratch, transfers
        self._publisher, self._pins, self._keyring, self._cache = publisher, pins, keyring, cache
        self._pool, self._restless = UploadPool(), Restless(clock)

    def commit(self, request: CommitRequest) -> CommitResult:
        """Seal the tree as the next generation, and give the tenant back with the same write when `request.release`.

        A tree that equals HEAD's generation makes no new one. After an `UploadFailed` the same call may be repeated
        with the same right, whether or not the first attempt succeeded.

        Raises:
            Fenced: Another runtime took the tenant over; nothing that it sees was changed.
            HeadRefused: HEAD is missing, unreadable or older than this host knows it; the tree must be kept.
            UploadFailed: Anything else failed; the tree is unchanged and must be kept.
        """
        started, tenant = self._clock.monotonic(), request.right.tenant
        try:
            right = self._publisher.refresh(request.right)
            cached = self._cache.recall(tenant, right.head.sha256)
            parent = cached.manifest if cached else self._publisher.parent(tenant, right.head)
            check_lineage(request.right, right.head, parent)
            packing = packing_at(parent, cached.packing if cached else None, timestamp(self._clock), request.retention)
            cached = cached and replace(cached, packing=packing)
            sealer = self._keyring.sealer(tenant)
            search = SecretSearch(request.secrets)
            archived = self._archive(request, search, right.epoch, parent, cached, sealer)
            search.entries(archived.entries, parent.entries if parent else ())
            refuse_empty(right, parent, archived, allow_empty=request.allow_empty)
            if unchanged(parent, archived):
                head, sent, document = right.head, 0, parent
            else:
                self._guard(request, right, parent, archived)
                draft = Draft(
                    entries=archived.entries,
                    packs=archived.packs,
                    image=request.image_digest,
                    application=request.application,
                    retention=request.retention,
                    release=request.release,
                )
                head, sent, document = self._publisher.seal(tenant, right.head, parent, draft, sealer)
            request.sealed(head.sha256 or "")
            after = self._publisher.publish(right, head, release=request.release)
            cached = self._remember(request, after, document, archived, cached, packing)
        except (Fenced, UploadFailed, HeadRefused):
            raise
        except (ClawError, ObjectMissing, OSError) as error:
            refuse_upload(tenant, error)
        return CommitResult(
            number=head.generation,
            sha256=head.sha256 or "",
            created=head is not right.head,
            files=cached.files if cached else 0,
            bytes=cached.size if cached else 0,
            uploaded_bytes=archived.uploaded + sent,
            seconds=self._clock.monotonic() - started,
            reported=(*archived.reported, *search.told()),
            right=None if request.release else after,
            secrets=search.found,
        )

    def _archive(
        self,
        request: CommitRequest,
        search: SecretSearch,
        epoch: int,
        parent: Manifest | None,
        cached: CachedTree | None,
        sealer: Sealer,
    ) -> ArchivedTree:
        """Upload the tree's content to the store."""
        self._scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        tenant = request.right.tenant
        upload = CommitUpload(
            self._store, self._clock, Keys(tenant), self._pool, epoch=epoch, sealer=sealer, search=search
        )
        before = cached.size if cached else parent.size if parent else 0
        with closing(upload), self._transfers.begun(tenant, before) as transfer:
            archiver = Archiver(
                upload,
                self._clock,
                parent=parent,
                cached=cached.sealed() if cached and sealer.seals else cached,
                selection=request.selection,
                limits=request.limits,
                scratch=self._scratch,
                still=request.release,
            )
            if request.release:
                self._restless.forget(tenant)
                return archiver.archive(request.tree, transfer.add)
            holding = Holding(self._clock, self._scratch, request.hold, self._restless.due(tenant))
            archived = archiver.archive(request.tree, transfer.add, holding=holding)
            self._restless.committed(tenant, archived.moving, holding)
            return archived

    def _guard(
        self, request: CommitRequest, right: UploadRight, parent: Manifest | None, archived: ArchivedTree
    ) -> None:
        """Most files are gone, on purpose or by accident: refuse, or pin the generation that has them."""
        if parent is None or right.head.sha256 is None or not (gone := mass_delete(parent, archived)):
            return
        if request.on_mass_delete == "refuse":
            refuse_mass_delete(right, parent, gone)
        if self._pins.find(right.tenant, parent.generation) is None:
            self._pins.put(right.tenant, parent.past(right.head.sha256), MASS_DELETE, automatic=True)
        log.warning("most files are gone", tenant=right.tenant, gone=gone, of=parent.files, pinned=parent.generation)

    def _remember(
        self,
        request: CommitRequest,
        after: UploadRight,
        document: Manifest | None,
        archived: ArchivedTree,
        old: CachedTree | None,
        packing: Packing,
    ) -> CachedTree | None:
        """Remember what the next commit does not need to read."""
        if document is None or after.head.sha256 is None:
            return None
        counted = old is not None and old.manifest is document
        cached = CachedTree(
            manifest=document,
            selection=request.selection,
            records=archived.records,
            databases=archived.databases,
            doubted=archived.doubted,
            files=old.files if old and counted else document.files,
            size=old.size if old and counted else document.size,
            packing=Packing(spare=archived.spare, settled=packing.settled & document.pack_names),
        )
        self._cache.remember(after.tenant, after.head.sha256, cached)
        return cached
