"""A tree is made of frames, holes, blobs and attributes, whole and checked; or nothing is."""

import hashlib
import io
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from claw_runtime.errors import RestoreFailed, VerifyMismatch
from claw_runtime.formats import pack as packs
from claw_runtime.formats.envelope import PLAIN, Aes, Sealer
from claw_runtime.formats.manifest import Entry, Extent, Manifest, PackRef, hole
from claw_runtime.objects.memory import MemoryStore
from claw_runtime.safefs.tree import Tree
from claw_runtime.state.restore import restore
from claw_runtime.state.restore.disk_space import check_room
from claw_runtime.tenancy import Keys, tenant_id
from fakes.stores import FaultyStore

ALICE = tenant_id("alice")
KEYS = Keys(ALICE)
SEALER = Aes(b"k" * 32, ALICE)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def packed(store: MemoryStore, pieces: Sequence[bytes], sealer: Sealer = PLAIN) -> tuple[PackRef, list[Extent]]:
    """One pack of these frames."""
    builder = packs.PackBuilder(1, sealer)
    places = [builder.add(piece, path="x", at=0, mode=0o600, mtime_ns=0) for piece in pieces]
    pack = builder.seal()
    store.put(KEYS.pack(pack.sha256), pack.data)
    return pack.ref, [
        Extent(pack=pack.sha256, offset=offset, stored=stored, raw=len(piece), sha256=sha256(piece))
        for piece, (offset, stored) in zip(pieces, places, strict=True)
    ]


def file(path: str, content: bytes, **told: object) -> Entry:
    made = Entry(path=path, type="f", mode=0o640, mtime_ns=1_000, size=len(content), sha256=sha256(content))
    return replace(made, **told)  # type: ignore[arg-type]


def manifest(*entries: Entry, refs: Sequence[PackRef] = ()) -> Manifest:
    return Manifest(
        tenant=ALICE,
        generation=1,
        parent=None,
        created="",
        image="",
        application="",
        entries=entries,
        packs=tuple(refs),
    )


def restored(store: MemoryStore | FaultyStore, document: Manifest, target: Path, sealer: Sealer = PLAIN) -> Path:
    target.mkdir()
    with Tree(target) as tree:
        restore.unpack(store, document, tree, sealer)
    return target


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def test_holes_stay_holes(store: MemoryStore, tmp_path: Path) -> None:
    """A terabyte of nothing with a word at its end takes one block, and reads as zeros."""
    ref, [word] = packed(store, [b"word"])
    size = 2**30
    content = hashlib.sha256()
    for _ in range(2**10):
        content.update(bytes(2**20))
    content.update(b"word")
    entry = replace(
        file("sparse", b""), size=size + 4, sha256=content.hexdigest(), extents=(hole(size), replace(word, sha256=None))
    )
    document = manifest(entry, refs=[ref])

    path = restored(store, document, tmp_path / "t") / "sparse"

    assert path.stat().st_size == size + 4
    assert path.stat().st_blocks * 512 < 2**20
    check_room(store, document, tmp_path)
    assert b"".join(piece[-4:] for piece in restore.read_file(store, document, entry)).endswith(b"word")


def test_a_blob_becomes_a_file(store: MemoryStore, tmp_path: Path) -> None:
    """With its mode and time; and one that is not what its name says is refused."""
    content = os.urandom(3_000_000)
    name = f"{sha256(content)}.1"
    entry = file("film", content, blob=name)
    store.send(KEYS.blob(name), io.BytesIO(content), len(content))

    path = restored(store, manifest(entry), tmp_path / "t") / "film"

    assert path.read_bytes() == content
    assert (path.stat().st_mode & 0o777, path.stat().st_mtime_ns) == (0o640, 1_000)
    assert b"".join(restore.read_file(store, manifest(entry), entry)) == content
    for damaged in (content[:-1], content[:-1] + b"?"):
        store.put(KEYS.blob(name), damaged)
        with pytest.raises(VerifyMismatch):
            restored(store, manifest(entry), tmp_path / f"damaged-{len(damaged)}-{damaged[-1]}")


