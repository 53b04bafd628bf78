"""One death: a process is killed at one of its changes of a file or object, and its successors are judged."""

import os
import random
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from claw_runtime.objects.directory import DirectoryStore
from claw_runtime.safefs.removal import remove_tree
from claw_runtime.state.repository import Repository
from claw_runtime.tenancy import Keys
from kill.forked import in_child, memory_directory
from kill.points import Fuse, on_every_change
from torture import trees
from torture.situations import ALICE, HostAndBucket, Situation


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A situation of the dice of `seed`, whose process dies before its change number `point`; None lets it live."""

    situation: Situation
    seed: int
    point: int | None = None

    def __str__(self) -> str:
        return f"{self.situation.name}, seed {self.seed}, point {self.point}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a case.

    Attributes:
        died: Whether the process came to its point.
        where: The last change that it made, and what it was about to do is the next; empty when it lived.
        points: Changes of a process that lived.
        generation: That HEAD named when the process was dead.
        broken: Invariants that do not hold, as sentences; empty is well.
    """

    situation: str
    seed: int
    point: int | None
    died: bool
    where: str
    points: int
    generation: int
    broken: tuple[str, ...]


def tried(case: Case) -> Outcome:
    """Let the process die, look at what is there, let its successor come to the end, and look again."""
    with tempfile.TemporaryDirectory(prefix="claw-t-", dir=memory_directory()) as directory:
        root, dice = Path(directory), random.Random(case.seed)
        in_child(lambda: case.situation.before(HostAndBucket(root, dice)))
        others = _others(HostAndBucket(root, dice).store())
        passed = in_child(lambda: _life(case, root))
        where = (root / "where").read_text("utf-8", "replace").strip() if (root / "where").exists() else ""
        generation, broken = in_child(lambda: _judged(case, root, others)) or (-1, ["nobody judged"])
    return Outcome(
        situation=case.situation.name,
        seed=case.seed,
        point=case.point,
        died=passed is None,
        where=where if passed is None else "",
        points=passed or 0,
        generation=generation,
        broken=tuple(broken),
    )


def _life(case: Case, root: Path) -> int:
    """The process that dies; how many changes it made, if it does not."""
    fuse, place = Fuse(), HostAndBucket(root, random.Random(case.seed))
    repository = place.repository()
    diary = os.open(root / "where", os.O_WRONLY | os.O_CREAT)
    fuse.noted = lambda point: _note(diary, point)  # type: ignore[method-assign]
    on_every_change(fuse)
    fuse.arm(after_points=case.point)
    try:
        case.situation.act(place, repository)
    finally:
        fuse.disarm()
    return len(fuse.passed)


def _note(diary: int, point: tuple[str, int]) -> None:
    os.pwrite(diary, f"{point[0]} #{point[1]}".encode(errors="replace")[:400].ljust(400), 0)


def _judged(case: Case, root: Path, others: dict[str, str]) -> tuple[int, list[str]]:
    place = HostAndBucket(root, random.Random(case.seed + 1))
    expected, store = place.expected(), place.store()
    broken = [f"after the death: {fault}" for fault in _faults(place, store, expected)]
    generation = _generation(place.repository())
    try:
        case.situation.act(place, place.repository())
    except Exception as error:  # noqa: BLE001 - told as a broken promise
        broken.append(f"I3: the successor failed: {error!r}")
    broken += [f"after the successor: {fault}" for fault in _faults(place, store, expected)]
    last = _generation(place.repository())
    if last != case.situation.last:
        broken.append(f"I3: the successor came to generation {last}, not {case.situation.last}")
    if not broken:
        place.repository().collect_garbage(ALICE, grace=0)
        above = f"{Keys(ALICE).manifests}{last + 1:012}-"  # kept until HEAD has passed it: HEAD may have gone back
        if wrong := {key for key in _reachable(place.repository()) ^ _own(store) if not key.startswith(above)}:
            broken.append(f"I6: after a collection these are stray, or missing: {sorted(wrong)[:3]}")
    if _others(store) != others:
        broken.append("I5: another tenant's objects changed")
    return generation, broken


def _generation(repository: Repository) -> int:
    head = repository.generations.head(ALICE)
    return head.generation if head else 0


def _faults(place: HostAndBucket, store: DirectoryStore, expected: dict[int, trees.Listing]) -> Iterator[str]:
    """Invariants that any reader may ask for at any moment; it takes no lease."""
    repository = place.repository("reader")
    generation = _generation(repository)
    if generation not in expected:
        yield f"I2: HEAD names generation {generation}, which nobody made"
        return
    if generation:
        try:
            found = _read(place, repository)
        except Exception as error:  # noqa: BLE001 - told as a broken promise
            yield f"I1: generation {generation} cannot be read: {error!r}"
            return
        if found != expected[generation]:
            wrong = {
                name
                for name in found.keys() | expected[generation].keys()
                if found.get(name) != expected[generation].get(name)
            }
            yield f"I2: generation {generation} is not the tree that was committed: {sorted(wrong)[:3]}"


def _read(place: HostAndBucket, repository: Repository) -> trees.Listing:
    """HEAD's tree as a restore makes it; the lease of the dead is not touched."""
    target = place.root / "read"
    remove_tree(target)
    repository.restorer.extract(ALICE, target)
    try:
        return trees.listing(target)
    finally:
        remove_tree(target)


def _reachable(repository: Repository) -> set[str]:
    """Keys of all manifests and content that some kept generation needs."""
    keys, newest, head = Keys(ALICE), repository.generations.manifest(ALICE), repository.generations.head(ALICE)
    assert head is not None
    kept = [(head.manifest or "", newest)]
    for past in repository.generations.earlier(newest):
        kept.append((keys.manifest(past.generation, past.sha256), repository.generations.of_past(ALICE, past)))
    found = {key for key, _ in kept}
    for _, document in kept:
        found |= {keys.pack(ref.sha256) for ref in document.packs}
        if base := document.base:
            found.add(keys.manifest(base.document.generation, base.sha256))
        found |= {keys.blob(entry.blob) for entry in document.entries if entry.blob}
    return found


def _own(store: DirectoryStore) -> set[str]:
    keys = Keys(ALICE)
    return {item.key for prefix in (keys.manifests, keys.packs, keys.blobs) for item in store.list(prefix)}


def _others(store: DirectoryStore) -> dict[str, str]:
    """Objects that are not the tenant's, nor the signs of life of a runtime."""
    own = Keys(ALICE).prefix
    keys = [item.key for item in store.list("") if not item.key.startswith((own, "runtimes/"))]
    return {key: store.get(key)[1] for key in keys}
