"""The end of a tenant may take hours: a program that stops slowly, a tree that is huge. Nobody else waits for it."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from claw_runtime.errors import StoreUnavailable, UploadFailed
from claw_runtime.objects.memory import MemoryStore
from claw_runtime.tenancy import TenantId
from claw_runtime.tenants.recovery import RecoveryProgress
from fakes.stores import Fault, FaultyStore
from fakes.world import FROZEN, WORKLOAD, World

ALICE, BOB = TenantId("alice"), TenantId("bob")


class SlowStore(FaultyStore):
    """Uploads of alice wait until `go`."""

    def __init__(self) -> None:
        super().__init__(MemoryStore())
        self.begun, self.go = threading.Event(), threading.Event()
        self.before = self._wait

    def _wait(self, operation: str, key: str) -> None:
        if operation == "put" and key.startswith("tenants/alice/packs"):
            self.begun.set()
            assert self.go.wait(30)


@pytest.fixture
def store() -> SlowStore:
    return SlowStore()


@pytest.fixture
def world(tmp_path: Path, store: SlowStore) -> Iterator[World]:
    """Alice and bob have written words; the workers are threads, as in a daemon."""
    made = World(tmp_path, store=store, workload=FROZEN)
    made.threads = 4
    made.restart()
    for tenant in (ALICE, BOB):
        made.tenants.claim(tenant, "small")
        made.write(tenant, {"word": tenant})
    yield made
    store.go.set()
    assert made.recovery.workers.stop(30)
    made.close()


def crash(world: World, *tenants: TenantId) -> None:
    for tenant in tenants:
        slot = world.tenants.find(tenant)[1]
        assert slot
        assert slot.container
        world.engine.crash(slot.container)


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_a_start_waits_for_no_tree(world: World, store: SlowStore) -> None:
    """`recover` returns while a large tree is committed; other tenants are recovered and claimed meanwhile."""
    crash(world, ALICE, BOB)
    world.restart()

    world.recovery.recover()

    assert store.begun.wait(30)
    until(lambda: world.row_state("bob") == "cold")
    assert world.tenants.claim(BOB, "small").state == "restored"
    assert world.row_state("alice") == "releasing"
    store.go.set()
    assert world.recovery.workers.wait(30)
    assert (world.row_state("alice"), world.saved("alice")) == ("cold", {"word": "alice"})


def test_the_progress_of_a_recovery_shows(world: World, store: SlowStore) -> None:
    """Of the two tenants that the last daemon left, first one is recovered, then both."""
    crash(world, ALICE, BOB)
    world.restart()
    assert world.recovery.progress() == RecoveryProgress(recovered=0, tenants=0)

    world.recovery.recover()

    assert store.begun.wait(30)
    until(lambda: world.recovery.progress() == RecoveryProgress(recovered=1, tenants=2))
    store.go.set()
    assert world.recovery.workers.wait(30)
    assert world.recovery.progress() == RecoveryProgress(recovered=2, tenants=2)


def test_a_claim_during_the_recovery_of_its_tenant_finds_its_tree(world: World, store: SlowStore) -> None:
    """It waits for that tenant alone, and what was written last is there."""
    crash(world, ALICE)
    world.restart()
    world.recovery.recover()
    assert store.begun.wait(30)
    claims = list[str]()
    thread = threading.Thread(target=lambda: claims.append(world.tenants.claim(ALICE, "small").state))
    thread.start()
    store.go.set()
    thread.join(30)

    assert claims == ["restored"]
    assert (world.state("alice") / "word").read_text() == "alice"


def test_a_tenant_that_ended_is_noticed_while_another_is_saved(world: World, store: SlowStore) -> None:
    """A look at all tenants returns at once, and the next one finds what ended meanwhile."""
    crash(world, ALICE)
    world.recovery.supervise()
    assert store.begun.wait(30)
    crash(world, BOB)
    world.recovery.supervise()

    until(lambda: world.row_state("bob") == "cold")
    assert world.saved("bob") == {"word": "bob"}


MANY = FROZEN.replace("max_size: 3", "max_size: 12").replace("frozen: 2", "frozen: 8")
DEAF = [TenantId(f"deaf-{number}") for number in range(6)]


@pytest.fixture
def deaf(tmp_path: Path) -> Iterator[tuple[World, threading.Event]]:
    """Six frozen tenants whose programs ignore SIGTERM until the event, and bob, who runs."""
    made = World(tmp_path, workload=MANY)
    made.threads = 4
    made.restart()
    for tenant in (*DEAF, BOB):
        made.tenants.claim(tenant, "small")
        made.write(tenant, {"word": tenant})
    for tenant in DEAF:
        made.tenants.release(tenant)
    killed, real = threading.Event(), made.engine.stop

    def stop(container: str, timeout: int) -> None:
        seen = made.engine.inspect(container)
        assert seen is not None
        if seen.state == "paused":
            assert killed.wait(30)
        real(container, timeout)

    made.engine.stop = stop  # type: ignore[method-assign]
    yield made, killed
    killed.set()
    assert made.recovery.workers.stop(30)
    made.close()


def test_programs_that_ignore_sigterm_delay_no_other_end(deaf: tuple[World, threading.Event]) -> None:
    """More of them than there are workers: another container's end is reported at once, and its tree is saved."""
    world, killed = deaf
    world.clock.advance(61)
    world.recovery.expire()
    until(lambda: all(world.row_state(tenant) == "releasing" for tenant in DEAF))
    crash(world, BOB)

    world.recovery.supervise()

    assert ended(world) == [BOB]
    until(lambda: world.row_state("bob") == "cold")
    assert world.saved("bob") == {"word": "bob"}
    assert all(world.row_state(tenant) == "releasing" for tenant in DEAF)
    killed.set()
    assert world.recovery.workers.wait(30)
    assert [world.row_state(tenant) for tenant in DEAF] == ["cold"] * len(DEAF)


