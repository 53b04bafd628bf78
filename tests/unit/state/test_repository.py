"""A tenant's state: what is committed comes back, whatever fails in between, and nobody else's ever does."""

import errno
import hashlib
import json
import os
import re
import sqlite3
import stat
from contextlib import closing, suppress
from pathlib import Path

import pytest
from claw_runtime.errors import (
    DiskFull,
    Fenced,
    RestoreFailed,
    StateMissing,
    StoreUnavailable,
    TenantLocked,
    UploadFailed,
    VerifyMismatch,
)
from claw_runtime.fsutil import Room
from claw_runtime.objects.memory import MemoryStore
from claw_runtime.safefs import opening
from claw_runtime.state.commit.publisher import Publisher
from claw_runtime.state.lease import heads as leases
from claw_runtime.state.lease.known_heads import KnownHeads, ProcessMemory
from claw_runtime.state.lease.store_id import StoreId
from claw_runtime.state.repository import CommitRequest, CommitResult, Repository, UploadRight
from claw_runtime.state.restore import disk_space
from claw_runtime.state.restore import restore as restoring
from claw_runtime.state.rules.selection import EVERYTHING, Selection
from claw_runtime.tenancy import Keys, tenant_id
from fakes.clock import FakeClock
from fakes.stores import Action, Crashed, Fault, FaultyStore

ALICE, ALICE2 = tenant_id("alice"), tenant_id("alice2")


@pytest.fixture
def memory() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def store(memory: MemoryStore) -> FaultyStore:
    return FaultyStore(memory)


@pytest.fixture
def here(store: FaultyStore, tmp_path: Path) -> Repository:
    return Repository(store, "here", FakeClock(), tmp_path / "scratch")


@pytest.fixture
def there(memory: MemoryStore, tmp_path: Path) -> Repository:
    """Another runtime on the same bucket, whose own line to it is good."""
    return Repository(memory, "there", FakeClock(), tmp_path / "scratch-there")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with one of everything that must come back."""
    root = tmp_path / "tree"
    (root / "empty").mkdir(parents=True)
    (root / "d" / "deeper").mkdir(parents=True)
    (root / "a.txt").write_text("remember blue")
    (root / "d" / "same.txt").write_text("remember blue")
    (root / "d" / "deeper" / "big.bin").write_bytes(os.urandom(1024) * 3000)
    (root / "none").touch()
    (root / "d" / "tool.sh").write_text("#!/bin/sh\n")
    (root / "d" / "tool.sh").chmod(0o4755)
    (root / "secret").write_text("s")
    (root / "secret").chmod(0o000)
    (root / "link").symlink_to("../../outside")
    os.symlink(b"\xff-target", os.fsencode(root) + b"/odd-link")
    for name in (b"\xff\xfe", b"line\nbreak", b"back\\slash", b"-rf", "ü".encode(), b"x" * 255):
        Path(os.fsdecode(os.fsencode(root) + b"/" + name)).write_bytes(name)
    os.utime(root / "a.txt", ns=(-5_000_000_001, -5_000_000_001))
    (root / "d").chmod(0o555)
    os.utime(root / "empty", ns=(1_600_000_000_123_456_789,) * 2)
    return root


def picture(root: Path) -> dict[bytes, tuple[object, ...]]:
    """Everything that a restore must give back, by name; set-id bits are dropped on purpose."""
    seen: dict[bytes, tuple[object, ...]] = {}
    for directory, folders, files in os.walk(os.fsencode(root)):
        for name in folders + files:
            path = os.path.join(directory, name)
            status = os.lstat(path)
            body: bytes | None = None
            if stat.S_ISLNK(status.st_mode):
                body = os.readlink(path)
            elif stat.S_ISREG(status.st_mode):
                os.chmod(path, status.st_mode | stat.S_IRUSR)  # the walk must read it too, and this may not be root
                body = hashlib.sha256(Path(os.fsdecode(path)).read_bytes()).digest()
                os.chmod(path, stat.S_IMODE(status.st_mode))
            mode = stat.S_IFMT(status.st_mode), status.st_mode & 0o777
            seen[os.path.relpath(path, os.fsencode(root))] = (*mode, status.st_mtime_ns, body)
    return seen


def commit(
    repository: Repository, right: UploadRight, tree: Path, *, release: bool = True, **more: object
) -> CommitResult:
    options: dict[str, object] = {
        "selection": EVERYTHING,
        "image_digest": "sha256:1",
        "application": "openclaw 1",
        **more,
    }
    request = CommitRequest(right=right, tree=tree, release=release, **options)  # type: ignore[arg-type]
    return repository.committer.commit(request)


def first(repository: Repository, tree: Path, staging: Path, *, release: bool = True) -> CommitResult:
    """Claim a new tenant and seal a tree as its generation 1."""
    right = repository.restorer.restore(repository.leases.acquire(ALICE), staging)
    return commit(repository, right, tree, release=release)


def only_key(store: MemoryStore, part: str) -> str:
    (found,) = [item.key for item in store.list(Keys(ALICE).prefix) if part in item.key]
    return found


# --- the way there and back ---


def test_a_tree_comes_back_whole(here: Repository, there: Repository, tree: Path, tmp_path: Path) -> None:
    """Content, modes, times, links, empty directories and hostile names survive a release and another host's claim."""
    generation = first(here, tree, tmp_path / "s1")
    there.restorer.restore(there.leases.acquire(ALICE), tmp_path / "s2")
    assert (generation.number, generation.right, generation.reported) == (1, None, ())
    assert picture(tmp_path / "s2") == picture(tree)


