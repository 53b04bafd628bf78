"""Garbage collection: removes manifests that left HEAD's history, and the packs and blobs that only they named.

A collection holds the tenant's lease, so a concurrent writer is fenced, or fences the collection: HEAD is read again
before each batch of removals. A takeover between that read and the removals is safe too: the names of packs and blobs
contain the epoch under which they were written, so a new owner never relies on an older object unless a kept manifest
names it. Young objects stay: their age is measured by the store's own clock, against HEAD or this runtime's heartbeat,
whichever was written last. HEAD alone is not enough: a running tenant that changes nothing writes none. If anything that
is kept cannot be read, nothing is removed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from claw_runtime.errors import Fenced, RestoreFailed
from claw_runtime.formats.head import Head
from claw_runtime.formats.manifest import Manifest
from claw_runtime.ports import Clock, ObjectInfo, ObjectStore
from claw_runtime.state.history.generations import Generations
from claw_runtime.state.history.pins import Pins
from claw_runtime.state.lease.heads import Heads
from claw_runtime.tenancy import Keys, TenantId

log = structlog.get_logger(__name__)

GRACE_PERIOD: Final = 24 * 3600.0
"""Seconds that an unneeded object stays, by the store's clock."""
BATCH: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """The result of a collection.

    Attributes:
        kept: Generations that stay.
        objects, bytes: What was removed, or would be removed.
        young: Unneeded objects that are not old enough.
        dry_run: Nothing was removed.
    """

    tenant: TenantId
    kept: int
    objects: int
    bytes: int
    young: int
    dry_run: bool


class Garbage:
    """Collections of one store; the caller acquires the leases.

    Args:
        beat: Key of this runtime's heartbeat.
    """

    def __init__(
        self, store: ObjectStore, heads: Heads, generations: Generations, pins: Pins, clock: Clock, beat: str
    ) -> None:
        self._store, self._heads, self._generations, self._pins = store, heads, generations, pins
        self._clock, self._beat = clock, beat

    def collect(
        self, tenant: TenantId, head: Head, *, grace: float = GRACE_PERIOD, dry_run: bool = False
    ) -> Collection:
        """Remove what none of the kept generations needs and is older than `grace` seconds.

        Args:
            head: The present HEAD, whose lease the caller holds unless this is a dry run.

        Raises:
            Fenced: Another runtime took the lease; only unneeded objects were removed before that.
            RestoreFailed, VerifyMismatch: A generation that is kept cannot be read; nothing was removed.
            StoreUnavailable, StoreDenied, BucketMissing: The store failed; the collection may be repeated.
        """
        keys = Keys(tenant)
        now = self._now(keys, dry_run=dry_run)
        expired = self._pins.expired(tenant, now)
        if not dry_run:
            self._pins.expire(tenant, expired)
            expired = frozenset()  # one that a person has pinned meanwhile stays
        needed, count = self._needed(tenant, head, expired)
        listed = {item.key: item for prefix in _prefixes(keys) for item in self._store.list(prefix)}
        spare = [item for key, item in listed.items() if key not in needed]
        old = [item for item in spare if now - item.modified >= grace]
        self._check_listing(tenant, old, expired)
        if not dry_run:
            self._remove(tenant, head, old)
            if old:
                log.info("garbage collected", tenant=tenant, objects=len(old), bytes=sum(item.size for item in old))
        return Collection(
            tenant=tenant,
            kept=count,
            objects=len(old),
            bytes=sum(item.size for item in old),
            young=len(spare) - len(old),
            dry_run=dry_run,
        )

    def _check_listing(self, tenant: TenantId, old: Sequence[ObjectInfo], expired: frozenset[int]) -> None:
        """Check each generation to be removed for a pin by name, too: a listing may lack a page."""
        manifests = Keys(tenant).manifests
        for item in old:
            number = item.key.removeprefix(manifests).partition("-")[0]
            if not item.key.startswith(manifests) or not number.isdecimal() or int(number) in expired:
                continue
            if self._is_pinned(tenant, int(number), item.key):
                raise RestoreFailed(
                    f"the store's list of pins of tenant {tenant} is incomplete",
                    why=f"the pin of generation {int(number)} exists, but was not listed",
                    hint="nothing was removed; the next collection checks again",
                    tenant=tenant,
                )

    def _is_pinned(self, tenant: TenantId, number: int, key: str) -> bool:
        pin = self._pins.find(tenant, number)
        return pin is not None and Keys(tenant).manifest(number, pin.past.sha256) == key

    def _now(self, keys: Keys, *, dry_run: bool) -> float:
        """The time by the store's clock: when HEAD or the heartbeat was last written; for a dry run, an estimate."""
        if dry_run:
            return self._clock.now()
        written = (keys.head, self._beat)
        return max(item.modified for key in written for item in self._store.list(key) if item.key == key)

    def _needed(self, tenant: TenantId, head: Head, expired: frozenset[int]) -> tuple[set[str], int]:
        """Keys of all objects of all generations that are kept, and how many generations those are."""
        needed, count = set[str](), 0
        for names in self._kept(tenant, head, expired):
            count += 1
            needed.update(names)
        return needed, count

    def _kept(self, tenant: TenantId, head: Head, expired: frozenset[int]) -> Iterator[set[str]]:
        """Keys of each kept generation's objects, its manifest's included. One manifest is in memory at a time."""
        if head.manifest is None:
            return
        newest = self._generations.newest(tenant, head)
        yield _names(newest, head.manifest)
        # Pins are listed after HEAD was written: a generation that left the history meanwhile is named by one of the
        # two.
        past = {past.generation: past for past in self._generations.earlier(newest)}
        del newest
        pinned = self._pins.all(tenant)
        past.update({number: pin.past for number, pin in pinned.items() if number not in {head.generation, *expired}})
        if lost := self._pins.numbers(tenant) - pinned.keys():
            raise RestoreFailed(
                f"a pin of tenant {tenant} cannot be read",
                why=f"the pin of generation {min(lost)} is damaged, so what it keeps is unknown",
                hint=f"nothing was removed; claw-runtime snapshot unpin {tenant} {min(lost)}",
                tenant=tenant,
            )
        for one in past.values():
            yield _names(self._generations.of_past(tenant, one), Keys(tenant).manifest(one.generation, one.sha256))

    def _remove(self, tenant: TenantId, head: Head, items: Sequence[ObjectInfo]) -> None:
        for start in range(0, len(items), BATCH):
            found = self._heads.read(tenant)
            if found is None or found[0].commit_id != head.commit_id:
                raise Fenced(
                    f"another writer overtook the collection of tenant {tenant}",
                    why=f"{found[0].owner} came after" if found else "its HEAD is gone",
                    hint="only unneeded objects were removed; the next collection continues",
                    tenant=tenant,
                )
            for item in items[start : start + BATCH]:
                self._store.delete(item.key)


def _names(document: Manifest, key: str) -> set[str]:
    """Keys of the objects that a generation needs; `key` is its manifest's."""
    keys = Keys(document.tenant)
    packs = {keys.pack(ref.sha256) for ref in document.packs}
    return packs | {keys.blob(entry.blob) for entry in document.entries if entry.blob is not None} | {key}


def _prefixes(keys: Keys) -> tuple[str, ...]:
    """Manifests first: an interrupted collection leaves no manifest whose packs are gone."""
    return keys.manifests, keys.packs, keys.blobs
