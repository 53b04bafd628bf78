"""What a runtime does when it dies: each situation says what was there, what is done, and what may be afterwards."""

import hashlib
import json
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from claw_runtime.clock import SystemClock
from claw_runtime.objects.directory import DirectoryStore
from claw_runtime.safefs.removal import remove_tree
from claw_runtime.spec.parts import Retention
from claw_runtime.state.commit import bases
from claw_runtime.state.repository import CommitRequest, Repository
from claw_runtime.state.rules.selection import EVERYTHING
from claw_runtime.state.snapshots.snapshots import Snapshots
from claw_runtime.tenancy import Keys, TenantId
from torture import trees

ALICE, BOB = TenantId("alice"), TenantId("bob")
US = "here"
THREE = Retention(keep_last=3, hourly=0, daily=0)
_WORD, _SAID_AT = b"word", 1_700_000_000_000_000_000


class HostAndBucket:
    """One host and one bucket in one directory."""

    def __init__(self, root: Path, dice: random.Random) -> None:
        self.root, self.dice = root, dice
        self.tree, self.staging = root / "tree", root / "staging"
        self.bucket = root / "bucket"
        self.bucket.mkdir(exist_ok=True)

    def store(self) -> DirectoryStore:
        return DirectoryStore(self.bucket)

    def repository(self, owner: str = US) -> Repository:
        """A runtime of this process, a child; trees as small as these have deltas, too."""
        bases.SMALL = bases.RELEASED = 0  # type: ignore[misc]
        return Repository(self.store(), owner, SystemClock(), self.root / f"scratch-{owner}")

    def expect(self, generation: int, listing: trees.Listing) -> None:
        """Note what a generation must bring back."""
        (self.root / f"generation-{generation}.json").write_text(json.dumps(listing))

    def expected(self) -> dict[int, trees.Listing]:
        """All that was noted, by generation."""
        found = {int(path.stem.rpartition("-")[2]): path for path in self.root.glob("generation-*.json")}
        return {
            number: {name: tuple(told) for name, told in json.loads(path.read_text()).items()}
            for number, path in found.items()
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What is there, and what is then done by a process that dies in it.

    Attributes:
        before: Makes bucket and tree, and notes every generation that may be HEAD's afterwards.
        act: May be done again by the next process, which must then bring it to its end.
        last: The generation that HEAD names once it came to its end.
    """

    name: str
    before: Callable[[HostAndBucket], None]
    act: Callable[[HostAndBucket, Repository], None]
    last: int


def commit(place: HostAndBucket, repository: Repository, tenant: TenantId = ALICE, *, tree: Path | None = None) -> None:
    """Seal the tree on top of what the store has, as the release of a tree that is known to be as new does."""
    lease = repository.leases.acquire(tenant)
    right = repository.restorer.adopt(lease, lease.head.generation)
    repository.committer.commit(
        CommitRequest(
            right=right,
            tree=tree or place.tree,
            selection=EVERYTHING,
            image_digest="sha256:0",
            application="torture 1",
            release=True,
            retention=THREE,
        )
    )


def _neighbour(place: HostAndBucket) -> None:
    """Somebody else in the same bucket."""
    tree = place.root / "neighbour"
    trees.grow(tree, place.dice, files=3)
    commit(place, place.repository("elsewhere"), BOB, tree=tree)


def _first(place: HostAndBucket) -> None:
    _neighbour(place)
    trees.grow(place.tree, place.dice)
    place.expect(0, {})
    place.expect(1, trees.listing(place.tree))


def _second(place: HostAndBucket, then: Callable[[Path, random.Random], None]) -> None:
    _first(place)
    commit(place, place.repository())
    then(place.tree, place.dice)
    place.expect(2, trees.listing(place.tree))


def _more_rows(tree: Path, dice: random.Random) -> None:
    trees.rows(tree / trees.DATABASE, dice, 200)


def _released(place: HostAndBucket) -> None:
    """The tree is in the store alone."""
    _second(place, trees.change)
    commit(place, place.repository())
    remove_tree(place.tree)
    word = ("file", 0o600, _SAID_AT, len(_WORD), hashlib.sha256(_WORD).hexdigest())
    place.expect(3, {**place.expected()[2], "said": word})


def _restore_and_go_on(place: HostAndBucket, repository: Repository) -> None:
    """A claim, a word, a release; what an earlier try left in staging is removed first, as every claim does."""
    head = repository.generations.head(ALICE)
    assert head is not None
    if head.generation == 3:
        return
    remove_tree(place.staging)
    lease = repository.leases.acquire(ALICE)
    right = repository.restorer.restore(lease, place.staging)
    said = place.staging / "said"
    said.write_bytes(_WORD)
    said.chmod(0o600)
    os.utime(said, ns=(_SAID_AT, _SAID_AT))
    repository.committer.commit(
        CommitRequest(
            right=right,
            tree=place.staging,
            selection=EVERYTHING,
            image_digest="sha256:0",
            application="torture 1",
            release=True,
            retention=THREE,
        )
    )


def _with_garbage(place: HostAndBucket) -> None:
    """Five generations of which three stay, and what a commit that died left behind."""
    _neighbour(place)
    trees.grow(place.tree, place.dice)
    for _ in range(5):
        commit(place, place.repository())
        trees.change(place.tree, place.dice)
    lost = place.store()
    lost.put(Keys(ALICE).pack("0" * 64), b"what nobody names")
    lost.put(Keys(ALICE).manifest(6, "0" * 64), b"nor this")
    target = place.root / "five"
    place.repository().restorer.extract(ALICE, target)
    place.expect(5, trees.listing(target))
    remove_tree(target)


def _collect(_place: HostAndBucket, repository: Repository) -> None:
    repository.collect_garbage(ALICE, grace=0)


def _two_generations(place: HostAndBucket) -> None:
    _second(place, trees.change)
    commit(place, place.repository())
    place.expect(3, place.expected()[1])


def _go_back(place: HostAndBucket, repository: Repository) -> None:
    head = repository.generations.head(ALICE)
    assert head is not None
    if head.generation == 2:
        Snapshots(repository=repository, store=place.store(), clock=SystemClock(), still=_still).restore(ALICE, "1")


@contextmanager
def _still(_tenant: TenantId) -> Iterator[Callable[[int], None]]:
    yield lambda _generation: None


SITUATIONS = (
    Situation(name="first upload", before=_first, act=commit, last=1),
    Situation(name="changed tree", before=lambda place: _second(place, trees.change), act=commit, last=2),
    Situation(name="deletions only", before=lambda place: _second(place, trees.empty), act=commit, last=2),
    Situation(name="rows in a database", before=lambda place: _second(place, _more_rows), act=commit, last=2),
    Situation(name="restore, a word, release", before=_released, act=_restore_and_go_on, last=3),
    Situation(name="back to a generation", before=_two_generations, act=_go_back, last=3),
    Situation(name="collection of garbage", before=_with_garbage, act=_collect, last=5),
)
