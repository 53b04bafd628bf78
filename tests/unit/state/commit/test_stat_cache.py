"""What is not read again has not changed, whatever a tenant does; and what is remembered stays within bounds."""

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from claw_runtime.formats.manifest import Entry, Manifest
from claw_runtime.objects.memory import MemoryStore
from claw_runtime.safefs.tree import Cursor
from claw_runtime.state.commit import stat_cache
from claw_runtime.state.commit.stat_cache import MAPPED, RACY, CachedTree, StatCache, holds, record
from claw_runtime.state.repository import CommitRequest, CommitResult, Repository, UploadRight
from claw_runtime.state.rules.selection import EVERYTHING, Selection
from claw_runtime.tenancy import TenantId, tenant_id
from fakes.clock import FakeClock
from fakes.stores import FaultyStore

ALICE = tenant_id("alice")


@pytest.fixture
def store() -> FaultyStore:
    return FaultyStore(MemoryStore())


@pytest.fixture
def repository(store: FaultyStore, tmp_path: Path) -> Repository:
    return Repository(store, "here", FakeClock(), tmp_path / "scratch")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every file of a tree that is opened."""
    names: list[str] = []
    real = Cursor.open

    def noted(self: Cursor, path: str) -> tuple[int, os.stat_result]:
        names.append(path)
        return real(self, path)

    monkeypatch.setattr(Cursor, "open", noted)
    return names


@pytest.fixture(autouse=True)
def later(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The clock that says when a tree is read runs an hour ahead of the one of the files: nothing is racy."""
    ahead, real = [3600], time.time_ns
    monkeypatch.setattr("time.time_ns", lambda: real() + ahead[0] * 10**9)
    return ahead


def commit(repository: Repository, right: UploadRight | None, tree: Path, **more: object) -> CommitResult:
    assert right is not None
    options: dict[str, object] = {"selection": EVERYTHING, "release": False, **more}
    request = CommitRequest(right=right, tree=tree, image_digest="", application="", **options)  # type: ignore[arg-type]
    return repository.committer.commit(request)


def grow(tree: Path, files: int = 30) -> Path:
    for number in range(files):
        (tree / f"d{number % 3}").mkdir(parents=True, exist_ok=True)
        (tree / f"d{number % 3}" / f"f{number:03}").write_text(f"word {number}")
    return tree


def test_an_unchanged_tree_is_not_opened(
    repository: Repository, store: FaultyStore, tmp_path: Path, opened: list[str]
) -> None:
    """The second commit reads no file, and asks the store for HEAD alone: not even the manifest is read again."""
    tree = grow(tmp_path / "tree")
    first = commit(repository, repository.restorer.restore(repository.leases.acquire(ALICE), tmp_path / "s"), tree)
    opened.clear()
    store.calls.clear()
    second = commit(repository, first.right, tree)
    assert (second.created, second.files, second.bytes) == (False, first.files, first.bytes)
    assert opened == []
    assert [operation for operation, _ in store.calls] == ["get"]


def test_of_a_changed_tree_only_what_changed_is_opened(
    repository: Repository, store: FaultyStore, tmp_path: Path, opened: list[str]
) -> None:
    """Ten of ten thousand are ten; it takes one pack, a manifest and HEAD."""
    tree = grow(tmp_path / "tree")
    first = commit(repository, repository.restorer.restore(repository.leases.acquire(ALICE), tmp_path / "s"), tree)
    opened.clear()
    store.calls.clear()
    (tree / "d1" / "f001").write_text("other")
    (tree / "d1" / "new").write_text("new")
    (tree / "d2" / "f002").unlink()
    second = commit(repository, first.right, tree)
    assert sorted(opened) == ["d1/f001", "d1/new"]
    assert [key.split("/")[2] for operation, key in store.calls if operation == "put"] == ["packs", "gen", "HEAD"]
    names = {entry.path for entry in repository.generations.manifest(ALICE).entries}
    assert "d1/new" in names
    assert "d2/f002" not in names
    assert second.files == 30


