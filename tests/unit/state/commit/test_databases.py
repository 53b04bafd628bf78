"""Databases of a running tenant: all of one moment, or none of it and told; whatever SQLite here can make of them."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from claw_runtime.objects.memory import MemoryStore
from claw_runtime.state.commit import databases
from claw_runtime.state.repository import CommitRequest, CommitResult, Repository, UploadRight
from claw_runtime.state.rules.selection import EVERYTHING
from claw_runtime.state.sqlite import backup, copy
from claw_runtime.tenancy import tenant_id
from fakes.clock import FakeClock

ALICE = tenant_id("alice")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(MemoryStore(), "here", FakeClock(), tmp_path / "scratch")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    root.mkdir()
    return root


@pytest.fixture
def right(repository: Repository, tmp_path: Path) -> UploadRight:
    return repository.restorer.restore(repository.leases.acquire(ALICE), tmp_path / "staging")


@pytest.fixture
def live(tree: Path) -> Iterator[sqlite3.Connection]:
    """A program's own connection to `app.db`: what it commits stays in the -wal."""
    connection = sqlite3.connect(tree / "app.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA wal_autocheckpoint=0")
    connection.execute("CREATE TABLE facts (number)")
    add(connection, 3)
    yield connection
    connection.close()


def add(connection: sqlite3.Connection, count: int) -> None:
    connection.executemany("INSERT INTO facts VALUES (?)", [(number,) for number in range(count)])


def commit(repository: Repository, right: UploadRight | None, tree: Path) -> CommitResult:
    assert right is not None
    request = CommitRequest(
        right=right, tree=tree, selection=EVERYTHING, image_digest="", application="", release=False
    )
    return repository.committer.commit(request)


