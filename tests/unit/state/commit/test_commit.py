"""What a commit stores of a tree, what it refuses, and what it keeps when most of a state goes away."""

import hashlib
import os
import sqlite3
import tracemalloc
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from claw_runtime.errors import UploadFailed
from claw_runtime.formats.pack import CHUNK
from claw_runtime.objects.memory import MemoryStore
from claw_runtime.ports import Clock
from claw_runtime.safefs import opening
from claw_runtime.safefs import tree as treewalk
from claw_runtime.spec.parts import SyncLimits
from claw_runtime.state.commit import chunker, guards, pack_upload
from claw_runtime.state.commit import commit as committing
from claw_runtime.state.commit.chunker import BLOB
from claw_runtime.state.commit.publisher import Publisher
from claw_runtime.state.history.pins import MOST, Pins
from claw_runtime.state.repository import CommitRequest, CommitResult, Repository, UploadRight
from claw_runtime.state.rules.selection import EVERYTHING
from claw_runtime.tenancy import Keys, tenant_id
from fakes.clock import FakeClock
from fakes.stores import FaultyStore

ALICE = tenant_id("alice")
MIB = 1024 * 1024


@pytest.fixture
def memory() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def store(memory: MemoryStore) -> FaultyStore:
    return FaultyStore(memory)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def repository(store: FaultyStore, clock: Clock, tmp_path: Path) -> Repository:
    return Repository(store, "here", clock, tmp_path / "scratch")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    root.mkdir()
    return root


@pytest.fixture
def right(repository: Repository, tmp_path: Path) -> UploadRight:
    return repository.restorer.restore(repository.leases.acquire(ALICE), tmp_path / "staging")


def commit(repository: Repository, right: UploadRight | None, tree: Path, **more: object) -> CommitResult:
    assert right is not None
    options: dict[str, object] = {"selection": EVERYTHING, "release": False, **more}
    request = CommitRequest(right=right, tree=tree, image_digest="", application="", **options)  # type: ignore[arg-type]
    return repository.committer.commit(request)


def grow(tree: Path, files: int) -> None:
    for number in range(files):
        (tree / f"f{number:04}").write_text(f"word {number}")


# --- chunks ---


def test_a_file_is_cut_and_a_change_sends_the_chunk_that_changed(
    repository: Repository, right: UploadRight, tree: Path
) -> None:
    """Of forty chunks one; an appended line sends the tail; a copy at another offset sends nothing."""
    body = bytearray(bytes(MIB) + os.urandom(40 * CHUNK))
    (tree / "f").write_bytes(body)
    first = commit(repository, right, tree)
    body[-5] ^= 1
    (tree / "f").write_bytes(body)
    second = commit(repository, first.right, tree)
    assert CHUNK < second.uploaded_bytes < 2 * CHUNK
    (tree / "f").write_bytes(body + b"appended\n")
    third = commit(repository, second.right, tree)
    assert third.uploaded_bytes < CHUNK
    (tree / "g").write_bytes(body[MIB + 3 * CHUNK : MIB + 9 * CHUNK])
    fourth = commit(repository, third.right, tree)
    assert fourth.uploaded_bytes < CHUNK // 4
    assert b"".join(repository.generations.read(ALICE, "f")) == body + b"appended\n"
    assert b"".join(repository.generations.read(ALICE, "g")) == body[MIB + 3 * CHUNK : MIB + 9 * CHUNK]
    entry = repository.generations.manifest(ALICE).find("f")
    assert entry is not None
    assert {extent.raw for extent in entry.extents[:-1]} == {CHUNK}
    assert all(extent.sha256 for extent in entry.extents)


def test_a_chunk_and_a_file_of_the_same_bytes_are_one(
    repository: Repository, right: UploadRight, tree: Path, tmp_path: Path
) -> None:
    """Either may come first; an only frame goes by its file's digest, one of several by its own."""
    chunk = os.urandom(CHUNK)
    (tree / "small").write_bytes(chunk)
    first = commit(repository, right, tree)
    (tree / "large").write_bytes(chunk + b"rest")
    second = commit(repository, first.right, tree)
    assert second.uploaded_bytes < CHUNK // 4
    (tree / "small").unlink()
    third = commit(repository, second.right, tree)
    (tree / "again").write_bytes(chunk)
    fourth = commit(repository, third.right, tree, release=True)
    assert fourth.uploaded_bytes < CHUNK // 4
    repository.restorer.restore(repository.leases.acquire(ALICE), tmp_path / "back")
    assert (tmp_path / "back" / "again").read_bytes() == chunk
    assert (tmp_path / "back" / "large").read_bytes() == chunk + b"rest"


