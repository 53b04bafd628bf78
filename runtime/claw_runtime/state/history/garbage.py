"""Garbage collection: removes manifests that left HEAD's history, and the packs and blobs that only they named.

A collection holds the tenant's lease, so a concurrent writer is fenced, or fences the collection: HEAD is read again
before each batch of removals. A takeover between that read and the removals is safe too: the names of packs and blobs
contain the epoch under which they were written, so a new owner never relies on an older object unless a kept manifest
names it. Young objects stay: their age is measured by the store's own clock, against HEAD or this runtime's heartbeat,
whichever was written last. HEAD alone is not enough: a running tenant that changes nothing writes none. If anything
that is kept cannot be read or is missing, or HEAD may have gone back, nothing is removed. A generation right above
HEAD's is of a writer that died, or HEAD has gone back by one: it stays until HEAD has passed it.

What may take long, the listing and the reading of kept manifests, is a `Survey`: the tenant may be committed meanwhile,
but not during a removal, which is done in parts. Each part asks again what is kept. An object that became needed since
the survey is not in its listing, or a kept generation names it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import structlog

from claw_runtime.errors import Fenced, RestoreFailed, VerifyMismatch
from claw_runtime.formats.head import Head
from claw_runtime.formats.manifest import Manifest
from claw_runtime.ports import Clock, ObjectInfo, ObjectMissing, ObjectStore
from claw_runtime.state.history.generations import Generations
from claw_runtime.state.history.pins import Pins
from claw_runtime.state.lease.heads import Heads
from claw_runtime.state.lease.known_heads import number_of
from claw_runtime.tenancy import Keys, TenantId

log = structlog.get_logger(__name__)

GRACE_PERIOD: Final = 24 * 3600.0
"""Seconds that an unneeded object stays, by the store's clock."""
BATCH: Final = 100
MOST: Final = 1000
"""Objects that one call removes at most: its caller keeps the tenant from committing meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """The result of a collection.

    Attributes:
        kept: Generations that stay.
        objects, bytes: What was removed, or would be removed.
        young: Unneeded objects that are not old enough.
        left: Unneeded objects that are old enough and were not removed yet.
        dry_run: Nothing was removed.
    """

    tenant: TenantId
    kept: int
    objects: int
    bytes: int
    young: int
    dry_run: bool
    left: int = 0

    def after(self, before: "Collection | None") -> "Collection":
        """This one and the one before it, as one."""
        return replace(self, objects=self.objects + before.objects, bytes=self.bytes + before.bytes) if before else self


@dataclass(frozen=True, slots=True)
class Survey:
    """What a collection found before it removes anything.

    Attributes:
        listed: The tenant's objects by key, without those that were removed since.
        named: Keys of the objects that a generation needs, by the key of its manifest.
    """

    listed: dict[str, ObjectInfo]
    named: dict[str, frozenset[str]]


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

    def survey(self, tenant: TenantId, head: Head) -> Survey:
        """Read the manifests that are kept and list the tenant's objects. Raises as `collect`."""
        found = Survey({}, {})
        needed, _ = self._needed(tenant, head, found.named)
        found.listed.update((item.key, item) for prefix in _prefixes(Keys(tenant)) for item in self._store.list(prefix))
        missing = sorted(needed - found.listed.keys())
        if lost := next((key for key in missing if self._is_lost(key)), None):
            raise RestoreFailed(
                f"the store lacks an object that a generation of tenant {tenant} needs",
                why=f"{lost} is missing",
                hint="nothing was removed; bring it back from the bucket's versions or a backup; "
                f"to see what is damaged: claw-runtime sync verify {tenant}",
                tenant=tenant,
            )
        return found

    def _is_lost(self, key: str) -> bool:
        """Whether an object is missing, and not only left out by a listing."""
        try:
            self._store.get_range(key, 0, 1)
        except ObjectMissing:
            return True
        return False

    def collect(
        self, tenant: TenantId, head: Head, survey: Survey, *, grace: float = GRACE_PERIOD, dry_run: bool = False
    ) -> Collection:
        """Remove what none of the kept generations needs and is older than `grace` seconds, at most `MOST` objects.

        Args:
            head: The present HEAD, whose lease the caller holds unless this is a dry run.
            survey: Of an earlier or the present HEAD; what is removed is removed from it.

        Raises:
            Fenced: Another runtime took the lease; only unneeded objects were removed before that.
            RestoreFailed, VerifyMismatch: A generation that is kept cannot be read, or HEAD is missing, unreadable or
                older than others know it; nothing was removed.
            StoreUnavailable, StoreDenied, BucketMissing: The store failed; the collection may be repeated.
        """
        keys = Keys(tenant)
        self._check_newest(tenant, head, survey.listed)
        now = self._now(keys, dry_run=dry_run)
        expired = self._pins.expired(tenant, now)
        if not dry_run:
            self._pins.expire(tenant, expired)
            expired = frozenset()  # one that a person has pinned meanwhile stays
        needed, count = self._needed(tenant, head, survey.named, expired)
        needed |= self._above(tenant, head, survey)
        spare = [item for key, item in survey.listed.items() if key not in needed]
        old = [item for item in spare if now - item.modified >= grace]
        some = old if dry_run else old[:MOST]
        self._check_listing(tenant, some, expired)
        if not dry_run:
            self._remove(tenant, head, some)
            for item in some:
                del survey.listed[item.key]
            if some:
                log.info("garbage collected", tenant=tenant, objects=len(some), bytes=sum(item.size for item in some))
        return Collection(
            tenant=tenant,
            kept=count,
            objects=len(some),
            bytes=sum(item.size for item in some),
            young=len(spare) - len(old),
            left=len(old) - len(some),
            dry_run=dry_run,
        )

    def _check_newest(self, tenant: TenantId, head: Head, listed: Iterable[str]) -> None:
        """Refuse if HEAD may have gone back: a writer that died leaves only the generation after HEAD's."""
        newest = max((number_of(tenant, key) for key in listed), default=0)
        if newest > head.highest:
            raise RestoreFailed(
                f"the store has a generation {newest} of tenant {tenant}, but HEAD names {head.generation}",
                why="HEAD may have gone back, so what it does not need may be the newest state",
                hint=f"nothing was removed; claw-runtime snapshot recover {tenant} --dry-run shows what is stored",
                tenant=tenant,
            )

    def _above(self, tenant: TenantId, head: Head, survey: Survey) -> set[str]:
        """Keys of the generations above HEAD's, and of what they need; one that cannot be read needs nothing."""
        found = {key: number for key in survey.listed if (number := number_of(tenant, key)) > head.generation}
        for number in {number for key, number in found.items() if key not in survey.named}:
            for past in self._generations.listed(tenant, number):
                with suppress(RestoreFailed, VerifyMismatch):
                    key = Keys(tenant).manifest(number, past.sha256)
                    survey.named[key] = _named(Keys(tenant), self._generations.of_past(tenant, past))
        return set(found).union(*(survey.named.get(key, frozenset()) for key in found))

    def _check_listing(self, tenant: TenantId, old: Sequence[ObjectInfo], expired: frozenset[int]) -> None:
        """Check each generation to be removed for a pin by name, too: a listing may lack a page."""
        for item in old:
            number = number_of(tenant, item.key)
            if number and number not in expired and self._is_pinned(tenant, number, item.key):
                raise RestoreFailed(
                    f"the store's list of pins of tenant {tenant} is incomplete",
                    why=f"the pin of generation {number} exists, but was not listed",
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

    def _needed(
        self, tenant: TenantId, head: Head, named: dict[str, frozenset[str]], expired: frozenset[int] = frozenset()
    ) -> tuple[set[str], int]:
        """Keys of all objects of all generations that are kept, and how many generations those are.

        Args:
            named: What is known of manifests, which never change; those that are read are added to it.
            expired: Generations whose pins no longer keep them.
        """
        needed, count = set[str](), 0
        for key, read in self._kept(tenant, head, expired):
            if key not in named:
                named[key] = _named(Keys(tenant), read())
            count += 1
            needed.add(key)
            needed |= named[key]
        return needed, count

    def _kept(
        self, tenant: TenantId, head: Head, expired: frozenset[int]
    ) -> Iterator[tuple[str, Callable[[], Manifest]]]:
        """The key of each kept generation's manifest, and how to read it."""
        if head.manifest is None:
            return
        newest = self._generations.newest(tenant, head)
        yield head.manifest, partial(_known, newest)
        # Pins are listed after HEAD was written: a generation that left the history meanwhile is named by one of the
        # two.
        past = {past.generation: past for past in self._generations.earlier(newest)}
        read = self._generations.series(tenant, newest.base)
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
        for number in sorted(past, reverse=True):
            one = past[number]
            yield Keys(tenant).manifest(number, one.sha256), partial(read, one)

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


def _known(document: Manifest) -> Manifest:
    """A manifest that was read already."""
    return document


def _named(keys: Keys, document: Manifest) -> frozenset[str]:
    """Keys of the objects that a generation needs besides its manifest. Its base stays, even if the base's generation
    is no longer kept and the packs of that go."""
    packs = {keys.pack(ref.sha256) for ref in document.packs}
    if base := document.base:
        packs.add(keys.manifest(base.document.generation, base.sha256))
    return frozenset(packs.union(keys.blob(entry.blob) for entry in document.entries if entry.blob is not None))


def _prefixes(keys: Keys) -> tuple[str, ...]:
    """Manifests first: an interrupted collection leaves no manifest whose packs are gone."""
    return keys.manifests, keys.packs, keys.blobs
