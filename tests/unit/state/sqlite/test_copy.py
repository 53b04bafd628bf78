"""A database that its program is using all the time comes out whole, and its program does not notice."""

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from claw_runtime.fsutil import Room
from claw_runtime.objects.memory import MemoryStore
from claw_runtime.safefs.tree import Tree
from claw_runtime.state.repository import CommitRequest, CommitResult, Repository, UploadRight
from claw_runtime.state.rules.selection import EVERYTHING
from claw_runtime.state.sqlite import copy as databases
from claw_runtime.state.sqlite.backup import NoSnapshot, snapshot
from claw_runtime.state.sqlite.copy import Unstable, copy
from claw_runtime.tenancy import tenant_id
from fakes.clock import FakeClock

pytestmark = pytest.mark.spawns

ALICE = tenant_id("alice")
FIVE = "five rows at a time, so that a count that is no multiple of five was torn"
WRITER = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=10)
connection.execute(f"PRAGMA journal_mode={sys.argv[2]}")
connection.execute("PRAGMA wal_autocheckpoint=20")
connection.execute("PRAGMA synchronous=OFF")
connection.execute("CREATE TABLE IF NOT EXISTS facts (number INTEGER PRIMARY KEY, round INTEGER, filler BLOB)")
print("ready", flush=True)
for round in range(1_000_000):
    connection.execute("BEGIN IMMEDIATE")
    for _ in range(5):
        connection.execute("INSERT INTO facts (round, filler) VALUES (?, randomblob(300))", (round,))
    connection.execute("UPDATE facts SET round = ? WHERE number % 7 = ?", (round, round % 7))
    connection.execute("COMMIT")
    time.sleep(float(sys.argv[3]))
