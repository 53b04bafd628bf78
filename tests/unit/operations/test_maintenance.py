"""Running tenants are committed in their interval, and garbage is collected once a day, without a crowd."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from claw_runtime.concurrency import Workers
from claw_runtime.errors import StoreDenied
from claw_runtime.objects.directory import DirectoryStore
from claw_runtime.objects.memory import MemoryStore
from claw_runtime.operations.maintenance import DAY, SHORTEST, Maintenance, remove_unfinished
from claw_runtime.state.history import garbage
from claw_runtime.tenancy import TenantId
from fakes.stores import Fault, FaultyStore
from fakes.world import WORKLOAD, World

EVERY_MINUTE = WORKLOAD.replace("max_size: 3", "max_size: 30") + "sync: {policy: {interval: 60s}}\n"
pytestmark = pytest.mark.world(workload=EVERY_MINUTE, store=lambda: FaultyStore(MemoryStore()))


@pytest.fixture
def store(world: World) -> FaultyStore:
    assert isinstance(world.store, FaultyStore)
    return world.store


@pytest.fixture
def maintenance(world: World) -> Maintenance:
    return Maintenance(world.tenants, world.ledger, world.clock, world.pools.interval)


def generation(world: World, tenant: str) -> int:
    head = world.repository.generations.head(TenantId(tenant))
    return head.generation if head else 0


def stored(world: World, tenant: str) -> str | None:
    """The tenant's word as the store has it."""
    return (
        b"".join(world.repository.generations.read(TenantId(tenant), "word")).decode()
        if generation(world, tenant)
        else None
    )


def test_what_a_power_failure_can_cost_is_one_interval(world: World, maintenance: Maintenance) -> None:
    """Whenever a word is written, a minute and a look later it is in the store, while the tenant goes on running."""
    world.tenants.claim(TenantId("alice"), "small")
    worst = 0.0
    for number in range(20):
        world.write("alice", {"word": str(number)})
        written = world.clock.monotonic()
        while stored(world, "alice") != str(number):
            world.clock.advance(1)
            maintenance.commit()
        worst = max(worst, world.clock.monotonic() - written)
        world.clock.advance(7 * number)

    assert worst <= 61
    assert world.tenants.find(TenantId("alice"))[0].state == "active"


def commits(world: World, maintenance: Maintenance, seconds: float) -> list[float]:
    """Run so long, and look as the daemon does; when the first four commits of alice began, counted from the first."""
    began, over = list[float](), world.clock.monotonic() + seconds
    while world.clock.monotonic() < over:
        now, before = world.clock.monotonic(), generation(world, "alice")
        world.write("alice", {"word": str(now)})
        maintenance.commit()
        if generation(world, "alice") > before:
            began.append(now)
        world.clock.advance(maintenance.until_commit(1.0))
    return [at - began[0] for at in began[:4]]


@pytest.mark.parametrize("seconds", [0.0, 25.0])
def test_an_interval_counts_from_the_beginning_of_a_commit(
    world: World, maintenance: Maintenance, store: FaultyStore, seconds: float
) -> None:
    """Commits begin an interval apart, whether each is done at once or takes a part of the interval."""
    world.tenants.claim(TenantId("alice"), "small")
    store.before = lambda operation, key: (
        world.clock.advance(seconds) if operation == "put" and key.endswith("HEAD") else None
    )
    assert commits(world, maintenance, 300.0) == pytest.approx([0.0, 60.0, 120.0, 180.0], abs=4 * SHORTEST)


def test_a_commit_that_takes_longer_than_its_interval_is_followed_by_a_rest(
    world: World, maintenance: Maintenance, store: FaultyStore
) -> None:
    """A commit of two minutes at an interval of one leaves the tenant, and the others, in peace for half a minute."""
    world.tenants.claim(TenantId("alice"), "small")
    store.before = lambda operation, key: (
        world.clock.advance(120.0) if operation == "put" and key.endswith("HEAD") else None
    )
    assert commits(world, maintenance, 600.0) == pytest.approx([0.0, 150.0, 300.0, 450.0], abs=4 * SHORTEST)


class Stuck:
    """Uploads of some tenants that wait until `go`."""

    def __init__(self, store: FaultyStore, *tenants: str) -> None:
        self.begun, self.go, self._tenants = set[str](), threading.Event(), tenants
        store.before = self._wait

    def _wait(self, operation: str, key: str) -> None:
        tenant = key.split("/")[1] if key.startswith("tenants/") else ""
        if operation == "put" and tenant in self._tenants:
            self.begun.add(tenant)
            assert self.go.wait(30)