def test_a_restored_tree_is_known(repository: Repository, tmp_path: Path, opened: list[str]) -> None:
    """Whoever wrote the files need not read them to know what is in them."""
    commit(
        repository,
        repository.restorer.restore(repository.leases.acquire(ALICE), tmp_path / "s"),
        grow(tmp_path / "tree"),
        release=True,
    )
    right = repository.restorer.restore(repository.leases.acquire(ALICE), tmp_path / "s2")
    opened.clear()
    assert commit(repository, right, tmp_path / "s2").created is False
    assert opened == []


def test_a_change_that_hides_its_time_is_seen(repository: Repository, tmp_path: Path) -> None:
    """Same size, same mtime, same inode: the ctime tells, which nobody can set."""
    tree = grow(tmp_path / "tree")
    first = commit(repository, repository.restorer.restore(repository.leases.acquire(ALICE), tmp_path / "s"), tree)
    victim = tree / "d0" / "f000"
    before = victim.stat()
    time.sleep(0.02)
    victim.write_text("WORD 0")
    os.utime(victim, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert victim.stat().st_mtime_ns == before.st_mtime_ns
    assert commit(repository, first.right, tree).created
    assert b"".join(repository.generations.read(ALICE, "d0/f000")) == b"WORD 0"


def test_what_was_read_too_soon_after_a_change_is_read_again(
    repository: Repository, tmp_path: Path, opened: list[str], later: list[int]
) -> None:
    """A second change in the same tick of the clock would leave no trace; a last commit waits for mapped pages too."""
    later[0] = 0
    tree = grow(tmp_path / "tree", 3)
    generation = commit(repository, repository.restorer.restore(repository.leases.acquire(ALICE), tmp_path / "s"), tree)
    opened.clear()
    later[0] = 10
    generation = commit(repository, generation.right, tree)
    assert len(opened) == 3
    opened.clear()
    generation = commit(repository, generation.right, tree)
    assert opened == []
    assert commit(repository, generation.right, tree, release=True).created is False
    assert len(opened) == 3


def test_another_selection_does_not_take_over_what_it_leaves_out(repository: Repository, tmp_path: Path) -> None:
    """A name that is known is asked about again when the rules change."""
    tree = grow(tmp_path / "tree")
    first = commit(repository, repository.restorer.restore(repository.leases.acquire(ALICE), tmp_path / "s"), tree)
    second = commit(repository, first.right, tree, selection=Selection.everything(["/d1/"]))
    assert second.files == 20
    third = commit(repository, second.right, tree)
    assert third.files == 30


@pytest.mark.spawns
def test_a_database_is_taken_over_only_with_its_log(repository: Repository, tmp_path: Path) -> None:
    """Rows that went into the -wal alone are news; without news SQLite is not even started."""
    tree = grow(tmp_path / "tree", 3)
    with closing(sqlite3.connect(tree / "m.db", isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("PRAGMA wal_autocheckpoint=0")
        writer.execute("CREATE TABLE t (x)")
        first = commit(repository, repository.restorer.restore(repository.leases.acquire(ALICE), tmp_path / "s"), tree)
        second = commit(repository, first.right, tree)
        assert not second.created
        before = (tree / "m.db").stat()
        writer.execute("INSERT INTO t VALUES ('blue')")
        assert (tree / "m.db").stat().st_ctime_ns == before.st_ctime_ns
        assert commit(repository, second.right, tree).created
        (tmp_path / "out.db").write_bytes(b"".join(repository.generations.read(ALICE, "m.db")))
    with closing(sqlite3.connect(tmp_path / "out.db")) as reader:
        assert reader.execute("SELECT x FROM t").fetchall() == [("blue",)]


@pytest.mark.spawns
def test_an_unchanged_database_starts_no_child(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is it copied."""
    tree = grow(tmp_path / "tree", 3)
    with closing(sqlite3.connect(tree / "m.db")) as writer, writer:
        writer.execute("CREATE TABLE t (x)")
    first = commit(repository, repository.restorer.restore(repository.leases.acquire(ALICE), tmp_path / "s"), tree)
    monkeypatch.setattr("claw_runtime.state.sqlite.copy.copy", None)
    assert not commit(repository, first.right, tree).created


def manifest(names: int) -> Manifest:
    entries = tuple(Entry(path=f"f{number}", type="d", mode=0o700, mtime_ns=0) for number in range(names))
    return Manifest(
        tenant=ALICE, generation=1, parent=None, created="", image="", application="", entries=entries, packs=()
    )


def test_the_least_used_is_forgotten_first() -> None:
    """So many names in all; a tree that alone has more is never remembered, and nobody else is forgotten for it."""
    cache = StatCache(names=100)
    for tenant in ("a", "b", "c"):
        cache.remember(TenantId(tenant), "1", CachedTree(manifest=manifest(30), selection=EVERYTHING))
    assert cache.recall(TenantId("a"), "1") is not None
    cache.remember(TenantId("d"), "1", CachedTree(manifest=manifest(30), selection=EVERYTHING))
    assert [bool(cache.recall(TenantId(tenant), "1")) for tenant in "abcd"] == [True, False, True, True]
    cache.remember(TenantId("e"), "1", CachedTree(manifest=manifest(200), selection=EVERYTHING))
    assert [bool(cache.recall(TenantId(tenant), "1")) for tenant in "abcde"] == [True, False, True, True, False]
    cache.forget(TenantId("a"))
    assert cache.recall(TenantId("a"), "1") is None


def commits_in_turn(cache: StatCache, tenants: str, names: int = 30) -> str:
    """Each tenant commits once; those that had to read their whole tree."""
    missed = ""
    for tenant in map(TenantId, tenants):
        if cache.recall(tenant, "1") is None:
            missed += tenant
        cache.remember(tenant, "1", CachedTree(manifest=manifest(names), selection=EVERYTHING))
    return missed


@pytest.mark.parametrize("tenants", ["abcd", "abcde", "abcdefgh"])
def test_a_tenant_too_many_costs_the_others_nothing(tenants: str) -> None:
    """Three trees fit; of tenants that commit in turn, three stay known, however many come."""
    cache = StatCache(names=100)
    commits_in_turn(cache, tenants)
    for _ in range(3):
        assert len(commits_in_turn(cache, tenants)) == len(tenants) - 3


def test_a_running_tenant_replaces_one_that_rests() -> None:
    """After two commits at the latest: the place of a tenant that commits no more is not lost."""
    cache = StatCache(names=100)
    commits_in_turn(cache, "abcd")
    assert commits_in_turn(cache, "cda") == "a"
    assert commits_in_turn(cache, "cda") == "a"
    assert commits_in_turn(cache, "cda") == ""
    cache.remember(TenantId("x"), "1", CachedTree(manifest=manifest(101), selection=EVERYTHING))
    assert commits_in_turn(cache, "cda") == ""


def test_a_tree_that_outgrows_its_room_is_dropped() -> None:
    """A stale record must not stay for it."""
    cache = StatCache(names=100)
    commits_in_turn(cache, "ab")
    cache.remember(TenantId("a"), "2", CachedTree(manifest=manifest(101), selection=EVERYTHING))
    assert cache.recall(TenantId("a"), "1") is None
    assert cache.recall(TenantId("a"), "2") is None
    assert cache.recall(TenantId("b"), "1") is not None


def test_another_head_makes_all_of_it_worthless() -> None:
    """Others may have gone on: what is known belongs to one manifest."""
    cache = StatCache()
    cache.remember(ALICE, "1", CachedTree(manifest=manifest(1), selection=EVERYTHING))
    assert cache.recall(ALICE, "2") is None
    assert cache.recall(ALICE, "1") is not None


@pytest.mark.parametrize("field", ["st_ino", "st_size", "st_mtime_ns", "st_ctime_ns", "st_mode"])
def test_each_of_the_five_counts(tmp_path: Path, field: str) -> None:
    """Inode, size, both times, mode."""

    class Other:
        """The same status but for one."""

        def __init__(self, status: os.stat_result) -> None:
            self._status = status

        def __getattr__(self, name: str) -> int:
            return int(getattr(self._status, name)) + (name == field)

    status = tmp_path.stat()
    known = record(status, MAPPED + 1, manifest(1).entries[0])
    assert holds(known, status, RACY)
    assert not holds(known, Other(status), RACY)  # type: ignore[arg-type]
    assert not holds(record(status, RACY, known.entry), status, RACY)
    assert stat_cache.stillness(status, status.st_ctime_ns + 5) <= 5