def test_a_new_tenant_starts_with_nothing(here: Repository, tmp_path: Path) -> None:
    """Generation 0 is an empty directory, made, and a right to commit."""
    right = here.restorer.restore(here.leases.acquire(ALICE), tmp_path / "deep" / "s")
    assert (right.base_generation, list((tmp_path / "deep" / "s").iterdir())) == (0, [])


def test_only_new_content_is_sent(here: Repository, store: FaultyStore, tree: Path, tmp_path: Path) -> None:
    """A second commit sends the changed file alone, in one pack."""
    generation = first(here, tree, tmp_path / "s1", release=False)
    assert generation.right is not None
    (tree / "new").write_bytes(os.urandom(5000))
    store.calls.clear()
    second = commit(here, generation.right, tree)
    assert [key.split("/")[2] for operation, key in store.calls if operation == "put"] == ["packs", "gen", "HEAD"]
    assert 5000 < second.uploaded_bytes < 10_000
    assert picture(tree) == _restored(here, tmp_path / "s2")


def test_an_unchanged_tree_makes_no_generation(here: Repository, tree: Path, tmp_path: Path) -> None:
    """It still gives the tenant back."""
    first(here, tree, tmp_path / "s1")
    right = here.restorer.restore(here.leases.acquire(ALICE), tmp_path / "s2")
    generation = commit(here, right, tmp_path / "s2")
    head = here.generations.head(ALICE)
    assert head is not None
    assert (generation.number, generation.created, generation.uploaded_bytes) == (1, False, 0)
    assert (head.generation, head.owner) == (1, None)


def test_many_small_files_share_packs_and_big_ones_span_them(
    here: Repository, memory: MemoryStore, tmp_path: Path
) -> None:
    """Packs stay within 16 MiB, a file longer than a pack comes back, equal content is stored once."""
    root = tmp_path / "t"
    root.mkdir()
    (root / "big").write_bytes(bytes(1024 * 1024) + os.urandom(19 * 1024 * 1024))
    (root / "big2").write_bytes((root / "big").read_bytes())
    for number in range(300):
        (root / f"f{number}").write_bytes(os.urandom(100))
    first(here, root, tmp_path / "s1")
    sizes = [item.size for item in memory.list(f"{Keys(ALICE).prefix}packs/")]
    assert 2 <= len(sizes) <= 4
    assert max(sizes) <= 16 * 1024 * 1024
    assert sum(sizes) < 21 * 1024 * 1024
    assert picture(root) == _restored(here, tmp_path / "s2")


