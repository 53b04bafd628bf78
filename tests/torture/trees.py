"""Trees as tenants leave them, made of dice: what a seed makes once it makes again, byte for byte."""

import hashlib
import os
import random
import sqlite3
import stat
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

Listing = Mapping[str, tuple[object, ...]]
"""Path → what a restore must bring back of it: type, mode, time, and size and digest, target, or nothing more."""

_NAMES = ("notes", "täglich", "with space", "new\nline", "-rf", "a\\b", "b\udcff", ".hidden", "x" * 200, "sessions")
_SIZES = (0, 1, 100, 4096, 65_535, 65_536, 65_537, 200_000, 700_000)
_LONG_AGO = 1_600_000_000_000_000_000
DATABASE = "memory.sqlite"


def grow(root: Path, dice: random.Random, files: int = 12) -> None:
    """Make files, directories and links below `root`, and a database that was left with its write-ahead log."""
    root.mkdir(exist_ok=True)
    directories = [root]
    for _ in range(files):
        path = dice.choice(directories) / f"{dice.randrange(10**9)}-{dice.choice(_NAMES)}"
        match dice.randrange(6):
            case 0 if len(path.parts) - len(root.parts) < 5:
                path.mkdir(mode=dice.choice((0o700, 0o755)))
                directories.append(path)
            case 1:
                path.symlink_to(dice.choice(("/etc/passwd", "../..", "nowhere", "notes")))
            case _:
                write(path, dice)
    rows(root / DATABASE, dice, 50)


def write(path: Path, dice: random.Random) -> None:
    """A file of a few sizes, half of them compressible, with a mode and a time of its own."""
    size = dice.choice(_SIZES)
    path.write_bytes(dice.randbytes(size) if dice.random() < 0.5 else (b"%d " % dice.randrange(99) * size)[:size])
    path.chmod(dice.choice((0o600, 0o644, 0o755, 0o400)))
    time = _LONG_AGO + dice.randrange(10**17)
    os.utime(path, ns=(time, time))


def rows(path: Path, dice: random.Random, count: int) -> None:
    """Insert rows into a database, as a program would that is killed before it closes it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA wal_autocheckpoint=0")
        database.execute("CREATE TABLE IF NOT EXISTS memory (words)")
        database.executemany("INSERT INTO memory VALUES (?)", [(dice.randbytes(40).hex(),) for _ in range(count)])


def change(root: Path, dice: random.Random) -> None:
    """What happens to a tree between two commits: files appear, grow, are replaced, renamed and removed."""
    for path in list(_files(root)):
        match dice.randrange(5):
            case 0:
                _append(path, dice)
            case 1:
                path.unlink()
            case 2:
                path.rename(path.with_name(f"{path.name[:100]}.{dice.randrange(10**6)}"))
    grow(root, dice, files=4)


def empty(root: Path, dice: random.Random) -> None:
    """Remove most files, but never the last one."""
    files = sorted(_files(root))
    for path in files[1:]:
        if dice.random() < 0.8:
            path.unlink()


def _files(root: Path) -> Iterator[Path]:
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink() and not path.name.startswith(DATABASE):
            yield path


def _append(path: Path, dice: random.Random) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    path.chmod(0o600)
    with path.open("ab") as file:
        file.write(dice.randbytes(dice.randrange(1, 90_000)))
    path.chmod(mode)


def listing(root: Path) -> Listing:
    """What is below `root`; of a database its rows, since a snapshot of it is another file of the same content."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(root.rglob("*")):
        name = os.fsencode(path.relative_to(root)).decode("latin-1")
        status = path.lstat()
        if path.name.startswith(DATABASE):
            if path.name == DATABASE:
                found[name] = ("database", *_words(path))
        elif path.is_symlink():
            found[name] = ("link", status.st_mtime_ns, os.readlink(path))
        elif path.is_dir():
            found[name] = ("directory", stat.S_IMODE(status.st_mode))
        else:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            found[name] = ("file", stat.S_IMODE(status.st_mode), status.st_mtime_ns, status.st_size, digest)
    return found


def _words(path: Path) -> tuple[object, ...]:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
        digest = hashlib.sha256()
        rows = database.execute("SELECT words FROM memory ORDER BY rowid").fetchall()
        for (words,) in rows:
            digest.update(words.encode())
        return len(rows), digest.hexdigest(), database.execute("PRAGMA integrity_check").fetchone()[0]
