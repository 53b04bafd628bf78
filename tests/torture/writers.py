"""Programs that write to a tenant's tree all the time, each with an invariant that every generation must satisfy.

Each runs as a process of its own, `python -m torture.writers NAME DIRECTORY SEED PACE`, until it is killed. It
continues from whatever it finds in its directory: an empty one, its own from before, or a restored generation. `judge`
looks at such a directory in a generation, and says what is wrong with it.
"""

import mmap
import os
import random
import sqlite3
import struct
import sys
import time
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import ClassVar, Final

PAGE: Final = 4096
_STAMP: Final = struct.Struct("<QQI")  # number of the page or slot, how often it was written, checksum of both


class Writer(ABC):
    """One program.

    Args:
        home: Its own directory in the tree; made if missing.
        dice: Where its choices come from.
    """

    name: ClassVar[str]

    def __init__(self, home: Path, dice: random.Random) -> None:
        self.home, self.dice = home, dice

    def begin(self) -> None:
        """Make what is missing, or continue from what is there."""
        self.home.mkdir(parents=True, exist_ok=True)

    @abstractmethod
    def step(self) -> None:
        """One change."""

    def end(self) -> None:  # noqa: B027 - most keep nothing open
        """Close what `begin` opened."""

    @abstractmethod
    def judge(self, at_least: int) -> Iterator[str]:
        """What is wrong with the directory of a generation, as sentences.

        Args:
            at_least: How far the program had come when the commit began (`progress`).
        """

    def progress(self) -> int:
        """How far the program is; 0 where no generation can be compared with it."""
        return 0


class Append(Writer):
    """A log: lines with rising numbers, never changed once they are written."""

    name = "append"

    def begin(self) -> None:
        super().begin()
        self._path = self.home / "gateway.log"
        self._path.touch()
        whole = self._path.read_bytes().rpartition(b"\n")[0]
        os.truncate(self._path, len(whole) + bool(whole))
        self._next = whole.count(b"\n") + bool(whole)

    def step(self) -> None:
        with self._path.open("ab", buffering=0) as file:
            for _ in range(self.dice.randint(1, 5)):
                file.write(self._line(self._next))
                self._next += 1

    def judge(self, at_least: int) -> Iterator[str]:
        path = self.home / "gateway.log"
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        for number, line in enumerate(lines):
            whole = self._line(number)
            if line != whole and not (number == len(lines) - 1 and whole.startswith(line)):
                yield f"line {number} of {len(lines)} is {line[:40]!r}"
                return
        if len(lines) < at_least:
            yield f"the log has {len(lines)} lines, and had {at_least} when the commit began"

    def progress(self) -> int:
        path = self.home / "gateway.log"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    @staticmethod
    def _line(number: int) -> bytes:
        return b"%d %08x %s\n" % (number, zlib.crc32(b"%d" % number), b"x" * (number * 37 % 300))


class Database(Writer):
    """Accounts between which money moves: their sum never changes, and each move is noted with both accounts."""

    journal: ClassVar[str]

    def begin(self) -> None:
        super().begin()
        self._db = sqlite3.connect(self.home / "memory.sqlite", isolation_level=None, timeout=30)
        self._db.execute(f"PRAGMA journal_mode={self.journal}")
        self._db.execute("PRAGMA synchronous=OFF")
        self._db.execute("BEGIN IMMEDIATE")
        self._db.execute("CREATE TABLE IF NOT EXISTS account (id INTEGER PRIMARY KEY, money INTEGER, moves INTEGER)")
        self._db.execute("CREATE TABLE IF NOT EXISTS move (source INTEGER, target INTEGER, money INTEGER, text TEXT)")
        if not self._db.execute("SELECT count(*) FROM account").fetchone()[0]:
            self._db.executemany("INSERT INTO account VALUES (?, 100, 0)", [(number,) for number in range(50)])
        self._db.execute("COMMIT")

    def end(self) -> None:
        self._db.close()

    def step(self) -> None:
        source, target = self.dice.sample(range(50), 2)
        money = self.dice.randint(1, 20)
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        db.execute("UPDATE account SET money = money - ?, moves = moves + 1 WHERE id = ?", (money, source))
        db.execute("UPDATE account SET money = money + ?, moves = moves + 1 WHERE id = ?", (money, target))
        text = "x" * self.dice.randint(0, 3000)
        db.execute("INSERT INTO move VALUES (?, ?, ?, ?)", (source, target, money, text))
        if self.dice.random() < 0.05:
            db.execute("DELETE FROM move WHERE rowid < (SELECT max(rowid) FROM move) - 300")
        db.execute("COMMIT")

    def judge(self, at_least: int) -> Iterator[str]:
        path = self.home / "memory.sqlite"
        if not path.exists():
            if at_least:
                yield "the database is missing"
            return
        with closing(sqlite3.connect(path)) as db:
            if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'account'").fetchone():
                return  # before its first transaction
            [health] = db.execute("PRAGMA integrity_check").fetchone()
            if health != "ok":
                yield f"integrity_check: {health}"
            money, moves = db.execute("SELECT sum(money), sum(moves) FROM account").fetchone()
            if money not in (None, 5000):
                yield f"the accounts hold {money}, not 5000"
            [last] = db.execute("SELECT coalesce(max(rowid), 0) FROM move").fetchone()
            if (moves or 0) != 2 * last:
                yield f"{moves} moves in the accounts, {last} noted"
            if last < at_least:
                yield f"it has {last} moves, and had {at_least} when the commit began"

    def progress(self) -> int:
        path = self.home / "memory.sqlite"
        if not path.exists():
            return 0
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as db:
            try:
                return int(db.execute("SELECT coalesce(max(rowid), 0) FROM move").fetchone()[0])
            except sqlite3.OperationalError:
                return 0


