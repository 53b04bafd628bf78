"""A frozen program has more to say, at its end: a daemon that dies around the freeze must not cut it off."""

import pytest
from claw_runtime.ports import ContainerSpec
from claw_runtime.tenancy import TenantId
from claw_runtime.tenants.lifecycle import Step
from fakes.world import FROZEN, World

ALICE = TenantId("alice")
pytestmark = pytest.mark.world(workload=FROZEN)


class Killed(BaseException):
    """SIGKILL: nothing of ours may catch it."""


@pytest.fixture
def world(world: World) -> World:
    """A host whose tenant says goodbye into /state when its program is told to end."""

    def goodbye(spec: ContainerSpec) -> None:
        state = next(bind.source for bind in spec.binds if bind.target == "/state")
        (state / "goodbye").write_text("bye")

    world.engine.ended = goodbye
    world.tenants.claim(ALICE, "small")
    world.write(ALICE, {"colour": "green"})
    return world


def kill_at(world: World, patch: pytest.MonkeyPatch, method: str, word: str) -> None:
    """Let the daemon die before it writes this word to the ledger."""
    real = getattr(world.ledger, method)

    def call(*arguments: object, **options: object) -> object:
        if word in (*arguments, *options.values()):
            raise Killed
        return real(*arguments, **options)

    patch.setattr(world.ledger, method, call)


def test_a_commit_that_landed_ends_as_it_was_meant(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between the commit and the note of it, the container is still frozen, and says its goodbye later."""
    kill_at(world, monkeypatch, "become", "frozen")
    with pytest.raises(Killed):
        world.tenants.release(ALICE)
    world.restart()

    world.recover()

    row = world.ledger.tenant(ALICE)
    assert row is not None
    assert (row.state, row.base) == ("frozen", 1)
    assert world.saved(ALICE) == {"colour": "green"}
    world.clock.advance(61)
    world.recovery.expire()
    assert world.saved(ALICE) == {"colour": "green", "goodbye": "bye"}
    assert world.leftovers() == []


def test_a_commit_that_landed_is_claimed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim that comes upon such a tenant wakes its container, and leaves no other slot behind."""
    container = world.tenants.claim(ALICE, "small").container
    with monkeypatch.context() as patch:
        kill_at(world, patch, "become", "frozen")
        with pytest.raises(Killed):
            world.tenants.release(ALICE)

    claim = world.tenants.claim(ALICE, "small")

    assert (claim.container, claim.source) == (container, "frozen")
    assert world.leftovers() == []


def test_a_release_that_leaves_nothing_still_hears_the_goodbye(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """When such a tenant is released for good, what its program says at its end is in the store."""
    with monkeypatch.context() as patch:
        kill_at(world, patch, "become", "frozen")
        with pytest.raises(Killed):
            world.tenants.release(ALICE)

    world.tenants.release(ALICE, affinity=False)

    assert world.row_state(ALICE) == "cold"
    assert world.saved(ALICE) == {"colour": "green", "goodbye": "bye"}


def test_a_thaw_that_had_only_begun_is_taken_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed right after the claim was announced, the frozen container is what it was, not destroyed unheard."""
    world.tenants.release(ALICE)
    kill_at(world, monkeypatch, "note", Step.SLOT)
    with pytest.raises(Killed):
        world.tenants.claim(ALICE, "small")
    world.restart()

    world.recover()

    assert world.row_state(ALICE) == "frozen"
    assert world.tenants.claim(ALICE, "small").source == "frozen"
    assert world.leftovers() == []
