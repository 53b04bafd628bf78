"""A state that stays small stays cheap: few packs, little that is dead in them, and little that is sent for it."""

import os
import random
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from claw_runtime.formats.manifest import Extent, Manifest, PackRef
from claw_runtime.objects.memory import MemoryStore
from claw_runtime.safefs.tree import Cursor
from claw_runtime.spec.parts import Retention
from claw_runtime.state.commit import compaction
from claw_runtime.state.commit.compaction import (
    CLOSED,
    FEW,
    MOST,
    MOST_IN_ALL,
    MOVED,
    NEW,
    QUARTER,
    SLACK,
    WORTH,
    Packing,
    packing_at,
    retired,
    spare_after,
)
from claw_runtime.state.commit.pack_upload import FULL, WEIGHT
from claw_runtime.state.repository import CommitRequest, CommitResult, Repository, UploadRight
from claw_runtime.state.rules.selection import COPIED, EVERYTHING, Rule, Selection
from claw_runtime.state.sqlite.backup import NoSnapshot
from claw_runtime.tenancy import tenant_id
from fakes.clock import FakeClock

ALICE = tenant_id("alice")
MIB = 1024 * 1024


def pack(number: int, size: int) -> PackRef:
    return PackRef(sha256=f"{number:064x}", size=size)


def frame(number: int, stored: int, raw: int | None = None) -> Extent:
    return Extent(pack=f"{number:064x}", offset=0, stored=stored, raw=raw or stored)


def aged(settled: set[str]) -> Packing:
    return Packing(settled=frozenset(settled))


def generation(created: str) -> Manifest:
    return Manifest(
        tenant=ALICE,
        generation=1,
        parent=None,
        created=created,
        image="",
        application="",
        entries=(),
        packs=(pack(1, 1), pack(2, 1)),
    )


def chosen(found: frozenset[str]) -> set[int]:
    return {int(sha256, 16) for sha256 in found}


