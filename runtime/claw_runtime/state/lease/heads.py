"""HEAD: the one mutable object of a tenant, which names its current generation and who may write the next one.

The lease lives in HEAD and every commit is a compare-and-swap of HEAD, so the data commit is itself the fence: a
runtime that lost its lease cannot publish anything, whatever its clock shows. An epoch belongs to exactly one
acquisition; two HEADs of the same epoch were written by the same holder.
"""

from claw_runtime.errors import StoreUnavailable
from claw_runtime.formats.head import Head, HeadRefused, decode, encode
from claw_runtime.ports import AmbiguousWrite, Clock, ObjectMissing, ObjectStore, PreconditionFailed
from claw_runtime.ports.objects import ATTEMPTS
from claw_runtime.state.lease.known_heads import KnownHeads
from claw_runtime.tenancy import Keys, TenantId


class HeadLost(Exception):
    """HEAD is not what the swap expected. `current` is the present HEAD, None when it is gone."""

    def __init__(self, current: tuple[Head, str] | None) -> None:
        super().__init__("HEAD changed")
        self.current = current


class Heads:
    """Reads and swaps HEAD objects, and finds out whether a write whose answer was lost succeeded.

    Attributes:
        known: What this host remembers of HEADs; each that is read is checked against it.
    """

    def __init__(self, store: ObjectStore, clock: Clock, known: KnownHeads) -> None:
        self._store = store
        self._clock = clock
        self.known = known

    def read(self, tenant: TenantId) -> tuple[Head, str] | None:
        """HEAD and its etag; None when the tenant has no state and never had one.

        Raises:
            HeadRefused: HEAD is not valid, is missing although the tenant has a state, or is older than a known one.
            StoreUnavailable, StoreDenied, BucketMissing: The store.
        """
        try:
            return self._checked(tenant)
        except HeadRefused:  # it is read twice before it is reported: a first claim elsewhere may just have made it
            return self._checked(tenant)

    def _checked(self, tenant: TenantId) -> tuple[Head, str] | None:
        known = self.known.of(tenant)
        found = self.unchecked(tenant)
        self.known.check(tenant, found and found[0], known)
        return found

    def unchecked(self, tenant: TenantId) -> tuple[Head, str] | None:
        """HEAD and its etag as they are in the store, even if this host knows a newer HEAD; None when it is missing.

        Raises:
            HeadRefused: HEAD is not valid.
            StoreUnavailable, StoreDenied, BucketMissing: The store.
        """
        try:
            data, etag = self._store.get(Keys(tenant).head)
        except ObjectMissing:
            return None
        return decode(data, tenant), etag

    def swap(self, tenant: TenantId, head: Head, *, etag: str | None) -> str:
        """Replace the HEAD of this etag (None: create it); the new etag.

        A swap is retried with the same bytes and the same condition, so it happens at most once, even when an earlier
        attempt arrives late: the retry then fails and finds its own commit id.

        Raises:
            HeadLost: HEAD differs from what was expected; this swap wrote nothing.
            HeadRefused: So it does, and what is there is not valid, missing or older than a known one.
            StoreUnavailable: It is not known whether the swap happened; `facts["ambiguous"]` is then true.
            StoreDenied, BucketMissing: The store.
        """
        key, body, sent = Keys(tenant).head, encode(head), False
        last: Exception | None = None
        for attempt in range(ATTEMPTS):
            if attempt:
                self._clock.sleep(0.1 * 2**attempt)
            try:
                written = self._store.put(key, body, if_absent=etag is None, if_match=etag)
            except (PreconditionFailed, AmbiguousWrite) as error:
                last, sent = error, True
            except StoreUnavailable as error:
                last = error
            else:
                self.known.remember(tenant, head)
                return written
            try:
                current = self.read(tenant)
            except StoreUnavailable as error:
                last = error
                continue
            if current is not None and current[0].commit_id == head.commit_id:
                return current[1]
            if isinstance(last, PreconditionFailed) or (current and current[1]) != etag:
                raise HeadLost(current)
        raise StoreUnavailable(
            f"HEAD of tenant {tenant} could not be written",
            why=str(last),
            hint="check the object store, then retry the same call",
            tenant=tenant,
            ambiguous=sent,
        ) from last
