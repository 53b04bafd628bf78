"""The reserve: given up when the disk is almost full, so that the ledger can be written, and taken back later."""

import sqlite3
from pathlib import Path

import pytest
from claw_runtime.db.database import Database
from claw_runtime.errors import DiskFull
from claw_runtime.reserve import ENOUGH, LOW, Reserve, is_given_up

SIZE = 1 << 16


class Disk:
    """Free room, as a test sets it."""

    room = ENOUGH

    def free(self, _path: Path) -> int:
        return self.room


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def reserve(tmp_path: Path, disk: Disk) -> Reserve:
    made = Reserve(tmp_path / "reserve", size=SIZE, free=disk.free)
    made.refill()
    return made


def held(path: Path) -> int:
    """Bytes that the file holds on the disk."""
    return (path / "reserve").stat().st_blocks * 512


def test_it_holds_room_and_gives_it_up_when_the_disk_is_full(tmp_path: Path, reserve: Reserve, disk: Disk) -> None:
    """Once, and only below the limit; the file stays and shows that it was given up."""
    assert held(tmp_path) >= SIZE
    reserve.check()
    assert held(tmp_path) >= SIZE

    disk.room = LOW - 1
    reserve.check()

    assert held(tmp_path) == 0
    assert is_given_up(tmp_path / "reserve")
    assert not reserve.give_up()


def test_it_comes_back_when_there_is_room_for_much_more(tmp_path: Path, reserve: Reserve, disk: Disk) -> None:
    """Not at the first free block: that is for those that made room."""
    reserve.give_up()
    disk.room = ENOUGH - 1
    reserve.refill()
    assert held(tmp_path) == 0

    disk.room = ENOUGH
    reserve.refill()

    assert held(tmp_path) >= SIZE
    assert not is_given_up(tmp_path / "reserve")


def test_a_new_daemon_knows_whether_it_is_whole(tmp_path: Path, reserve: Reserve, disk: Disk) -> None:
    """The file says so."""
    assert Reserve(tmp_path / "reserve", size=SIZE).give_up()
    assert not Reserve(tmp_path / "reserve", size=SIZE).give_up()


def test_no_room_for_it_is_no_error(tmp_path: Path, disk: Disk) -> None:
    """A daemon starts on a full disk too, and where no file can be made."""
    made = Reserve(tmp_path / "nowhere" / "reserve", free=disk.free)
    made.refill()

    assert not made.give_up()
    assert not is_given_up(tmp_path / "nowhere" / "reserve")


def test_a_change_of_the_ledger_gives_it_up_first(tmp_path: Path, reserve: Reserve, disk: Disk) -> None:
    """So that the change itself finds the room."""
    database = Database(tmp_path / "ledger.sqlite", reserve)
    disk.room = 0

    with database.change():
        assert held(tmp_path) == 0
    database.close()


def test_a_quota_gives_it_up_too(tmp_path: Path, reserve: Reserve) -> None:
    """Where the free room of the disk shows nothing: the first change fails, and the repeated one has room."""
    database = Database(tmp_path / "ledger.sqlite", reserve)
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorcode = sqlite3.SQLITE_FULL

    with pytest.raises(DiskFull) as refused, database.change():
        raise full

    assert refused.value.hint.startswith("repeat it")
    assert held(tmp_path) == 0
    with pytest.raises(DiskFull) as refused, database.change():
        raise full
    assert refused.value.hint.startswith("free space")
    database.close()