@pytest.fixture
def threaded(world: World) -> Iterator[Maintenance]:
    """Maintenance with four threads, as a daemon has it."""
    made = Maintenance(world.tenants, world.ledger, world.clock, world.pools.interval, Workers("commit", 4))
    yield made
    assert made.workers.stop(30)


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_a_busy_tenant_delays_no_other(world: World, maintenance: Maintenance) -> None:
    """While a release, a hook or a collection works on one tenant, the others are committed in their interval, and it
    is committed soon after."""
    for tenant in ("alice", "bob"):
        world.tenants.claim(TenantId(tenant), "small")
        world.write(tenant, {"word": "1"})
    with world.locks.held(TenantId("alice")):
        for _ in range(62):
            world.clock.advance(1)
            maintenance.commit()
        assert (stored(world, "alice"), stored(world, "bob")) == (None, "1")

    maintenance.commit()
    assert stored(world, "alice") == "1"


def test_a_long_commit_delays_no_other(world: World, threaded: Maintenance, store: FaultyStore) -> None:
    """While the uploads of two tenants take as long as they like, a third is committed again and again."""
    for tenant in ("alice", "bob", "carol"):
        world.tenants.claim(TenantId(tenant), "small")
        world.write(tenant, {"word": "0"})
    stuck = Stuck(store, "alice", "bob")

    def passed() -> None:
        world.clock.advance(1)  # time passes also for a turn that is noted late, by a thread that the host delays
        threaded.commit()

    try:
        for number in range(5):
            world.write("carol", {"word": str(number)})
            until(lambda: passed() or stored(world, "carol") == str(number))  # noqa: B023
        until(lambda: stuck.begun == {"alice", "bob"})
        assert (stored(world, "alice"), stored(world, "bob")) == (None, None)
    finally:
        stuck.go.set()
    assert threaded.workers.wait(30)
    assert (stored(world, "alice"), stored(world, "bob")) == ("0", "0")


