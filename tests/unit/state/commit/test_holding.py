"""Files that change each time they are read: told once, then stored from a copy made while their program is held."""

import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from claw_runtime.objects.memory import MemoryStore
from claw_runtime.spec.parts import SyncLimits
from claw_runtime.state.commit import holding
from claw_runtime.state.commit.holding import clone
from claw_runtime.state.commit.request import CommitRequest, CommitResult
from claw_runtime.state.repository import Repository
from claw_runtime.state.rules.selection import EVERYTHING
from claw_runtime.state.sqlite import backup, copy
from claw_runtime.tenancy import tenant_id
from fakes.clock import FakeClock

ALICE = tenant_id("alice")
SIZE = 3 * 64 * 1024


class Clock(FakeClock):
    """A clock at which programs get their turn: it is asked between two pieces of every read."""

    def __init__(self) -> None:
        super().__init__()
        self.turn: Callable[[], None] = lambda: None

    def monotonic(self) -> float:
        self.turn()
        return self.seconds

    @property
    def seconds(self) -> float:
        """The time, for a test: no program gets a turn."""
        return super().monotonic()


class World:
    """A tree with a program that writes to `model` whenever it has a turn, and commits that may hold it.

    Attributes:
        files: What the program changes at each turn.
        holds: How often it was held.
        able: Whether it can be held.
        honest: Whether a held program writes no more.
        lasts: Seconds that pass between two pieces that are read in a hold.
        begin: Called when a hold begins.
    """

    def __init__(self, top: Path) -> None:
        self.clock = Clock()
        self.clock.turn = self.run
        self.repository = Repository(MemoryStore(), "here", self.clock, top / "scratch")
        self.top, self.tree = top, top / "tree"
        self.tree.mkdir()
        self.right = self.repository.restorer.restore(self.repository.leases.acquire(ALICE), top / "staging")
        self.files = ["model"]
        self.holds, self.held, self.able, self.honest, self.lasts = 0, False, True, True, 0.0
        self.count = 0
        self.begin: Callable[[], None] = lambda: None

    def run(self) -> None:
        """The program's turn: each of its files gets its next number, at both ends."""
        if self.held:
            self.clock.advance(self.lasts)
        if self.held and self.honest:
            return
        self.count += 1
        for name in self.files:
            self.write(name)

    def write(self, name: str) -> None:
        path = self.tree / name
        stamp = b"%08d" % self.count
        if not path.exists():
            path.write_bytes(bytes(SIZE))
        with path.open("r+b") as file:
            file.write(stamp)
            file.seek(path.stat().st_size - len(stamp))
            file.write(stamp)
        os.utime(path, ns=(self.count, self.count * 10**9))

    @contextmanager
    def hold(self) -> Iterator[bool]:
        self.holds += 1
        self.begin()
        self.held = self.able
        try:
            yield self.able
        finally:
            self.held = False

    def commit(self, *, can_hold: bool = True) -> CommitResult:
        """An interval commit."""
        done = self.repository.committer.commit(
            CommitRequest(
                right=self.right,
                tree=self.tree,
                selection=EVERYTHING,
                image_digest="",
                application="",
                release=False,
                limits=SyncLimits(time=10**9),
                hold=self.hold if can_hold else None,
            )
        )
        assert done.right is not None
        self.right = done.right
        assert list((self.top / "scratch").iterdir()) == []
        return done

    def stored(self, name: str = "model", generation: int | None = None) -> tuple[int, int]:
        """The numbers at both ends of a file in a generation."""
        target = Path(tempfile.mkdtemp(dir=self.top))
        self.repository.restorer.extract(ALICE, target, generation)
        data = (target / name).read_bytes()
        return int(data[:8]), int(data[-8:])


