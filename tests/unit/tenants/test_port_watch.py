"""A tenant's port that nothing listens on any more is repaired, whatever the workload's probe is."""

from itertools import pairwise

import pytest
from claw_runtime.errors import StoreUnavailable
from claw_runtime.ports import ExecResult
from claw_runtime.tenancy import TenantId
from fakes.world import FROZEN, IMAGE, WORKLOAD, World

ALICE, BOB = TenantId("alice"), TenantId("bob")
HOOKED = f"{WORKLOAD}hooks: {{pre_release: [{{command: [flush]}}]}}\n"
LOOK = 3.0


class Killed(BaseException):
    """SIGKILL: nothing of ours may catch it."""


def port(world: World, tenant: TenantId = ALICE) -> int:
    slot = world.tenants.find(tenant)[1]
    assert slot is not None
    assert slot.port is not None
    return slot.port


def lost(world: World, tenant: TenantId = ALICE) -> int:
    """The tenant runs and has written a word; the process that listened on its port is gone."""
    world.tenants.claim(tenant, "small", metadata='{"who": 1}')
    world.write(tenant, {"word": tenant})
    world.prober.lost.add(port(world, tenant))
    return port(world, tenant)


def looks(world: World, count: int = 2) -> None:
    for _ in range(count):
        world.port_watch.look()
        world.clock.advance(LOOK)


def repaired(world: World) -> None:
    """Two looks, and the claim that follows."""
    looks(world)
    world.restarts.look()


def kinds(world: World, tenant: TenantId = ALICE) -> list[str]:
    return [event.kind for event in world.events.newest(100, tenant=tenant)]


def test_a_lost_port_is_repaired(world: World) -> None:
    """After two looks the tenant has another container with a port that answers, with the same state and metadata."""
    before = lost(world)

    repaired(world)

    row, _ = world.tenants.find(ALICE)
    assert (row.state, row.restarted, row.metadata, row.failures) == ("active", "port-lost", '{"who": 1}', 0)
    assert port(world) != before
    assert (world.state(ALICE) / "word").read_text() == "alice"
    assert world.saved(ALICE) == {"word": "alice"}
    assert kinds(world) == ["claimed", "port-lost", "claimed", "restarted", "port-repaired"]
    told = world.events.newest(100, tenant=ALICE)[-1].detail
    assert told == {"port": port(world), "outage_ms": 6000}


def test_one_refusal_is_none(world: World) -> None:
    """A port that refuses at one look and answers at the next one is left alone."""
    before = lost(world)
    looks(world, 1)
    world.prober.lost.clear()
    looks(world, 1)
    world.prober.lost.add(before)
    looks(world, 1)

    assert (port(world), kinds(world)) == (before, ["claimed"])


def test_a_slow_program_is_not_repaired(world: World) -> None:
    """A program that does not answer in time still has its listener."""
    world.tenants.claim(ALICE, "small")
    before = port(world)
    world.prober.always = None
    looks(world, 5)

    assert (port(world), kinds(world)) == (before, ["claimed"])


def test_a_program_that_ended_is_not_a_lost_port(world: World) -> None:
    """Its end is noticed and named elsewhere."""
    lost(world)
    world.engine.crash(world.tenants.find(ALICE)[1].container or "")  # type: ignore[union-attr]
    looks(world)

    assert "port-lost" not in kinds(world)


def test_the_tenant_keeps_its_image(world: World) -> None:
    """A repair is no upgrade: although the pool's image has moved, the tenant runs the one that it ran."""
    image = world.engine.image(IMAGE).id
    lost(world)
    world.engine.add_image(IMAGE)
    repaired(world)

    slot = world.tenants.find(ALICE)[1]
    assert slot is not None
    found = world.engine.inspect(slot.container or "")
    assert found is not None
    assert found.image_id == image


def test_others_are_left_alone(world: World) -> None:
    """Only the tenant whose port is lost gets another container."""
    world.tenants.claim(BOB, "small")
    before = port(world, BOB)
    lost(world)
    repaired(world)

    assert (port(world, BOB), kinds(world, BOB)) == (before, ["claimed"])


