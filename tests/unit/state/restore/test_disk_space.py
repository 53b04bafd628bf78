"""Whether a tree fits is known before it is restored, and what takes no room does not count."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest
from claw_runtime.errors import DiskFull
from claw_runtime.formats import pack as packs
from claw_runtime.formats.envelope import Aes
from claw_runtime.formats.manifest import Entry, Extent, Manifest
from claw_runtime.fsutil import Room
from claw_runtime.objects.memory import MemoryStore
from claw_runtime.safefs.tree import Tree
from claw_runtime.state.repository import CommitRequest, Repository
from claw_runtime.state.restore import disk_space, restore
from claw_runtime.state.restore.disk_space import check_room
from claw_runtime.state.rules.selection import EVERYTHING
from claw_runtime.tenancy import Keys, tenant_id
from fakes.clock import FakeClock
from fakes.stores import FaultyStore

ALICE = tenant_id("alice")
PAGE, CHUNK, CHUNKS = 4096, 64 * 1024, 40


@pytest.fixture
def store() -> FaultyStore:
    return FaultyStore(MemoryStore())


@pytest.fixture
def document(store: FaultyStore, tmp_path: Path) -> Manifest:
    """A state with a page of data in each chunk of one file, and text that compresses well in another."""
    tree = tmp_path / "tree"
    tree.mkdir()
    with (tree / "image").open("wb") as file:
        for number in range(CHUNKS):
            file.seek(number * CHUNK + PAGE)
            file.write(os.urandom(PAGE))
        file.truncate(CHUNKS * CHUNK)
    (tree / "text").write_bytes(b"the same line again\n" * 5000)
    here = Repository(store, "here", FakeClock(), tmp_path / "scratch")
    right = here.restorer.restore(here.leases.acquire(ALICE), tmp_path / "empty")
    here.committer.commit(
        CommitRequest(right=right, tree=tree, selection=EVERYTHING, image_digest="", application="", release=True)
    )
    return here.generations.manifest(ALICE)


def leave(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """So many bytes are free."""
    monkeypatch.setattr(disk_space, "room", lambda _path: Room(size=size, files=None))


def fetched(store: FaultyStore) -> int:
    return sum("/packs/" in key for _, key in store.calls)


def used(directory: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in directory.rglob("*") if path.is_file())


def test_short_holes_need_no_room(
    store: FaultyStore, document: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the restore needs is enough, although the files would need eight times that without holes."""
    target = tmp_path / "out"
    target.mkdir()
    with Tree(target) as tree:
        restore.unpack(store, document, tree)
    needed = used(target)
    assert needed < sum(entry.size for entry in document.entries) / 8

    leave(monkeypatch, needed)
    check_room(store, document, tmp_path)

    leave(monkeypatch, needed - PAGE)
    with pytest.raises(DiskFull, match="no room to restore tenant alice") as full:
        check_room(store, document, tmp_path)
    assert full.value.facts["need"] == needed


def test_nothing_is_fetched_where_the_manifest_answers(
    store: FaultyStore, document: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is room for all of it, or not even for what surely needs some."""
    store.calls.clear()
    check_room(store, document, tmp_path)

    leave(monkeypatch, -1)
    with pytest.raises(DiskFull):
        check_room(store, document, tmp_path)

    assert fetched(store) == 0


def test_sealed_frames_are_counted(
    store: FaultyStore, document: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An encrypted state needs exactly the page that is not zeros, which only its key shows."""
    sealer = Aes(b"k" * 32, ALICE)
    content = os.urandom(PAGE) + bytes(CHUNK - PAGE)
    builder = packs.PackBuilder(1, sealer)
    offset, stored = builder.add(content, path="a", at=0, mode=0o600, mtime_ns=0)
    pack = builder.seal()
    store.put(Keys(ALICE).pack(pack.sha256), pack.data)
    digest = hashlib.sha256(content).hexdigest()
    place = Extent(pack=pack.sha256, offset=offset, stored=stored, raw=CHUNK)
    entry = Entry(path="a", type="f", mode=0o600, mtime_ns=0, size=CHUNK, sha256=digest, extents=(place,))
    sealed = replace(document, entries=(entry,), packs=(pack.ref,))

    leave(monkeypatch, PAGE)
    check_room(store, sealed, tmp_path, sealer)

    leave(monkeypatch, PAGE - 1)
    with pytest.raises(DiskFull) as full:
        check_room(store, sealed, tmp_path, sealer)
    assert full.value.facts["need"] == PAGE
