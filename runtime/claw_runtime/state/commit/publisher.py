"""The last two steps of a commit: store the manifest, then swap HEAD, which makes the generation the newest."""

import hashlib
from dataclasses import replace

from claw_runtime.errors import UploadFailed
from claw_runtime.formats import manifest as manifests
from claw_runtime.formats.envelope import Sealer, wrap
from claw_runtime.formats.head import Head, new_commit_id, released, timestamp
from claw_runtime.formats.manifest import Manifest, Parent, Past
from claw_runtime.ports import Clock, ObjectStore
from claw_runtime.spec.parts import Retention
from claw_runtime.state.commit.bases import base_of
from claw_runtime.state.commit.guards import Draft, fence
from claw_runtime.state.commit.pack_upload import put_immutable
from claw_runtime.state.history.generations import Generations
from claw_runtime.state.history.retention import kept
from claw_runtime.state.keyring import Keyring
from claw_runtime.state.lease.heads import HeadLost, Heads
from claw_runtime.state.lease.leases import Leases, UploadRight
from claw_runtime.tenancy import Keys, TenantId


class Publisher:
    """Seals and publishes generations whose packs are in the store already, for all tenants of one runtime.

    Raises (every method): StoreUnavailable, StoreDenied, BucketMissing, RestoreFailed.
    """

    def __init__(
        self, store: ObjectStore, clock: Clock, heads: Heads, generations: Generations, leases: Leases, keyring: Keyring
    ) -> None:
        self._store, self._clock = store, clock
        self._heads, self._generations, self._leases, self._keyring = heads, generations, leases, keyring

    def refresh(self, right: UploadRight) -> UploadRight:
        """The right for the present HEAD: an earlier commit of this runtime may have succeeded after it was given up.

        Before the first commit of a claim, HEAD is compared with the stored generations: it may have gone back to what
        this host wrote last, while another host wrote more. A claim itself has no time for that.

        Raises:
            Fenced: Another runtime took the tenant over.
            HeadRefused: HEAD has gone back.
        """
        found = self._heads.read(right.tenant)
        if found is None or found[0].epoch != right.epoch:
            fence(right, found and found[0])
        if not right.compared:
            self._heads.known.check_above(right.tenant, found[0])
        return replace(right, head=found[0], etag=found[1], base_generation=found[0].generation, compared=True)

    def parent(self, tenant: TenantId, head: Head) -> Manifest | None:
        """The manifest that this HEAD names, the parent of the next generation; None when it names none."""
        return self._generations.of_head(tenant, head) if head.manifest else None

    def seal(
        self, tenant: TenantId, head: Head, parent: Manifest | None, draft: Draft, sealer: Sealer
    ) -> tuple[Head, int, Manifest]:
        """Store the manifest of the generation after this HEAD's.

        Returns:
            The HEAD that names it and is still to be published, the manifest's bytes in the store, and the manifest.
        """
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
            base=base_of(parent, head.sha256, draft.entries, seals=sealer.seals, release=draft.release),
            sealed=sealer.seals,
        )
        data = wrap(sealer, manifests.encode(document))
        sha256 = hashlib.sha256(data).hexdigest()
        key = Keys(tenant).manifest(head.generation + 1, sha256)
        put_immutable(self._store, self._clock, key, data)
        sealed = replace(
            head, generation=head.generation + 1, manifest=key, sha256=sha256, sealed_at=now, deleted=False
        )
        return replace(sealed, commit_id=new_commit_id()), len(data), document

    def publish(self, right: UploadRight, head: Head, *, release: bool) -> UploadRight:
        """Swap HEAD, and give the tenant back with the same write when `release`. An equal HEAD is not written again.

        Returns the right for the new HEAD.

        Raises:
            Fenced: Another runtime took the tenant over; nothing that it sees was changed.
            UploadFailed: An earlier commit of this runtime succeeded after it was given up.
        """
        if release:
            head = released(head)
        if head is right.head:
            return right
        try:
            etag = self._heads.swap(right.tenant, head, etag=right.etag)
        except HeadLost as lost:
            if lost.current is None or lost.current[0].epoch != right.epoch:
                fence(right, lost.current and lost.current[0])
            raise UploadFailed(
                f"an earlier commit of tenant {right.tenant} succeeded late",
                why="HEAD changed under this runtime's own lease",
                hint="release again; nothing is lost",
                tenant=right.tenant,
            ) from lost
        if release:
            self._leases.remember(right.tenant, head, etag)
        return replace(right, head=head, etag=etag, base_generation=head.generation)

    def reseal(self, tenant: TenantId, head: Head, etag: str | None, draft: Draft) -> Head:
        """Seal a generation without reading a tree, on top of a HEAD without an owner; returns the new HEAD.

        One swap takes the tenant and gives it back, under a new epoch: nothing is left to undo after a crash.

        Raises:
            HeadLost: HEAD has changed; nothing visible was changed.
            UploadFailed: The swap failed, or its outcome is unknown.
        """
        parent = self.parent(tenant, head)
        sealed, _, _ = self.seal(tenant, head, parent, draft, self._keyring.sealer(tenant))
        sealed = replace(released(sealed), epoch=head.epoch + 1)
        self._leases.remember(tenant, sealed, self._heads.swap(tenant, sealed, etag=etag))
        return sealed

    def _history(self, parent: Manifest | None, head: Head, retention: Retention | None) -> tuple[Past, ...]:
        if parent is None or head.sha256 is None:
            return ()
        history = (*self._generations.earlier(parent), parent.past(head.sha256))
        return kept(history, retention) if retention else history


def _parent(head: Head) -> Parent | None:
    if head.manifest is None or head.sha256 is None:
        return None
    return Parent(generation=head.generation, key=head.manifest, sha256=head.sha256)