def test_the_store_must_answer_first(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """While its state cannot be committed, the program keeps running: it is stopped once it is."""
    before = lost(world)

    def away(*_: object, **__: object) -> None:
        raise StoreUnavailable("down")

    with monkeypatch.context() as patch:
        patch.setattr(world.store, "put", away)
        looks(world, 3)
        assert (world.row_state(ALICE), port(world)) == ("active", before)
    world.clock.advance(300)
    looks(world, 1)
    world.restarts.look()

    assert world.row_state(ALICE) == "active"
    assert port(world) != before


def test_repairs_are_bounded(world: World) -> None:
    """A port that is lost again after each repair is repaired after 1, 2, 4 … seconds, five minutes at most."""
    lost(world)
    seconds = []
    for second in range(1000):
        world.prober.lost.add(port(world))
        world.port_watch.look()
        world.restarts.look()
        if kinds(world).count("port-repaired") > len(seconds):
            seconds.append(second)
        world.clock.advance(1)
    pauses = [after - before for before, after in pairwise(seconds)]

    assert pauses[:8] == [2, 2, 4, 8, 16, 32, 64, 128]


@pytest.mark.world(workload=HOOKED)
def test_a_hook_that_fails_does_not_keep_it(world: World) -> None:
    """The hooks of a release run; one that fails is logged."""
    ran = []

    def commands(_spec: object, argv: list[str], _environment: object) -> ExecResult:
        ran.append(argv[0])
        return ExecResult(exit_code=1, stdout=b"", stderr=b"no")

    world.engine.commands = commands  # type: ignore[assignment]
    before = lost(world)
    repaired(world)

    assert ran == ["flush"]
    assert port(world) != before


@pytest.mark.parametrize("step", ["settle", "claim"])
def test_a_daemon_killed_in_the_middle(world: World, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """The next daemon continues: the tenant ends with a port that answers and its state."""
    lost(world)
    with monkeypatch.context() as patch:

        def dying(*_: object, **__: object) -> None:
            raise Killed

        patch.setattr(*((world.releaser, "settle") if step == "settle" else (world.restarts._trials, "claim")), dying)
        with pytest.raises(Killed):
            repaired(world)
    world.restart()
    world.recover()
    repaired(world)

    row, _ = world.tenants.find(ALICE)
    assert (row.state, row.restarted) == ("active", "port-lost")
    assert port(world) not in world.prober.lost
    assert (world.state(ALICE) / "word").read_text() == "alice"


@pytest.mark.world(filled=True)
def test_a_waiting_slot_with_a_lost_port_is_not_used(world: World) -> None:
    """A claim takes the next slot, instead of waiting for a program that nobody can reach."""
    slots = world.ledger.slots()
    world.prober.lost.update(slot.port for slot in slots[:1] if slot.port)

    world.tenants.claim(ALICE, "small")

    assert port(world) == slots[1].port


@pytest.mark.world(filled=True)
def test_waiting_slots_with_lost_ports_are_replaced(world: World) -> None:
    """The pool makes others in their place before a claim comes; one refusal removes none."""
    before = {slot.id for slot in world.ledger.slots()}
    world.prober.lost.update(slot.port for slot in world.ledger.slots() if slot.port)
    looks(world, 1)
    assert {slot.id for slot in world.ledger.slots()} == before

    looks(world, 1)
    world.pools.keep()

    slots = world.ledger.slots()
    assert len(slots) == len(before)
    assert before.isdisjoint(slot.id for slot in slots)
    assert world.leftovers() == []


@pytest.mark.world(workload=FROZEN)
def test_a_frozen_container_with_a_lost_port_is_not_thawed(world: World) -> None:
    """Its tenant gets another container, with the state that the frozen one had."""
    before = lost(world)
    assert world.tenants.release(ALICE).affinity == "frozen"

    claim = world.tenants.claim(ALICE, "small")

    assert claim.source != "frozen"
    assert claim.port != before
    assert (world.state(ALICE) / "word").read_text() == "alice"