def test_a_file_is_put_together_of_chunks(store: MemoryStore, tmp_path: Path) -> None:
    """Out of several packs, some of whose chunks it shares with another file."""
    chunks = [os.urandom(packs.CHUNK) for _ in range(5)] + [b"end"]
    first, some = packed(store, chunks[:3])
    second, others = packed(store, chunks[3:])
    whole = b"".join(chunks)
    document = manifest(
        file("a", whole, extents=(*some, *others)),
        file("b", chunks[4] + chunks[0], extents=(others[1], some[0])),
        file("c", chunks[5], extents=(replace(others[2], sha256=None),)),
        refs=[first, second],
    )

    target = restored(store, document, tmp_path / "t")

    assert (target / "a").read_bytes() == whole
    assert (target / "b").read_bytes() == chunks[4] + chunks[0]
    assert (target / "c").read_bytes() == b"end"


def test_chunks_in_the_wrong_order_are_refused(store: MemoryStore, tmp_path: Path) -> None:
    """Each is what its digest says, and the file is not."""
    ref, [one, two] = packed(store, [b"one", b"two"])
    entry = file("a", b"onetwo", extents=(two, one))

    with pytest.raises(VerifyMismatch):
        restored(store, manifest(entry, refs=[ref]), tmp_path / "t")


def test_of_a_pack_that_is_hardly_needed_little_is_fetched(store: MemoryStore, tmp_path: Path) -> None:
    """Two small files out of a pack of megabytes are two ranges; most of a pack is the pack."""
    pieces = [os.urandom(packs.CHUNK) for _ in range(40)]
    ref, extents = packed(store, pieces)
    line = FaultyStore(store)
    few = [file(f"f{n}", pieces[n], extents=(extents[n],)) for n in (3, 4, 30)]

    target = restored(line, manifest(*few, refs=[ref]), tmp_path / "few")

    assert {path.name: path.read_bytes() for path in target.iterdir()} == {f"f{n}": pieces[n] for n in (3, 4, 30)}
    assert [operation for operation, _ in line.calls] == ["get_range", "get_range"]
    line.calls.clear()
    restored(
        line,
        manifest(*[file(f"f{n}", pieces[n], extents=(extents[n],)) for n in range(30)], refs=[ref]),
        tmp_path / "most",
    )
    assert [operation for operation, _ in line.calls] == ["get"]


def test_attributes_come_back(store: MemoryStore, tmp_path: Path) -> None:
    """The user's own, of small, empty and large files, where the file system has any."""
    probe = tmp_path / "probe"
    probe.touch()
    try:
        os.setxattr(probe, "user.claw", b"x")
    except OSError:
        pytest.skip("this file system has no extended attributes")
    ref, [one, two] = packed(store, [b"one", b"two"])
    tags = (("user.tag", b"\0blue"),)
    document = manifest(
        file("small", b"one", extents=(one,), xattrs=tags),
        file("empty", b"", xattrs=tags),
        file("large", b"onetwo", extents=(one, two), xattrs=tags),
        refs=[ref],
    )

    target = restored(store, document, tmp_path / "t")

    assert {os.getxattr(path, "user.tag") for path in target.iterdir()} == {b"\0blue"}


def test_sealed_and_plain_packs_may_be_mixed(store: MemoryStore, tmp_path: Path) -> None:
    """What was stored before encryption began is as it was; what is sealed needs the key."""
    plain, [one] = packed(store, [b"one"])
    sealed, [two] = packed(store, [b"two"], SEALER)
    document = manifest(file("a", b"one", extents=(one,)), file("b", b"two", extents=(two,)), refs=[plain, sealed])

    target = restored(store, document, tmp_path / "t", SEALER)

    assert ((target / "a").read_bytes(), (target / "b").read_bytes()) == (b"one", b"two")
    with pytest.raises(VerifyMismatch):
        restored(store, document, tmp_path / "without")


