"""Names that change during the walk of a running tenant's tree: a generation is what the tree was, never less."""

import os
import random
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from claw_runtime.objects.memory import MemoryStore
from claw_runtime.safefs.levels import TICK, Listing
from claw_runtime.safefs.tree import Cursor, Tree
from claw_runtime.state.commit.relisting import ROUNDS
from claw_runtime.state.repository import CommitRequest, CommitResult, Repository, UploadRight
from claw_runtime.state.rules.selection import EVERYTHING, Selection
from claw_runtime.state.sqlite import copy
from claw_runtime.tenancy import tenant_id
from fakes.clock import FakeClock

ALICE = tenant_id("alice")

At = Callable[[str, Callable[[], object]], None]


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(MemoryStore(), "here", FakeClock(), tmp_path / "scratch")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Three directories: `a` is listed before `m`, and `z` after it; the names of `m` are read in their order."""
    root = tmp_path / "tree"
    for name in ("a/f", "a/sub/x", "m/f", "m/p", "z/f"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


@pytest.fixture
def right(repository: Repository, tmp_path: Path) -> UploadRight:
    return repository.restorer.restore(repository.leases.acquire(ALICE), tmp_path / "staging")


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> At:
    """`at(path, act)`: once, when the walk is about to open this file."""
    acts: dict[str, Callable[[], object]] = {}
    real = Cursor.open

    def acting(self: Cursor, path: str) -> tuple[int, os.stat_result]:
        if act := acts.pop(path, None):
            act()
        return real(self, path)

    monkeypatch.setattr(Cursor, "open", acting)
    return acts.__setitem__


def commit(repository: Repository, right: UploadRight | None, tree: Path, **more: object) -> CommitResult:
    assert right is not None
    options: dict[str, object] = {"selection": EVERYTHING, "release": False, **more}
    request = CommitRequest(right=right, tree=tree, image_digest="", application="", **options)  # type: ignore[arg-type]
    return repository.committer.commit(request)


def stored(repository: Repository) -> dict[str, str]:
    """The files and links of the newest generation, with the content or target of each."""
    found = {}
    for entry in repository.generations.manifest(ALICE).entries:
        if entry.type == "f":
            found[entry.path] = b"".join(repository.generations.read(ALICE, entry.path)).decode()
        elif entry.type == "l":
            found[entry.path] = f"-> {entry.target}"
    return found


def present(tree: Path) -> dict[str, str]:
    """What `stored` gives for a generation that equals the tree."""
    found = {}
    for path in sorted(tree.rglob("*")):
        name = path.relative_to(tree).as_posix()
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_file():
            found[name] = path.read_text()
    return found


def restores(repository: Repository, target: Path) -> bool:
    """Whether the newest generation can be restored."""
    repository.restorer.extract(ALICE, target)
    return present(target) == stored(repository)


MOVES: dict[str, tuple[tuple[str, str], ...]] = {
    "into a directory that was listed": (("z/f", "a/from-z"),),
    "to an earlier name of the same directory": (("m/p", "m/b"),),
    "out of a directory that was listed": (("a/f", "z/from-a"),),
    "two files swap their names": (("a/f", "t"), ("z/f", "a/f"), ("t", "z/f")),
    "over a file that was read": (("z/f", "a/f"),),
    "a directory, while it is listed": (("m", "b"),),
    "a directory, into one that was listed": (("m", "a/m"),),
    "a directory that is still to come": (("z", "a/z"),),
    "a directory that was listed": (("a", "z/a"),),
    "directories swap their names": (("a", "t"), ("z", "a"), ("t", "z")),
    "what is in a directory, into one that takes its place": (
        ("a", "t"),
        ("t/f", "z/g"),
        ("z", "a"),
        ("t/sub", "a/sub"),
    ),
    "a directory takes the place of the one that is listed": (("m", "n"), ("z", "m")),
}


@pytest.mark.parametrize("moves", MOVES.values(), ids=MOVES)
def test_what_is_renamed_during_the_walk_is_stored_once(
    repository: Repository, right: UploadRight, tree: Path, tmp_path: Path, at: At, moves: tuple[tuple[str, str], ...]
) -> None:
    """The generation has the names of the moment when the tree had come to rest, each with its own content."""
    at("m/f", lambda: [(tree / old).rename(tree / new) for old, new in moves])

    result = commit(repository, right, tree)

    assert stored(repository) == present(tree)
    assert result.reported == ()
    assert restores(repository, tmp_path / "again")


@pytest.mark.parametrize("moves", MOVES.values(), ids=MOVES)
def test_the_generation_after_it_reads_the_same(
    repository: Repository, right: UploadRight, tree: Path, at: At, moves: tuple[tuple[str, str], ...]
) -> None:
    """Also where the cache knows the tree from before: what was renamed is not taken over under another name."""
    first = commit(repository, right, tree)
    (tree / "m/f").write_text("changed, so that it is read")
    at("m/f", lambda: [(tree / old).rename(tree / new) for old, new in moves])
    second = commit(repository, first.right, tree)
    assert stored(repository) == present(tree)

    third = commit(repository, second.right, tree)

    assert stored(repository) == present(tree)
    assert third.created is False


def test_a_link_in_the_place_of_a_directory(repository: Repository, right: UploadRight, tree: Path, at: At) -> None:
    """The directory is stored under its new name, and the link as a link."""

    def replace() -> None:
        (tree / "m").rename(tree / "b")
        (tree / "m").symlink_to("b")

    at("m/f", replace)
    commit(repository, right, tree)

    assert stored(repository) == {
        "a/f": "a/f",
        "a/sub/x": "a/sub/x",
        "b/f": "m/f",
        "b/p": "m/p",
        "m": "-> b",
        "z/f": "z/f",
    }


def test_a_file_that_is_replaced_before_it_is_opened_has_its_own_time(
    repository: Repository, right: UploadRight, tree: Path, at: At
) -> None:
    """Mode, time and content are those of one file: of the one that was opened."""

    def replace() -> None:
        (tree / "new").write_text("other")
        (tree / "new").chmod(0o640)
        os.utime(tree / "new", ns=(5, 5))
        (tree / "new").rename(tree / "m/f")

    at("m/f", replace)
    commit(repository, right, tree)

    entry = repository.generations.manifest(ALICE).find("m/f")
    assert entry is not None
    assert (entry.mode, entry.mtime_ns, stored(repository)["m/f"]) == (0o640, 5, "other")
    assert stored(repository) == present(tree)


def test_a_file_that_is_deleted_during_the_walk_is_no_loss(
    repository: Repository, right: UploadRight, tree: Path, at: At
) -> None:
    """Whether it was read before or not; nothing is reported, since nothing of the tree is missing."""
    first = commit(repository, right, tree)
    (tree / "m/f").write_text("changed")
    at("m/f", lambda: [(tree / name).unlink() for name in ("a/f", "m/f", "z/f")])

    second = commit(repository, first.right, tree)

    assert stored(repository) == {"a/sub/x": "a/sub/x", "m/p": "m/p"}
    assert second.reported == ()


def test_both_names_of_a_file_are_stored(repository: Repository, right: UploadRight, tree: Path, at: At) -> None:
    """A hard link that is made, or renamed, during the walk."""
    os.link(tree / "z/f", tree / "z/link")

    def link() -> None:
        (tree / "z/link").rename(tree / "a/link")
        os.link(tree / "m/p", tree / "a/p")

    at("m/f", link)
    commit(repository, right, tree)

    assert stored(repository) == present(tree)


def test_what_is_excluded_stays_excluded(repository: Repository, right: UploadRight, tree: Path, at: At) -> None:
    """A file that moves into an excluded directory is gone from the generation, and one that leaves it is in it."""
    (tree / "tmp").mkdir()
    (tree / "tmp/x").write_text("x")

    def move() -> None:
        (tree / "a/f").rename(tree / "tmp/f")
        (tree / "tmp/x").rename(tree / "a/x")

    at("m/f", move)
    commit(repository, right, tree, selection=Selection.everything(["/tmp/"]))

    assert stored(repository) == {"a/sub/x": "a/sub/x", "a/x": "x", "m/f": "m/f", "m/p": "m/p", "z/f": "z/f"}


# --- databases ---


@pytest.fixture
def live(tree: Path) -> Iterator[sqlite3.Connection]:
    """A program's own connection to `m/x.db`: what it commits stays in the -wal."""
    connection = sqlite3.connect(tree / "m/x.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA wal_autocheckpoint=0")
    connection.execute("CREATE TABLE facts (number)")
    connection.executemany("INSERT INTO facts VALUES (?)", [(number,) for number in range(3)])
    yield connection
    connection.close()


