"""Verification: reads stored objects again, checks their digests, and checks that two tenants share nothing.

It changes nothing and takes no lease: running tenants can be verified too.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from claw_runtime.errors import ClawError, RestoreFailed, VerifyMismatch
from claw_runtime.formats.manifest import Manifest, PackRef
from claw_runtime.ports import ObjectMissing, ObjectStore
from claw_runtime.safefs.tree import printable
from claw_runtime.state.repository import Repository
from claw_runtime.state.restore.restore import RANGE, fetch_pack
from claw_runtime.tenancy import Keys, TenantId


@dataclass(slots=True)
class VerifyProgress:
    """Progress of a verification: `bytes` of `total`."""

    objects: int = 0
    bytes: int = 0
    total: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """The result of a verification.

    Attributes:
        generations: Numbers of the generations that were read.
        objects, bytes: Manifests, packs and blobs whose digests were checked.
        files: Files of the newest generation whose content was checked as well.
        damaged: One sentence per damaged object or file; empty when all are intact.
    """

    tenant: TenantId
    generations: tuple[int, ...]
    objects: int
    bytes: int
    files: int
    damaged: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Isolation:
    """The result of comparing two tenants: objects of each, and each finding as a sentence; none is good."""

    tenants: tuple[TenantId, TenantId]
    objects: tuple[int, int]
    findings: tuple[str, ...]


@dataclass(slots=True)
class _Reading:
    """One running verification."""

    check: Callable[[], None] = lambda: None
    damaged: list[str] = field(default_factory=list)
    progress: VerifyProgress = field(default_factory=VerifyProgress)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Facts:
    """What a generation names: its base and the key of that, its packs, and the sizes of its blobs. `again` reads its
    manifest once more."""

    generation: int
    base: int | None
    base_key: str | None
    packs: tuple[PackRef, ...]
    blobs: Mapping[str, int]
    again: Callable[[], Manifest]


class Verifier:
    """Verifications of one store."""

    def __init__(self, store: ObjectStore, repository: Repository) -> None:
        self._store, self._generations, self._pins = store, repository.generations, repository.pins

    def verify(
        self,
        tenant: TenantId,
        *,
        generation: int | None = None,
        report: Callable[[VerifyProgress], None] = lambda _: None,
        check: Callable[[], None] = lambda: None,
    ) -> Verified:
        """Read every object that the kept generations need, or one generation needs, and check its digest.

        Args:
            report: Called after each object.
            check: Called before each step, at most one pack apart; what it raises ends the verification.

        Raises:
            StateMissing: There is no such generation.
            RestoreFailed, VerifyMismatch: HEAD is not valid, or no generation at all can be opened here.
            StoreUnavailable, StoreDenied, BucketMissing: The store.
        """
        reading = _Reading(check)
        numbers, bases, newest = list[int](), set[int | None](), None
        keys, refs, blobs = Keys(tenant), dict[str, PackRef](), dict[str, int]()
        for facts in self._each(tenant, generation, reading):
            numbers.append(facts.generation)
            bases.add(facts.base)
            newest = newest or facts.again
            refs.update({ref.sha256: ref for ref in facts.packs})
            blobs.update(facts.blobs)
        progress = reading.progress
        progress.total = sum(ref.size for ref in refs.values()) + sum(blobs.values())
        progress.objects = len(numbers) + len(bases - {None, *numbers})
        for sha256, ref in refs.items():
            check()
            with _told(reading, f"pack {sha256[:16]}"):
                fetch_pack(self._store, keys, ref)
            progress.objects += 1
            progress.bytes += ref.size
            report(progress)
        for name, size in blobs.items():
            with _told(reading, f"blob {name[:16]}"):
                self._blob(keys.blob(name), size, name.partition(".")[0], check)
            progress.objects += 1
            progress.bytes += size
            report(progress)
        files = self._files(newest(), reading) if newest and not reading.damaged else 0
        return Verified(
            tenant=tenant,
            generations=tuple(sorted(numbers)),
            objects=progress.objects,
            bytes=progress.bytes,
            files=files,
            damaged=tuple(reading.damaged),
        )

    def compare(
        self,
        one: TenantId,
        other: TenantId,
        canaries: Sequence[str] = (),
        *,
        check: Callable[[], None] = lambda: None,
    ) -> Isolation:
        """Check that two tenants share nothing: each owns its keys, and its generations name only these.

        Equal names, sizes or contents of files are not findings: two people may have the same notes.

        Args:
            canaries: Texts that at most one of the two may have in a kept generation: in a file, a name, the target of
                a link, or an extended attribute.
            check: As for `verify`.

        Raises as `verify`.
        """
        findings: list[str] = []
        listed = {tenant: {item.key for item in self._store.list(Keys(tenant).prefix)} for tenant in (one, other)}
        if shared := listed[one] & listed[other]:
            findings.append(f"both own {min(shared)}")
        for tenant in (one, other):
            reading = _Reading(check)
            wanted = self._wanted(tenant, reading)
            # List again: a running tenant may have committed between the first listing and the manifests.
            listed[tenant] |= {item.key for item in self._store.list(Keys(tenant).prefix)}
            for number, keys in wanted.items():
                findings += [
                    f"{tenant}: generation {number} names {key}, which is not among its objects"
                    for key in sorted(keys - listed[tenant])[:3]
                ]
            findings += [f"{tenant}: {fault}" for fault in reading.damaged]
        findings += self._canaries(one, other, canaries, check)
        return Isolation(tenants=(one, other), objects=(len(listed[one]), len(listed[other])), findings=tuple(findings))

    # --- inside ---

    def _each(self, tenant: TenantId, generation: int | None, reading: _Reading) -> Iterator["_Facts"]:
        """What the wanted generations name, newest first; a damaged one is reported and left out.

        Only one manifest is in memory at a time: 58 of 200,000 names each would take 10 GB.
        """
        read = self._generations
        if generation is not None:
            yield _facts(lambda: read.manifest(tenant, generation))
            return
        head = read.head(tenant)
        lost: ClawError | None = None
        try:
            newest = read.newest(tenant, head)
        except (RestoreFailed, VerifyMismatch) as error:  # no history names the earlier ones: take all that are stored
            lost, past = error, {one.generation: one for one in read.listed(tenant)}
            one_by_one = read.series(tenant)
        else:
            past = {one.generation: one for one in read.earlier(newest)}
            one_by_one = read.series(tenant, newest.base)
            facts = _facts(lambda: read.newest(tenant, head), newest)
            del newest
            yield facts
        pinned = self._pins.all(tenant)
        past.update({n: pin.past for n, pin in pinned.items() if head and n != head.generation})
        for number in sorted(past, reverse=True):
            if number not in past:
                continue
            reading.check()
            with _told(reading, f"generation {number}"):
                document = one_by_one(past[number])
                if lost:
                    reading.damaged.append(f"generation {head.generation if head else 0}, the newest: {lost}")
                    lost = None
                    # An older manifest may be stored only because it is the base of others: its packs may be gone.
                    kept = {one.generation for one in read.earlier(document)} | pinned.keys() | {number}
                    past = {one: past[one] for one in past.keys() & kept}
                facts = _facts(partial(one_by_one, past[number]), document)
                del document
                yield facts
        if lost:  # nothing can be read at all: perhaps the key is missing
            raise lost

    def _wanted(self, tenant: TenantId, reading: _Reading) -> dict[int, set[str]]:
        """Keys of the base, packs and blobs that each generation names and that no newer one names."""
        keys, seen, wanted = Keys(tenant), set[str](), dict[int, set[str]]()
        for facts in self._each(tenant, None, reading):
            of_it = {keys.pack(ref.sha256) for ref in facts.packs} | set(map(keys.blob, facts.blobs))
            of_it |= {facts.base_key} if facts.base_key else set()
            wanted[facts.generation] = of_it - seen
            seen |= of_it
        return wanted

    def _blob(self, key: str, size: int, sha256: str, check: Callable[[], None]) -> None:
        digest, done = hashlib.sha256(), 0
        while done < size and (piece := self._store.get_range(key, done, min(RANGE, size - done))):
            check()
            digest.update(piece)
            done += len(piece)
        if done != size or digest.hexdigest() != sha256:
            raise VerifyMismatch(
                "it is damaged",
                why="its digest differs",
                hint="the object store returned bytes that differ from those stored",
            )

    def _files(self, document: Manifest, reading: _Reading) -> int:
        """Read every file of a generation, as a restore does; how many are intact."""
        well = 0
        for entry in document.entries:
            if entry.type == "f":
                with _told(reading, f"file {printable(entry.path)} of generation {document.generation}"):
                    for _ in self._generations.content(document, entry, holes=False):
                        reading.check()
                    well += 1
        return well

    def _canaries(
        self, one: TenantId, other: TenantId, canaries: Sequence[str], check: Callable[[], None]
    ) -> Iterator[str]:
        wanted = {canary: canary.encode("utf-8", "surrogateescape") for canary in canaries if canary}
        reading = _Reading(check)
        found = {tenant: self._holds(tenant, wanted, reading) for tenant in (one, other)} if wanted else {}
        yield from reading.damaged
        for canary in wanted:
            if all(canary in found[tenant] for tenant in (one, other)):
                places = ", ".join(f"{tenant} in {found[tenant][canary]}" for tenant in (one, other))
                yield f"both hold {canary[:40]!r}: {places}"

    def _holds(self, tenant: TenantId, wanted: Mapping[str, bytes], reading: _Reading) -> dict[str, str]:
        """Which of these texts occur in a kept generation, and where first: in a name, a link's target, an attribute or
        a file. Equal content is read once."""
        found, read = dict[str, str](), set[str]()
        for facts in self._each(tenant, None, _Reading(reading.check)):  # damaged ones are reported by the caller
            with _told(reading, f"{tenant}: generation {facts.generation}"):
                document = facts.again()
                for entry in document.entries:
                    left = {canary: text for canary, text in wanted.items() if canary not in found}
                    if not left:
                        return found
                    place = f"{printable(entry.path)} of generation {facts.generation}"
                    texts = entry.texts()
                    found.update((canary, place) for canary, text in left.items() if any(text in one for one in texts))
                    if entry.sha256 is not None and entry.sha256 not in read:
                        reading.check()
                        read.add(entry.sha256)
                        with _told(reading, f"{tenant}: file {place}"):
                            content = self._generations.content(document, entry, holes=False)
                            found.update((canary, place) for canary in _within(content, left))
        return found


def _within(content: Iterator[bytes], wanted: Mapping[str, bytes]) -> set[str]:
    """Which of these texts occur in a file, also across two pieces of it."""
    longest, tail, found = max(map(len, wanted.values())), b"", set[str]()
    for piece in content:
        window = tail + piece
        found.update(name for name, text in wanted.items() if text in window)
        tail = window[-longest:]
    return found


def _facts(again: Callable[[], Manifest], document: Manifest | None = None) -> _Facts:
    document = document or again()
    blobs = {entry.blob: entry.size for entry in document.entries if entry.blob is not None}
    base = document.base
    return _Facts(
        generation=document.generation,
        base=base.document.generation if base else None,
        base_key=Keys(document.tenant).manifest(base.document.generation, base.sha256) if base else None,
        packs=document.packs,
        blobs=blobs,
        again=again,
    )


class _told:  # noqa: N801 - reads as a sentence
    """Record damaged or missing objects of this block, and continue the verification."""

    def __init__(self, reading: _Reading, what: str) -> None:
        self._reading, self._what = reading, what

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        if isinstance(error, ObjectMissing):
            self._reading.damaged.append(f"{self._what} is missing")
            return True
        if isinstance(error, ClawError) and error.exit_code in (13, 27):  # damaged, or not restorable
            self._reading.damaged.append(f"{self._what}: {error}")
            return True
        return False
