"""What nobody needs goes, after its grace; what anybody needs stays, whoever else is at work."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from claw_runtime.errors import Fenced, RestoreFailed, StateMissing, TenantLocked
from claw_runtime.formats.head import HeadRefused
from claw_runtime.objects.memory import MemoryStore
from claw_runtime.ports import ObjectInfo
from claw_runtime.spec.parts import Retention
from claw_runtime.state.history import garbage
from claw_runtime.state.history.pins import WEEK, Pins
from claw_runtime.state.repository import CommitRequest, CommitResult, Repository, UploadRight
from claw_runtime.state.rules.selection import Selection
from claw_runtime.tenancy import Keys, tenant_id
from fakes.clock import FakeClock
from fakes.stores import Crashed, Fault, FaultyStore

ALICE, BOB = tenant_id("alice"), tenant_id("bob")
FEW = Retention(keep_last=3, hourly=0, daily=0)
LATER = 25 * 3600.0


class Host:
    """One runtime, its tree, and a store whose clock is the test's."""

    def __init__(self, store: MemoryStore | FaultyStore, clock: FakeClock, top: Path, name: str = "here") -> None:
        self.store, self.clock = store, clock
        self.repository = Repository(store, name, clock, top / f"scratch-{name}")
        self.tree = top / f"tree-{name}"
        self.tree.mkdir(exist_ok=True)

    def commit(self, right: UploadRight, word: str, *, release: bool = True) -> CommitResult:
        for path in self.tree.glob("of-*"):
            path.unlink()
        (self.tree / "word").write_text(word)
        (self.tree / f"of-{word}").write_text(word * 10)
        return self.repository.committer.commit(
            CommitRequest(
                right=right,
                tree=self.tree,
                selection=Selection.everything(()),
                image_digest="",
                application="",
                release=release,
                retention=FEW,
            )
        )

    def generations(self, count: int) -> None:
        for number in range(count):
            lease = self.repository.leases.acquire(ALICE)
            self.commit(self.repository.restorer.adopt(lease, lease.head.generation), f"w{number}")
            self.clock.advance(60)

    def word(self, generation: int | None = None) -> str:
        return b"".join(self.repository.generations.read(ALICE, "word", generation)).decode()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def memory(clock: FakeClock) -> MemoryStore:
    return MemoryStore(clock.now)


@pytest.fixture
def here(memory: MemoryStore, clock: FakeClock, tmp_path: Path) -> Host:
    return Host(memory, clock, tmp_path)


def objects(store: MemoryStore, part: str) -> int:
    return len(list(store.list(f"{Keys(ALICE).prefix}{part}/")))


def test_removed_generations_leave_nothing(here: Host, memory: MemoryStore) -> None:
    """Of six, three stay; the manifests of the others go, and what only they needed."""
    here.generations(6)
    here.clock.advance(LATER)
    before = objects(memory, "gen"), objects(memory, "packs")

    told = here.repository.collect_garbage(ALICE, dry_run=True)
    assert (objects(memory, "gen"), objects(memory, "packs")) == before == (6, 6)
    done = here.repository.collect_garbage(ALICE)

    assert told is not None
    assert done is not None
    assert (told.objects, told.bytes, told.kept) == (done.objects, done.bytes, done.kept)
    assert done.kept == 3
    assert objects(memory, "gen") == objects(memory, "packs") == 3
    assert here.word() == "w5"
    assert here.word(4) == "w3"
    head = here.repository.generations.head(ALICE)
    assert head is not None
    assert head.owner is None


def test_the_young_stay(here: Host, memory: MemoryStore) -> None:
    """A day is what a slow writer has, by the store's clock, not by ours."""
    here.generations(6)
    here.clock.jump(-10 * LATER)

    done = here.repository.collect_garbage(ALICE)

    assert done is not None
    assert (done.objects, done.young) == (0, 6)
    assert objects(memory, "gen") == 6


class Forgetful(MemoryStore):
    """A store whose listings of some keys come back empty, or twice, as after a page that was lost or sent again."""

    lost = twice = "none"

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        for item in super().list(prefix, after=after):
            if self.lost not in item.key:
                yield from [item, item] if self.twice in item.key else [item]


def test_a_lost_page_costs_no_pinned_generation(clock: FakeClock, tmp_path: Path) -> None:
    """Pins that a listing left out are found by name, and nothing is removed; later they are listed again."""
    store = Forgetful(clock.now)
    here = Host(store, clock, tmp_path)
    here.generations(1)
    Pins(store, clock).put(ALICE, next(here.repository.generations.listed(ALICE)), "mine")
    here.generations(5)
    clock.advance(LATER)
    store.lost = "/pins/"

    with pytest.raises(RestoreFailed, match="is incomplete"):
        here.repository.collect_garbage(ALICE)

    assert objects(store, "gen") == 6
    store.lost = "none"
    here.repository.collect_garbage(ALICE)
    assert (objects(store, "gen"), here.word(1)) == (4, "w0")