@pytest.fixture(autouse=True)
def _no_clones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies are made byte by byte, also on a file system that clones."""
    monkeypatch.setattr(holding, "clone", lambda *_: False)


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.write("model")
    world.files = []
    world.commit()
    world.files = ["model"]
    return world


def reported(done: CommitResult) -> list[str]:
    return [one.path for one in done.reported]


def test_a_file_that_never_rests_is_stored_by_the_second_commit(world: World) -> None:
    """The first one tells that it is left out; the next one holds its program, and has both ends of one moment."""
    assert reported(world.commit()) == ["model"]
    assert world.holds == 0

    before = world.count
    done = world.commit()

    assert (reported(done), world.holds) == ([], 1)
    first, last = world.stored()
    assert before <= first == last <= world.count


def test_the_program_is_not_held_at_each_commit(world: World) -> None:
    """Each hold has a commit before it that did without."""
    for _ in range(6):
        world.commit()

    assert world.holds == 3


def test_a_program_is_not_held_for_a_file_that_rests(world: World) -> None:
    """A file that changed all the time, and does so no more, is read as any other."""
    assert reported(world.commit()) == ["model"]
    world.files = []
    old = 10**9
    os.utime(world.tree / "model", ns=(old, old))

    assert reported(world.commit()) == []
    assert world.stored() == (world.stored()[0],) * 2


def test_nothing_is_held_without_need(world: World) -> None:
    """Commits of a tree in which nothing moves hold nobody."""
    world.files = []
    (world.tree / "other").write_text("x")
    for number in range(4):
        (world.tree / "other").write_text(str(number))
        assert reported(world.commit()) == []

    assert world.holds == 0


def test_without_a_hold_it_is_told_as_before(world: World) -> None:
    """A tenant that cannot be held keeps the version from before, and each commit says so."""
    for _ in range(4):
        done = world.commit(can_hold=False)
        assert reported(done) == ["model"]
        assert "the parent generation's version is kept" in done.reported[0].reason


def test_what_is_in_no_generation_yet_gets_into_one(tmp_path: Path) -> None:
    """A file that moves from its beginning is left out once."""
    world = World(tmp_path)
    world.write("model")
    first = world.commit()
    assert ("left out" in first.reported[0].reason, reported(first)) == (True, ["model"])

    assert reported(world.commit()) == []
    assert len(set(world.stored())) == 1


def test_a_large_file_that_does_not_compress_gets_through(world: World) -> None:
    """It is an object of its own until it moves; then it is chunks, and only those that changed are sent again."""
    big = world.tree / "big"
    big.write_bytes(os.urandom(9 * 1024 * 1024))
    world.files = []
    world.commit()
    world.files = ["big"]
    assert reported(world.commit()) == ["big"]

    done = world.commit()

    assert reported(done) == []
    assert len(set(world.stored("big"))) == 1
    world.commit()
    assert world.commit().uploaded_bytes < 1024 * 1024


def test_a_hold_that_is_refused_is_not_tried_again_at_once(world: World) -> None:
    """The file is read as it is, and told; ten minutes later the hold is tried again."""
    world.able = False
    for _ in range(4):
        assert reported(world.commit()) == ["model"]
    assert world.holds == 1

    world.able = True
    world.clock.advance(holding.LATER + 1)
    assert reported(world.commit()) == []
    assert world.holds == 2


def test_a_hold_ends_when_its_time_is_over(world: World) -> None:
    """A file that does not fit is reported and tried again ten minutes later; smaller files, which fit, are stored."""
    (world.tree / "large").write_bytes(bytes(20 * 1024 * 1024))
    world.files = ["model", "large"]
    world.lasts = holding.MOST_SECONDS / 10
    assert reported(world.commit()) == ["large", "model"]

    assert reported(world.commit()) == ["large"]
    assert len(set(world.stored("model"))) == 1

    world.clock.advance(holding.LATER - 1)
    world.files = ["large"]
    world.commit()
    assert world.holds == 1
    world.clock.advance(2)
    world.lasts = 0.0
    assert reported(world.commit()) == []


def test_a_program_is_held_for_a_small_part_of_the_time(world: World) -> None:
    """After a long hold the next one comes late."""
    world.lasts = 0.1
    world.commit()
    began = world.clock.seconds
    world.commit()
    lasted = world.clock.seconds - began
    assert (world.holds, lasted > 0) == (1, True)

    while world.clock.seconds - began < lasted * holding.SHARE:
        assert world.holds == 1
        world.commit()
        world.clock.advance(0.5)
    world.commit()
    world.commit()
    assert world.holds == 2


def test_what_is_too_large_holds_nobody(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that a hold cannot copy is known before: its program never stops for it."""
    monkeypatch.setattr(holding, "MOST_BYTES", SIZE - 1)
    for _ in range(3):
        assert reported(world.commit()) == ["model"]

    assert world.holds == 0


