"""Leases: who may write a tenant's next generation. Acquire a lease, give it back, and remember the HEAD after it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import structlog

from claw_runtime.errors import TenantLocked
from claw_runtime.formats.head import Head, buried, new_commit_id, released, timestamp
from claw_runtime.ports import Clock, StoreMemory
from claw_runtime.ports.objects import ATTEMPTS
from claw_runtime.state.lease.heads import HeadLost, Heads
from claw_runtime.state.lease.heartbeats import Heartbeats
from claw_runtime.tenancy import TenantId

log = structlog.get_logger(__name__)

REMEMBERED = 10_000
"""Maximum number of remembered HEADs of released tenants, about 1 KB each."""


_SEAL: Final = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """This runtime holds the tenant: no other may commit until it is released or taken over. `etag` is HEAD's."""

    tenant: TenantId
    epoch: int
    etag: str
    head: Head


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadRight:
    """Permission to commit on top of `base_generation`: only a whole restore or a tree as new as HEAD gives one.

    A failed restore gives none, so that a failed read can never become a write that destroys state.

    Attributes:
        compared: Whether HEAD was compared with the stored generations since the claim.
    """

    tenant: TenantId
    epoch: int
    base_generation: int
    etag: str
    head: Head
    seal: object = field(repr=False, compare=False)
    compared: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        if self.seal is not _SEAL:
            raise TypeError("an upload right comes from restore(), adopt() or commit(), never from elsewhere")


def upload_right(lease: Lease) -> UploadRight:
    """The upload right for a lease; only for `Restorer`, after it has checked the tree."""
    head = lease.head
    return UploadRight(
        tenant=lease.tenant,
        epoch=lease.epoch,
        base_generation=head.generation,
        etag=lease.etag,
        head=head,
        seal=_SEAL,
    )