class WriteAhead(Database):
    """A database in WAL mode."""

    name, journal = "write-ahead", "WAL"


class Rollback(Database):
    """A database with a rollback journal."""

    name, journal = "rollback", "DELETE"


class Mapped(Writer):
    """A file that is only written through a shared mapping: 16 pages, each with the number of its last change."""

    name = "mapped"
    pages: Final = 16

    def begin(self) -> None:
        super().begin()
        path = self.home / "ring.bin"
        if not path.exists():
            draft = self.home / "ring.new"
            draft.write_bytes(b"".join(_stamped(n, 0) for n in range(self.pages)))
            draft.rename(path)
        self._file = path.open("r+b")
        self._map = mmap.mmap(self._file.fileno(), 0)
        self._count = max(_STAMP.unpack_from(self._map, n * PAGE)[1] for n in range(self.pages))

    def end(self) -> None:
        self._map.close()
        self._file.close()

    def step(self) -> None:
        self._count += 1
        page = self._count % self.pages
        self._map[page * PAGE : page * PAGE + _STAMP.size] = _stamp(page, self._count)

    def judge(self, at_least: int) -> Iterator[str]:
        path = self.home / "ring.bin"
        if not path.exists():
            if at_least:
                yield "the file is missing"
            return
        counts = [_STAMP.unpack_from(path.read_bytes(), n * PAGE)[1] for n in range(self.pages)]
        if max(counts) < at_least:
            yield f"the last of {max(counts)} changes is in it, and {at_least} were made when the commit began"

    def progress(self) -> int:
        path = self.home / "ring.bin"
        if not path.exists():
            return 0
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as view:
            return max(_STAMP.unpack_from(view, n * PAGE)[1] for n in range(self.pages))


class Renames(Writer):
    """Fifty files that always exist, each under one name, and are moved between directories all the time."""

    name = "renames"
    files: Final = 50

    def begin(self) -> None:
        super().begin()
        self._rooms = [self.home / f"room{n}" for n in range(5)]
        for room in self._rooms:
            room.mkdir(exist_ok=True)
        there = {path.read_text(): path for room in self._rooms for path in sorted(room.iterdir())}
        for number in range(self.files):
            if f"file {number}" not in there:
                draft = self.home.parent / f".new-{number}"
                draft.write_text(f"file {number}")
                there[f"file {number}"] = draft.rename(self._rooms[0] / f"{number}.0")
        self._where = [there[f"file {number}"] for number in range(self.files)]
        self._count = 0
        (self.home / "all-there").touch()

    def step(self) -> None:
        number = self.dice.randrange(self.files)
        self._count += 1
        target = self.dice.choice(self._rooms) / f"{number}.{self.dice.randrange(4)}"
        self._where[number] = self._where[number].rename(target)

    def judge(self, at_least: int) -> Iterator[str]:
        if not at_least:
            return
        texts = [path.read_text() for path in self.home.glob("room*/*")]
        missing = [number for number in range(self.files) if f"file {number}" not in texts]
        if missing:
            yield f"files {missing} are missing, which always existed"
        elif len(texts) != self.files:
            yield f"{self.files} files existed, and it has {len(texts)}"

    def progress(self) -> int:
        return int((self.home / "all-there").exists())


class Replaced(Writer):
    """A configuration that is replaced whole: written beside, then renamed."""

    name = "replaced"

    def begin(self) -> None:
        super().begin()
        self._count = self.progress()

    def step(self) -> None:
        self._count += 1
        draft = self.home / "state.json.tmp"
        body = b"%d %s" % (self._count, b"y" * self.dice.randint(0, 100_000))
        draft.write_bytes(b"%08x %s" % (zlib.crc32(body), body))
        draft.rename(self.home / "state.json")

    def judge(self, at_least: int) -> Iterator[str]:
        path = self.home / "state.json"
        if not path.exists():
            if at_least:
                yield "the file is missing, which always existed"
            return
        digest, _, body = path.read_bytes().partition(b" ")
        if int(digest, 16) != zlib.crc32(body):
            yield "the file is half of one and half of another"
        elif int(body.partition(b" ")[0]) < at_least:
            yield f"version {body.partition(b' ')[0]!r}, and it was {at_least} when the commit began"

    def progress(self) -> int:
        path = self.home / "state.json"
        return int(path.read_bytes().split(b" ", 2)[1]) if path.exists() else 0