def facts(repository: Repository, name: str, tmp_path: Path) -> int:
    repository.restorer.extract(ALICE, tmp_path / "there")
    with closing(sqlite3.connect(tmp_path / "there" / name)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return int(connection.execute("SELECT count(*) FROM facts").fetchone()[0])


def once(monkeypatch: pytest.MonkeyPatch, before: Callable[[], object], after: Callable[[], object]) -> None:
    """Act before and after the first copy of a database."""
    real, done = copy.copy, list[str]()

    def acting(cursor: Cursor, path: str, scratch: Path) -> copy.DatabaseCopy:
        first = not done
        done.append(path)
        if first:
            before()
        try:
            return real(cursor, path, scratch)
        finally:
            if first:
                after()

    monkeypatch.setattr(copy, "copy", acting)


def nothing() -> None:
    """Between the two moments of `once`, one is enough."""


@pytest.mark.spawns
@pytest.mark.usefixtures("live")
@pytest.mark.parametrize("when", ["before the copy", "after it"])
def test_a_database_that_is_renamed_is_stored_under_its_new_name(
    repository: Repository,
    right: UploadRight,
    tree: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    when: str,
) -> None:
    """With all that its -wal held, and nothing under the old name."""

    def rename() -> None:
        for suffix in ("", "-wal", "-shm"):
            (tree / f"m/x.db{suffix}").rename(tree / f"a/y.db{suffix}")

    once(monkeypatch, *((rename, nothing) if when == "before the copy" else (nothing, rename)))
    result = commit(repository, right, tree)

    files = [entry.path for entry in repository.generations.manifest(ALICE).entries if entry.type == "f"]
    assert files == ["a/f", "a/sub/x", "a/y.db", "m/f", "m/p", "z/f"]
    assert facts(repository, "a/y.db", tmp_path) == 3
    assert result.reported == ()


@pytest.mark.spawns
@pytest.mark.usefixtures("live")
def test_a_database_and_its_wal_that_are_renamed_apart_are_of_one_moment(
    repository: Repository, right: UploadRight, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The -wal follows its database after that was copied: the database is copied again with it."""
    (tree / "m/x.db").rename(tree / "m/y.db")
    once(monkeypatch, nothing, lambda: (tree / "m/x.db-wal").rename(tree / "m/y.db-wal"))

    commit(repository, right, tree)

    assert facts(repository, "m/y.db", tmp_path) == 3


@pytest.mark.spawns
def test_journals_that_come_and_go_are_no_unrest(
    repository: Repository, right: UploadRight, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy database changes the names in its directory with each transaction: that is listed a few times, no more."""
    with closing(sqlite3.connect(tree / "m/x.db")) as connection, connection:
        connection.execute("CREATE TABLE facts (number)")
    real, listed, journal = Tree.scan, list[str](), tree / "m/x.db-journal"

    def scan(self: Tree, *args: object, below: str = "", **more: object) -> object:
        listed.append(below)
        return real(self, *args, below=below, **more)  # type: ignore[arg-type]

    def changed(_tree: Tree, _listings: object) -> Iterator[tuple[str, os.stat_result]]:
        journal.unlink() if journal.exists() else journal.touch()
        yield "m", (tree / "m").lstat()

    monkeypatch.setattr(Tree, "scan", scan)
    monkeypatch.setattr(Tree, "changed", changed)
    result = commit(repository, right, tree)

    assert len(listed) < ROUNDS
    assert result.reported == ()
    assert [entry.path for entry in repository.generations.manifest(ALICE).entries if "x.db" in entry.path] == [
        "m/x.db"
    ]


# --- trees that do not come to rest ---


class Hiding:
    """A program that has its file in the other directory whenever `a` or `z` is listed, while it is `on`."""

    def __init__(self, tree: Path) -> None:
        self.on, self._in_a, self._in_z = False, tree / "a/moving", tree / "z/f"

    def entered(self, directory: str) -> None:
        here, there = (self._in_a, self._in_z) if directory == "a" else (self._in_z, self._in_a)
        if self.on and directory in ("a", "z") and here.exists():
            here.rename(there)


@pytest.fixture
def hiding(tree: Path, monkeypatch: pytest.MonkeyPatch) -> Hiding:
    program, real = Hiding(tree), Tree.scan

    def scan(self: Tree, *args: object, below: str = "", **more: object) -> Iterator[object]:
        program.entered(below)
        for path, status in real(self, *args, below=below, **more):  # type: ignore[arg-type]
            yield path, status
            program.entered(path)

    monkeypatch.setattr(Tree, "scan", scan)
    return program


def test_a_file_that_no_listing_shows_is_kept_once(
    repository: Repository, right: UploadRight, tree: Path, hiding: Hiding
) -> None:
    """It is reported, since it may as well be deleted; when the tree has come to rest, the generation equals it."""
    first = commit(repository, right, tree)
    hiding.on = True
    second = commit(repository, first.right, tree)
    assert stored(repository) == {"a/f": "a/f", "a/sub/x": "a/sub/x", "m/f": "m/f", "m/p": "m/p", "z/f": "z/f"}
    assert [item.path for item in second.reported] == ["z/f"]

    third = commit(repository, second.right, tree)
    assert "z/f" not in stored(repository)

    hiding.on = False
    commit(repository, third.right, tree)
    assert stored(repository) == present(tree)


def test_deletions_reach_a_tree_that_never_rests(
    repository: Repository, right: UploadRight, tree: Path, hiding: Hiding
) -> None:
    """With the generation after the next at the latest: what is not seen is not kept for ever."""
    for number in range(3):
        (tree / f"m/{number}").write_text("old")
    result = commit(repository, right, tree)
    hiding.on = True
    for number in range(3):
        (tree / f"m/{number}").unlink()
        result = commit(repository, result.right, tree)
    commit(repository, result.right, tree)

    assert not {"m/0", "m/1", "m/2"} & stored(repository).keys()


def test_a_file_that_was_seen_is_stored_where_it_was_seen_last(
    repository: Repository, right: UploadRight, tree: Path, hiding: Hiding, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new file that each later listing misses: no parent has it, and it is not lost."""
    monkeypatch.setattr("claw_runtime.state.commit.relisting.ROUNDS", 3)
    real, rounds = Tree.changed, list[int]()

    def changed(self: Tree, listings: dict[str, Listing]) -> object:
        rounds.append(1)
        hiding.on = True
        hiding.entered("a" if len(rounds) % 2 else "z")
        return real(self, listings)

    monkeypatch.setattr(Tree, "changed", changed)
    result = commit(repository, right, tree)

    assert stored(repository) == {"a/f": "a/f", "a/sub/x": "a/sub/x", "m/f": "m/f", "m/p": "m/p", "z/f": "z/f"}
    assert result.reported == ()


def test_a_release_looks_once(
    repository: Repository, right: UploadRight, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing writes to the tree any more: its directories are not looked at again."""
    monkeypatch.setattr(Tree, "changed", None)

    commit(repository, right, tree, release=True)

    assert stored(repository) == present(tree)


def test_a_directory_that_had_just_changed_is_listed_again(tmp_path: Path) -> None:
    """A later change may have the same time: only a listing that began a while after the last change is believed."""
    status = tmp_path.stat()
    changed = status.st_ctime_ns

    def holds(began_ns: int) -> bool:
        return Listing(status.st_ino, status.st_mtime_ns, changed, began_ns).holds(status)

    assert [holds(changed + age) for age in (0, TICK - 1, TICK, 10 * TICK)] == [False, False, True, True]
    assert holds(changed - 10 * TICK), "a clock that was set back gives later changes an earlier time, not the same"


@pytest.mark.parametrize("seed", range(3))
def test_a_storm_of_renames_loses_nothing(
    repository: Repository, right: UploadRight, tree: Path, tmp_path: Path, seed: int
) -> None:
    """Every file that always exists is in each generation exactly once, with its own content; directories move too."""
    dice, files, ended = random.Random(seed), 30, threading.Event()
    where = [tree / "a" / f"{number}.0" for number in range(files)]
    for number, path in enumerate(where):
        path.write_text(str(number))
    folders = [tree / top / f"folder-{top}" for top in "amz"]
    for number, folder in enumerate(folders, start=files):
        folder.mkdir()
        (folder / f"{number}.0").write_text(str(number))

    def rename() -> None:
        while not ended.is_set():
            if not dice.randrange(4):
                number = dice.randrange(3)
                folders[number] = folders[number].rename(tree / dice.choice("amz") / folders[number].name)
            number = dice.randrange(files)
            target = tree / dice.choice("amz") / f"{number}.{dice.randrange(3)}"
            where[number] = where[number].rename(target)
            time.sleep(dice.choice((0, 0, 0.001)))

    program = threading.Thread(target=rename)
    program.start()
    try:
        result, until = commit(repository, right, tree), time.monotonic() + 0.5
        while time.monotonic() < until:
            found = {path: text for path, text in stored(repository).items() if not path.endswith(("f", "p", "x"))}
            assert Counter(found.values()) == Counter(map(str, range(files + len(folders))))
            assert all(Path(path).stem == text for path, text in found.items())
            result = commit(repository, result.right, tree)
    finally:
        ended.set()
        program.join()

    commit(repository, result.right, tree)
    assert stored(repository) == present(tree)
    assert restores(repository, tmp_path / "again")