@pytest.mark.parametrize("part", ["/gen/", "/packs/"])
def test_a_lost_page_keeps_what_it_held(clock: FakeClock, tmp_path: Path, part: str) -> None:
    """What a listing left out stays for the next collection, and what is needed stays anyway."""
    store = Forgetful(clock.now)
    here = Host(store, clock, tmp_path)
    here.generations(6)
    clock.advance(LATER)
    store.lost = part
    here.repository.collect_garbage(ALICE)
    store.lost = "none"

    assert [here.word(number) for number in (4, 5, 6)] == ["w3", "w4", "w5"]
    here.repository.collect_garbage(ALICE)
    assert objects(store, "gen") == objects(store, "packs") == 3


def test_a_page_that_comes_twice_counts_once(clock: FakeClock, tmp_path: Path) -> None:
    """Each object is removed and told once."""
    store = Forgetful(clock.now)
    here = Host(store, clock, tmp_path)
    here.generations(6)
    clock.advance(LATER)
    store.twice = "/"

    done = here.repository.collect_garbage(ALICE)

    assert done is not None
    assert done.objects == 6
    assert here.word() == "w5"


def test_garbage_of_a_tenant_that_changes_nothing_ages(here: Host) -> None:
    """It runs and writes no HEAD; the store's time is then that of the runtime's heartbeat, never this host's."""
    here.generations(5)
    lease = here.repository.leases.acquire(ALICE)
    right = here.commit(here.repository.restorer.adopt(lease, lease.head.generation), "last", release=False).right
    here.clock.advance(10 * LATER)
    first = here.repository.collect_garbage(ALICE, right)
    here.repository.heartbeats.beat()
    second = here.repository.collect_garbage(ALICE, right)
    assert first is not None
    assert second is not None
    assert (first.objects, first.young > 0) == (0, True)
    assert (second.objects, second.young) == (first.young, 0)
    assert here.word() == "last"


def test_an_automatic_pin_keeps_its_generation_for_a_week(here: Host) -> None:
    """Then the generation goes as any other does; a dry run drops no pin."""
    here.generations(2)
    first = here.repository.generations.earlier(here.repository.generations.manifest(ALICE))[0]
    Pins(here.store, here.clock).put(ALICE, first, automatic=True)
    here.generations(6)
    here.clock.advance(LATER)
    here.repository.collect_garbage(ALICE)
    assert here.word(1) == "w0"

    here.clock.advance(WEEK)
    would = here.repository.collect_garbage(ALICE, dry_run=True)
    assert would is not None
    assert (would.objects > 0, here.word(1)) == (True, "w0")
    done = here.repository.collect_garbage(ALICE)
    assert done is not None
    assert (done.objects, done.bytes, done.kept) == (would.objects, would.bytes, would.kept)
    with pytest.raises(StateMissing):
        here.word(1)


def test_pinned_generations_stay(here: Host) -> None:
    """Also when no history names them any more."""
    here.generations(2)
    first = here.repository.generations.earlier(here.repository.generations.manifest(ALICE))[0]
    Pins(here.store, here.clock).put(ALICE, first, "keep")
    here.generations(6)
    here.clock.advance(LATER)

    here.repository.collect_garbage(ALICE)

    assert here.word(1) == "w0"


def test_left_overs_of_a_commit_that_died_go(here: Host, memory: MemoryStore, tmp_path: Path) -> None:
    """A pack, and a manifest that no HEAD names: once HEAD has passed it, since HEAD may have gone back by one."""
    here.generations(1)
    line = FaultyStore(memory, Fault(operation="put", key="HEAD", action="crash", first=2))
    dying = Host(line, here.clock, tmp_path)
    lease = dying.repository.leases.acquire(ALICE)
    with pytest.raises(Crashed):
        dying.commit(dying.repository.restorer.adopt(lease, 1), "lost")
    assert objects(memory, "gen") == 2
    here.clock.advance(LATER)
    here.repository.collect_garbage(ALICE)
    assert objects(memory, "gen") == objects(memory, "packs") == 2

    lease = here.repository.leases.acquire(ALICE)
    here.commit(here.repository.restorer.adopt(lease, 1), "w1")
    here.clock.advance(LATER)
    here.repository.collect_garbage(ALICE)

    assert objects(memory, "gen") == objects(memory, "packs") == 2
    assert [here.word(number) for number in (1, 2)] == ["w0", "w1"]


def test_a_damaged_left_over_stops_nothing(here: Host, memory: MemoryStore) -> None:
    """A generation above HEAD that cannot be read is left alone, and all else is collected."""
    here.generations(6)
    memory.put(Keys(ALICE).manifest(7, "f" * 64), b"damaged")
    here.clock.advance(LATER)

    assert here.repository.collect_garbage(ALICE) is not None

    assert memory.get(Keys(ALICE).manifest(7, "f" * 64))[0] == b"damaged"