def test_a_large_file_that_does_not_compress_is_an_object_of_its_own(
    repository: Repository, memory: MemoryStore, right: UploadRight, tree: Path, tmp_path: Path
) -> None:
    """Sent as it is, not again under another name, and named by digest and epoch."""
    body = os.urandom(BLOB + 5)
    (tree / "photo").write_bytes(body)
    first = commit(repository, right, tree)
    entry = repository.generations.manifest(ALICE).find("photo")
    assert entry is not None
    assert entry.blob == f"{hashlib.sha256(body).hexdigest()}.1"
    assert memory.get(Keys(ALICE).blob(entry.blob))[0] == body
    (tree / "photo").rename(tree / "moved")
    (tree / "other").write_bytes(bytes(BLOB + 5))
    second = commit(repository, first.right, tree, release=True)
    assert second.uploaded_bytes < 10_000
    moved, other = (repository.generations.manifest(ALICE).find(name) for name in ("moved", "other"))
    assert moved is not None
    assert other is not None
    assert (moved.blob, other.blob) == (entry.blob, None)
    repository.restorer.restore(repository.leases.acquire(ALICE), tmp_path / "back")
    assert (tmp_path / "back" / "moved").read_bytes() == body


def test_a_large_file_that_changed_is_stored_in_chunks(
    repository: Repository, memory: MemoryStore, right: UploadRight, tree: Path, tmp_path: Path
) -> None:
    """Its first change sends it once more, in chunks; each later one sends what changed. An unchanged one stays."""
    for name in ("disk", "film"):
        (tree / name).write_bytes(os.urandom(BLOB + 5))
    done = commit(repository, right, tree)
    sent = []
    for turn in range(3):
        with (tree / "disk").open("r+b") as file:
            file.seek((turn + 1) * 20 * CHUNK)
            file.write(os.urandom(4096))
        done = commit(Repository(memory, "here", FakeClock(), tmp_path / f"scratch-{turn}"), done.right, tree)
        sent.append(done.uploaded_bytes)
    assert BLOB < sent[0] < 2 * BLOB
    assert max(sent[1:]) < 2 * CHUNK
    assert len(list(memory.list(Keys(ALICE).blobs))) == 2
    disk, film = (repository.generations.manifest(ALICE).find(name) for name in ("disk", "film"))
    assert disk is not None
    assert film is not None
    assert (disk.blob is None, film.blob is None) == (True, False)
    repository.restorer.extract(ALICE, tmp_path / "back")
    assert (tmp_path / "back" / "disk").read_bytes() == (tree / "disk").read_bytes()


@pytest.mark.parametrize("release", [True, False])
def test_a_large_file_that_changes_while_it_is_sent(
    repository: Repository, store: FaultyStore, right: UploadRight, tree: Path, *, release: bool
) -> None:
    """For release that is an error; otherwise the parent's version stays, and the name is reported."""
    old = os.urandom(100)
    (tree / "photo").write_bytes(old)
    first = commit(repository, right, tree)
    (tree / "photo").write_bytes(os.urandom(BLOB))

    def meanwhile(operation: str, key: str) -> None:
        if "/blobs/" in key:
            (tree / "photo").write_bytes(os.urandom(BLOB))

    store.before = meanwhile
    if release:
        with pytest.raises(UploadFailed, match=r"photo.*changed each time"):
            commit(repository, first.right, tree, release=True)
        return
    second = commit(repository, first.right, tree)
    assert [item.path for item in second.reported] == ["photo"]
    assert b"".join(repository.generations.read(ALICE, "photo")) == old


# --- files that change while they are read ---


