"""A tenant's state between the bucket and a directory: lease, restore, commit, in the only order that loses nothing.

Commit: packs → manifest → HEAD by compare-and-swap, so a generation appears whole or not at all. A right to commit
comes from a whole restore (or a tree as new as HEAD) alone: a read that failed never becomes a write that destroys.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from claw_runtime import manifest as manifests
from claw_runtime.errors import (
    ClawError,
    Fenced,
    RestoreFailed,
    StateMissing,
    TenantLocked,
    UploadFailed,
    VerifyMismatch,
)
from claw_runtime.manifest import Manifest, Parent
from claw_runtime.ports import Clock, ObjectMissing, ObjectStore
from claw_runtime.services.leases import (
    ATTEMPTS,
    UNCLAIMED,
    Head,
    HeadLost,
    Heads,
    Lease,
    UploadRight,
    new_commit_id,
    released,
    timestamp,
    upload_right,
)
from claw_runtime.services.refusals import fence, refuse_empty, refuse_restore, refuse_upload, unchanged
from claw_runtime.services.restoring import check_room, read_file, unpack
from claw_runtime.services.uploading import Collected, Collector, printable, put_immutable
from claw_runtime.tenancy import Keys, TenantId
from claw_runtime.treewalk import Skipped, Tree, remove_tree

REMEMBERED = 10_000
"""HEADs that are remembered after a release, about 1 KB each."""

__all__ = ["Generation", "Head", "Lease", "Skipped", "Syncing", "UploadRight"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """What a commit came to.

    Attributes:
        number: The generation that HEAD names now.
        created: False when the tree was what HEAD already named.
        files, bytes: Files in the generation, and their size together.
        uploaded_bytes: Bytes sent for it.
        seconds: How long the commit took.
        reported: Names that were left out or stored otherwise than asked, and why.
        right: Leave for the next commit; None once the tenant is released.
    """

    number: int
    created: bool
    files: int
    bytes: int
    uploaded_bytes: int
    seconds: float
    reported: tuple[Skipped, ...]
    right: UploadRight | None


class Syncing:
    """State engine of one runtime.

    Args:
        store: A store whose conditional writes are honest (`objects.probe` makes sure).
        runtime_id: Who we are in a lease; must stay the same over restarts and differ between hosts.
        scratch: Directory for private copies of databases; made if missing, 0700.
    """

    def __init__(self, store: ObjectStore, runtime_id: str, clock: Clock, scratch: Path) -> None:
        self._store, self._runtime_id, self._clock, self._scratch = store, runtime_id, clock, scratch
        self._heads = Heads(store, clock)
        self._last: dict[TenantId, tuple[Head, str]] = {}

    # --- lease ---

    def acquire(self, tenant: TenantId, *, take_over: bool = False) -> Lease:
        """Become the one who may write the tenant's next generation.

        A lease of our own, left by a crash, is taken up again under a new epoch. `take_over` does the same to another
        runtime's: its next commit is refused.

        Raises:
            TenantLocked: Another runtime holds it (`facts["owner"]`).
            RestoreFailed: HEAD is not valid.
            StoreUnavailable, StoreDenied, BucketMissing: The store.
        """
        commit_id = new_commit_id()
        last = self._last.pop(tenant, None)
        for _ in range(ATTEMPTS):
            # What we left is most often what is there: the swap tells, and a request is saved.
            found, last = last or self._heads.read(tenant), None
            if found is not None and found[0].commit_id == commit_id:
                return Lease(tenant=tenant, epoch=found[0].epoch, etag=found[1], head=found[0])
            self._check_free(tenant, found and found[0], take_over=take_over)
            head = self._taken(found[0] if found else UNCLAIMED, commit_id)
            try:
                etag = self._heads.swap(tenant, head, etag=found and found[1])
            except HeadLost:
                continue
            return Lease(tenant=tenant, epoch=head.epoch, etag=etag, head=head)
        raise TenantLocked(
            f"tenant {tenant} changes hands too fast",
            why=f"{ATTEMPTS} attempts to take its lease each came second",
            hint="find out which runtimes claim it at the same time",
            tenant=tenant,
            owner=None,
        )

    def give_back(self, tenant: TenantId) -> None:
        """End our lease of the tenant, whatever its epoch; one that is given back, or another's, is fine.

        Raises:
            StoreUnavailable, StoreDenied, BucketMissing, RestoreFailed: It is not known to be given back.
        """
        for _ in range(ATTEMPTS):
            found = self._heads.read(tenant)
            if found is None or found[0].owner != self._runtime_id:
                return
            head = released(found[0])
            try:
                etag = self._heads.swap(tenant, head, etag=found[1])
            except HeadLost:
                continue
            self._remember(tenant, head, etag)
            return

    # --- down ---

    def restore(self, lease: Lease, staging: Path) -> UploadRight:
        """Make HEAD's generation in `staging`, which must be missing or empty; generation 0 is an empty directory.

        Raises:
            DiskFull: There is no room for it.
            RestoreFailed: Anything else; in both cases what was made in `staging` is removed again.
        """
        _make_empty(lease, staging)
        try:
            if lease.head.generation:
                document = self._document(lease.tenant, lease.head)
                check_room(document, staging)
                with Tree(staging) as tree:
                    unpack(self._store, document, tree)
        except BaseException as error:
            remove_tree(staging)
            if isinstance(error, (ClawError, ObjectMissing, OSError)):
                refuse_restore(lease.tenant, lease.head.generation, error)
            raise
        return upload_right(lease)

    def adopt(self, lease: Lease, base_generation: int) -> UploadRight:
        """The right for a tree that was kept here, if nothing was committed since it was restored.

        Raises:
            RestoreFailed: HEAD has moved on; both the kept tree and HEAD stay as they are.
        """
        if lease.head.generation != base_generation:
            raise RestoreFailed(
                f"the kept tree of tenant {lease.tenant} is older than its HEAD",
                why=f"the tree grew from generation {base_generation}, HEAD is {lease.head.generation}",
                hint="both are kept: compare them, then move the kept tree away and claim again",
                tenant=lease.tenant,
                base_generation=base_generation,
                generation=lease.head.generation,
            )
        return upload_right(lease)

    # --- up ---

    def commit(
        self,
        right: UploadRight,
        tree: Path,
        *,
        exclude: Sequence[str],
        image_digest: str,
        application: str,
        release: bool,
        allow_empty: bool = False,
    ) -> Generation:
        """Seal the tree as the next generation, and give the tenant back with the same write when `release`.

        A tree that is what HEAD names makes no generation. After an `UploadFailed` the same call may be made again
        with the same right, whatever became of the first.

        Args:
            exclude: Patterns with .gitignore meaning, relative to the tree.
            release: Nobody writes to the tree any more and nobody will.
            allow_empty: A tree without a file may replace one that has files.

        Raises:
            Fenced: Another runtime took the tenant over; nothing that it sees was changed.
            UploadFailed: Anything else; the tree is untouched and must be kept.
        """
        started = self._clock.monotonic()
        try:
            right = self._refresh(right)
            parent = self._document(right.tenant, right.head) if right.base_generation else None
            collected = self._collect(right, parent, tree, exclude, still=release)
            refuse_empty(right, parent, collected, allow_empty=allow_empty)
            if unchanged(parent, collected):
                head, sent = right.head, 0
            else:
                head, sent = self._put_manifest(right, collected, image_digest, application)
            after = self._publish(right, released(head) if release else head)
            if release:
                self._remember(right.tenant, after.head, after.etag)
        except (Fenced, UploadFailed):
            raise
        except (ClawError, ObjectMissing, OSError) as error:
            refuse_upload(right.tenant, error)
        return Generation(
            number=head.generation,
            created=head is not right.head,
            files=sum(entry.type == "f" for entry in collected.entries),
            bytes=sum(entry.size for entry in collected.entries),
            uploaded_bytes=collected.uploaded + sent,
            seconds=self._clock.monotonic() - started,
            reported=collected.reported,
            right=None if release else after,
        )

    # --- looking ---

    def head(self, tenant: TenantId) -> Head | None:
        """HEAD as it is now; None for a tenant that was never claimed. Raises like `acquire`."""
        found = self._heads.read(tenant)
        return found and found[0]

    def manifest(self, tenant: TenantId, generation: int | None = None) -> Manifest:
        """A generation's manifest, HEAD's by default.

        Raises:
            StateMissing: There is no such generation.
            RestoreFailed: It is damaged.
            StoreUnavailable, StoreDenied, BucketMissing: The store.
        """
        head = self.head(tenant)
        if head is None or not head.generation or (generation is not None and not 1 <= generation <= head.generation):
            raise StateMissing(
                f"tenant {tenant} has no generation{'' if generation is None else f' {generation}'}",
                why=f"HEAD is at generation {head.generation}" if head else "nothing was ever stored for it",
                hint=f"`claw-runtime sync list {tenant}` shows the newest generation"
                if head and head.generation
                else "a tenant's first release makes generation 1",
                tenant=tenant,
            )
        try:
            document = self._document(tenant, head)
            while generation is not None and document.generation != generation:
                document = self._parent(document)
        except ObjectMissing as error:
            refuse_restore(tenant, generation or head.generation, error)
        return document

    def read(self, tenant: TenantId, path: str, generation: int | None = None) -> Iterator[bytes]:
        """One file's content out of a generation; the digest is checked after the last piece.

        Raises:
            StateMissing: There is no such file, or no such generation.
            RestoreFailed: It is damaged.
            StoreUnavailable, StoreDenied, BucketMissing: The store.
        """
        document = self.manifest(tenant, generation)
        entry = document.find(path)
        if entry is None or entry.type != "f":
            raise StateMissing(
                f"no file {printable(path)} in generation {document.generation} of tenant {tenant}",
                hint=f"`claw-runtime sync list {tenant}` shows what there is",
                tenant=tenant,
            )
        return self._pieces(tenant, document.generation, entry)

    # --- inside ---

    def _remember(self, tenant: TenantId, head: Head, etag: str) -> None:
        """A HEAD that we gave back, for the next claim."""
        while len(self._last) >= REMEMBERED:
            self._last.pop(next(iter(self._last)), None)
        self._last[tenant] = head, etag

    def _check_free(self, tenant: TenantId, head: Head | None, *, take_over: bool) -> None:
        if head is not None and head.owner not in {None, self._runtime_id} and not take_over:
            raise TenantLocked(
                f"tenant {tenant} is held by another runtime",
                why=f"{head.owner} holds it since {head.lease} (epoch {head.epoch})",
                hint="release it there; if that host is gone for good, claim it with --take-over",
                tenant=tenant,
                owner=head.owner,
                epoch=head.epoch,
            )

    def _taken(self, head: Head, commit_id: str) -> Head:
        since = timestamp(self._clock)
        return replace(head, epoch=head.epoch + 1, owner=self._runtime_id, commit_id=commit_id, lease=since)

    def _refresh(self, right: UploadRight) -> UploadRight:
        """The right as HEAD is now: an earlier commit of ours may have landed after we gave it up."""
        found = self._heads.read(right.tenant)
        if found is None or found[0].epoch != right.epoch:
            fence(right, found and found[0])
        return replace(right, head=found[0], etag=found[1], base_generation=found[0].generation)

    def _collect(
        self, right: UploadRight, parent: Manifest | None, tree: Path, exclude: Sequence[str], *, still: bool
    ) -> Collected:
        self._scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        keys = Keys(right.tenant)
        collector = Collector(self._store, self._clock, keys, parent=parent, scratch=self._scratch, still=still)
        return collector.collect(tree, exclude)

    def _put_manifest(
        self, right: UploadRight, collected: Collected, image_digest: str, application: str
    ) -> tuple[Head, int]:
        head, now = right.head, timestamp(self._clock)
        parent = None
        if head.manifest is not None and head.sha256 is not None:
            parent = Parent(generation=head.generation, key=head.manifest, sha256=head.sha256)
        data = manifests.encode(
            Manifest(
                tenant=right.tenant,
                generation=head.generation + 1,
                parent=parent,
                created=now,
                image=image_digest,
                application=application,
                entries=collected.entries,
                packs=collected.packs,
            )
        )
        sha256 = hashlib.sha256(data).hexdigest()
        key = Keys(right.tenant).manifest(head.generation + 1, sha256)
        put_immutable(self._store, self._clock, key, data)
        sealed = replace(head, generation=head.generation + 1, manifest=key, sha256=sha256, sealed_at=now)
        return replace(sealed, commit_id=new_commit_id()), len(data)

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

    def _document(self, tenant: TenantId, head: Head) -> Manifest:
        if head.manifest is None or head.sha256 is None:
            raise RestoreFailed(f"tenant {tenant} has no generation", hint="nothing was stored yet", tenant=tenant)
        return self._fetch(tenant, head.generation, head.manifest, head.sha256)

    def _parent(self, document: Manifest) -> Manifest:
        parent = document.parent
        if parent is None or parent.generation >= document.generation:
            raise RestoreFailed(
                f"generation {document.generation} of tenant {document.tenant} has no usable parent",
                hint="older generations cannot be found through it",
                tenant=document.tenant,
            )
        return self._fetch(document.tenant, parent.generation, parent.key, parent.sha256)

    def _fetch(self, tenant: TenantId, generation: int, key: str, sha256: str) -> Manifest:
        if key != Keys(tenant).manifest(generation, sha256):
            raise RestoreFailed(f"a manifest key of tenant {tenant} is not its own", why=key[:200], tenant=tenant)
        data, _ = self._store.get(key)
        if hashlib.sha256(data).hexdigest() != sha256:
            data, _ = self._store.get(key)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise VerifyMismatch("a manifest is damaged", why=f"the digest of {key} differs", tenant=tenant)
        document = manifests.decode(data, tenant=tenant)
        if document.generation != generation:
            raise RestoreFailed(f"{key} is of generation {document.generation}, not {generation}", tenant=tenant)
        return document

    def _pieces(self, tenant: TenantId, generation: int, entry: manifests.Entry) -> Iterator[bytes]:
        try:
            yield from read_file(self._store, Keys(tenant), entry)
        except ObjectMissing as error:
            refuse_restore(tenant, generation, error)


def _make_empty(lease: Lease, staging: Path) -> None:
    try:
        staging.mkdir(mode=0o700, parents=True, exist_ok=True)
        with Tree(staging) as tree:
            taken = next(tree.walk(), None)
    except OSError as error:
        refuse_restore(lease.tenant, lease.head.generation, error)
    if taken is not None:
        raise RestoreFailed(
            f"the staging directory of tenant {lease.tenant} is not empty",
            why=f"{staging} holds {printable(taken.path)}",
            hint="an unfinished restore left it: look at it, then remove it",
            tenant=lease.tenant,
        )
