"""A release that makes room waits for no other tenant's program or tree to end, and a crash meanwhile loses nothing."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from claw_runtime.tenancy import TenantId
from claw_runtime.tenants.lifecycle import OVER
from fakes.world import FROZEN, PARKED, World

ALICE, BOB, CAROL = TenantId("alice"), TenantId("bob"), TenantId("carol")
PATIENCE = 30.0


class Slow:
    """A method that waits until `go`, and is then as it was."""

    def __init__(self, real: Callable[..., object]) -> None:
        self._real = real
        self.begun, self.go = threading.Event(), threading.Event()

    def __call__(self, *arguments: object, **options: object) -> object:
        self.begun.set()
        assert self.go.wait(PATIENCE)
        return self._real(*arguments, **options)


def used(world: World, *tenants: TenantId) -> list[str | None]:
    """Claim each, let it write its name, release it; how each rests then."""
    rests = list[str | None]()
    for tenant in tenants:
        world.tenants.claim(tenant, "small")
        world.write(tenant, {"word": tenant})
        rests.append(world.tenants.release(tenant).affinity)
        world.clock.advance(1)
    return rests


def states(world: World) -> list[str]:
    return [world.row_state(tenant) for tenant in (ALICE, BOB, CAROL)]


@pytest.fixture
def world(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    """Two tenants may rest; the workers are threads, as in a daemon."""
    made = World(tmp_path, workload=request.param)
    made.threads = 4
    made.restart()
    yield made
    assert made.recovery.workers.stop(PATIENCE)
    made.close()


@pytest.fixture
def slow(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slow]:
    """Alice, the oldest of two at rest, has a program that ignores its signal, or a tree that takes long to remove."""
    used(world, ALICE, BOB)
    if world.row_state(ALICE) == "frozen":
        slow = Slow(world.engine.stop)
        monkeypatch.setattr(world.engine, "stop", slow)
    else:
        slow = Slow(world.releaser._trees.drop)
        monkeypatch.setattr(world.releaser._trees, "drop", slow)
    yield slow
    slow.go.set()


both = pytest.mark.parametrize("world", [FROZEN, PARKED], indirect=True, ids=["frozen", "parked"])
frozen = pytest.mark.parametrize("world", [FROZEN], indirect=True, ids=[""])


@both
def test_the_answer_does_not_wait_for_the_oldest_to_end(world: World, slow: Slow) -> None:
    """Carol's release is answered while alice's program still ends; then no more rest than before."""
    rest = world.row_state(ALICE)

    with ThreadPoolExecutor(1) as thread:
        answer = thread.submit(used, world, CAROL)
        try:
            assert answer.result(PATIENCE / 3) == [rest]
        finally:
            slow.go.set()
    assert states(world)[1:] == [rest, rest]
    assert slow.begun.wait(PATIENCE)
    assert world.recovery.workers.wait(PATIENCE)
    assert states(world) == ["cold", rest, rest]
    assert world.saved(ALICE) == {"word": ALICE}
    assert world.leftovers() == []


@both
def test_one_that_ends_does_not_rest(world: World, slow: Slow) -> None:
    """While alice ends, she is not counted among those at rest, and no claim finds her there."""
    rest = world.row_state(ALICE)
    used(world, CAROL)

    assert slow.begun.wait(PATIENCE)
    assert states(world)[1:] == [rest, rest]
    row = world.ledger.tenant(ALICE)
    assert row
    assert row.state == "releasing" or row.step in OVER


@frozen
def test_a_claim_of_one_that_ends_waits_for_its_words(world: World, slow: Slow) -> None:
    """Alice comes back while her program ends: the claim has what it wrote last."""
    used(world, CAROL)
    assert slow.begun.wait(PATIENCE)
    world.write(ALICE, {"last": "flushed"})
    with ThreadPoolExecutor(1) as thread:
        claim = thread.submit(world.tenants.claim, ALICE, "small")
        slow.go.set()
        assert claim.result(PATIENCE).state == "restored"

    assert (world.state(ALICE) / "last").read_text() == "flushed"


@both
def test_a_daemon_that_is_killed_meanwhile_loses_nothing(world: World, slow: Slow) -> None:
    """The next one ends what had to make room, and commits what it wrote."""
    with pytest.MonkeyPatch.context() as patch:  # the worker of the killed daemon never begins
        patch.setattr(world.host.workers, "offer", lambda *_: True)
        used(world, CAROL)
    if world.row_state(BOB) == "frozen":
        world.write(ALICE, {"last": "flushed"})
    slow.go.set()

    world.restart()
    world.recover()

    assert world.recovery.workers.wait(PATIENCE)
    assert world.row_state(ALICE) == "cold"
    assert world.saved(ALICE)["word"] == ALICE
    assert ("last" in world.saved(ALICE)) == (world.row_state(BOB) == "frozen")
    assert world.leftovers() == []


@pytest.mark.parametrize("world", [FROZEN.replace("max_size: 3", "max_size: 12")], indirect=True, ids=[""])
def test_no_more_rest_while_many_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four threads claim and release six tenants whose programs end slowly: at no moment are more than two frozen."""
    most, stop, become = list[int](), world.engine.stop, world.ledger.become

    def slowly(container: str, timeout: int) -> None:
        time.sleep(0.03)
        stop(container, timeout)

    def counted(*arguments: Any, **options: Any) -> None:
        become(*arguments, **options)
        most.append(len(world.ledger.tenants("frozen")))

    def live(name: str) -> None:
        for _ in range(3):
            used(world, TenantId(name))

    monkeypatch.setattr(world.engine, "stop", slowly)
    monkeypatch.setattr(world.ledger, "become", counted)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(live, [f"t{number}" for number in range(6)]))

    assert max(most) == 2
    assert world.recovery.workers.wait(PATIENCE)
    assert {row.state for row in world.ledger.tenants()} <= {"cold", "frozen", "parked"}
    assert world.leftovers() == []


@both
def test_one_whose_end_is_offered_twice_ends_once(world: World, slow: Slow) -> None:
    """Alice's time is over at the moment at which her place is needed: she ends once, and one event says so."""
    slow.go.set()
    used(world, CAROL)
    world.clock.advance(120)
    world.recovery.expire()

    assert world.recovery.workers.wait(PATIENCE)
    assert states(world) == ["cold", "cold", "cold"]
    ended = [one.tenant for one in world.events.newest() if one.kind == "rest-ended"]
    assert sorted(map(str, ended)) == [ALICE, BOB, CAROL]