class Leases:
    """The leases of one runtime. `memory` names each of them from before it is acquired until it has ended."""

    def __init__(
        self, heads: Heads, runtime_id: str, clock: Clock, heartbeats: Heartbeats, memory: StoreMemory
    ) -> None:
        self._heads, self._runtime_id, self._clock, self._heartbeats = heads, runtime_id, clock, heartbeats
        self._memory = memory
        self._last: dict[TenantId, tuple[Head, str]] = {}

    def acquire(self, tenant: TenantId, *, take_over: bool = False) -> Lease:
        """Acquire the right to write the tenant's next generation.

        This runtime's own lease, left by a crash, is acquired again under a new epoch. So is the lease of a runtime
        without a heartbeat (`Heartbeats`), and with `take_over` any runtime's lease, at once. The next commit of the
        previous owner is refused.

        Raises:
            TenantLocked: Another runtime holds it (`facts["owner"]`; `facts["retry_after"]` is the time in seconds
                until it expires without a further heartbeat).
            HeadRefused: HEAD is not valid, or is missing or older than this host knows it.
            StoreUnavailable, StoreDenied, BucketMissing: The store.
        """
        commit_id = new_commit_id()
        last = self._last.pop(tenant, None)
        for _ in range(ATTEMPTS):
            # The remembered HEAD is usually the present one: the swap checks that, and a request is saved.
            found, last = last or self._heads.read(tenant), None
            if found is not None and found[0].commit_id == commit_id:
                return Lease(tenant=tenant, epoch=found[0].epoch, etag=found[1], head=found[0])
            self.check_free(tenant, found and found[0], take_over=take_over)
            head = self._taken(found[0] if found else self._heads.known.blank(tenant), commit_id)
            self._memory.hold(tenant)  # a process that is killed after the swap leaves this note
            try:
                etag = self._heads.swap(tenant, head, etag=found and found[1])
            except HeadLost:
                continue
            return Lease(tenant=tenant, epoch=head.epoch, etag=etag, head=head)
        raise _too_fast(tenant)

    def free(self, tenant: TenantId, *, create: bool = False) -> tuple[Head, str | None]:
        """HEAD and its etag, for a tenant that no other runtime holds; a blank one and None when there is no HEAD.

        Args:
            create: Make a HEAD without a generation if there is none. The caller may then write objects first: without
                a HEAD they would look like a lost state.

        Raises:
            TenantLocked: Another runtime holds it, or has just made its HEAD.
            HeadRefused, StoreUnavailable, StoreDenied, BucketMissing: As `acquire`.
        """
        found = self._heads.read(tenant)
        self.check_free(tenant, found and found[0])
        if found or not create:
            return found or (self._heads.known.blank(tenant), None)
        head = replace(self._heads.known.blank(tenant), commit_id=new_commit_id())
        try:
            return head, self._heads.swap(tenant, head, etag=None)
        except HeadLost as lost:
            raise _too_fast(tenant) from lost

    def held(self) -> Sequence[TenantId]:
        """The tenants whose lease this host may hold, also from before a crash."""
        return self._memory.held()

    def give_back(self, tenant: TenantId) -> bool:
        """End this runtime's lease of the tenant, whatever its epoch; False if it holds none.

        Raises:
            StoreUnavailable, StoreDenied, BucketMissing, HeadRefused: It is unknown whether the lease ended.
        """
        for _ in range(ATTEMPTS):
            found = self._heads.read(tenant)
            if found is None or found[0].owner != self._runtime_id:
                self._memory.let_go(tenant)
                return False
            head = released(found[0])
            try:
                etag = self._heads.swap(tenant, head, etag=found[1])
            except HeadLost:
                continue
            self.remember(tenant, head, etag)
            return True
        return False

    def remember(self, tenant: TenantId, head: Head, etag: str) -> None:
        """Remember a HEAD that this runtime gave back, for the next claim: it holds the lease no longer."""
        self._memory.let_go(tenant)
        while len(self._last) >= REMEMBERED:
            self._last.pop(next(iter(self._last)), None)
        self._last[tenant] = head, etag

    def bury(self, tenant: TenantId) -> Head | None:
        """Replace HEAD by a tombstone: it names no generation, and the previous owner is fenced.

        Generation numbers and epochs continue, so that an older tree never passes for a newer one. A tenant without a
        HEAD still has none afterwards.

        Raises as `acquire`.
        """
        self._last.pop(tenant, None)
        for _ in range(ATTEMPTS):
            found = self._heads.read(tenant)
            if found is None:
                return None
            self.check_free(tenant, found[0])
            head = buried(found[0], self._clock)
            try:
                self._heads.swap(tenant, head, etag=found[1])
            except HeadLost:
                continue
            self._memory.let_go(tenant)
            return head
        raise _too_fast(tenant)

    def check_free(self, tenant: TenantId, head: Head | None, *, take_over: bool = False) -> None:
        """Check that no other living runtime holds the tenant of this HEAD. Raises `TenantLocked`."""
        if head is None or head.owner in {None, self._runtime_id} or take_over:
            return
        left = self._heartbeats.left(head.owner or "")
        if left <= 0:
            log.warning("lease expired: its owner sent no heartbeat", tenant=tenant, owner=head.owner)
            return
        raise TenantLocked(
            f"tenant {tenant} is held by another runtime",
            why=f"{head.owner} has held it since {head.lease} (epoch {head.epoch})",
            hint=f"release it there; if that host is gone, its lease ends in {left:.0f} s, or at once with --take-over",
            tenant=tenant,
            owner=head.owner,
            epoch=head.epoch,
            retry_after=left,
        )

    def _taken(self, head: Head, commit_id: str) -> Head:
        since = timestamp(self._clock)
        return replace(head, epoch=head.epoch + 1, owner=self._runtime_id, commit_id=commit_id, lease=since)


def _too_fast(tenant: TenantId) -> TenantLocked:
    return TenantLocked(
        f"tenant {tenant} changes hands too fast",
        why=f"this runtime lost the race for its lease {ATTEMPTS} times",
        hint="find out which runtimes claim it at the same time",
        tenant=tenant,
        owner=None,
    )