def test_what_cannot_be_read_stops_it(here: Host, memory: MemoryStore) -> None:
    """A kept manifest or pin that is damaged may need any object."""
    here.generations(6)
    here.clock.advance(LATER)
    past = here.repository.generations.earlier(here.repository.generations.manifest(ALICE))[0]
    key = Keys(ALICE).manifest(past.generation, past.sha256)
    memory.put(key, b"damaged")

    with pytest.raises(Exception, match="damaged"):
        here.repository.collect_garbage(ALICE, grace=0)
    assert objects(memory, "packs") == 6

    memory.put(Keys(ALICE).pin(1), b"{")
    with pytest.raises((RestoreFailed, Exception)):
        here.repository.collect_garbage(ALICE, grace=0)
    assert objects(memory, "packs") == 6


def test_others_are_left_alone(here: Host, memory: MemoryStore) -> None:
    """A tenant that another runtime holds, and every other tenant."""
    here.generations(6)
    memory.put(Keys(BOB).pack("f" * 64), b"bob's")
    here.clock.advance(LATER)
    there = Repository(memory, "there", here.clock, here.tree)
    there.leases.acquire(ALICE)

    with pytest.raises(TenantLocked):
        here.repository.collect_garbage(ALICE)
    there.leases.give_back(ALICE)
    here.repository.collect_garbage(ALICE, grace=0)

    assert memory.get(Keys(BOB).pack("f" * 64))[0] == b"bob's"
    with pytest.raises(HeadRefused, match="HEAD of tenant bob is missing"):
        here.repository.collect_garbage(BOB, grace=0)
    assert memory.get(Keys(BOB).pack("f" * 64))[0] == b"bob's"
    assert here.repository.collect_garbage(tenant_id("carol")) is None


def test_a_successor_never_loses_an_object(
    memory: MemoryStore, clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A collector that stands still while another host takes the tenant, commits, and releases it removes nothing
    that the other wrote, although the bytes of its files are those of what is to be removed."""
    line = FaultyStore(memory)
    here, there = Host(line, clock, tmp_path), Host(memory, clock, tmp_path, "there")
    here.generations(6)
    clock.advance(LATER)
    monkeypatch.setattr(garbage, "BATCH", 2)

    def overtaken(operation: str, key: str) -> None:
        if operation == "delete" and not there_was:
            there_was.append(key)
            lease = there.repository.leases.acquire(ALICE, take_over=True)
            there.commit(there.repository.restorer.restore(lease, tmp_path / "fresh"), "w0")

    there_was: list[str] = []
    line.before = overtaken

    with pytest.raises(Fenced):
        here.repository.collect_garbage(ALICE)

    assert there_was
    assert b"".join(there.repository.generations.read(ALICE, "of-w0")) == b"w0" * 10
    assert b"".join(there.repository.generations.read(ALICE, "word")) == b"w0"


@pytest.mark.parametrize("nth", range(1, 8))
def test_a_collection_may_die_anywhere(memory: MemoryStore, clock: FakeClock, tmp_path: Path, nth: int) -> None:
    """What is kept can be read, and the next collection comes to the end."""
    here = Host(memory, clock, tmp_path)
    here.generations(6)
    clock.advance(LATER)
    dying = Host(FaultyStore(memory, Fault(operation="delete", action="crash", first=nth)), clock, tmp_path)

    try:
        dying.repository.collect_garbage(ALICE)
    except Crashed:
        assert here.word(4) == "w3"
    here.repository.collect_garbage(ALICE)

    assert (objects(memory, "gen"), here.word(), here.word(4)) == (3, "w5", "w3")


def test_a_collection_is_done_in_parts(here: Host, memory: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """One call removes at most `MOST` objects and tells how many are left; the last one leaves what is needed."""
    monkeypatch.setattr(garbage, "MOST", 2)
    here.generations(6)
    here.clock.advance(LATER)
    survey = here.repository.survey_garbage(ALICE)
    told = list[tuple[int, int]]()
    for _ in range(3):
        done = here.repository.collect_garbage(ALICE, survey=survey)
        assert done is not None
        told.append((done.objects, done.left))
        assert here.word(4) == "w3"

    assert told == [(2, 4), (2, 2), (2, 0)]
    assert (objects(memory, "gen"), objects(memory, "packs")) == (3, 3)


def test_what_became_needed_since_the_survey_stays(here: Host, memory: MemoryStore) -> None:
    """Between survey and removal the tenant commits, pins, and names an orphan in a new generation."""
    here.generations(4)
    first = next(here.repository.generations.listed(ALICE, 1))
    here.clock.advance(LATER)
    survey = here.repository.survey_garbage(ALICE)
    Pins(memory, here.clock).put(ALICE, first, "mine")
    here.generations(6)
    newest = here.repository.generations.manifest(ALICE)

    here.repository.collect_garbage(ALICE, survey=survey, grace=0)

    assert (here.word(), here.word(newest.generation - 2), here.word(1)) == ("w5", "w3", "w0")
    assert {ref.sha256 for ref in newest.packs} <= {
        item.key.rpartition("/")[2] for item in memory.list(Keys(ALICE).packs)
    }
