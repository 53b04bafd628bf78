"""What is left of a tenant's tree after a power failure: names, and only those contents that were synced.

File systems keep names in a journal, which is written every few seconds and by each fsync. Contents are written later.
So the worst that may be found is every name, with nothing in each file that was not synced.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from claw_runtime import fsutil
from claw_runtime.errors import StoreUnavailable, UploadFailed
from claw_runtime.safefs import tree as trees
from claw_runtime.tenancy import TenantId
from fakes.world import PARKED, World

ALICE = TenantId("alice")


class Disk:
    """The disk below a world, of which a power failure leaves what was synced."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
        self._home, self._synced = home, set[tuple[int, int]]()
        self.syncs = 0
        sync = fsutil.sync_file_system

        def recorded(fd: int) -> None:
            sync(fd)
            self.syncs += 1
            self._synced |= {_content(path) for path in self._files()}

        monkeypatch.setattr(fsutil, "sync_file_system", recorded)
        monkeypatch.setattr(trees, "sync_file_system", recorded)

    def _files(self) -> Iterator[Path]:
        places = [*self._home.glob("slots/*/state"), *self._home.glob("tenants/*/*")]
        return (path for place in places for path in place.rglob("*") if path.is_file())

    def fail(self, world: World) -> None:
        """The power fails, and the machine starts again."""
        for path in list(self._files()):
            if _content(path) not in self._synced:
                os.truncate(path, 0)
        world.boot += "+"
        world.engine.lose()
        world.restart()
        world.recover()


def _content(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, workload=PARKED)
    made.restarts.note_boot()
    yield made
    made.close()


@pytest.fixture
def disk(world: World, monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch, world.layout.home)


def away(*_: object, **__: object) -> None:
    raise StoreUnavailable("down")


def found(world: World) -> str:
    """What a claim finds."""
    world.tenants.claim(ALICE, "small")
    return (world.state("alice") / "word").read_text()


def test_a_committed_tree_is_not_followed_by_an_older_one(world: World, disk: Disk) -> None:
    """The tree of a running tenant is committed again after the failure: it has at least what was committed before."""
    world.tenants.claim(ALICE, "small")
    world.write("alice", {"word": "blue"})
    world.tenants.sync(ALICE)

    disk.fail(world)

    assert found(world) == "blue"


def test_a_parked_tree_is_its_generation(world: World, disk: Disk) -> None:
    """A claim takes it as it is, without a look at the digests in the store."""
    world.tenants.claim(ALICE, "small")
    world.write("alice", {"word": "blue"})
    world.tenants.release(ALICE)
    assert world.row_state("alice") == "parked"

    disk.fail(world)

    assert world.row_state("alice") == "parked"
    assert found(world) == "blue"


def test_a_kept_tree_is_whole(world: World, disk: Disk) -> None:
    """It is the only copy of what a release could not commit."""
    world.tenants.claim(ALICE, "small")
    world.write("alice", {"word": "blue"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.store, "put", away)
        with pytest.raises(UploadFailed):
            world.tenants.release(ALICE)
        disk.fail(world)

    assert world.kept("alice") == {"word": "blue"}


def test_a_tree_that_nobody_changed_is_not_synced_again(
    world: World, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sync waits for everything that is written to the disk, so a commit without news does without."""
    world.tenants.claim(ALICE, "small")
    world.write("alice", {"word": "blue"})
    later = time.time_ns() + 3600 * 10**9
    monkeypatch.setattr("time.time_ns", lambda: later)
    world.tenants.sync(ALICE)
    before = disk.syncs
    world.tenants.sync(ALICE)
    assert (before, disk.syncs) == (1, 1)