@pytest.mark.parametrize("size", [10, CHUNK, 5 * CHUNK])
def test_a_log_that_grows_while_it_is_read_is_stored_as_far_as_it_was_seen(
    repository: Repository, right: UploadRight, tree: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """A log that gains a line at each moment is in every generation, one line late at most, and is never reported."""
    log, body = tree / "log", os.urandom(size)
    log.write_bytes(body)
    meanwhile(monkeypatch, lambda: append(log, b"line\n"))

    first = commit(repository, right, tree)
    second = commit(repository, first.right, tree)

    assert (first.reported, second.reported) == ((), ())
    assert b"".join(repository.generations.read(ALICE, "log", 1)) == body
    assert b"".join(repository.generations.read(ALICE, "log", 2)) == body + b"line\n"


def test_a_growing_log_sends_only_its_end(
    repository: Repository, right: UploadRight, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second commit of a log of 40 chunks sends the last one."""
    log = tree / "log"
    log.write_bytes(os.urandom(40 * CHUNK))
    meanwhile(monkeypatch, lambda: append(log, b"line\n"))
    first = commit(repository, right, tree)

    assert commit(repository, first.right, tree).uploaded_bytes < CHUNK


@pytest.mark.parametrize("size", [10, CHUNK, 5 * CHUNK])
def test_a_log_that_grows_during_a_release_is_refused(
    repository: Repository, right: UploadRight, tree: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """A program still writes to a tree that should be still: its last words would be lost."""
    log = tree / "log"
    log.write_bytes(bytes(size))
    meanwhile(monkeypatch, lambda: append(log, b"line\n"))

    with pytest.raises(UploadFailed, match="'log' changed each time"):
        commit(repository, right, tree, release=True)


@pytest.mark.parametrize(
    "change",
    [
        lambda path: os.truncate(path, path.stat().st_size - 1),
        lambda path: path.write_bytes(os.urandom(path.stat().st_size)),
        lambda path: path.write_bytes(os.urandom(path.stat().st_size + 1)),
    ],
    ids=["shorter", "rewritten", "rewritten longer"],
)
@pytest.mark.parametrize("holes", [False, True], ids=["", "with holes"])
def test_a_file_that_changes_otherwise_keeps_its_parents_version(
    repository: Repository,
    right: UploadRight,
    tree: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Path], object],
    *,
    holes: bool,
) -> None:
    """A file that becomes shorter or holds other bytes after each read is reported, and the parent's version stays."""
    path, old = tree / "notes", os.urandom(4 * CHUNK)
    path.write_bytes(old)
    first = commit(repository, right, tree)
    path.write_bytes(os.urandom(CHUNK if holes else 4 * CHUNK))
    os.truncate(path, 4 * CHUNK)
    real = chunker.Chunker._content

    def content(self: chunker.Chunker, *read: object) -> object:
        done = real(self, *read)  # type: ignore[arg-type]
        change(path)
        return done

    monkeypatch.setattr(chunker.Chunker, "_content", content)
    second = commit(repository, first.right, tree)

    assert [item.path for item in second.reported] == ["notes"]
    assert b"".join(repository.generations.read(ALICE, "notes")) == old


def test_a_copy_under_way_is_never_taken_for_its_original(
    repository: Repository, right: UploadRight, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While `cp a b` runs, a generation holds the part of b that was seen, with the size that was seen: every row can
    be restored."""
    body = os.urandom(2 * BLOB)
    (tree / "a").write_bytes(body)
    first = commit(repository, right, tree)
    (tree / "b").write_bytes(body[: BLOB + 4096])
    before_sending(monkeypatch, BLOB + 4096, lambda: append(tree / "b", body[BLOB + 4096 :]))

    second = commit(repository, first.right, tree)

    entry = repository.generations.manifest(ALICE).find("b")
    assert entry is not None
    assert (second.reported, entry.size) == ((), BLOB + 4096)
    repository.restorer.extract(ALICE, tmp_path / "there")
    assert (tmp_path / "there" / "b").read_bytes() == body[: BLOB + 4096]


def test_a_large_file_that_becomes_shorter_keeps_its_parents_version(
    repository: Repository, right: UploadRight, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fewer bytes than the size that was seen are never stored under it."""
    old = os.urandom(100)
    (tree / "photo").write_bytes(old)
    first = commit(repository, right, tree)
    (tree / "photo").write_bytes(os.urandom(BLOB + 1))
    before_sending(monkeypatch, BLOB + 1, lambda: os.truncate(tree / "photo", BLOB))

    second = commit(repository, first.right, tree)

    assert [item.path for item in second.reported] == ["photo"]
    assert b"".join(repository.generations.read(ALICE, "photo")) == old


def meanwhile(monkeypatch: pytest.MonkeyPatch, change: Callable[[], object]) -> None:
    """Let something change a file between the open and the end of the read, each time."""
    real = chunker.attributes

    def attributes(fd: int) -> object:
        change()
        return real(fd)

    monkeypatch.setattr(chunker, "attributes", attributes)


def before_sending(monkeypatch: pytest.MonkeyPatch, size: int, change: Callable[[], object]) -> None:
    """Let something change a large file after this size of it was seen, and before its content is read."""
    real = pack_upload.CommitUpload.send

    def send(self: pack_upload.CommitUpload, fd: int, path: str, seen: int, *args: object, **more: object) -> object:
        if seen == size:
            change()
        return real(self, fd, path, seen, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(pack_upload.CommitUpload, "send", send)


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


# --- holes and attributes ---


def test_holes_are_kept_and_not_sent(repository: Repository, right: UploadRight, tree: Path, tmp_path: Path) -> None:
    """A file of 200 MiB with three written places costs three chunks, here, there and back."""
    with (tree / "sparse").open("wb") as file:
        for at in (0, 50 * MIB + 5000, 150 * MIB):
            file.seek(at)
            file.write(os.urandom(1000))
        file.truncate(200 * MIB)
    generation = commit(repository, right, tree, release=True)
    assert generation.uploaded_bytes < 10_000
    entry = repository.generations.manifest(ALICE).find("sparse")
    assert entry is not None
    assert sum(extent.hole for extent in entry.extents) == 3
    digest = hashlib.sha256((tree / "sparse").read_bytes()).hexdigest()
    assert entry.sha256 == entry.places
    repository.restorer.restore(repository.leases.acquire(ALICE), tmp_path / "back")
    back = tmp_path / "back" / "sparse"
    assert hashlib.sha256(back.read_bytes()).hexdigest() == digest
    assert back.stat().st_blocks * 512 < MIB


def test_a_file_that_is_all_hole_comes_back(
    repository: Repository, right: UploadRight, tree: Path, tmp_path: Path
) -> None:
    """Short ones too."""
    for size in (CHUNK + 1, 10 * MIB + 7):
        with (tree / f"hole-{size}").open("wb") as file:
            file.truncate(size)
    assert commit(repository, right, tree, release=True).uploaded_bytes < 10_000
    repository.restorer.restore(repository.leases.acquire(ALICE), tmp_path / "back")
    for size in (CHUNK + 1, 10 * MIB + 7):
        assert (tmp_path / "back" / f"hole-{size}").read_bytes() == bytes(size)


def test_the_users_own_attributes_are_kept(
    repository: Repository, right: UploadRight, tree: Path, tmp_path: Path
) -> None:
    """Of files and directories; a change of one alone makes a generation; no more of them than a manifest takes."""
    (tree / "d").mkdir()
    (tree / "f").write_text("x")
    try:
        os.setxattr(tree / "d", "user.colour", b"blue")
        os.setxattr(tree / "f", "user.colour", b"red\0")
    except OSError:
        pytest.skip("this file system has no user attributes")
    first = commit(repository, right, tree)
    os.setxattr(tree / "f", "user.colour", b"green")
    second = commit(repository, first.right, tree, release=True)
    assert second.created
    repository.restorer.restore(repository.leases.acquire(ALICE), tmp_path / "back")
    assert os.getxattr(tmp_path / "back" / "d", "user.colour") == b"blue"
    assert os.getxattr(tmp_path / "back" / "f", "user.colour") == b"green"


def test_more_attributes_than_a_manifest_takes_are_left_out(
    repository: Repository, right: UploadRight, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And reported: one name must not cost the whole tree."""
    (tree / "f").write_text("x")
    monkeypatch.setattr(
        "claw_runtime.state.commit.chunker.attributes", lambda _fd: (("user.much", bytes(treewalk.MAX_DEPTH * 1000)),)
    )
    generation = commit(repository, right, tree)
    assert [item.path for item in generation.reported] == ["f"]
    assert repository.generations.manifest(ALICE).files == 1


def test_hard_links_come_back_as_files_of_their_own(
    repository: Repository, right: UploadRight, tree: Path, tmp_path: Path
) -> None:
    """Some programs refuse files with several names; the content is stored once."""
    (tree / "a").write_bytes(os.urandom(50_000))
    os.link(tree / "a", tree / "b")
    assert commit(repository, right, tree, release=True).uploaded_bytes < 60_000
    repository.restorer.restore(repository.leases.acquire(ALICE), tmp_path / "back")
    assert (tmp_path / "back" / "a").stat().st_nlink == 1
    assert (tmp_path / "back" / "b").read_bytes() == (tree / "a").read_bytes()


@pytest.mark.parametrize("release", [False, True])
def test_a_name_is_reported_once(repository: Repository, right: UploadRight, tree: Path, *, release: bool) -> None:
    """However often the names of a tree are listed, also while it is written to."""
    grow(tree, 3)
    os.mkfifo(tree / "pipe")
    (tree / "f0001").rename(tree / "renamed")
    assert [item.path for item in commit(repository, right, tree, release=release).reported] == ["pipe"]


# --- limits ---


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (SyncLimits(files=10), r"more than the 10 files, directories and links that sync\.limits\.files allows"),
        (SyncLimits(size=50), r"more than the 50 bytes that sync\.limits\.size allows; its first \d+ names hold"),
    ],
)
def test_a_tree_over_its_limits_is_refused_and_kept(
    repository: Repository, memory: MemoryStore, right: UploadRight, tree: Path, limits: SyncLimits, words: str
) -> None:
    """With the limit by name, and how much it is; nothing was sealed, and within its limits it is."""
    grow(tree, 20)
    with pytest.raises(UploadFailed, match=words) as refused:
        commit(repository, right, tree, limits=limits)
    assert "the tree is kept" in refused.value.hint
    head = repository.generations.head(ALICE)
    assert head is not None
    assert head.generation == 0
    assert len(list(tree.iterdir())) == 20
    assert commit(repository, right, tree, limits=SyncLimits(files=20, size=1000, time=60)).files == 20


def test_reading_that_takes_too_long_is_given_up(
    repository: Repository, right: UploadRight, tree: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between any two files, and within a large one."""
    grow(tree, 5)
    real = opening.attributes

    def slow(fd: int) -> opening.Attributes:
        clock.sleep(4)
        return real(fd)

    monkeypatch.setattr("claw_runtime.state.commit.chunker.attributes", slow)
    with pytest.raises(UploadFailed, match=r"more than the 10 s of reading that sync\.limits\.time allows; \d names"):
        commit(repository, right, tree, limits=SyncLimits(time=10))


def test_what_is_excluded_counts_for_no_limit(repository: Repository, right: UploadRight, tree: Path) -> None:
    """A cache that is not stored may be as large as it likes."""
    (tree / "cache").mkdir()
    grow(tree / "cache", 50)
    grow(tree, 3)
    selection = EVERYTHING.everything(["/cache/"])
    assert commit(repository, right, tree, selection=selection, limits=SyncLimits(files=3, size=100)).files == 3


# --- most of a state goes away ---


def mostly_gone(repository: Repository, right: UploadRight, tree: Path, *, of: int = guards.MANY) -> CommitResult:
    """A generation of so many files, of which most are gone now."""
    grow(tree, of)
    first = commit(repository, right, tree)
    for number in range(of // 2 + 1):
        (tree / f"f{number:04}").unlink()
    return first


def test_the_generation_before_a_mass_delete_is_pinned(
    repository: Repository, memory: MemoryStore, right: UploadRight, tree: Path, clock: Clock
) -> None:
    """It is sealed, since it may be meant; what had the files stays whatever retention says."""
    first = mostly_gone(repository, right, tree)
    second = commit(repository, first.right, tree)
    assert (second.number, second.created) == (2, True)
    pins = Pins(memory, clock).all(ALICE)
    assert [(number, pin.tag) for number, pin in pins.items()] == [(1, committing.MASS_DELETE)]
    assert pins[1].past.files == guards.MANY


def test_a_cache_that_fills_and_empties_does_not_pin_for_ever(
    repository: Repository, memory: MemoryStore, right: UploadRight, tree: Path
) -> None:
    """Each round is a mass delete; the pins for the newest ten stay."""
    for number in range(12):
        grow(tree, guards.MANY)
        (tree / "round").write_text(str(number))
        right = commit(repository, right, tree).right or right
        for path in tree.glob("f*"):
            path.unlink()
        right = commit(repository, right, tree).right or right
    assert Pins(memory, FakeClock()).numbers(ALICE) == set(range(5, 25, 2))


def test_a_persons_pin_keeps_its_tag(
    repository: Repository, memory: MemoryStore, right: UploadRight, tree: Path, clock: Clock
) -> None:
    """A generation that is pinned already needs no other pin."""
    first = mostly_gone(repository, right, tree)
    Pins(memory, clock).put(ALICE, repository.generations.manifest(ALICE).past("0" * 64), "mine")
    commit(repository, first.right, tree)
    assert [pin.tag for pin in Pins(memory, clock).all(ALICE).values()] == ["mine"]


def test_too_many_pins_do_not_stop_a_commit(
    repository: Repository, memory: MemoryStore, right: UploadRight, tree: Path
) -> None:
    """A tenant that may not pin any more still has its state stored."""
    first = mostly_gone(repository, right, tree)
    for number in range(MOST):
        memory.put(Keys(ALICE).pin(1000 + number), b"{}")
    assert commit(repository, first.right, tree).number == 2


def test_a_mass_delete_may_be_refused(repository: Repository, right: UploadRight, tree: Path) -> None:
    """By the workload's word; the same tree is sealed once the word is another."""
    first = mostly_gone(repository, right, tree)
    with pytest.raises(UploadFailed, match=r"51 of the 100 files .* are gone"):
        commit(repository, first.right, tree, on_mass_delete="refuse")
    assert commit(repository, first.right, tree).number == 2


@pytest.mark.parametrize("of", [guards.MANY - 1, 4])
def test_a_few_files_may_go_without_a_word(
    repository: Repository, memory: MemoryStore, right: UploadRight, tree: Path, clock: Clock, of: int
) -> None:
    """Half of a handful is everyday life."""
    first = mostly_gone(repository, right, tree, of=of)
    commit(repository, first.right, tree, on_mass_delete="refuse")
    assert not Pins(memory, clock).all(ALICE)


def test_half_of_many_may_go_without_a_word(repository: Repository, right: UploadRight, tree: Path) -> None:
    """More than half is meant."""
    grow(tree, 200)
    first = commit(repository, right, tree)
    for number in range(100):
        (tree / f"f{number:04}").unlink()
    assert commit(repository, first.right, tree, on_mass_delete="refuse").number == 2


# --- memory ---


def test_a_large_tree_does_not_pass_through_memory(
    repository: Repository, right: UploadRight, tree: Path, store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """150 MB of files are never in memory at once: what is under way is bounded, and the rest is not read yet."""
    monkeypatch.setattr(store, "put", lambda *_args, **_more: "etag")
    block = os.urandom(MIB)
    for number in range(150):
        (tree / f"f{number}").write_bytes(number.to_bytes(4, "big") + bytes(CHUNK) + block)
    monkeypatch.setattr(Publisher, "publish", lambda _self, right, _head, **_: right)
    tracemalloc.start()
    try:
        commit(repository, right, tree)
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.spawns
def test_an_empty_database_file_is_a_file(repository: Repository, right: UploadRight, tree: Path) -> None:
    """A program that has only opened its database has made no database yet."""
    with closing(sqlite3.connect(tree / "m.db")):
        pass
    (tree / "m.db").touch()
    commit(repository, right, tree)
    entry = repository.generations.manifest(ALICE).find("m.db")
    assert entry is not None
    assert (entry.kind, entry.size) == ("plain", 0)
