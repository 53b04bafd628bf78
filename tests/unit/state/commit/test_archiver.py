"""What a commit writes is what a restore reads: nothing in a tree makes a generation that cannot be taken back."""

import os
from pathlib import Path

import pytest
from claw_runtime.errors import UploadFailed
from claw_runtime.formats import manifest as manifests
from claw_runtime.objects.memory import MemoryStore
from claw_runtime.state.commit import chunker
from claw_runtime.state.repository import CommitRequest, CommitResult, Repository
from claw_runtime.state.rules.selection import EVERYTHING
from claw_runtime.tenancy import tenant_id
from fakes.clock import FakeClock

ALICE = tenant_id("alice")
FAR = 13_569_465_600 * 10**9  # the year 2400, in nanoseconds


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(MemoryStore(), "here", FakeClock(), tmp_path / "scratch")


def commit(repository: Repository, tmp_path: Path, tree: Path) -> CommitResult:
    """Seal the tree as the tenant's next generation."""
    right = repository.restorer.restore(repository.leases.acquire(ALICE), tmp_path / "staging")
    return repository.committer.commit(
        CommitRequest(right=right, tree=tree, selection=EVERYTHING, image_digest="", application="", release=True)
    )


def test_a_time_far_away_does_not_lose_the_generation(repository: Repository, tmp_path: Path) -> None:
    """A name whose time no manifest can hold comes back with the nearest that it can."""
    tree = tmp_path / "tree"
    (tree / "directory").mkdir(parents=True)
    (tree / "file").write_text("blue")
    (tree / "link").symlink_to("file")
    for name in ("file", "link", "directory"):
        os.utime(tree / name, ns=(FAR, FAR), follow_symlinks=False)
    if (tree / "file").stat().st_mtime_ns != FAR:
        pytest.skip("this file system has no such time")

    commit(repository, tmp_path, tree)
    repository.restorer.restore(repository.leases.acquire(ALICE), tmp_path / "again")

    assert (tmp_path / "again" / "file").read_text() == "blue"
    assert (tmp_path / "again" / "link").lstat().st_mtime_ns == manifests.LATEST


def test_times_are_within_what_a_manifest_holds() -> None:
    """On any file system: the farthest times are brought back to the first and the last."""
    times = (-(2**70), -5, 5, 2**70)

    assert [chunker.storable(time) for time in times] == [-manifests.LATEST, -5, 5, manifests.LATEST]


def test_a_manifest_that_could_not_be_read_is_not_written(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tree of more names than a manifest may list is refused and kept; HEAD stays at what can be restored."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(50):
        (tree / f"file-{number}").touch()
    monkeypatch.setattr(manifests, "MAX_BYTES", 1000)

    with pytest.raises(UploadFailed, match="too many names"):
        commit(repository, tmp_path, tree)

    head = repository.generations.head(ALICE)
    assert head is not None
    assert head.generation == 0
