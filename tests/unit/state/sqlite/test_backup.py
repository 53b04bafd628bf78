"""A database comes out whole or not at all, and its own content cannot hurt us."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from claw_runtime.state.sqlite import backup
from claw_runtime.state.sqlite.backup import NoSnapshot, snapshot

pytestmark = pytest.mark.spawns

WRITER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute(f"PRAGMA journal_mode={sys.argv[2]}")
connection.execute("PRAGMA wal_autocheckpoint=0")
connection.execute("PRAGMA cache_size=5")
connection.execute("CREATE TABLE facts (number INTEGER, filler BLOB)")
for number in range(100):
    connection.execute("INSERT INTO facts VALUES (?, randomblob(500))", (number,))
connection.execute("BEGIN")
connection.execute("UPDATE facts SET number = -1, filler = randomblob(600)")
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def private(tmp_path: Path) -> Path:
    path = tmp_path / "private"
    path.mkdir(mode=0o700)
    return path


def rows(path: Path, query: str = "SELECT number FROM facts ORDER BY rowid") -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def kill_a_writer(path: Path, journal: str) -> None:
    """Leave what a program leaves that dies by SIGKILL in the middle of its second transaction."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), journal], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        writer.send_signal(signal.SIGKILL)


def take(source: Path, private: Path) -> None:
    for suffix in ("", "-wal", "-journal"):
        if (found := source.with_name(source.name + suffix)).exists():
            shutil.copyfile(found, private / f"database{suffix}")


@pytest.mark.parametrize("journal", ["WAL", "DELETE", "TRUNCATE", "PERSIST"])
def test_a_killed_writer_leaves_its_last_commit(tmp_path: Path, private: Path, journal: str) -> None:
    """All hundred rows of the finished transactions, nothing of the unfinished one, in a single file."""
    kill_a_writer(tmp_path / "m.db", journal)
    sidecar = tmp_path / ("m.db-wal" if journal == "WAL" else "m.db-journal")
    assert sidecar.stat().st_size > 0
    take(tmp_path / "m.db", private)
    made = snapshot(private)
    shutil.copyfile(made, tmp_path / "alone.db")
    assert rows(tmp_path / "alone.db") == [(number,) for number in range(100)]
    mode = {"WAL": "wal"}.get(journal, "delete")
    assert rows(tmp_path / "alone.db", "PRAGMA journal_mode") == [(mode,)]


def test_a_closed_database_keeps_its_bytes(tmp_path: Path, private: Path) -> None:
    """Without a sidecar the file is the snapshot, bit for bit, so that nothing changed means nothing to send."""
    with closing(sqlite3.connect(tmp_path / "m.db")) as connection, connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE facts (number)")
    take(tmp_path / "m.db", private)
    assert snapshot(private).read_bytes() == (tmp_path / "m.db").read_bytes()


def test_a_journal_that_names_another_file_is_refused(tmp_path: Path, private: Path) -> None:
    """SQLite would look at, and could delete, the file that a super-journal record names; it never gets to see it."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    kill_a_writer(tmp_path / "m.db", "DELETE")
    take(tmp_path / "m.db", private)
    name = os.fsencode(victim)
    record = (
        (1).to_bytes(4, "big")
        + name
        + len(name).to_bytes(4, "big")
        + sum(name).to_bytes(4, "big")
        + bytes.fromhex("d9d505f920a163d7")
    )
    with (private / "database-journal").open("ab") as journal:
        journal.write(record)
    with pytest.raises(NoSnapshot, match="super-journal"):
        snapshot(private)
    assert victim.read_text() == "precious"


@pytest.mark.parametrize(
    "body",
    [
        b"SQLite format 3\0",
        b"SQLite format 3\0" + b"\xff" * 4096,
        b"SQLite format 3\0" + bytes(84) + b"\x07" * 9000,
    ],
)
def test_a_header_alone_makes_no_database(private: Path, body: bytes) -> None:
    """Damaged and invented files are refused with SQLite's own words."""
    (private / "database").write_bytes(body)
    with pytest.raises(NoSnapshot):
        snapshot(private)


def test_damage_inside_is_found(tmp_path: Path, private: Path) -> None:
    """A page of rubbish in the middle does not pass for a snapshot."""
    with closing(sqlite3.connect(tmp_path / "m.db")) as connection, connection:
        connection.execute("CREATE TABLE facts (number, filler)")
        connection.executemany("INSERT INTO facts VALUES (?, randomblob(400))", [(n,) for n in range(200)])
    take(tmp_path / "m.db", private)
    with (private / "database").open("r+b") as file:
        file.seek(3 * 4096)
        file.write(os.urandom(4096))
    with pytest.raises(NoSnapshot, match=r"quick_check: .*page 4|Page 4"):
        snapshot(private)


def test_a_module_that_we_lack_is_no_obstacle(tmp_path: Path, private: Path) -> None:
    """A vector index of an extension that only the tenant's program loads is carried with the rest."""
    with closing(sqlite3.connect(tmp_path / "m.db")) as connection, connection:
        connection.execute("CREATE TABLE facts (number)")
        connection.execute("INSERT INTO facts VALUES (1)")
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute(
            "INSERT INTO sqlite_master VALUES ('table', 'v', 'v', 0, 'CREATE VIRTUAL TABLE v USING vec0(x float[3])')"
        )
    take(tmp_path / "m.db", private)
    shutil.copyfile(snapshot(private), tmp_path / "alone.db")
    assert rows(tmp_path / "alone.db") == [(1,)]


def test_a_database_that_takes_for_ever_is_given_up(
    private: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child is ended, and the reason says how long it had."""
    monkeypatch.setattr(backup, "_SECONDS", 0.001)
    (private / "database").write_bytes(b"SQLite format 3\0")
    with pytest.raises(NoSnapshot, match="longer than"):
        snapshot(private)


def test_the_child_has_little_to_lose(private: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It inherits no variable, and may use a gigabyte of memory and write a little more than its database at most."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    probe = private.parent / "probe.py"
    source = Path(backup.__file__).read_text()
    probe.write_text(
        source.replace(
            'if __name__ == "__main__":',
            "def _check(_connection):\n    raise NoSnapshot(f\"{dict(__import__('os').environ)} "
            '{resource.getrlimit(resource.RLIMIT_AS)} {resource.getrlimit(resource.RLIMIT_FSIZE)}")\n\n\n'
            'if __name__ == "__main__":',
        )
    )
    monkeypatch.setattr(backup, "__file__", str(probe))
    with closing(sqlite3.connect(private / "database")) as connection, connection:
        connection.execute("CREATE TABLE t (x)")
    size = (private / "database").stat().st_size
    with pytest.raises(NoSnapshot) as told:
        snapshot(private)
    assert "AWS_SECRET" not in str(told.value)
    assert f"({2**30}, {2**30}) ({2 * size + 2**26}, {2 * size + 2**26})" in str(told.value)
