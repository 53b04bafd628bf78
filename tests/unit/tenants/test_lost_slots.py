"""A slot that waited and is of no use any more is replaced inside the claim: its tenant does not hear of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from claw_runtime.errors import EngineFailed, EngineUnavailable, UploadFailed
from claw_runtime.objects.memory import MemoryStore
from claw_runtime.pools import start_gate
from claw_runtime.ports import SlotRow
from claw_runtime.tenancy import LABEL_CONTRACT, TenantId
from fakes.stores import Fault, FaultyStore
from fakes.waiters import contract
from fakes.world import IMAGE, WORKLOAD, World

ALICE = TenantId("alice")
FOUR = WORKLOAD.replace("min_size: 2, max_size: 3", "min_size: 4, max_size: 4")
REFUSED = EngineFailed("podman refused to start it", why="a test")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Four slots wait, and alice has a state in the store."""
    made = World(tmp_path, store=FaultyStore(MemoryStore()), workload=FOUR)
    made.tenants.claim(ALICE, "small")
    made.write(ALICE, {"colour": "green"})
    made.tenants.release(ALICE)
    made.pools.keep()
    yield made
    made.close()


def waiting(world: World) -> list[SlotRow]:
    return [slot for slot in world.ledger.slots() if slot.state == "ready"]


def prune(world: World) -> None:
    """`podman container prune`, while nobody looks."""
    world.engine.lose(*(slot.container or "" for slot in waiting(world)))


def colour(world: World) -> str:
    return (world.state(ALICE) / "colour").read_text()


def test_four_pruned_slots_and_four_claims(world: World) -> None:
    """Each claim succeeds, and the engine is asked to start no container that is gone."""
    prune(world)
    world.engine.calls.clear()

    sources = [world.tenants.claim(TenantId(f"t{number}"), "small").source for number in range(4)]

    assert sources == ["cold"] * 4
    assert world.engine.calls.count("start") == 4


def test_a_lost_monitor_is_noticed_before_the_claim_uses_the_slot(world: World) -> None:
    """The container could be started, but its ports are gone: the next slot is taken."""
    world.engine.unwatched |= {slot.container or "" for slot in waiting(world)[:3]}

    assert world.tenants.claim(ALICE, "small").source == "created"
    assert colour(world) == "green"
    assert len(world.ledger.slots()) == 1


def test_a_lost_monitor_is_noticed_by_the_reconciler_and_by_a_new_daemon(world: World) -> None:
    """Such slots are replaced although their containers look as they should."""
    lost = waiting(world)
    world.engine.unwatched |= {slot.container or "" for slot in lost[:2]}
    world.clock.advance(10)
    world.pools.keep()
    assert not {slot.id for slot in lost[:2]} & {slot.id for slot in waiting(world)}
    assert len(waiting(world)) == 4

    last = waiting(world)[-1]
    world.engine.unwatched.add(last.container or "")
    world.restart()
    world.recover()
    assert last.id not in {slot.id for slot in world.ledger.slots()}


def test_a_host_that_hides_processes_still_claims(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no process can be seen, nothing is concluded from that."""
    monkeypatch.setattr(world.engine, "is_watched", lambda _: None)
    world.restart()
    world.recover()

    assert world.tenants.claim(ALICE, "small").source == "created"


@pytest.mark.parametrize("failures", [1, 2])
def test_a_slot_that_cannot_be_started_is_replaced(world: World, failures: int) -> None:
    """The claim takes the next slot; the tree is neither lost nor fetched again, and the failed slots are gone."""
    for number in range(failures):
        world.engine.fail("start", REFUSED, at=number + 1)
    claim = world.tenants.claim(ALICE, "small")

    assert (claim.generation, claim.state, colour(world)) == (1, "tree", "green")
    assert world.row_state(ALICE) == "active"
    assert len(waiting(world)) == (3 - failures if failures == 1 else 2)
    assert world.leftovers() == []


def test_the_last_attempt_is_a_new_slot(world: World) -> None:
    """Whatever is wrong with those that wait, the pool can still make one."""
    for number in range(2):
        world.engine.fail("start", REFUSED, at=number + 1)

    assert world.tenants.claim(ALICE, "small").source == "cold"


def test_an_image_that_cannot_be_started_fails_the_claim(world: World) -> None:
    """After a new slot failed too, the error is the engine's; the state is as it was, and the lease is free."""
    for number in range(3):
        world.engine.fail("start", REFUSED, at=number + 1)

    with pytest.raises(EngineFailed, match="refused to start it"):
        world.tenants.claim(ALICE, "small")

    assert world.row_state(ALICE) == "cold"
    assert world.saved(ALICE) == {"colour": "green"}
    head = world.repository.generations.head(ALICE)
    assert head is not None
    assert (head.owner, head.generation) == (None, 1)
    assert world.leftovers() == []


def test_an_engine_that_is_away_is_no_lost_slot(world: World) -> None:
    """Other slots could not be started either."""
    world.engine.fail("start", EngineUnavailable("it does not answer"))

    with pytest.raises(EngineUnavailable):
        world.tenants.claim(ALICE, "small")


def test_a_kept_tree_survives_its_lost_slot(world: World) -> None:
    """The next slot gets the only copy of the tree."""
    store = world.store
    assert isinstance(store, FaultyStore)
    world.tenants.claim(ALICE, "small")
    world.write(ALICE, {"colour": "blue"})
    store.tell(Fault(operation="put", key="packs", action="unavailable", times=10**6))
    with pytest.raises(UploadFailed):
        world.tenants.release(ALICE)
    world.engine.fail("start", REFUSED)

    claim = world.tenants.claim(ALICE, "small")

    assert (claim.state, colour(world)) == ("kept", "blue")


def test_what_a_container_wrote_before_its_start_was_refused_is_kept(world: World) -> None:
    """A start may fail after the program began: its tree is committed before the next slot gets it."""
    real, failures = world.engine.start, [REFUSED]

    def late(container: str) -> None:
        real(container)
        if failures:
            (world.state(ALICE) / "colour").write_text("red")
            raise failures.pop()

    world.engine.start = late  # type: ignore[method-assign]

    claim = world.tenants.claim(ALICE, "small")

    assert (claim.generation, colour(world)) == (2, "red")
    assert world.saved(ALICE) == {"colour": "red"}


def test_a_new_tenant_stays_new(world: World) -> None:
    """A slot that could not be started makes no generation."""
    world.engine.fail("start", REFUSED)

    claim = world.tenants.claim(TenantId("bob"), "small")

    assert (claim.state, claim.generation) == ("empty", 0)


def test_a_process_that_leaves_its_gate_at_that_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It still waited when the claim looked, and was gone when its gate was opened."""
    world = World(tmp_path, workload=WORKLOAD.replace("min_size: 2", "warmth: {interpreter: 2}"))
    world.engine.add_image(IMAGE, labels={LABEL_CONTRACT: contract()})
    world.restart()
    world.pools.keep()
    real, failures = start_gate.open_gate, [1]

    def leaving(values: Path) -> None:
        if failures:
            failures.pop()
            raise EngineFailed("no process waits in the slot")
        real(values)

    monkeypatch.setattr(start_gate, "open_gate", leaving)

    assert world.tenants.claim(ALICE, "small").source == "interpreter"
    world.close()
