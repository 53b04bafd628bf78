"""A tenant's state between the bucket and a directory: lease, restore, commit, in the order that loses nothing.

lease = repository.leases.acquire(tenant)
right = repository.restorer.restore(lease, staging)
repository.committer.commit(CommitRequest(right=right, tree=tree, …))
"""

from pathlib import Path

from claw_runtime.formats.head import Head
from claw_runtime.ports import Clock, ObjectStore, StoreMemory
from claw_runtime.safefs.tree import Skipped
from claw_runtime.state.commit.commit import Committer
from claw_runtime.state.commit.progress import Transfers
from claw_runtime.state.commit.publisher import Publisher
from claw_runtime.state.commit.request import CommitRequest, CommitResult
from claw_runtime.state.commit.stat_cache import StatCache
from claw_runtime.state.history.garbage import GRACE_PERIOD, Collection, Garbage, Survey
from claw_runtime.state.history.generations import Generations
from claw_runtime.state.history.pins import Pins
from claw_runtime.state.keyring import Keyring
from claw_runtime.state.lease.heads import Heads
from claw_runtime.state.lease.heartbeats import Heartbeats
from claw_runtime.state.lease.known_heads import KnownHeads, ProcessMemory
from claw_runtime.state.lease.leases import Lease, Leases, UploadRight
from claw_runtime.state.lease.store_id import StoreId
from claw_runtime.state.restorer import Restorer
from claw_runtime.tenancy import TenantId, beat_key

__all__ = ["CommitRequest", "CommitResult", "Head", "Lease", "Repository", "Skipped", "UploadRight"]


class Repository:
    """The states of all tenants in one store, as one runtime sees them. Callers use its parts directly.

    Args:
        store: A store whose conditional writes are honest (`objects.probe` makes sure).
        runtime_id: This runtime's name in leases; stays the same over restarts and differs between hosts.
        scratch: Directory for private copies of databases; made if missing, 0700.
        keyring: Keys with which states are encrypted; none by default.
        heartbeats: This runtime's heartbeat, and what it has seen of others'.
        memory: What this host remembers of the store; by default, only until the process ends.

    Attributes:
        store_id: By which this host recognises the store.
        heads: Reads and swaps HEADs.
        leases: Acquire, give back and bury: who may write a tenant's next generation.
        restorer: Restores a generation into a directory; gives the upload right.
        committer: Commits a directory as the next generation.
        publisher: Publishes a generation of entries that are stored already, without a directory.
        generations: Reads HEAD, manifests and content of files.
        pins: Generations that are kept despite retention.
        garbage: Removal of what no generation needs; `collect_garbage` takes the lease that it needs.
        keyring: Keys of tenants.
        heartbeats: As above.
        transfers: Progress of running commits.
    """

    def __init__(
        self,
        store: ObjectStore,
        runtime_id: str,
        clock: Clock,
        scratch: Path,
        keyring: Keyring | None = None,
        heartbeats: Heartbeats | None = None,
        memory: StoreMemory | None = None,
    ) -> None:
        memory = memory or ProcessMemory()
        self.store_id = StoreId(store, memory, clock)
        heads = self.heads = Heads(store, clock, KnownHeads(store, memory, self.store_id))
        self._cache = StatCache()
        self.runtime_id = runtime_id
        self.keyring = keyring or Keyring(store)
        self.heartbeats = heartbeats or Heartbeats(store, runtime_id, clock)
        self.leases = Leases(heads, runtime_id, clock, self.heartbeats, memory)
        self.pins, self.transfers = Pins(store, clock), Transfers(clock)
        self.generations = Generations(store, heads, self.pins, self.keyring)
        self.restorer = Restorer(store, self.generations, self.keyring, self._cache)
        self.publisher = Publisher(store, clock, heads, self.generations, self.leases, self.keyring)
        self.committer = Committer(
            store, clock, self.publisher, self.pins, self.keyring, self._cache, scratch, self.transfers
        )
        self.garbage = Garbage(store, heads, self.generations, self.pins, clock, beat_key(runtime_id))

    def bury(self, tenant: TenantId) -> Head | None:
        """End a tenant's state and drop its cache. See `Leases.bury`."""
        self._cache.forget(tenant)
        return self.leases.bury(tenant)

    def survey_garbage(self, tenant: TenantId) -> Survey | None:
        """What a collection needs to know before; None when the tenant has nothing in the store. See `Garbage`."""
        head = self.generations.head(tenant)
        return None if head is None else self.garbage.survey(tenant, head)

    def collect_garbage(
        self,
        tenant: TenantId,
        right: UploadRight | None = None,
        *,
        survey: Survey | None = None,
        grace: float = GRACE_PERIOD,
        dry_run: bool = False,
    ) -> Collection | None:
        """Remove what no kept generation needs; None when the tenant has nothing in the store. See `Garbage.collect`.

        Args:
            right: The running tenant's right; without one, the lease is acquired for the time of the collection.
            survey: From `survey_garbage`; without one, it is made now.

        Raises also `TenantLocked`: another runtime holds the tenant, and runs its own collections.
        """
        head = self.generations.head(tenant)
        if head is None:
            return None
        survey = survey or self.garbage.survey(tenant, head)
        if dry_run or right is not None:
            return self.garbage.collect(tenant, right.head if right else head, survey, grace=grace, dry_run=dry_run)
        lease = self.leases.acquire(tenant)
        try:
            return self.garbage.collect(tenant, lease.head, survey, grace=grace)
        finally:
            self.leases.give_back(tenant)