"""


@contextmanager
def writers(path: Path, journal: str, *, count: int = 2, pause: float = 0.001) -> Iterator[list[subprocess.Popen[str]]]:
    """Programs that write to the same database as fast as they can."""
    argv = [sys.executable, "-c", WRITER, str(path), journal, str(pause)]
    running: list[subprocess.Popen[str]] = []
    try:
        for _ in range(count):  # one after the other: the mode is set by one alone
            one = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            running.append(one)
            assert one.stdout is not None
            assert one.stdout.readline() == "ready\n"
        yield running
    finally:
        for one in running:
            one.kill()
            one.communicate()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    root.mkdir()
    return root


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    path = tmp_path / "scratch"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(MemoryStore(), "here", FakeClock(), tmp_path / "scratch")


def commit(repository: Repository, right: UploadRight | None, tree: Path, *, release: bool = False) -> CommitResult:
    assert right is not None
    return repository.committer.commit(
        CommitRequest(right=right, tree=tree, selection=EVERYTHING, image_digest="", application="", release=release)
    )


def stored(repository: Repository, name: str, target: Path) -> list[tuple[int, str]]:
    """Rows in the stored database, and what SQLite says of its health."""
    target.unlink(missing_ok=True)
    target.write_bytes(b"".join(repository.generations.read(ALICE, name)))
    with closing(sqlite3.connect(target)) as reader:
        rows = reader.execute("SELECT count(*) FROM facts").fetchone()[0]
        return [(rows, reader.execute("PRAGMA integrity_check").fetchone()[0])]


@pytest.mark.parametrize("journal", ["WAL", "DELETE", "PERSIST"])
def test_every_interval_commit_of_a_live_database_is_whole(
    repository: Repository, tree: Path, tmp_path: Path, journal: str
) -> None:
    """Two writers, checkpoints all the time: each generation is one moment between transactions; no writer fails."""
    right = repository.restorer.restore(repository.leases.acquire(ALICE), tmp_path / "s")
    seen = []
    with writers(tree / "m.db", journal, pause=0.01) as running:
        for _ in range(6):
            generation = commit(repository, right, tree)
            assert generation.right is not None
            right = generation.right
            ((rows, health),) = stored(repository, "m.db", tmp_path / "out.db")
            assert (rows % 5, health) == (0, "ok"), FIVE
            seen.append(rows)
            entry = repository.generations.manifest(ALICE).find("m.db")
            assert entry is not None
            assert entry.kind == "sqlite"
        assert all(one.poll() is None for one in running)
    assert seen == sorted(seen)
    assert seen[0] < seen[-1]
    assert {entry.path for entry in repository.generations.manifest(ALICE).entries} == {"m.db"}


def test_a_writer_that_never_pauses_is_asked_to_wait_for_a_moment(tree: Path, scratch: Path) -> None:
    """Beside a rollback journal there is no quiet moment: the lock of readers makes one, and the copy is whole."""
    with writers(tree / "m.db", "DELETE", count=1, pause=0) as running:
        time.sleep(0.2)
        with Tree(tree) as opened, opened.cursor() as cursor:
            copied = copy(cursor, "m.db", scratch)
        assert running[0].poll() is None
    with closing(sqlite3.connect(snapshot(copied.directory))) as reader:
        assert reader.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        assert reader.execute("SELECT count(*) FROM facts").fetchone()[0] % 5 == 0


def test_a_checkpoint_waits_and_a_writer_does_not(tree: Path) -> None:
    """While a copy is made rows go into the log, and none into the database below it."""
    with closing(sqlite3.connect(tree / "m.db", isolation_level=None)) as writer, Tree(tree) as opened:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("CREATE TABLE facts (number)")
        with (
            opened.cursor() as cursor,
            cursor.reading("m.db") as fd,
            databases._locked(cursor, "m.db", fd, firm=False),
        ):
            writer.execute("INSERT INTO facts VALUES (1)")
            assert writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 1
        assert writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0


def test_a_log_that_is_begun_again_is_noticed(tree: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half an old log and half a new one would take rows back: the copy is made anew."""
    with closing(sqlite3.connect(tree / "m.db", isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("CREATE TABLE facts (number)")
        rounds: list[int] = []
        real = databases.chunks

        def meanwhile(fd: int, size: int) -> Iterator[bytes]:
            yield from real(fd, size)
            if len(rounds) < 2 and os.readlink(f"/proc/self/fd/{fd}").endswith("-wal"):
                rounds.append(1)
                (tree / "m.db-shm").unlink(missing_ok=True)  # the lock of checkpoints is gone with it
                head = bytearray((tree / "m.db-wal").read_bytes())
                head[16] ^= 1
                (tree / "m.db-wal").write_bytes(head)

        monkeypatch.setattr(databases, "chunks", meanwhile)
        with Tree(tree) as opened, opened.cursor() as cursor:
            copy(cursor, "m.db", scratch, pause=lambda _: None)
        assert len(rounds) == 2


def test_a_database_that_never_holds_still_is_given_up(
    tree: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After so many tries, with nothing left in the scratch directory."""
    with closing(sqlite3.connect(tree / "m.db")) as writer, writer:
        writer.execute("CREATE TABLE facts (number)")
    real, paused = databases.chunks, list[float]()

    def meanwhile(fd: int, size: int) -> Iterator[bytes]:
        yield from real(fd, size)
        os.utime(tree / "m.db")

    monkeypatch.setattr(databases, "chunks", meanwhile)
    with Tree(tree) as opened, opened.cursor() as cursor, pytest.raises(Unstable):
        copy(cursor, "m.db", scratch, pause=paused.append)
    assert list(scratch.iterdir()) == []
    assert len(paused) >= databases.ATTEMPTS - 1


def test_a_log_without_its_index_is_enough(tree: Path, scratch: Path) -> None:
    """The -shm is only a cache: gone, or held by a stranger's lock, the rows of the -wal are there."""
    with closing(sqlite3.connect(tree / "live.db", isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("PRAGMA wal_autocheckpoint=0")
        writer.execute("CREATE TABLE facts (number)")
        writer.execute("INSERT INTO facts VALUES (7)")
        for suffix in ("", "-wal"):
            shutil.copyfile(tree / f"live.db{suffix}", tree / f"m.db{suffix}")
    with Tree(tree) as opened, opened.cursor() as cursor:
        copied = copy(cursor, "m.db", scratch)
    with closing(sqlite3.connect(snapshot(copied.directory))) as reader:
        assert reader.execute("SELECT number FROM facts").fetchall() == [(7,)]


def test_a_locked_database_is_copied_all_the_same(tree: Path, scratch: Path) -> None:
    """A program that holds its lock for ever, and has not committed, keeps nothing from us but that."""
    with closing(sqlite3.connect(tree / "m.db", isolation_level=None)) as writer:
        writer.execute("CREATE TABLE facts (number)")
        writer.execute("INSERT INTO facts VALUES (1)")
        writer.execute("BEGIN EXCLUSIVE")
        writer.execute("INSERT INTO facts VALUES (2)")
        with Tree(tree) as opened, opened.cursor() as cursor:
            copied = copy(cursor, "m.db", scratch)
        with closing(sqlite3.connect(snapshot(copied.directory))) as reader:
            assert reader.execute("SELECT number FROM facts").fetchall() == [(1,)]


def test_a_sidecar_that_is_a_link_is_refused(tree: Path, scratch: Path, tmp_path: Path) -> None:
    """What it points to is never opened."""
    (tmp_path / "neighbour").write_text("BOB")
    with closing(sqlite3.connect(tree / "m.db")) as writer, writer:
        writer.execute("CREATE TABLE facts (number)")
    (tree / "m.db-wal").symlink_to(tmp_path / "neighbour")
    with Tree(tree) as opened, opened.cursor() as cursor, pytest.raises(NoSnapshot, match="not a regular file"):
        copy(cursor, "m.db", scratch)
    assert list(scratch.iterdir()) == []


def test_a_database_that_is_all_hole_fills_no_disk(
    repository: Repository, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what has no room for two copies none is made: it is stored as a file, holes and all."""
    with (tree / "m.db").open("wb") as file:
        file.write(b"SQLite format 3\0")
        file.truncate(40_000_000)
    monkeypatch.setattr(databases, "room", lambda _: Room(size=70_000_000, files=None))
    generation = commit(repository, repository.restorer.restore(repository.leases.acquire(ALICE), tmp_path / "s"), tree)
    assert [item.path for item in generation.reported] == ["m.db"]
    assert "do not fit" in generation.reported[0].reason
    assert generation.uploaded_bytes < 10_000
    assert not list((tmp_path / "scratch").iterdir())


def test_all_databases_of_a_tenant_are_taken_before_any_is_stored(
    repository: Repository, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So they are of one moment, as near as can be, however long SQLite takes to check them."""
    for name in ("one.db", "sub/two.db", "z.db"):
        (tree / name).parent.mkdir(exist_ok=True)
        with closing(sqlite3.connect(tree / name)) as writer, writer:
            writer.execute("CREATE TABLE facts (number)")
    order: list[str] = []
    real_copy, real_snapshot = databases.copy, snapshot

    def copied(cursor: object, path: str, *more: object) -> object:
        order.append(f"copy {path}")
        return real_copy(cursor, path, *more)  # type: ignore[arg-type]

    def checked(directory: Path) -> Path:
        order.append("check")
        return real_snapshot(directory)

    monkeypatch.setattr(databases, "copy", copied)
    monkeypatch.setattr("claw_runtime.state.sqlite.backup.snapshot", checked)
    commit(repository, repository.restorer.restore(repository.leases.acquire(ALICE), tmp_path / "s"), tree)
    assert order == ["copy one.db", "copy sub/two.db", "copy z.db", "check", "check", "check"]
    assert not list((tmp_path / "scratch").iterdir())


def test_a_small_change_in_a_large_database_sends_little(repository: Repository, tree: Path, tmp_path: Path) -> None:
    """Of 16 MB with fifty changed rows, a fifth at most; the pages that did not change keep their chunks."""
    with closing(sqlite3.connect(tree / "m.db", isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("CREATE TABLE facts (number INTEGER PRIMARY KEY, filler BLOB)")
        writer.execute("BEGIN")
        writer.executemany("INSERT INTO facts (filler) VALUES (randomblob(800))", [() for _ in range(16_000)])
        writer.execute("COMMIT")
        first = commit(repository, repository.restorer.restore(repository.leases.acquire(ALICE), tmp_path / "s"), tree)
        writer.executemany("INSERT INTO facts (filler) VALUES (randomblob(800))", [() for _ in range(40)])
        writer.execute("UPDATE facts SET filler = randomblob(800) WHERE number IN (5, 8000, 8001)")
        writer.execute("DELETE FROM facts WHERE number IN (4000, 12000)")
        second = commit(repository, first.right, tree)
    assert first.uploaded_bytes > 12_000_000
    assert second.uploaded_bytes < 700_000


def test_what_only_looks_like_a_sidecar_is_a_file(repository: Repository, tree: Path, tmp_path: Path) -> None:
    """A name that ends so without a database beside it is stored, and a database may have such a name."""
    (tree / "notes-wal").write_text("plain")
    with closing(sqlite3.connect(tree / "x-journal")) as writer, writer:
        writer.execute("CREATE TABLE facts (number)")
    commit(repository, repository.restorer.restore(repository.leases.acquire(ALICE), tmp_path / "s"), tree)
    kinds = {entry.path: entry.kind for entry in repository.generations.manifest(ALICE).entries}
    assert kinds == {"notes-wal": "plain", "x-journal": "sqlite"}


def test_sidecars_that_come_and_go_are_no_news(repository: Repository, tree: Path, tmp_path: Path) -> None:
    """A journal that is there at one look and gone at the next is not worth a word."""
    with closing(sqlite3.connect(tree / "m.db")) as writer, writer:
        writer.execute("CREATE TABLE facts (number)")
    (tree / "m.db-journal").touch()
    real = os.stat

    def vanishing(path: object, **more: object) -> os.stat_result:
        if path == "m.db-journal":
            with suppress(FileNotFoundError):
                (tree / "m.db-journal").unlink()
        return real(path, **more)  # type: ignore[call-overload,no-any-return]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("claw_runtime.safefs.tree.os.stat", vanishing)
        generation = commit(
            repository, repository.restorer.restore(repository.leases.acquire(ALICE), tmp_path / "s"), tree
        )
    assert generation.reported == ()