def ended(world: World) -> list[str]:
    return [event.tenant or "" for event in world.events.newest(50) if event.kind == "ended"]


def test_an_end_is_reported_while_every_worker_is_busy(world: World, store: SlowStore) -> None:
    """The reason of an end is reported once, before the tree has its turn to be saved."""
    busy = threading.Event()
    for number in range(4):
        world.recovery.workers.offer(f"other-{number}", lambda: busy.wait(30) and None)
    crash(world, BOB)

    world.recovery.supervise()
    world.recovery.supervise()

    row = world.ledger.tenant(BOB)
    assert row is not None
    assert (row.state, row.error.split(":")[0]) == ("active", "ended")
    assert ended(world) == [BOB]
    busy.set()
    until(lambda: world.row_state("bob") == "cold")


def test_a_container_that_is_started_again_before_its_turn_continues(world: World, store: SlowStore) -> None:
    """An operator was quicker than the workers: nothing is ended, and the error is gone."""
    busy = threading.Event()
    for number in range(4):
        world.recovery.workers.offer(f"other-{number}", lambda: busy.wait(30) and None)
    crash(world, BOB)
    world.recovery.supervise()
    slot = world.tenants.find(BOB)[1]
    assert slot
    world.engine.start(slot.container or "")
    world.clock.advance(6)
    busy.set()
    assert world.recovery.workers.wait(30)

    row = world.ledger.tenant(BOB)
    assert row is not None
    assert (row.state, row.error) == ("active", "")


def test_rests_expire_while_another_tenant_is_saved(world: World, store: SlowStore) -> None:
    """The end of alice's container takes long, and bob's affinity timeout passes meanwhile."""
    world.tenants.release(BOB)
    crash(world, ALICE)
    world.recovery.supervise()
    assert store.begun.wait(30)
    world.clock.advance(61)
    world.recovery.expire()

    until(lambda: world.row_state("bob") == "cold")


def test_a_kept_tree_is_retried_while_another_is_saved(world: World, store: SlowStore) -> None:
    """Both were kept; the attempt with the one takes long, and the other is in the store."""
    store.tell(Fault(operation="put", key="packs", action="unavailable", times=10**6))
    store.before = lambda _operation, _key: None
    for tenant in (ALICE, BOB):
        with pytest.raises(UploadFailed):
            world.tenants.release(tenant)
    store.tell()
    store.before = store._wait

    world.recovery.retry()

    assert store.begun.wait(30)
    until(lambda: world.row_state("bob") == "cold")
    assert world.row_state("alice") == "kept"


def test_a_long_attempt_is_not_repeated_at_once(tmp_path: Path) -> None:
    """A kept tree whose attempt fails after an hour is retried an hour later; others have their turn meanwhile."""
    world = World(tmp_path, store=FaultyStore(MemoryStore()))
    world.tenants.claim(ALICE, "small")
    world.write("alice", {"word": "1"})
    asked, store = list[float](), world.store
    assert isinstance(store, FaultyStore)

    def slow(operation: str, key: str) -> None:
        if operation == "put" and "packs" in key:
            asked.append(world.clock.monotonic())
            world.clock.advance(900)
            raise StoreUnavailable("the store does not answer", why="a test")

    store.before = slow
    with pytest.raises(UploadFailed):
        world.tenants.release(ALICE)
    asked.clear()
    began = world.clock.monotonic()
    world.recovery.retry()
    took = world.clock.monotonic() - began
    tried = len(asked)
    world.clock.advance(took - 1)
    world.recovery.retry()
    assert len(asked) == tried
    world.clock.advance(2)
    world.recovery.retry()
    assert len(asked) == 2 * tried
    world.close()


def test_no_limit_loses_a_tree(tmp_path: Path) -> None:
    """At a release over a limit the tree is kept, a claim continues from it, and with a higher limit it is stored."""
    world = World(tmp_path, workload=f"{WORKLOAD}sync: {{limits: {{files: 2}}}}\n")
    world.tenants.claim(ALICE, "small")
    world.write("alice", {"a": "1", "b": "2", "c": "3"})
    for _ in range(2):
        with pytest.raises(UploadFailed, match="not committed; nothing is lost") as refused:
            world.tenants.release(ALICE)
        assert "sync.limits.files" in str(refused.value)
        world.recovery.retry()
        assert (world.row_state("alice"), sorted(world.kept("alice"))) == ("kept", ["a", "b", "c"])
        assert world.tenants.claim(ALICE, "small").state == "kept"
    with pytest.raises(UploadFailed):
        world.tenants.release(ALICE)
    world.text = WORKLOAD
    world.restart()
    world.recovery.retry()

    assert (world.row_state("alice"), world.saved("alice")) == ("cold", {"a": "1", "b": "2", "c": "3"})
    world.close()