def test_a_pack_that_is_not_listed_is_refused(store: MemoryStore, tmp_path: Path) -> None:
    """Nobody knows its size or whether it is sealed."""
    _, [one] = packed(store, [b"one"])

    with pytest.raises(RestoreFailed, match="does not list"):
        restored(store, manifest(file("a", b"one", extents=(one,))), tmp_path / "t")


class TestDonor:
    """An older tree of the same tenant gives what has not changed since."""

    @pytest.fixture
    def document(self, store: MemoryStore) -> Manifest:
        """Four files in two packs, and one of several chunks."""
        chunks = [os.urandom(packs.CHUNK), b"end"]
        first, [one, two] = packed(store, [b"one", b"two"])
        second, [three, *parts] = packed(store, [b"three", *chunks])
        return manifest(
            file("one", b"one", extents=(one,)),
            file("two", b"two", extents=(two,)),
            file("three", b"three", extents=(three,)),
            file("large", b"".join(chunks), extents=tuple(parts)),
            refs=[first, second],
        )

    def restored(self, store: FaultyStore, document: Manifest, donor: Path, target: Path) -> dict[str, bytes]:
        target.mkdir()
        with Tree(target) as tree, Tree(donor) as old:
            restore.unpack(store, document, tree, donor=old)
        return {path.name: path.read_bytes() for path in target.iterdir()}

    def test_what_has_not_changed_is_moved(self, store: MemoryStore, document: Manifest, tmp_path: Path) -> None:
        """Nothing is fetched of a whole one, and only a file's frames of one in which that file has changed."""
        line, donor = FaultyStore(store), restored(store, document, tmp_path / "donor")
        whole = {path.name: path.read_bytes() for path in donor.iterdir()}
        inodes = {path.name: path.stat().st_ino for path in donor.iterdir()}

        assert self.restored(line, document, donor, tmp_path / "a") == whole
        assert line.calls == []
        assert {path.name: path.stat().st_ino for path in (tmp_path / "a").iterdir()} == inodes

        (tmp_path / "a/two").write_bytes(b"TWO!")
        assert self.restored(line, document, tmp_path / "a", tmp_path / "b") == whole
        assert {key for _, key in line.calls} == {KEYS.pack(document.packs[0].sha256)}

    def test_no_lie_of_a_donor_is_believed(self, store: MemoryStore, document: Manifest, tmp_path: Path) -> None:
        """Other bytes of the same size and time; links, directories and hard links in a file's place; nothing."""
        donor, outside = restored(store, document, tmp_path / "donor"), tmp_path / "outside"
        whole = {path.name: path.read_bytes() for path in donor.iterdir()}
        (donor / "one").write_bytes(b"ONE")
        os.utime(donor / "one", ns=(1_000, 1_000))
        (donor / "two").rename(outside)
        (donor / "two").symlink_to(outside)
        (donor / "three").unlink()
        (donor / "three").mkdir()
        os.link(donor / "large", tmp_path / "another name")

        assert self.restored(FaultyStore(store), document, donor, tmp_path / "t") == whole

        assert outside.read_bytes() == b"two"
        assert all(path.stat().st_nlink == 1 and not path.is_symlink() for path in (tmp_path / "t").iterdir())

    def test_modes_and_times_are_the_manifests(self, store: MemoryStore, document: Manifest, tmp_path: Path) -> None:
        """Whatever the donor's were made to be."""
        donor = restored(store, document, tmp_path / "donor")
        for path in donor.iterdir():
            path.chmod(0o600)
        line = FaultyStore(store)

        self.restored(line, document, donor, tmp_path / "t")

        assert line.calls == []
        assert {path.stat().st_mode & 0o777 for path in (tmp_path / "t").iterdir()} == {0o640}
        assert {path.stat().st_mtime_ns for path in (tmp_path / "t").iterdir()} == {1_000}