def test_what_the_file_system_can_clone_may_be_of_any_size(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither its bytes nor the time to copy them count: the clone shares the file's blocks."""
    clones = list[bool]()

    def copied(source: int, target: int) -> bool:
        clones.append(world.held)
        size = os.fstat(source).st_size
        return os.pwrite(target, os.pread(source, size, 0), 0) == size

    monkeypatch.setattr(holding, "clone", copied)
    monkeypatch.setattr(holding, "MOST_BYTES", 0)
    world.commit()

    assert reported(world.commit()) == []
    assert len(set(world.stored())) == 1
    assert clones == [False, True]


def test_what_is_cloned_shares_its_blocks(tmp_path: Path) -> None:
    """A clone has the bytes of the moment, and keeps them; a file system that cannot clone says so."""
    with (tmp_path / "source").open("w+b") as source, (tmp_path / "target").open("w+b") as target:
        source.write(b"before")
        source.flush()
        cloned = clone(source.fileno(), target.fileno())
        source.seek(0)
        source.write(b"after ")
        source.flush()
        assert target.read() == (b"before" if cloned else b"")


def test_a_hold_that_does_not_hold_mixes_nothing(world: World) -> None:
    """If something writes all the same, the version from before is kept, and told."""
    world.honest = False
    world.commit()

    assert reported(world.commit()) == ["model"]
    assert len(set(world.stored())) == 1


def test_mode_time_attributes_and_holes_are_those_of_the_file(world: World) -> None:
    """A copy that was made in a hold is stored as the file that it was made of."""
    path = world.tree / "model"
    path.unlink()
    with path.open("xb") as file:
        file.truncate(64 * 1024 * 1024)
    path.chmod(0o640)
    os.setxattr(path, "user.origin", b"here")
    world.commit()

    assert reported(world.commit()) == []
    [entry] = [one for one in world.repository.generations.manifest(ALICE).entries if one.path == "model"]
    assert (entry.mode, entry.size, entry.xattrs) == (0o640, 64 * 1024 * 1024, (("user.origin", b"here"),))
    assert any(extent.hole for extent in entry.extents)
    assert entry.mtime_ns % 10**9 == 0
    assert world.commit().reported[0].path == "model"


def test_what_went_before_the_hold_is_gone(world: World) -> None:
    """A file that is removed, or became a directory, between two commits is no longer asked for."""
    for name in ("second", "third"):
        (world.tree / name).write_bytes(bytes(SIZE))
    world.files = ["model", "second"]
    assert reported(world.commit()) == ["model", "second"]
    world.files = []
    (world.tree / "model").unlink()
    (world.tree / "second").unlink()
    (world.tree / "second").mkdir()

    world.commit()

    entries = {one.path: one.type for one in world.repository.generations.manifest(ALICE).entries if one.path}
    assert (entries, world.holds) == ({"second": "d", "third": "f"}, 0)


def test_what_goes_right_before_the_hold_is_gone(world: World) -> None:
    """A file that is removed after the names were listed is in the generation no more, as the tree lacks it."""
    (world.tree / "other").write_text("x")
    world.commit()

    def remove() -> None:
        world.files = []
        (world.tree / "model").unlink()

    world.begin = remove
    world.commit()

    entries = [one.path for one in world.repository.generations.manifest(ALICE).entries if one.type == "f"]
    assert (entries, world.holds) == (["other"], 1)


def test_a_release_holds_nobody(world: World) -> None:
    """The program has ended by then."""
    world.commit()
    world.files = []
    request = CommitRequest(
        right=world.right, tree=world.tree, selection=EVERYTHING, image_digest="", application="", release=True
    )

    assert world.repository.committer.commit(request).reported == ()
    assert (world.holds, len(set(world.stored()))) == (0, 1)


class TestDatabases:
    @pytest.fixture
    def moving(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[World, sqlite3.Connection]]:
        """A database that changes each time it is copied, unless its program is held; it has three facts."""
        world = World(tmp_path)
        world.files = []
        real = copy.read

        def read(*arguments: object, **options: object) -> object:
            if not world.held:
                raise copy.Unstable
            return real(*arguments, **options)  # type: ignore[arg-type]

        with closing(sqlite3.connect(world.tree / "app.db", isolation_level=None)) as live:
            live.execute("PRAGMA journal_mode=WAL")
            live.execute("CREATE TABLE facts (number)")
            live.executemany("INSERT INTO facts VALUES (?)", [(1,), (2,), (3,)])
            world.commit()
            monkeypatch.setattr(copy, "read", read)
            yield world, live

    def facts(self, world: World, name: str = "app.db") -> int:
        target = Path(tempfile.mkdtemp(dir=world.top))
        world.repository.restorer.extract(ALICE, target)
        with closing(sqlite3.connect(target / name)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            return int(connection.execute("SELECT count(*) FROM facts").fetchone()[0])

    @pytest.mark.spawns
    @pytest.mark.parametrize("refused", [False, True])
    def test_a_database_that_never_rests_gets_through(
        self, moving: tuple[World, sqlite3.Connection], monkeypatch: pytest.MonkeyPatch, *, refused: bool
    ) -> None:
        """All of it of one moment; with its sidecars, and told, if SQLite here cannot read it."""
        world, live = moving
        if refused:
            monkeypatch.setattr(backup, "snapshot", _refused)
        live.execute("INSERT INTO facts VALUES (4)")
        assert "the parent generation's version is kept" in world.commit().reported[0].reason
        assert self.facts(world) == 3

        done = world.commit()

        assert (world.holds, self.facts(world)) == (1, 4)
        kinds = {e.path: e.kind for e in world.repository.generations.manifest(ALICE).entries if e.type == "f"}
        if refused:
            assert "stored as a plain file with its sidecars" in done.reported[0].reason
            assert kinds == {"app.db": "plain", "app.db-wal": "plain"}
        else:
            assert (reported(done), kinds) == ([], {"app.db": "sqlite"})

        live.execute("INSERT INTO facts VALUES (5)")
        assert reported(world.commit()) == ["app.db"]
        assert self.facts(world) == 4
        world.commit()
        assert self.facts(world) == 5

    @pytest.mark.spawns
    def test_another_name_of_it_has_the_same_content(self, moving: tuple[World, sqlite3.Connection]) -> None:
        """A hard link to a database is the same database, of the same moment."""
        world, live = moving
        (world.tree / "link.db").hardlink_to(world.tree / "app.db")
        live.execute("INSERT INTO facts VALUES (4)")
        world.commit()

        assert reported(world.commit()) == []
        assert (self.facts(world), self.facts(world, "link.db")) == (4, 4)


def _refused(*_: object, **__: object) -> Path:
    raise backup.NoSnapshot("no such collation sequence: OWN")
