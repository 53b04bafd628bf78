"""Removing a tenant's state permanently: a tombstone first, then everything else that is stored.

The tombstone fences any runtime that may still write. The removal may be interrupted anywhere: nothing reads the rest,
and the same call continues where the last one ended. The key is removed first, so an encrypted state is unreadable at
once.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from claw_runtime.errors import StateMissing
from claw_runtime.ports import ObjectStore
from claw_runtime.state.repository import Repository
from claw_runtime.telemetry.events import Recorder, unrecorded
from claw_runtime.tenancy import Keys, TenantId
from claw_runtime.tenants.trees import Trees

Still = Callable[[TenantId], AbstractContextManager[Callable[[int], None]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Purged:
    """What was removed, or would be: objects and their bytes."""

    tenant: TenantId
    objects: int
    bytes: int
    dry_run: bool


class Purge:
    """Removals of one runtime; `still` keeps a tenant from running here meanwhile."""

    def __init__(
        self, store: ObjectStore, repository: Repository, trees: Trees, still: Still, record: Recorder = unrecorded
    ) -> None:
        self._store, self._repository, self._trees, self._still = store, repository, trees, still
        self._record = record

    def clean(self, tenant: TenantId, *, dry_run: bool = False) -> Purged:
        """Remove the tenant's state from the store, and what is parked here; its logs and secrets on this host stay.

        Raises:
            StateMissing: Nothing is stored.
            Conflict: The tenant runs here, or its newest tree is kept here.
            TenantLocked: Another runtime holds the tenant.
            StoreUnavailable, StoreDenied, BucketMissing: The store failed; the same call continues the removal.
        """
        keys = Keys(tenant)
        if dry_run:
            return self._cleaned(tenant, dry_run=True)
        with self._still(tenant) as moved:
            head = self._repository.generations.head(tenant)
            if head is None and self._cleaned(tenant, dry_run=True).objects == 0:
                raise StateMissing(f"tenant {tenant} has no stored state", hint="there is nothing to remove")
            if head is not None and not head.deleted:
                head = self._repository.bury(tenant)
            if head is not None:
                moved(head.generation)
            self._store.delete(keys.key)
            self._repository.keyring.forget(tenant)
            cleaned = self._cleaned(tenant, dry_run=False)
            self._trees.drop_parked(tenant)
        self._record("cleaned", tenant=tenant, objects=cleaned.objects)
        return cleaned

    def _cleaned(self, tenant: TenantId, *, dry_run: bool) -> Purged:
        keys, objects, size = Keys(tenant), 0, 0
        for item in self._store.list(keys.prefix):
            if item.key == keys.head:
                continue
            objects += 1
            size += item.size
            if not dry_run:
                self._store.delete(item.key)
        return Purged(tenant=tenant, objects=objects, bytes=size, dry_run=dry_run)