def test_one_pack_is_unpacked_without_a_thread(
    here: Repository, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A claim of a small state, which is in one pack, does not pay for threads; several packs do come side by side."""
    pools: list[int] = []
    made = restoring.ThreadPoolExecutor
    monkeypatch.setattr(
        restoring, "ThreadPoolExecutor", lambda threads, **options: pools.append(threads) or made(threads, **options)
    )
    first(here, tree, tmp_path / "s1")
    assert picture(tree) == _restored(here, tmp_path / "s2")
    assert pools == []
    right = here.restorer.restore(here.leases.acquire(ALICE), tmp_path / "s3")
    (tmp_path / "s3" / "new").write_bytes(os.urandom(5000))
    commit(here, right, tmp_path / "s3")
    assert picture(tmp_path / "s3") == _restored(here, tmp_path / "s4")
    assert pools == [restoring.THREADS]


def test_excluded_names_stay_here(here: Repository, tree: Path, tmp_path: Path) -> None:
    """Patterns have .gitignore meaning; an excluded directory is not entered."""
    right = here.restorer.restore(here.leases.acquire(ALICE), tmp_path / "s1")
    commit(here, right, tree, selection=Selection.everything(["d/", "*.txt", "/none"]))
    paths = {entry.path for entry in here.generations.manifest(ALICE).entries}
    assert not paths & {"d", "d/tool.sh", "a.txt", "none"}
    assert "secret" in paths


def test_fifos_and_sockets_are_reported(here: Repository, tree: Path, tmp_path: Path) -> None:
    """They carry no state: left out by name, and nothing hangs."""
    os.mkfifo(tree / "pipe")
    generation = first(here, tree, tmp_path / "s1")
    assert [(item.path, item.reason) for item in generation.reported] == [("pipe", "not a file, directory or link")]


def test_a_file_can_be_read_out_of_any_generation(here: Repository, tree: Path, tmp_path: Path) -> None:
    """Generations are found through HEAD's manifest; one that never was is refused."""
    generation = first(here, tree, tmp_path / "s1", release=False)
    assert generation.right is not None
    (tree / "a.txt").write_text("remember red")
    commit(here, generation.right, tree)
    assert b"".join(here.generations.read(ALICE, "a.txt")) == b"remember red"
    assert b"".join(here.generations.read(ALICE, "a.txt", generation=1)) == b"remember blue"
    assert len(b"".join(here.generations.read(ALICE, "d/deeper/big.bin"))) == 3_072_000
    for number in (0, 3):
        with pytest.raises(StateMissing, match=f"no generation {number}"):
            here.generations.manifest(ALICE, number)
    with pytest.raises(StateMissing, match=r"no file .*/etc/passwd"):
        here.generations.read(ALICE, "/etc/passwd")


def test_every_generation_is_found_from_the_newest_alone(
    here: Repository, memory: MemoryStore, tree: Path, tmp_path: Path
) -> None:
    """One whose manifest is gone takes none of the older ones with it."""
    generation = first(here, tree, tmp_path / "s1", release=False)
    for colour in ("red", "green"):
        (tree / "a.txt").write_text(f"remember {colour}")
        assert generation.right is not None
        generation = commit(here, generation.right, tree, release=False)
    newest = here.generations.manifest(ALICE)
    assert [(past.generation, past.files) for past in newest.history] == [(1, newest.files), (2, newest.files)]
    memory.delete(Keys(ALICE).manifest(2, newest.history[1].sha256))
    assert b"".join(here.generations.read(ALICE, "a.txt", generation=1)) == b"remember blue"
    with pytest.raises(RestoreFailed, match="generation 2"):
        here.generations.manifest(ALICE, 2)


def test_a_chain_of_parents_becomes_a_history(
    here: Repository, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Generations that were sealed when a manifest named its parent alone are all in the next one's history."""
    with monkeypatch.context() as older:
        older.setattr(Publisher, "_history", lambda *_: ())
        generation = first(here, tree, tmp_path / "s1", release=False)
        for colour in ("red", "green"):
            (tree / "a.txt").write_text(f"remember {colour}")
            assert generation.right is not None
            generation = commit(here, generation.right, tree, release=False)
    assert here.generations.manifest(ALICE).history == ()
    assert here.generations.manifest(ALICE, 1).generation == 1
    (tree / "a.txt").write_text("remember black")
    assert generation.right is not None
    commit(here, generation.right, tree)
    assert [past.generation for past in here.generations.manifest(ALICE).history] == [1, 2, 3]


def test_the_manifest_tells_where_it_came_from(here: Repository, tree: Path, tmp_path: Path) -> None:
    """Image, application, tenant and parent are on record."""
    first(here, tree, tmp_path / "s1")
    found = here.generations.manifest(ALICE)
    assert (found.tenant, found.generation, found.parent, found.image) == (ALICE, 1, None, "sha256:1")
    assert found.application == "openclaw 1"


def test_head_is_as_documented(here: Repository, memory: MemoryStore, tree: Path, tmp_path: Path) -> None:
    """Other programs may read HEAD: exactly these fields."""
    first(here, tree, tmp_path / "s1")
    document = json.loads(memory.get(Keys(ALICE).head)[0])
    assert sorted(document) == sorted(
        ["v", "generation", "manifest", "sha256", "epoch", "owner", "commit_id", "lease", "sealed_at", "check"]
    )
    assert document["manifest"] == only_key(memory, "/gen/")


# --- who may write ---


def test_two_runtimes_one_winner(here: Repository, there: Repository) -> None:
    """A held tenant is refused, by the name of its holder, and can be claimed after a release."""
    here.leases.acquire(ALICE)
    with pytest.raises(TenantLocked) as refused:
        there.leases.acquire(ALICE)
    assert refused.value.facts["owner"] == "here"
    here.leases.give_back(ALICE)
    assert there.leases.acquire(ALICE).epoch == 2


def test_our_own_lease_is_taken_up_again(here: Repository, tmp_path: Path) -> None:
    """After a crash the same runtime claims again, under a new epoch that fences the old right."""
    old = here.restorer.restore(here.leases.acquire(ALICE), tmp_path / "s1")
    assert here.leases.acquire(ALICE).epoch == 2
    with pytest.raises(Fenced):
        commit(here, old, tmp_path / "s1")


def test_a_runtime_that_was_taken_over_cannot_commit(
    here: Repository, there: Repository, memory: MemoryStore, tree: Path, tmp_path: Path
) -> None:
    """Its commit is refused before a byte is sent, and the winner's generation stands."""
    right = here.restorer.restore(here.leases.acquire(ALICE), tmp_path / "s1")
    other = there.restorer.restore(there.leases.acquire(ALICE, take_over=True), tmp_path / "s2")
    before = [item.key for item in memory.list("")]
    with pytest.raises(Fenced) as refused:
        commit(here, right, tree)
    assert refused.value.facts["owner"] == "there"
    assert [item.key for item in memory.list("")] == before
    assert commit(there, other, tree).number == 1


def test_a_take_over_in_the_middle_of_a_commit_wins(
    here: Repository, there: Repository, store: FaultyStore, tree: Path, tmp_path: Path
) -> None:
    """The compare-and-swap of HEAD is the fence: packs and manifest may lie there, nobody reads them."""
    right = here.restorer.restore(here.leases.acquire(ALICE), tmp_path / "s1")

    def steal(operation: str, key: str) -> None:
        if operation == "put" and "/gen/" in key:
            there.leases.acquire(ALICE, take_over=True)

    store.before = steal
    with pytest.raises(Fenced):
        commit(here, right, tree)
    head = there.generations.head(ALICE)
    assert head is not None
    assert (head.generation, head.owner) == (0, "there")


def test_releasing_what_was_lost_is_no_error(here: Repository, there: Repository) -> None:
    """And it does not take the tenant from its new holder."""
    here.leases.acquire(ALICE)
    there.leases.acquire(ALICE, take_over=True)
    here.leases.give_back(ALICE)
    head = there.generations.head(ALICE)
    assert head is not None
    assert head.owner == "there"


def test_a_right_cannot_be_made_up(here: Repository) -> None:
    """An upload right comes from a restore, an adoption or a commit alone."""
    lease = here.leases.acquire(ALICE)
    with pytest.raises(TypeError, match="comes from restore"):
        UploadRight(tenant=ALICE, epoch=1, base_generation=0, etag=lease.etag, head=lease.head, seal=object())


def test_a_kept_tree_is_adopted_only_when_nothing_came_after(here: Repository, tree: Path, tmp_path: Path) -> None:
    """Else both are kept and the message says so."""
    first(here, tree, tmp_path / "s1")
    lease = here.leases.acquire(ALICE)
    assert here.restorer.adopt(lease, 1).base_generation == 1
    with pytest.raises(RestoreFailed, match=r"older than its HEAD.*generation 0, HEAD is 1"):
        here.restorer.adopt(lease, 0)


def test_neighbours_with_like_names_are_apart(
    here: Repository, memory: MemoryStore, tree: Path, tmp_path: Path
) -> None:
    """alice2 knows nothing of alice, although one name begins with the other, and a HEAD cannot point across."""
    first(here, tree, tmp_path / "s1")
    assert here.generations.head(ALICE2) is None
    here.restorer.restore(here.leases.acquire(ALICE2), tmp_path / "s2")
    assert list((tmp_path / "s2").iterdir()) == []
    memory.put(Keys(ALICE2).head, memory.get(Keys(ALICE).head)[0])
    with pytest.raises(RestoreFailed, match="HEAD of tenant alice2 is not valid"):
        here.leases.acquire(ALICE2)


def test_another_tenants_manifest_is_refused(here: Repository, memory: MemoryStore, tree: Path, tmp_path: Path) -> None:
    """Even when somebody copies a whole prefix of the bucket."""
    first(here, tree, tmp_path / "s1")
    for item in list(memory.list(Keys(ALICE).prefix)):
        body = memory.get(item.key)[0].replace(Keys(ALICE).prefix.encode(), Keys(ALICE2).prefix.encode())
        body = re.sub(rb',\s*"check": "\w+"', b"", body)  # as somebody would who means it
        memory.put(Keys(ALICE2).prefix + item.key.removeprefix(Keys(ALICE).prefix), body)
    with pytest.raises(RestoreFailed, match="belongs to tenant alice"):
        here.restorer.restore(here.leases.acquire(ALICE2), tmp_path / "s2")


# --- answers that were lost ---


@pytest.mark.parametrize("action", ["applied, answer lost", "not applied, answer lost", "unavailable"])
def test_a_lost_answer_to_acquire_is_found_out(
    here: Repository, store: FaultyStore, there: Repository, action: Action
) -> None:
    """One lease comes of it, and it is ours."""
    store.faults.append(Fault(operation="put", action=action, key="HEAD"))
    lease = here.leases.acquire(ALICE)
    head = there.generations.head(ALICE)
    assert head is not None
    assert (lease.epoch, head.epoch, head.commit_id, head.owner) == (1, 1, lease.head.commit_id, "here")


@pytest.mark.parametrize("action", ["applied, answer lost", "not applied, answer lost", "unavailable"])
@pytest.mark.parametrize("key", ["/packs/", "/gen/", "HEAD"])
def test_a_lost_answer_to_a_commit_is_found_out(
    here: Repository, store: FaultyStore, tree: Path, tmp_path: Path, action: Action, key: str
) -> None:
    """Whichever write it was, the generation is sealed once."""
    right = here.restorer.restore(here.leases.acquire(ALICE), tmp_path / "s1")
    store.faults.append(Fault(operation="put", action=action, key=key))
    assert commit(here, right, tree).number == 1
    assert picture(tree) == _restored(here, tmp_path / "s2")


def test_a_commit_whose_fate_stays_unknown_can_be_repeated(
    here: Repository, store: FaultyStore, tree: Path, tmp_path: Path
) -> None:
    """The switch landed but the store went away: the same call with the same right, later, finds it and succeeds."""
    right = here.restorer.restore(here.leases.acquire(ALICE), tmp_path / "s1")
    store.faults.append(Fault(operation="put", action="applied, answer lost", key="HEAD"))
    store.faults.append(Fault(operation="get", action="unavailable", key="HEAD", first=2, times=9))
    with pytest.raises(UploadFailed, match="could not be written"):
        commit(here, right, tree)
    store.faults.clear()
    generation = commit(here, right, tree)
    assert (generation.number, generation.created) == (1, False)


def test_a_store_that_is_away_fails_the_commit_and_keeps_the_tree(
    here: Repository, store: FaultyStore, tree: Path, tmp_path: Path
) -> None:
    """The error names the store's, and the same right works when it is back."""
    before = picture(tree)
    right = here.restorer.restore(here.leases.acquire(ALICE), tmp_path / "s1")
    store.faults.append(Fault(operation="put", action="unavailable", key="/packs/", times=99))
    with pytest.raises(UploadFailed) as failed:
        commit(here, right, tree)
    assert isinstance(failed.value.__cause__, StoreUnavailable)
    assert picture(tree) == before
    store.faults.clear()
    assert commit(here, right, tree).number == 1


@pytest.mark.parametrize("key", ["/packs/", "/gen/", "HEAD"])
def test_a_crash_anywhere_leaves_the_generation_before(
    here: Repository, there: Repository, store: FaultyStore, tree: Path, tmp_path: Path, key: str
) -> None:
    """Dead between packs, manifest and HEAD: a reader sees generation 1, whole, and the next commit works."""
    before = picture(tree)
    generation = first(here, tree, tmp_path / "s1", release=False)
    assert generation.right is not None
    (tree / "new").write_bytes(os.urandom(100))
    store.faults.append(Fault(operation="put", action="crash", key=key))
    with pytest.raises(Crashed):
        commit(here, generation.right, tree)
    right = there.restorer.restore(there.leases.acquire(ALICE, take_over=True), tmp_path / "s2")
    assert picture(tmp_path / "s2") == before
    assert commit(there, right, tree).number == 2


# --- a restore is whole or it is an error ---


@pytest.mark.parametrize("action", ["truncated", "flipped"])
@pytest.mark.parametrize("key", ["/packs/", "/gen/"])
def test_damaged_objects_are_refused(
    here: Repository, store: FaultyStore, tree: Path, tmp_path: Path, action: Action, key: str
) -> None:
    """No right, no tree, and the claim can be made again later."""
    first(here, tree, tmp_path / "s1")
    store.faults.append(Fault(operation="get", action=action, key=key, times=99))
    lease = here.leases.acquire(ALICE)
    with pytest.raises(RestoreFailed) as failed:
        here.restorer.restore(lease, tmp_path / "s2")
    assert isinstance(failed.value.__cause__, VerifyMismatch)
    assert not (tmp_path / "s2").exists()
    store.faults.clear()
    assert here.restorer.restore(lease, tmp_path / "s2").base_generation == 1


@pytest.mark.parametrize("key", ["/packs/", "/gen/"])
def test_damage_on_the_way_is_asked_for_again(
    here: Repository, store: FaultyStore, tree: Path, tmp_path: Path, key: str
) -> None:
    """One flipped byte on the line is no failed restore."""
    first(here, tree, tmp_path / "s1")
    store.faults.append(Fault(operation="get", action="flipped", key=key))
    assert picture(tree) == _restored(here, tmp_path / "s2")


def test_a_bit_that_fell_over_in_head_is_never_written_back(
    here: Repository, store: FaultyStore, memory: MemoryStore, tree: Path, tmp_path: Path
) -> None:
    """Wherever it is: what is read is what was written, or nothing is done."""
    first(here, tree, tmp_path / "s1")
    key, found = Keys(ALICE).head, memory.get(Keys(ALICE).head)[0]
    good = leases.decode(found, ALICE)
    for at in range(len(found)):
        memory.put(key, found[:at] + bytes([found[at] ^ 1]) + found[at + 1 :])
        with suppress(RestoreFailed):
            assert here.generations.head(ALICE) == good
    memory.put(key, found)
    other = Repository(store, "other", FakeClock(), tmp_path / "scratch-other")
    store.faults.append(Fault(operation="get", action="flipped", key="/HEAD"))
    lease = other.leases.acquire(ALICE)
    assert (lease.head.sha256, lease.epoch) == (good.sha256, good.epoch + 1)


@pytest.mark.parametrize("part", ["/packs/", "/gen/"])
def test_missing_objects_are_refused(
    here: Repository, memory: MemoryStore, tree: Path, tmp_path: Path, part: str
) -> None:
    """A lost pack, or a HEAD whose manifest is gone: an error, never an empty start."""
    first(here, tree, tmp_path / "s1")
    memory.delete(only_key(memory, part))
    with pytest.raises(RestoreFailed, match="an object is missing"):
        here.restorer.restore(here.leases.acquire(ALICE), tmp_path / "s2")
    assert not (tmp_path / "s2").exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("v", 2),
        ("manifest", None),
        ("manifest", "tenants/bob/gen/x"),
        ("generation", 7),
        ("sha256", "../x"),
        ("epoch", "1"),
    ],
)
def test_a_strange_head_is_refused(
    here: Repository, memory: MemoryStore, tree: Path, tmp_path: Path, field: str, value: object
) -> None:
    """HEAD is read strictly, and never overwritten by an acquisition."""
    first(here, tree, tmp_path / "s1")
    document = json.loads(memory.get(Keys(ALICE).head)[0])
    del document["check"]  # so that this is not what is found first
    memory.put(Keys(ALICE).head, json.dumps({**document, field: value}).encode())
    before = memory.get(Keys(ALICE).head)
    with pytest.raises(RestoreFailed, match="HEAD of tenant alice is not valid"):
        here.leases.acquire(ALICE)
    assert memory.get(Keys(ALICE).head) == before