def test_a_defect_with_one_tenant_is_tried_again_later(
    world: World, maintenance: Maintenance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are committed, and the log is not filled with it."""
    for tenant in ("alice", "bob"):
        world.tenants.claim(TenantId(tenant), "small")
        world.write(tenant, {"word": "1"})
    real, tried = world.tenants.sync_unless_busy, list[str]()

    def broken(tenant: TenantId) -> object:
        tried.append(tenant)
        if tenant == "alice":
            raise ZeroDivisionError
        return real(tenant)

    monkeypatch.setattr(world.tenants, "sync_unless_busy", broken)
    for _ in range(300):
        maintenance.commit()
        world.clock.advance(1)

    assert stored(world, "bob") == "1"
    assert 1 <= tried.count("alice") <= 4


def test_many_tenants_do_not_come_at_once(world: World, maintenance: Maintenance) -> None:
    """Also after a restart of the daemon: their names spread them over the interval."""
    tenants = [f"t{number}" for number in range(20)]
    for tenant in tenants:
        world.tenants.claim(TenantId(tenant), "small")
        world.write(tenant, {"word": tenant})
    most = 0
    for _ in range(62):
        before = sum(generation(world, tenant) for tenant in tenants)
        maintenance.commit()
        most = max(most, sum(generation(world, tenant) for tenant in tenants) - before)
        world.clock.advance(1)

    assert [generation(world, tenant) for tenant in tenants] == [1] * 20
    assert most <= 4


def test_a_store_that_is_away_is_asked_less_and_less(
    world: World, maintenance: Maintenance, store: FaultyStore
) -> None:
    """And once it is back the next turn commits; the tenant runs all the time."""
    world.tenants.claim(TenantId("alice"), "small")
    world.write("alice", {"word": "1"})
    store.faults = [Fault(operation="get", action="unavailable", times=10**6)]
    store.calls.clear()
    for _ in range(1800):
        maintenance.commit()
        world.clock.advance(1)
    asked = sum(1 for operation, key in store.calls if operation == "get" and key.endswith("HEAD"))
    store.faults = []
    for _ in range(3700):
        maintenance.commit()
        world.clock.advance(1)

    assert 2 <= asked <= 12
    assert generation(world, "alice") == 1


def test_after_a_long_outage_nobody_waits_long(world: World, maintenance: Maintenance, store: FaultyStore) -> None:
    """Five minutes after a store is back that was away for a day, or at once when a person commits, the interval
    holds again."""
    world.tenants.claim(TenantId("alice"), "small")
    for by_hand in (False, True):
        store.tell(Fault(operation="get", action="unavailable", times=10**6))
        world.write("alice", {"word": "away"})
        for _ in range(24 * 10):
            maintenance.commit()
            world.clock.advance(6 * 60)
        store.tell()
        back = world.clock.monotonic()
        if by_hand:
            world.tenants.sync(TenantId("alice"))
        world.write("alice", {"word": "back"})
        while stored(world, "alice") != "back":
            world.clock.advance(1)
            maintenance.commit()
        assert world.clock.monotonic() - back <= (61 if by_hand else 301)
        world.write("alice", {"word": "gone"})
        world.clock.advance(61)
        maintenance.commit()
        assert stored(world, "alice") == "gone"


def test_without_an_interval_nobody_is_committed(tmp_path: Path) -> None:
    """Only their release is."""
    world = World(tmp_path)
    maintenance = Maintenance(world.tenants, world.ledger, world.clock, world.pools.interval)
    world.tenants.claim(TenantId("alice"), "small")
    world.write("alice", {"word": "1"})
    for _ in range(200):
        maintenance.commit()
        world.clock.advance(60)

    assert generation(world, "alice") == 0
    world.close()


def test_garbage_of_each_tenant_is_collected_once_a_day(
    world: World, maintenance: Maintenance, store: FaultyStore
) -> None:
    """One tenant at a look; those that run are collected too, and one whose store is away is tried again."""
    for tenant in ("alice", "bob"):
        world.tenants.claim(TenantId(tenant), "small")
        world.write(tenant, {"word": "1"})
    world.tenants.release(TenantId("bob"))
    world.tenants.sync(TenantId("alice"))
    listed: list[float] = []

    def note(operation: str, key: str) -> None:
        if operation == "list" and key.endswith("gen/"):
            listed.append(world.clock.monotonic())

    store.before = note
    for _ in range(int(DAY / 600) + 1):
        maintenance.collect()
        world.clock.advance(600)
    assert len(listed) == 2
    assert listed[0] != listed[1]

    store.faults = [Fault(operation="list", action="unavailable", times=2)]
    for _ in range(int(DAY / 600) + 10):
        maintenance.collect()
        world.clock.advance(600)
    assert len(listed) == 4


@pytest.mark.world(
    workload=EVERY_MINUTE.replace("sync: {", "sync: {retention: {keep_last: 1, hourly: 0, daily: 0}, "),
    store=lambda: FaultyStore(MemoryStore()),
)
def test_a_collection_keeps_no_tenant_waiting(
    world: World, maintenance: Maintenance, store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tenant's lock is held only while some objects are removed: a commit comes through while it reads and lists,
    and between two parts. What is left after a turn is removed in the next ones, after those of other tenants."""
    monkeypatch.setattr(garbage, "MOST", 2)
    monkeypatch.setattr("claw_runtime.operations.maintenance.PARTS", 3)
    assert isinstance(store.inner, MemoryStore)
    store.inner.now = world.clock.now
    alice = TenantId("alice")
    world.tenants.claim(alice, "small")
    for number in range(10):
        world.write("alice", {"word": str(number)})
        world.tenants.sync(alice)
    world.clock.advance(2 * DAY)
    world.tenants.sync(alice)
    found, removed = dict[str, set[bool]](), list[float]()

    def note(operation: str, key: str) -> None:
        store.before = lambda _operation, _key: None
        with world.locks.tried(alice) as free:
            found.setdefault(operation, set()).add(free)
        if operation == "list" and free:
            world.write("alice", {"word": f"during {key}"})
            world.tenants.sync(alice)
        if operation == "delete":
            removed.append(world.clock.monotonic())
        store.before = note

    store.before = note
    for _ in range(200):
        maintenance.collect()
        world.clock.advance(600)

    assert True in found["list"]
    assert found["delete"] == {False}
    assert len(removed) >= 18
    assert max(removed.count(at) for at in removed) == 6
    assert stored(world, "alice") is not None


def test_unfinished_writes_are_removed_after_a_day(tmp_path: Path) -> None:
    """A store in a directory has no server that would do so; a younger one may belong to a running upload."""
    store = DirectoryStore(tmp_path)
    for name, age in (("old", DAY + 1), ("young", DAY - 60)):
        (tmp_path / "+tmp" / name).write_bytes(b"part")
        os.utime(tmp_path / "+tmp" / name, (time.time() - age, time.time() - age))
    remove_unfinished(store)
    assert [path.name for path in (tmp_path / "+tmp").iterdir()] == ["young"]


def test_a_store_that_refuses_to_list_them_is_used_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The right to list uploads in parts may be missing."""

    def refuse(_age: float) -> int:
        raise StoreDenied("no")

    store = MemoryStore()
    monkeypatch.setattr(store, "remove_unfinished", refuse)
    remove_unfinished(store)