class TestRules:
    """Which packs are retired."""

    def test_a_state_of_few_live_packs_is_left_alone(self) -> None:
        """One commit fewer than too many, and as many dead bytes as live ones."""
        live = [frame(number, 1000) for number in range(MOST - 1)]
        assert not retired(live, [pack(number, 2000) for number in range(MOST - 1)])

    def test_the_pack_with_the_least_left_goes_first(self) -> None:
        """And only as many as it takes: fewer where an earlier generation keeps the packs in any case."""
        packs = [pack(number, 4 * MIB) for number in range(5)]
        live = [frame(number, number * 3 * MIB // 4, FULL) for number in range(5)]  # 7.5 of 20 MiB
        assert chosen(retired(live, packs)) == {0, 1, 2}
        assert chosen(retired(live, packs, packing=aged({one.sha256 for one in packs}))) == {0, 1}

    def test_what_a_kept_generation_names_is_not_stored_twice(self) -> None:
        """Moving frames out of settled packs frees nothing, so they stay; young ones beside them are replaced."""
        packs = [pack(number, 4 * MIB) for number in range(4)]
        live = [frame(number, 5 * MIB // 2, FULL) for number in range(4)]  # 10 of 16 MiB
        old = {packs[number].sha256 for number in range(2)}
        assert chosen(retired(live, packs, packing=aged(old))) <= {2, 3}
        assert retired(live, packs, packing=aged(old))
        assert not retired(live, packs, packing=aged({one.sha256 for one in packs}))

    def test_small_settled_packs_wait_longer(self) -> None:
        """Until packs of any age are too many; young ones become one before."""
        many = range(MOST_IN_ALL)
        live, packs = [frame(number, 1000) for number in many], [pack(number, 1000) for number in many]
        old = {one.sha256 for one in packs[: MOST_IN_ALL - MOST]}
        assert chosen(retired(live, packs, packing=aged(old))) == set(range(MOST_IN_ALL - MOST, MOST_IN_ALL))
        old = {one.sha256 for one in packs}
        assert not retired(live[1:], packs[1:], packing=aged(old))
        assert chosen(retired(live, packs, packing=aged(old))) == set(many)

    def test_one_commit_moves_only_so_much(self) -> None:
        """A large state that is mostly dead takes several commits, so that none takes minutes."""
        many = range(100)
        found = retired([frame(n, MIB, FULL) for n in many], [pack(n, 16 * MIB) for n in many])
        assert len(found) == MOVED // FULL

    def test_a_few_dead_bytes_are_never_worth_it(self) -> None:
        """A state of a few KB need not be packed at all."""
        assert not retired([frame(1, 10)], [pack(1, SLACK)])
        assert retired([frame(1, 10)], [pack(1, SLACK + 100)])

    def test_too_many_packs_of_one_size_become_one(self) -> None:
        """A larger one stays: moving it would cost more than it gains."""
        live = [frame(0, MIB), *(frame(number, 1000) for number in range(1, MOST))]
        found = retired(live, [pack(0, MIB), *(pack(number, 1000) for number in range(1, MOST))])
        assert chosen(found) == set(range(1, MOST))

    def test_few_packs_become_one_where_that_costs_little(self) -> None:
        """After commits that have sent much, packs that hold little are merged long before there are too many."""
        live = [frame(number, 1000) for number in range(FEW)]
        packs = [pack(number, 20_000) for number in range(FEW)]
        cost = (1000 + WEIGHT) * FEW  # a frame that moves costs a row of the manifest, too
        assert chosen(retired(live, packs, packing=Packing(spare=cost))) == set(range(FEW))
        assert not retired(live, packs, packing=Packing(spare=cost - 1))
        assert not retired(live[1:], packs[1:], packing=Packing(spare=MIB))

    def test_a_release_leaves_as_few_packs_as_two_mebibytes_buy(self) -> None:
        """Claims restore what releases stored. The largest stays, and few packs are few enough."""
        sizes = [20_000 * (number + 1) for number in range(WORTH + 1)]
        live, packs = list(map(frame, range(WORTH + 1), sizes)), list(map(pack, range(WORTH + 1), sizes))
        assert chosen(retired(live, packs, release=True)) == set(range(WORTH))
        assert not retired(live[:WORTH], packs[:WORTH], release=True)
        size = 2 * MIB // 3
        live, packs = [frame(n, size) for n in range(WORTH + 1)], [pack(n, size) for n in range(WORTH + 1)]
        assert not retired(live, packs, release=True)
        assert not retired(live, packs)

    def test_what_is_spare_is_a_share_of_what_is_new(self) -> None:
        """What was stored again is taken off, never below nothing, and no large upload pays for days of commits."""
        assert spare_after(0, 1000, 0) == 250
        assert spare_after(500, 1000, 400) == 250
        assert spare_after(0, 1000, 900) == 0
        assert spare_after(0, 100 * MIB, 0) == FULL

    def test_packs_that_are_full_enough_are_not_counted(self) -> None:
        """A large state has many packs, and merging them would gain nothing."""
        many = range(5 * MOST)
        assert not retired([frame(number, QUARTER) for number in many], [pack(number, QUARTER) for number in many])

    def test_a_pack_that_cannot_be_replaced_stays(self) -> None:
        """However little of it is left."""
        assert not retired([frame(1, 10)], [pack(1, FULL)], {f"{1:064x}"})

    def test_young_packs_are_made_dense_before_they_settle(self) -> None:
        """In the last commit of an hour: those with dead bytes, and small ones; dense ones, old ones and much stay."""
        live = [frame(0, MIB, QUARTER), frame(1, MIB, QUARTER), frame(2, 2 * MIB), frame(3, 1000), frame(4, 1000)]
        packs = [pack(0, 2 * MIB), pack(1, 2 * MIB), pack(2, 2 * MIB), pack(3, 1000), pack(4, 1000)]
        old = frozenset({packs[0].sha256})
        assert not retired(live, packs, packing=Packing(settled=old))
        assert chosen(retired(live, packs, packing=Packing(settled=old, closing=True))) == {1, 3, 4}
        dense = [packs[2], packs[3]]
        assert not retired(live[2:4], dense, packing=Packing(closing=True))
        many = range(2 * CLOSED // FULL)
        live, packs = [frame(n, 3 * MIB, FULL) for n in many], [pack(n, 4 * MIB) for n in many]
        assert len(retired(live, packs, packing=Packing(closing=True))) == CLOSED // (FULL + WEIGHT)

    def test_a_pack_settles_when_its_hour_is_over(self) -> None:
        """The last generation of an hour keeps its packs; of an unknown tenant, all packs count as kept."""
        document, names = generation("2026-01-01T10:59:55.000+00:00"), frozenset({pack(1, 1).sha256, pack(2, 1).sha256})
        one, hours, days = Packing(settled=frozenset({pack(1, 1).sha256})), Retention(), Retention(hourly=0)
        same, later, morrow = (f"2026-01-{at}.000+00:00" for at in ("01T10:59:57", "01T11:00:00", "02T00:00:00"))

        def settled(before: Packing | None, now: str, retention: Retention | None) -> frozenset[str]:
            return packing_at(document, before, now, retention).settled

        assert settled(one, same, hours) == one.settled
        assert settled(one, later, hours) == names
        assert settled(one, later, days) == one.settled
        assert settled(one, morrow, days) == names
        assert settled(one, morrow, Retention(hourly=0, daily=0)) == one.settled
        assert settled(one, morrow, None) == one.settled
        assert settled(None, same, hours) == names
        assert packing_at(None, None, same, hours) == Packing()
        assert packing_at(document, replace(one, spare=5), same, hours).spare == 5

    def test_the_last_commit_of_an_hour_is_expected(self) -> None:
        """By the distance from its parent. Without hours or days that are kept, no commit is one."""
        document, last = generation("2026-01-01T10:59:40.000+00:00"), "2026-01-01T10:59:55.000+00:00"
        assert packing_at(document, NEW, last, Retention()).closing
        assert not packing_at(document, NEW, "2026-01-01T10:59:45.000+00:00", Retention()).closing
        assert not packing_at(document, NEW, last, Retention(hourly=0)).closing
        assert not packing_at(document, NEW, last, None).closing

    @pytest.mark.parametrize("seed", range(3))
    def test_what_is_sent_for_a_byte_is_bounded(self, seed: int) -> None:
        """Two thousand commits that only add, in a model: a frame moves twice or so, and few packs are left."""
        dice, packs, sent, added, spare = random.Random(seed), dict[int, int](), 0, 0, 0
        for number in range(2000):
            live, all_ = [frame(one, size) for one, size in packs.items()], [pack(*one) for one in packs.items()]
            total = sum(packs.pop(one) for one in chosen(retired(live, all_, packing=Packing(spare=spare))))
            parts = -(-total // FULL)
            packs.update((100 * number + part, total // parts) for part in range(1, parts + 1))
            packs[100 * number] = new = dice.randrange(1000, 60_000)
            added, sent, spare = added + new, sent + new + total, spare_after(spare, new + total, total)
            assert len(packs) <= MOST + added / QUARTER
        assert sent <= 3 * added


class World:
    """One runtime, one tenant and its tree."""

    def __init__(self, top: Path) -> None:
        self.top, self.tree, self.selection = top, top / "tree", EVERYTHING
        self.store = MemoryStore()
        self.repository = Repository(self.store, "here", FakeClock(), top / "scratch")
        self.right: UploadRight = self.repository.restorer.restore(self.repository.leases.acquire(ALICE), self.tree)

    def commit(self, **more: bool) -> CommitResult:
        result = self.repository.committer.commit(
            CommitRequest(
                right=self.right,
                tree=self.tree,
                selection=self.selection,
                image_digest="",
                application="",
                release=False,
                **more,
            )
        )
        assert result.right is not None
        self.right = result.right
        return result

    @property
    def manifest(self) -> Manifest:
        return self.repository.generations.manifest(ALICE)

    def packs_of(self, path: str) -> set[str]:
        entry = self.manifest.find(path)
        assert entry is not None
        return {extent.pack for extent in entry.extents}

    def restored(self) -> dict[str, bytes]:
        target = self.top / f"out-{self.manifest.generation}"
        self.repository.restorer.extract(ALICE, target)
        return {str(path.relative_to(target)): path.read_bytes() for path in target.rglob("*") if path.is_file()}

    def there(self) -> dict[str, bytes]:
        return {str(path.relative_to(self.tree)): path.read_bytes() for path in self.tree.rglob("*") if path.is_file()}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """With few packs allowed, so that few commits are needed. No file is racy."""
    monkeypatch.setattr(compaction, "MOST", 4)
    monkeypatch.setattr(compaction, "SLACK", 0)
    real = time.time_ns
    monkeypatch.setattr("time.time_ns", lambda: real() + 3600 * 10**9)
    return World(tmp_path)


def noise(number: int, size: int = 5000) -> bytes:
    return random.Random(number).randbytes(size)


def small_commits(world: World, count: int, size: int = 5000) -> None:
    """Each adds a file."""
    for number in range(count):
        (world.tree / f"small-{number}").write_bytes(noise(number, size))
        world.commit()


def test_many_small_commits_leave_few_packs(world: World) -> None:
    """All of it comes back."""
    small_commits(world, 40)
    assert len(world.manifest.packs) <= 4 + 1
    assert world.restored() == world.there()


def test_a_small_file_does_not_keep_a_large_pack(world: World) -> None:
    """A cache is rewritten at each commit, and a note stays: the generation's packs are twice its size, beside what its
    commit replaced."""
    sent = 0
    for number in range(20):
        (world.tree / "cache").write_bytes(noise(number, 400_000))
        (world.tree / f"note-{number}").write_bytes(noise(number, 500))
        sent += world.commit().uploaded_bytes
    assert sum(ref.size for ref in world.manifest.packs) < 3.2 * world.manifest.size
    assert sent < 20 * 410_000
    assert world.restored() == world.there()


def test_nothing_is_stored_again_without_a_change(world: World) -> None:
    """A tree that equals HEAD's makes no generation and sends nothing, also when it is read again."""
    small_commits(world, 4)
    assert not world.commit().created
    assert world.commit().uploaded_bytes == 0
    for path in world.tree.iterdir():  # as in a release: what was just written is read again
        os.utime(path, ns=(path.stat().st_mtime_ns, path.stat().st_mtime_ns))
    assert not world.commit().created
    (world.tree / "small-0").write_bytes(b"other")
    assert world.commit().created
    assert world.restored() == world.there()


def test_a_file_that_changes_meanwhile_keeps_its_pack(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The generation holds what was seen; no other bytes get its digest."""
    small_commits(world, 3)
    before = world.there() | {"small-3": noise(3)}
    old, real = world.packs_of("small-1"), Cursor.open

    def change(self: Cursor, path: str) -> tuple[int, os.stat_result]:
        if path == "small-1":
            (world.tree / path).write_bytes(noise(99))
        return real(self, path)

    monkeypatch.setattr(Cursor, "open", change)
    (world.tree / "small-3").write_bytes(noise(3))
    monkeypatch.setattr(compaction, "MOST", 3)
    world.commit()
    assert world.packs_of("small-1") == old
    assert world.packs_of("small-0") == world.packs_of("small-2") != old
    assert world.restored() == before


def test_a_file_that_vanishes_meanwhile_keeps_its_pack(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next commit notices that it is gone."""
    small_commits(world, 3)
    before, real = world.there() | {"small-3": noise(3)}, Cursor.open

    def vanish(self: Cursor, path: str) -> tuple[int, os.stat_result]:
        if path == "small-1":
            (world.tree / path).unlink()
        return real(self, path)

    monkeypatch.setattr(Cursor, "open", vanish)
    (world.tree / "small-3").write_bytes(noise(3))
    monkeypatch.setattr(compaction, "MOST", 3)
    world.commit()
    assert world.restored() == before


def test_a_pack_of_a_file_that_the_tree_lacks_stays(world: World) -> None:
    """What the rules keep cannot be stored again, and is not lost; the other packs are replaced all the same."""
    world.selection = Selection([Rule(path="kept", fate=COPIED)])
    (world.tree / "kept").mkdir()
    (world.tree / "kept" / "file").write_bytes(b"kept")
    world.commit()
    stays = world.packs_of("kept/file")
    (world.tree / "kept" / "file").unlink()
    small_commits(world, 20)
    assert world.packs_of("kept/file") == stays
    assert len(world.manifest.packs) <= 4 + 2
    assert world.restored() == world.there() | {"kept/file": b"kept"}


@pytest.mark.spawns
def test_an_unchanged_database_is_stored_again(world: World) -> None:
    """Whole, as SQLite sees it: its rows are partly in its log only."""
    with closing(sqlite3.connect(world.tree / "m.db", isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("PRAGMA wal_autocheckpoint=0")
        writer.execute("CREATE TABLE t (x)")
        writer.execute("INSERT INTO t VALUES ('blue')")
        world.commit()
        old = world.packs_of("m.db")
        small_commits(world, 8)
        assert world.packs_of("m.db").isdisjoint(old)
        assert len(world.manifest.packs) <= 4 + 1
    (world.top / "out.db").write_bytes(world.restored()["m.db"])
    with closing(sqlite3.connect(world.top / "out.db")) as reader:
        assert reader.execute("SELECT x FROM t").fetchall() == [("blue",)]


@pytest.mark.spawns
def test_an_unchanged_database_that_cannot_be_copied_stays(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is stored, as a database, without a word."""
    with closing(sqlite3.connect(world.tree / "m.db")) as writer, writer:
        writer.execute("CREATE TABLE t (x)")
    world.commit()
    old = world.packs_of("m.db")

    def full(*_arguments: object) -> None:
        raise NoSnapshot("no room")

    monkeypatch.setattr("claw_runtime.state.sqlite.copy.copy", full)
    for number in range(8):
        (world.tree / f"small-{number}").write_bytes(noise(number))
        assert world.commit().reported == ()
    assert world.packs_of("m.db") == old
    entry = world.manifest.find("m.db")
    assert entry is not None
    assert entry.kind == "sqlite"


def test_a_large_file_is_read_only_where_it_must_be(world: World) -> None:
    """Of a file with chunks in several packs, the chunks that move keep their place in the file."""
    big = bytearray(noise(1, 10 * 65536))
    (world.tree / "big").write_bytes(big)
    world.commit()
    for number in range(12):
        big[number % 10 * 65536 + 5] ^= 0xFF
        (world.tree / "big").write_bytes(big)
        (world.tree / f"small-{number}").write_bytes(noise(number))
        world.commit()
    assert len(world.manifest.packs) <= 4 + 1
    assert world.restored() == world.there()