def test_staging_that_holds_something_is_left_alone(here: Repository, tmp_path: Path) -> None:
    """It is not ours to remove, so nothing is restored over it."""
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "precious").write_text("x")
    with pytest.raises(RestoreFailed, match="not empty"):
        here.restorer.restore(here.leases.acquire(ALICE), tmp_path / "s")
    assert (tmp_path / "s" / "precious").read_text() == "x"


def test_staging_that_is_a_link_is_refused(here: Repository, tmp_path: Path) -> None:
    """A restore goes where it was told, not where a link points."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "s").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RestoreFailed):
        here.restorer.restore(here.leases.acquire(ALICE), tmp_path / "s")


def test_a_disk_without_room_is_found_out_first(
    here: Repository, store: FaultyStore, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No pack is fetched for a tree that cannot fit."""
    first(here, tree, tmp_path / "s1")
    monkeypatch.setattr(disk_space, "room", lambda _path: Room(size=1000, files=None))
    store.calls.clear()
    with pytest.raises(DiskFull, match="no room to restore tenant alice"):
        here.restorer.restore(here.leases.acquire(ALICE), tmp_path / "s2")
    assert not [key for operation, key in store.calls if "/packs/" in key]
    assert not (tmp_path / "s2").exists()


def test_a_disk_that_fills_up_meanwhile_is_told_as_such(
    here: Repository, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ENOSPC in the middle of a write is DiskFull, and the half tree is gone."""
    first(here, tree, tmp_path / "s1")

    def full(*_args: object, **_kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(restoring, "write_all", full)
    with pytest.raises(DiskFull):
        here.restorer.restore(here.leases.acquire(ALICE), tmp_path / "s2")
    assert not (tmp_path / "s2").exists()


# --- accidents ---


def test_an_empty_tree_does_not_replace_a_full_one(here: Repository, tree: Path, tmp_path: Path) -> None:
    """Directories alone count as empty; whoever means it says so."""
    generation = first(here, tree, tmp_path / "s1", release=False)
    assert generation.right is not None
    (tmp_path / "bare" / "workspace").mkdir(parents=True)
    with pytest.raises(UploadFailed, match="is empty, but its generation 1 is not"):
        commit(here, generation.right, tmp_path / "bare")
    assert commit(here, generation.right, tmp_path / "bare", allow_empty=True).number == 2


def test_a_missing_tree_is_no_empty_tree(here: Repository, tmp_path: Path) -> None:
    """A path that is wrong commits nothing."""
    right = here.restorer.restore(here.leases.acquire(ALICE), tmp_path / "s1")
    with pytest.raises(UploadFailed):
        commit(here, right, tmp_path / "nowhere")


@pytest.mark.parametrize("release", [True, False])
def test_a_file_that_keeps_changing(
    here: Repository, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, release: bool
) -> None:
    """For release that is an error; otherwise the parent's version stays and the name is reported."""
    generation = first(here, tree, tmp_path / "s1", release=False)
    assert generation.right is not None
    real = opening.attributes

    def changing(fd: int) -> opening.Attributes:
        if os.readlink(f"/proc/self/fd/{fd}").endswith("a.txt"):
            (tree / "a.txt").write_text(os.urandom(8).hex())
        return real(fd)

    monkeypatch.setattr("claw_runtime.state.commit.chunker.attributes", changing)
    if release:
        with pytest.raises(UploadFailed, match=r"a\.txt.*changed each time"):
            commit(here, generation.right, tree)
    else:
        second = commit(here, generation.right, tree, release=False)
        assert [item.path for item in second.reported] == ["a.txt"]
        assert b"".join(here.generations.read(ALICE, "a.txt")) == b"remember blue"


# --- databases ---


@pytest.mark.spawns
def test_a_database_whose_writer_never_checkpointed_is_whole(here: Repository, tree: Path, tmp_path: Path) -> None:
    """Rows that are only in the -wal come back, in one file; sidecars are not carried, whatever the patterns say."""
    path = tree / "memory.sqlite"
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("PRAGMA wal_autocheckpoint=0")
        with writer:
            writer.execute("CREATE TABLE facts (text)")
            writer.execute("INSERT INTO facts VALUES ('blue')")
        assert (tree / "memory.sqlite-wal").stat().st_size > 0
        right = here.restorer.restore(here.leases.acquire(ALICE), tmp_path / "s1")
        commit(here, right, tree, selection=Selection.everything(["*-wal"]))
    here.restorer.restore(here.leases.acquire(ALICE), tmp_path / "s2")
    assert sorted(item.name for item in (tmp_path / "s2").glob("memory*")) == ["memory.sqlite"]
    with closing(sqlite3.connect(tmp_path / "s2" / "memory.sqlite")) as reader:
        assert reader.execute("SELECT text FROM facts").fetchall() == [("blue",)]
    entry = here.generations.manifest(ALICE).find("memory.sqlite")
    assert entry is not None
    assert entry.kind == "sqlite"


@pytest.mark.spawns
def test_a_damaged_database_is_kept_as_it_is(here: Repository, tree: Path, tmp_path: Path) -> None:
    """What SQLite cannot read is stored plain with its sidecars, and reported: better odd bytes than none."""
    (tree / "broken.db").write_bytes(b"SQLite format 3\0" + b"\xee" * 5000)
    (tree / "broken.db-wal").write_bytes(b"half a log")
    generation = first(here, tree, tmp_path / "s1")
    assert [item.path for item in generation.reported] == ["broken.db"]
    assert picture(tree) == _restored(here, tmp_path / "s2")


@pytest.mark.spawns
def test_an_unchanged_database_makes_no_generation(here: Repository, tree: Path, tmp_path: Path) -> None:
    """A restored database that nobody touched gives the same bytes again."""
    with closing(sqlite3.connect(tree / "m.db")) as writer, writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("CREATE TABLE t (x)")
    first(here, tree, tmp_path / "s1")
    right = here.restorer.restore(here.leases.acquire(ALICE), tmp_path / "s2")
    assert commit(here, right, tmp_path / "s2").created is False


@pytest.mark.spawns
def test_a_sidecar_that_is_a_link_reads_nothing_of_others(here: Repository, tree: Path, tmp_path: Path) -> None:
    """The database is stored plain, the link as a link; what it points to is never opened."""
    (tmp_path / "neighbour").write_text("BOB")
    with closing(sqlite3.connect(tree / "m.db")) as writer, writer:
        writer.execute("CREATE TABLE t (x)")
    (tree / "m.db-wal").symlink_to(tmp_path / "neighbour")
    generation = first(here, tree, tmp_path / "s1")
    assert [item.path for item in generation.reported] == ["m.db"]
    assert picture(tree) == _restored(here, tmp_path / "s2")


def test_a_swap_of_head_gives_up_after_a_while(store: FaultyStore) -> None:
    """An outage ends in an error that says that the outcome is not known."""
    memory, clock = ProcessMemory(), FakeClock()
    heads = leases.Heads(store, clock, KnownHeads(store, memory, StoreId(store, memory, clock)))
    head = leases.Head(
        generation=0, manifest=None, sha256=None, epoch=1, owner="x", commit_id="1", lease=None, sealed_at=None
    )
    store.faults.append(Fault(operation="put", action="not applied, answer lost", times=99))
    with pytest.raises(StoreUnavailable) as failed:
        heads.swap(ALICE, head, etag=None)
    assert failed.value.facts["ambiguous"] is True
    assert len(clock.slept) == leases.ATTEMPTS - 1


def _restored(repository: Repository, staging: Path) -> dict[bytes, tuple[object, ...]]:
    repository.restorer.restore(repository.leases.acquire(ALICE), staging)
    return picture(staging)
