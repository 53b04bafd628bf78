"""Restores a generation into a directory and gives the upload right.

Only a whole restore, or a tree as new as HEAD, gives that right: a failed read never becomes a write that destroys
state.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

from claw_runtime.errors import ClawError, RestoreFailed
from claw_runtime.formats.manifest import Manifest
from claw_runtime.ports import ObjectMissing, ObjectStore
from claw_runtime.safefs.removal import remove_tree
from claw_runtime.safefs.tree import Tree, printable
from claw_runtime.state.commit.stat_cache import StatCache, learn
from claw_runtime.state.history.generations import Generations
from claw_runtime.state.keyring import Keyring
from claw_runtime.state.lease.leases import Lease, UploadRight, upload_right
from claw_runtime.state.restore.disk_space import check_room
from claw_runtime.state.restore.restore import refuse_restore, unpack
from claw_runtime.state.rules.carry_over import brought
from claw_runtime.state.rules.selection import EVERYTHING, Selection
from claw_runtime.tenancy import TenantId


class Restorer:
    """Restores of one runtime.

    Args:
        cache: Remembers each restored tree, so that the next commit need not read it.
    """

    def __init__(self, store: ObjectStore, generations: Generations, keyring: Keyring, cache: StatCache) -> None:
        self._store, self._generations, self._keyring, self._cache = store, generations, keyring, cache

    def restore(
        self, lease: Lease, staging: Path, selection: Selection = EVERYTHING, donor: Path | None = None
    ) -> UploadRight:
        """Restore HEAD's generation into `staging`, which must be missing or empty; generation 0 is an empty directory.

        What the selection does not restore is left out: later commits must know it (`Selection.after`).

        Args:
            donor: An older, unused tree of this tenant; unchanged files are moved out of it instead of fetched. It is
                incomplete afterwards, even if the restore fails.

        Raises:
            DiskFull: There is no room for the tree.
            RestoreFailed: Anything else failed; in both cases `staging` is removed again.
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
        """Restore a generation, HEAD's by default, into a missing or empty directory, for inspection.

        It takes no lease and gives no upload right. Raises as `Generations.manifest`, and `DiskFull`.
        """
        document = self._generations.manifest(tenant, generation)
        self._unpack(tenant, document.generation, lambda: document, target)
        return document

    def adopt(self, lease: Lease, base_generation: int, base_sha256: str = "") -> UploadRight:
        """The upload right for a tree on this host, if nothing was committed since it was restored.

        Args:
            base_sha256: Digest of the manifest from which it was restored; empty if it is not known.

        Raises:
            RestoreFailed: HEAD has a newer generation, or another one of this number; tree and HEAD stay unchanged.
        """
        if not lease.head.is_at(base_generation, base_sha256):
            is_older = lease.head.generation != base_generation
            raise RestoreFailed(
                f"the kept tree of tenant {lease.tenant} is {'older than' if is_older else 'of another lineage than'} "
                "its HEAD",
                why=f"the tree grew from generation {base_generation}, HEAD is {lease.head.generation}"
                if is_older
                else f"the tree grew from another generation {base_generation}",
                hint="both are kept: compare them, then move the kept tree away and claim again",
                tenant=lease.tenant,
                base_generation=base_generation,
                generation=lease.head.generation,
            )
        return upload_right(lease)

    def _unpack(
        self,
        tenant: TenantId,
        generation: int,
        document: Callable[[], Manifest | None],
        target: Path,
        donor: Path | None = None,
    ) -> None:
        """Make a whole tree, or nothing."""
        _make_empty(tenant, generation, target)
        try:
            if found := document():
                sealer = self._keyring.sealer(tenant)
                check_room(self._store, found, target, sealer)
                with ExitStack() as stack:
                    tree = stack.enter_context(Tree(target))
                    old = stack.enter_context(Tree(donor)) if donor else None
                    unpack(self._store, found, tree, sealer, old)
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
            hint="an unfinished restore may have left it; check it, then remove it",
            tenant=tenant,
        )
