"""What a verification or a collection costs: memory for one manifest, however many generations there are."""

import gc
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from claw_runtime.objects.memory import MemoryStore
from claw_runtime.state.commit import bases
from claw_runtime.state.repository import CommitRequest, Repository
from claw_runtime.state.rules.selection import EVERYTHING
from claw_runtime.state.verify import Verifier
from claw_runtime.tenancy import tenant_id
from fakes.clock import FakeClock

ALICE, BOB = tenant_id("alice"), tenant_id("bob")
NAMES, GENERATIONS = 1500, 8


@pytest.fixture
def memory() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def repository(memory: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """A tenant with many names in many generations; nothing of it is cached. The last manifest, of a release, is a
    delta, too: it takes most memory to decode."""
    monkeypatch.setattr(bases, "RELEASED", bases.SMALL)
    for number in range(NAMES):
        (tmp_path / "tree" / f"directory-{number}").mkdir(parents=True)
    repository = Repository(memory, "here", FakeClock(), tmp_path / "scratch")
    right = repository.restorer.restore(repository.leases.acquire(ALICE), tmp_path / "staging")
    for number in range(GENERATIONS):
        (tmp_path / "tree" / "file").write_text(f"{number}")
        request = CommitRequest(
            right=right,
            tree=tmp_path / "tree",
            selection=EVERYTHING,
            image_digest="",
            application="",
            release=number == GENERATIONS - 1,
        )
        right = repository.committer.commit(request).right or right
    return Repository(memory, "here", FakeClock(), tmp_path / "scratch")


@contextmanager
def peak(most: float) -> Iterator[None]:
    """Check the highest number of bytes that a block allocates at once."""
    gc.collect()
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


@pytest.fixture
def one_manifest(repository: Repository) -> float:
    """Bytes that the decoding of one manifest takes at its highest, and a fifth more."""
    gc.collect()
    tracemalloc.start()
    repository.generations.manifest(ALICE)
    highest = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return 1.2 * highest


def test_a_verification_has_one_manifest_in_memory(
    memory: MemoryStore, repository: Repository, one_manifest: float
) -> None:
    """The generations that it checked need no more than one of them."""
    with peak(one_manifest):
        verified = Verifier(memory, repository).verify(ALICE)
    assert verified.generations == tuple(range(1, GENERATIONS + 1))
    assert (verified.files, verified.damaged) == (1, ())


def test_a_comparison_has_one_manifest_in_memory(
    memory: MemoryStore, repository: Repository, one_manifest: float, tmp_path: Path
) -> None:
    """Of two tenants."""
    lease = repository.leases.acquire(BOB)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "file").write_text("bob")
    right = repository.restorer.restore(lease, tmp_path / "staging")
    repository.committer.commit(
        CommitRequest(
            right=right, tree=tmp_path / "b", selection=EVERYTHING, image_digest="", application="", release=True
        )
    )
    with peak(one_manifest):
        isolation = Verifier(memory, repository).compare(ALICE, BOB)
    assert isolation.findings == ()


def test_a_collection_has_one_manifest_in_memory(repository: Repository, one_manifest: float) -> None:
    """What each names is noted, and the manifest is gone before the next is read."""
    with peak(one_manifest):
        collection = repository.collect_garbage(ALICE)
    assert collection is not None
    assert collection.kept == GENERATIONS
