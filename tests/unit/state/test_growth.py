"""What commits in a row leave in the bucket: little more than the differences of the generations that are kept."""

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from claw_runtime.formats.manifest import Manifest
from claw_runtime.objects.memory import MemoryStore
from claw_runtime.spec.parts import Retention
from claw_runtime.state.commit.compaction import MOST_IN_ALL, QUARTER
from claw_runtime.state.repository import CommitRequest, Repository, UploadRight
from claw_runtime.state.rules.selection import EVERYTHING
from claw_runtime.tenancy import Keys, tenant_id
from fakes.clock import FakeClock

ALICE = tenant_id("alice")
COMMITS = 80
MINUTE = 60.0


def log(tree: Path, number: int, dice: random.Random) -> None:
    """A log grows by a few lines, beside old ones."""
    for old in range(8 if number == 0 else 0):
        (tree / f"old-{old}").write_bytes(dice.randbytes(250_000))
    with (tree / "log").open("ab") as file:
        file.write(dice.randbytes(3000))


def pages(tree: Path, number: int, dice: random.Random) -> None:
    """Pages of a database change, here and there."""
    if number == 0:
        (tree / "pages").write_bytes(dice.randbytes(4_000_000))
    with (tree / "pages").open("r+b") as file:
        for _ in range(3):
            file.seek(dice.randrange(900) * 4096)
            file.write(dice.randbytes(4096))


def replaced(tree: Path, number: int, dice: random.Random) -> None:
    """A few of many small files are replaced."""
    for name in range(300) if number == 0 else dice.sample(range(300), 5):
        (tree / f"file-{name}").write_bytes(dice.randbytes(10_000))


def churned(tree: Path, number: int, dice: random.Random) -> None:
    """New files come, old ones go, a cache is rewritten, and a note stays."""
    (tree / "cache").write_bytes(dice.randbytes(400_000))
    (tree / f"note-{number}").write_bytes(dice.randbytes(500))
    (tree / f"file-{number}").write_bytes(dice.randbytes(60_000))
    (tree / f"file-{number - 40}").unlink(missing_ok=True)


class Bucket:
    """A tenant that is committed again and again."""

    def __init__(self, top: Path) -> None:
        self.clock, self.tree = FakeClock(), top / "tree"
        self.store = MemoryStore(self.clock.now)
        self.repository = Repository(self.store, "here", self.clock, top / "scratch")
        lease = self.repository.leases.acquire(ALICE)
        self.right: UploadRight = self.repository.restorer.restore(lease, self.tree)

    def commit(self, after: float = MINUTE) -> Manifest:
        self.clock.advance(after)
        request = CommitRequest(
            right=self.right,
            tree=self.tree,
            selection=EVERYTHING,
            image_digest="",
            application="",
            release=False,
            retention=Retention(),
        )
        self.right = self.repository.committer.commit(request).right or self.right
        return self.repository.generations.manifest(ALICE)

    def packs(self) -> int:
        return sum(item.size for item in self.store.list(Keys(ALICE).packs))

    def ratio(self) -> float:
        """Bytes in the bucket after a collection, for each byte that the kept generations differ by."""
        self.clock.advance(2 * 24 * 3600)
        self.repository.heartbeats.beat()
        self.repository.collect_garbage(ALICE, self.right)
        differ = dict[str, int]()
        for document in self.kept():
            differ.update(frames(document))
        return self.packs() / sum(differ.values())

    def kept(self) -> list[Manifest]:
        newest = self.repository.generations.manifest(ALICE)
        past = self.repository.generations.earlier(newest)
        return [newest, *(self.repository.generations.of_past(ALICE, one) for one in past)]


def frames(document: Manifest) -> dict[str, int]:
    """Bytes in the store of each distinct chunk, by digest."""
    return {
        extent.sha256 or entry.sha256 or "": extent.stored
        for entry in document.entries
        for extent in entry.extents
        if not extent.hole
    }


@pytest.mark.parametrize("change", [log, pages, replaced, churned])
def test_growth_is_bounded(
    change: Callable[[Path, int, random.Random], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packs of a generation, bytes sent for what changed, and bytes in the bucket after a collection."""
    real = time.time_ns
    monkeypatch.setattr("time.time_ns", lambda: real() + 3600 * 10**9)  # no file is racy
    bucket, dice = Bucket(tmp_path), random.Random(1)
    changed, before = 0, dict[str, int]()
    for number in range(COMMITS):
        change(bucket.tree, number, dice)
        document = bucket.commit()
        found = frames(document)
        changed += sum(size for sha256, size in found.items() if sha256 not in before)
        before = found
        assert len(document.packs) <= MOST_IN_ALL + 2 + document.size / QUARTER

    assert bucket.packs() <= 3 * changed
    assert bucket.ratio() <= 2
    bucket.repository.restorer.extract(ALICE, tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == {
        path.name: path.read_bytes() for path in bucket.tree.iterdir()
    }


def test_kept_hours_hold_little_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages change every six minutes for eight hours, of which each keeps its last generation: what that one names is
    not moved any more, and was made dense before."""
    real = time.time_ns
    monkeypatch.setattr("time.time_ns", lambda: real() + 3600 * 10**9)  # no file is racy
    bucket, dice = Bucket(tmp_path), random.Random(1)
    for number in range(COMMITS):
        pages(bucket.tree, number, dice)
        bucket.commit(6 * MINUTE)
    assert bucket.packs() <= 2.5 * 65536 * (61 + 3 * COMMITS)
    assert bucket.ratio() <= 1.4