class Churn(Writer):
    """Sessions that come and go, each a small file whose content follows from its name."""

    name = "churn"

    def step(self) -> None:
        session = self.home / f"{self.dice.randrange(300):03}"
        if session.exists():
            (session / "messages.jsonl").unlink()
            session.rmdir()
        else:
            session.mkdir()
            (session / "messages.jsonl").write_bytes(self._text(session.name))

    def begin(self) -> None:
        super().begin()
        for session in self.home.iterdir():  # what the last process left half made
            (session / "messages.jsonl").write_bytes(self._text(session.name))

    def judge(self, at_least: int) -> Iterator[str]:
        for path in self.home.glob("*/messages.jsonl"):
            if not self._text(path.parent.name).startswith(path.read_bytes()):
                yield f"{path.parent.name} holds another session's text"

    @staticmethod
    def _text(name: str) -> bytes:
        return f"{name} {zlib.crc32(name.encode())}\n".encode() * (int(name) * 7)


class Dense(Writer):
    """A file of 12 MiB that does not compress, of which single pages are written in place."""

    name = "dense"
    pages: Final = 3072
    filling: ClassVar[bytes] = random.Random(1).randbytes(PAGE - _STAMP.size)

    def begin(self) -> None:
        super().begin()
        path = self.home / "model.bin"
        if not path.exists() or path.stat().st_size != self.pages * PAGE:
            draft = self.home / "model.new"
            draft.write_bytes(b"".join(_stamp(n, 0) + self.filling for n in range(self.pages)))
            draft.rename(path)
        self._file = os.open(path, os.O_RDWR)
        self._count = self.progress()

    def end(self) -> None:
        os.close(self._file)

    def step(self) -> None:
        self._count += 1
        page = self.dice.randrange(1, self.pages)
        for number in (page, 0):
            os.pwrite(self._file, _stamp(number, self._count), number * PAGE)

    def judge(self, at_least: int) -> Iterator[str]:
        path = self.home / "model.bin"
        if not path.exists():
            if at_least:
                yield "the file is missing"
            return
        data = path.read_bytes()
        if len(data) != self.pages * PAGE:
            yield f"it has {len(data)} bytes"
            return
        for page in range(self.pages):
            number, _, check = _STAMP.unpack_from(data, page * PAGE)
            if number != page:
                yield f"page {page} is page {number}, checksum {check}"
                return
        if _STAMP.unpack_from(data, 0)[1] < at_least:
            yield f"change {_STAMP.unpack_from(data, 0)[1]}, and it was {at_least} when the commit began"

    def progress(self) -> int:
        path = self.home / "model.bin"
        if not path.exists():
            return 0
        with path.open("rb") as file:
            return int(_STAMP.unpack(file.read(_STAMP.size))[1])


class Holes(Writer):
    """A file of 4 GiB with a few pages of data, written here and there."""

    name = "holes"
    size: Final = 4 * 1024**3

    def begin(self) -> None:
        super().begin()
        path = self.home / "sparse.img"
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(self._file, self.size)

    def end(self) -> None:
        os.close(self._file)

    def step(self) -> None:
        page = self.dice.randrange(64) * (self.size // PAGE // 64)
        os.pwrite(self._file, _stamped(page, 1), page * PAGE)

    def judge(self, at_least: int) -> Iterator[str]:
        path = self.home / "sparse.img"
        if not path.exists():
            return
        status = path.stat()
        if status.st_size not in (0, self.size):
            yield f"it has {status.st_size} bytes"
        if status.st_blocks * 512 > 8 * 1024**2:
            yield f"its holes take {status.st_blocks * 512} bytes"
        with path.open("rb") as file:
            for slot in range(64 if status.st_size else 0):
                page = slot * (self.size // PAGE // 64)
                found = os.pread(file.fileno(), _STAMP.size, page * PAGE)
                if found.strip(b"\0") and found != _stamp(page, 1):
                    yield f"page {page} holds {found[:16].hex()}"


def _stamp(number: int, count: int) -> bytes:
    return _STAMP.pack(number, count, zlib.crc32(b"%d %d" % (number, count)))


def _stamped(number: int, count: int) -> bytes:
    return _stamp(number, count).ljust(PAGE, b"\0")


WRITERS: Final[tuple[type[Writer], ...]] = (
    Append, WriteAhead, Rollback, Mapped, Renames, Replaced, Churn, Dense, Holes,
)  # fmt: skip


def main() -> None:
    """Write until killed, `PACE` seconds between two changes."""
    name, home, seed, pace = sys.argv[1:]
    [kind] = [kind for kind in WRITERS if kind.name == name]
    writer = kind(Path(home), random.Random(seed))
    writer.begin()
    print("ready", flush=True)
    while True:
        writer.step()
        time.sleep(float(pace))


if __name__ == "__main__":
    main()