def facts(repository: Repository, target: Path, name: str = "app.db", generation: int | None = None) -> int:
    """How many facts a restored database has."""
    repository.restorer.extract(ALICE, target, generation)
    with closing(sqlite3.connect(target / name)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return int(connection.execute("SELECT count(*) FROM facts").fetchone()[0])


def refused(*_: object, **__: object) -> Path:
    raise backup.NoSnapshot("it is refused")


def unstable(*_: object, **__: object) -> None:
    raise copy.Unstable


def no_room(*_: object) -> None:
    raise backup.NoSnapshot("no room for two copies")


@pytest.fixture(params=["SQLite refuses the copy", "there is no room for a copy"])
def apart(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """No database can be stored as one."""
    if request.param == "SQLite refuses the copy":
        monkeypatch.setattr(backup, "snapshot", refused)
    else:
        monkeypatch.setattr(copy, "_check_room", no_room)


@pytest.mark.usefixtures("apart")
def test_a_database_that_cannot_be_stored_as_one_is_stored_with_its_sidecars(
    repository: Repository, right: UploadRight, tree: Path, tmp_path: Path, live: sqlite3.Connection
) -> None:
    """Its files are of one moment, so the restored ones are whole; the name is reported."""
    first = commit(repository, right, tree)
    add(live, 4)
    second = commit(repository, first.right, tree)

    assert [item.path for item in second.reported] == ["app.db"]
    assert {e.path: e.kind for e in repository.generations.manifest(ALICE).entries if e.type == "f"} == {
        "app.db": "plain",
        "app.db-wal": "plain",
    }
    assert facts(repository, tmp_path / "one", generation=1) == 3
    assert facts(repository, tmp_path / "two") == 7


@pytest.mark.usefixtures("apart")
def test_a_checkpoint_between_two_commits_mixes_nothing(
    repository: Repository, right: UploadRight, tree: Path, tmp_path: Path, live: sqlite3.Connection
) -> None:
    """A database whose -wal was written back, and then begun again, is read anew with it."""
    result = commit(repository, right, tree)
    for number in range(4, 8):
        live.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        add(live, 1)
        result = commit(repository, result.right, tree)
        assert facts(repository, tmp_path / str(number)) == number


@pytest.mark.usefixtures("apart")
def test_an_unstable_database_keeps_all_files_of_its_parents_version(
    repository: Repository,
    right: UploadRight,
    tree: Path,
    tmp_path: Path,
    live: sqlite3.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also a -wal that the tree has no more: the parent's database alone would lack what was in it."""
    first = commit(repository, right, tree)
    add(live, 4)
    live.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    (tree / "app.db-wal").unlink()

    monkeypatch.setattr(copy, "copy", unstable)
    second = commit(repository, first.right, tree)

    assert [item.path for item in second.reported] == ["app.db"]
    assert facts(repository, tmp_path / "two") == 3


@pytest.mark.spawns
def test_an_unstable_database_never_gets_todays_sidecars(
    repository: Repository,
    right: UploadRight,
    tree: Path,
    tmp_path: Path,
    live: sqlite3.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A parent's version that is one consistent file stays alone."""
    first = commit(repository, right, tree)
    add(live, 4)

    monkeypatch.setattr(copy, "copy", unstable)
    commit(repository, first.right, tree)

    assert [e.path for e in repository.generations.manifest(ALICE).entries if e.type == "f"] == ["app.db"]
    assert facts(repository, tmp_path / "two") == 3


@pytest.mark.spawns
def test_another_name_of_a_live_database_is_the_same_database(
    repository: Repository, right: UploadRight, tree: Path, tmp_path: Path, live: sqlite3.Connection
) -> None:
    """A hard link has no sidecars: alone, it would lack all that the -wal holds."""
    os.link(tree / "app.db", tree / "a-link.db")
    os.link(tree / "app.db", tree / "z-link.db")
    first = commit(repository, right, tree)
    assert first.reported == ()
    add(live, 4)
    second = commit(repository, first.right, tree)

    assert second.reported == ()
    for name in ("app.db", "a-link.db", "z-link.db"):
        assert facts(repository, tmp_path / f"one-{name}", name, 1) == 3
        assert facts(repository, tmp_path / f"two-{name}", name) == 7


@pytest.mark.usefixtures("apart")
def test_another_name_of_a_database_that_is_not_stored_as_one_is_left_out(
    repository: Repository, right: UploadRight, tree: Path, tmp_path: Path, live: sqlite3.Connection
) -> None:
    """It is reported: beside sidecars of another name it would not be whole."""
    os.link(tree / "app.db", tree / "z-link.db")
    add(live, 1)

    result = commit(repository, right, tree)

    assert [item.path for item in result.reported] == ["app.db", "z-link.db"]
    assert facts(repository, tmp_path / "one") == 4


def test_another_name_of_a_database_without_sidecars_is_stored_for_itself(
    repository: Repository, right: UploadRight, tree: Path
) -> None:
    """A damaged database lacks nothing under its other name: both are stored as they are."""
    (tree / "m.db").write_bytes(backup.HEADER + b"x" * 100)
    os.link(tree / "m.db", tree / "n.db")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backup, "snapshot", refused)
        commit(repository, right, tree)

    for name in ("m.db", "n.db"):
        assert b"".join(repository.generations.read(ALICE, name)) == backup.HEADER + b"x" * 100


@pytest.mark.spawns
def test_a_program_s_own_schema_is_no_obstacle(
    repository: Repository, right: UploadRight, tree: Path, tmp_path: Path, live: sqlite3.Connection
) -> None:
    """JSON in CHECKs, own collations and own functions are of the program alone: a backup copies pages."""
    live.create_collation("own", lambda a, b: (a > b) - (a < b))
    live.create_function("twice", 1, lambda value: value * 2, deterministic=True)
    live.execute("CREATE TABLE events (body TEXT CHECK (json_valid(body)))")
    live.execute("INSERT INTO events VALUES ('{}')")
    live.execute("CREATE TABLE words (word TEXT COLLATE own)")
    live.execute("CREATE INDEX by_word ON words (word)")
    live.execute("INSERT INTO words VALUES ('b'), ('a')")
    live.execute("CREATE TABLE numbers (n INTEGER CHECK (twice(n) < 100))")
    live.execute("CREATE INDEX by_twice ON numbers (twice(n))")
    live.execute("INSERT INTO numbers VALUES (1), (2)")

    result = commit(repository, right, tree)

    assert result.reported == ()
    repository.restorer.extract(ALICE, tmp_path / "there")
    with closing(sqlite3.connect(tmp_path / "there" / "app.db")) as connection:
        connection.create_collation("own", lambda a, b: (a > b) - (a < b))
        connection.create_function("twice", 1, lambda value: value * 2, deterministic=True)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("SELECT word FROM words ORDER BY word").fetchall() == [("a",), ("b",)]
        assert connection.execute("SELECT n FROM numbers WHERE twice(n) = 4").fetchall() == [(2,)]


def test_the_archiver_knows_the_names_of_sidecars() -> None:
    """The -shm is not one of them: SQLite makes it anew, and an old one beside a restored database would mislead it."""
    assert copy.names("m.db") == ("m.db", "m.db-wal", "m.db-journal")
    assert databases.backup.SIDECARS == ("-wal", "-shm", "-journal")
