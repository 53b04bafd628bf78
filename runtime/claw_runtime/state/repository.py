"""A tenant's state between the bucket and a directory: lease, restore, commit, in the only order that loses nothing.

A right to commit comes from a whole restore (or a tree as new as HEAD) alone: a read that failed never becomes a write
that destroys. The parts: `holding` leases, `generations` what is there, `restoring` down, `committing` up.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal

from claw_runtime.errors import ClawError, RestoreFailed
from claw_runtime.formats.envelope import Sealer
from claw_runtime.formats.head import Head
from claw_runtime.formats.manifest import Entry, Manifest, Past
from claw_runtime.ports import Clock, ObjectMissing, ObjectStore
from claw_runtime.safefs.tree import Skipped, Tree, printable, remove_tree
from claw_runtime.spec.parts import Retention, SyncLimits
from claw_runtime.state.commit.commit import UNLIMITED, Committer
from claw_runtime.state.commit.guards import CommitResult, Draft
from claw_runtime.state.commit.progress import Transfers
from claw_runtime.state.commit.stat_cache import StatCache, learn
from claw_runtime.state.history.garbage import GRACE, Collection, Garbage
from claw_runtime.state.history.generations import Generations
from claw_runtime.state.history.pins import Pins
from claw_runtime.state.keyring import Keyring
from claw_runtime.state.lease.heads import Heads
from claw_runtime.state.lease.heartbeats import Heartbeats
from claw_runtime.state.lease.leases import Lease, Leases, UploadRight, upload_right
from claw_runtime.state.restore.restore import check_room, refuse_restore, unpack
from claw_runtime.state.rules.carry_over import brought
from claw_runtime.state.rules.selection import EVERYTHING, Selection
from claw_runtime.tenancy import Keys, TenantId

__all__ = ["CommitResult", "Head", "Lease", "Repository", "Skipped", "UploadRight"]


class Repository:
    """State engine of one runtime.

    Args:
        store: A store whose conditional writes are honest (`objects.probe` makes sure).
        runtime_id: Who we are in a lease; must stay the same over restarts and differ between hosts.
        scratch: Directory for private copies of databases; made if missing, 0700.
        vault: Keys that states are encrypted with; none by default.
        beats: Our sign of life, and what is seen of others'.
    """

    def __init__(
        self,
        store: ObjectStore,
        runtime_id: str,
        clock: Clock,
        scratch: Path,
        vault: Keyring | None = None,
        beats: Heartbeats | None = None,
    ) -> None:
        self.runtime_id = runtime_id
        self._store, self._vault = store, vault or Keyring(store)
        heads = Heads(store, clock)
        self.transfers = Transfers(clock)
        self.beats = beats or Heartbeats(store, runtime_id, clock)
        self._holding = Leases(heads, runtime_id, clock, self.beats)
        pins, self._cache = Pins(store, clock), StatCache()
        self._generations = Generations(store, heads, pins, self._vault)
        self._committing = Committer(
            store,
            clock,
            heads,
            self._generations,
            self._holding,
            pins,
            self._vault,
            self._cache,
            scratch,
            self.transfers,
        )
        self._garbage = Garbage(store, heads, self._generations, pins, clock)

    # --- lease ---

    def acquire(self, tenant: TenantId, *, take_over: bool = False) -> Lease:
        """See `Leases.acquire`."""
        return self._holding.acquire(tenant, take_over=take_over)

    def give_back(self, tenant: TenantId) -> None:
        """See `Leases.give_back`."""
        self._holding.give_back(tenant)

    def bury(self, tenant: TenantId) -> Head | None:
        """See `Leases.bury`."""
        self._cache.forget(tenant)
        return self._holding.bury(tenant)

    # --- down ---

    def restore(
        self, lease: Lease, staging: Path, selection: Selection = EVERYTHING, donor: Path | None = None
    ) -> UploadRight:
        """Make HEAD's generation in `staging`, which must be missing or empty; generation 0 is an empty directory.

        What the selection does not restore is left out: the commits that follow must know it (`Selection.after`).

        Args:
            donor: An older tree of this tenant that nobody uses any more; files that have not changed since are moved
                out of it, and not fetched. It is torn afterwards, whatever comes of the restore.

        Raises:
            DiskFull: There is no room for it.
            RestoreFailed: Anything else; in both cases what was made in `staging` is removed again.
        """
        tenant, head = lease.tenant, lease.head

        whole: Manifest | None = None

        def document() -> Manifest | None:
            nonlocal whole
            if head.manifest is None:
                return None
            known = self._cache.recall(tenant, head.sha256)
            whole = self._generations.of_head(tenant, head, known.manifest if known else None)
            return replace(whole, entries=brought(whole.entries, selection))

        self._unpack(tenant, head.generation, document, staging, donor)
        if whole is not None and head.sha256 is not None:
            self._cache.forget(tenant)
            with suppress(OSError), Tree(staging) as tree:
                self._cache.remember(tenant, head.sha256, learn(tree, whole, time.time_ns()))
        return upload_right(lease)

    def extract(self, tenant: TenantId, target: Path, generation: int | None = None) -> Manifest:
        """Make a generation, HEAD's by default, in a missing or empty directory, for somebody to look at: it takes no
        lease and gives no right to upload. Raises like `manifest`, and `DiskFull`."""
        document = self._generations.manifest(tenant, generation)
        self._unpack(tenant, document.generation, lambda: document, target)
        return document

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
        selection: Selection,
        image_digest: str,
        application: str,
        release: bool,
        allow_empty: bool = False,
        limits: SyncLimits = UNLIMITED,
        on_mass_delete: Literal["pin", "refuse"] = "pin",
        retention: Retention | None = None,
    ) -> CommitResult:
        """See `Committer.commit`."""
        return self._committing.commit(
            right,
            tree,
            selection=selection,
            image_digest=image_digest,
            application=application,
            release=release,
            allow_empty=allow_empty,
            limits=limits,
            on_mass_delete=on_mass_delete,
            retention=retention,
        )

    def free(self, tenant: TenantId) -> tuple[Head, str | None]:
        """See `Leases.free`."""
        return self._holding.free(tenant)

    def reseal(self, tenant: TenantId, head: Head, etag: str | None, draft: Draft) -> Head:
        """See `Committer.reseal`."""
        return self._committing.reseal(tenant, head, etag, draft)

    def sealer(self, tenant: TenantId) -> Sealer:
        """See `Keyring.sealer`."""
        return self._vault.sealer(tenant)

    # --- away ---

    def collect_garbage(
        self, tenant: TenantId, right: UploadRight | None = None, *, grace: float = GRACE, dry_run: bool = False
    ) -> Collection | None:
        """Remove what no kept generation needs; None when the tenant has nothing in the store. See `Garbage.collect`.

        Args:
            right: That of the running tenant; without one the lease is taken for the time of the collection.

        Raises also `TenantLocked`: another runtime holds the tenant, and collects itself.
        """
        head = self._generations.head(tenant)
        if head is None:
            return None
        if dry_run or right is not None:
            return self._garbage.collect(tenant, right.head if right else head, grace=grace, dry_run=dry_run)
        lease = self._holding.acquire(tenant)
        try:
            return self._garbage.collect(tenant, lease.head, grace=grace)
        finally:
            self._holding.give_back(tenant)

    # --- looking ---

    def head(self, tenant: TenantId) -> Head | None:
        """See `Generations.head`."""
        return self._generations.head(tenant)

    def manifest(self, tenant: TenantId, generation: int | None = None) -> Manifest:
        """See `Generations.manifest`."""
        return self._generations.manifest(tenant, generation)

    def newest(self, tenant: TenantId, head: Head | None) -> Manifest:
        """See `Generations.newest`."""
        return self._generations.newest(tenant, head)

    def of_past(self, tenant: TenantId, past: Past) -> Manifest:
        """See `Generations.of_past`."""
        return self._generations.of_past(tenant, past)

    def earlier(self, document: Manifest) -> tuple[Past, ...]:
        """See `Generations.earlier`."""
        return self._generations.earlier(document)

    def lying(self, tenant: TenantId) -> Iterator[Past]:
        """See `Generations.lying`."""
        return self._generations.lying(tenant)

    def read(self, tenant: TenantId, path: str, generation: int | None = None) -> Iterator[bytes]:
        """See `Generations.read`."""
        return self._generations.read(tenant, path, generation)

    def content(self, document: Manifest, entry: Entry) -> Iterator[bytes]:
        """See `Generations.content`."""
        return self._generations.content(document, entry)

    def weight(self, tenant: TenantId) -> tuple[int, int]:
        """Objects that are stored of a tenant, HEAD excepted, and their bytes."""
        keys = Keys(tenant)
        sizes = [item.size for item in self._store.list(keys.prefix) if item.key != keys.head]
        return len(sizes), sum(sizes)

    def forget_key(self, tenant: TenantId) -> None:
        """See `Keyring.forget`."""
        self._vault.forget(tenant)

    # --- inside ---

    def _unpack(
        self,
        tenant: TenantId,
        generation: int,
        document: Callable[[], Manifest | None],
        target: Path,
        donor: Path | None = None,
    ) -> None:
        """Make a tree, or nothing."""
        _make_empty(tenant, generation, target)
        try:
            if found := document():
                check_room(found, target)
                with ExitStack() as stack:
                    tree = stack.enter_context(Tree(target))
                    old = stack.enter_context(Tree(donor)) if donor else None
                    unpack(self._store, found, tree, self._vault.sealer(tenant), old)
        except BaseException as error:
            remove_tree(target)
            if isinstance(error, (ClawError, ObjectMissing, OSError)):
                refuse_restore(tenant, generation, error)
            raise


def _make_empty(tenant: TenantId, generation: int, target: Path) -> None:
    try:
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        with Tree(target) as tree:
            taken = next(tree.walk(), None)
    except OSError as error:
        refuse_restore(tenant, generation, error)
    if taken is not None:
        raise RestoreFailed(
            f"the directory to restore tenant {tenant} in is not empty",
            why=f"{target} holds {printable(taken.path)}",
            hint="an unfinished restore may have left it: look at it, then remove it",
            tenant=tenant,
        )
