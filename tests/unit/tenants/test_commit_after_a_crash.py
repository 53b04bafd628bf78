"""A commit that a crash cut off is told as what the store has, and is never taken for another host's."""

from typing import Any

import pytest
from claw_runtime.errors import ClawError
from claw_runtime.tenancy import TenantId
from fakes.world import FROZEN, World

ALICE = TenantId("alice")
pytestmark = pytest.mark.world(workload=FROZEN)


def refuse(error: Exception) -> Any:
    def refusing(*_: object, **__: object) -> None:
        raise error

    return refusing


def claimed(world: World, *tenants: TenantId) -> None:
    for tenant in tenants:
        world.tenants.claim(tenant, "small")
        world.write(tenant, {"colour": "blue"})


class Killed(BaseException):
    """SIGKILL: nothing of ours may catch it."""


def killed_at_a_note(world: World, monkeypatch: pytest.MonkeyPatch, **columns: object) -> pytest.MonkeyPatch:
    """The daemon is killed just before the ledger notes these columns."""
    real = world.ledger.note

    def noting(tenant: TenantId, **noted: Any) -> None:
        if columns.items() <= noted.items():
            raise Killed
        real(tenant, **noted)

    monkeypatch.setattr(world.ledger, "note", noting)
    return monkeypatch


def test_a_number_after_a_crash_is_that_of_the_store(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that made no generation, and whose end a crash cut off, is not told as one more than there is."""
    claimed(world, ALICE)
    world.tenants.release(ALICE, affinity=False)
    world.tenants.claim(ALICE, "small")
    with monkeypatch.context() as patch:
        patch.setattr(world.releaser, "_leave", refuse(ClawError("killed")))
        with pytest.raises(ClawError):
            world.tenants.release(ALICE, affinity=False)
    world.restart()

    world.recover()

    row, _ = world.tenants.find(ALICE)
    assert (row.state, row.base) == ("cold", 1)


def test_two_kills_take_no_commit_for_another_hosts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed when a sync had landed and was not noted, and again with a new lease in hand: nothing is fenced."""
    claimed(world, ALICE)
    with monkeypatch.context() as patch:
        killed_at_a_note(world, patch, step="", base=1)
        with pytest.raises(Killed):
            world.tenants.sync(ALICE)
    world.restart()
    world.recover()
    world.write(ALICE, {"colour": "green"})
    with monkeypatch.context() as patch:
        killed_at_a_note(world, patch, step="lease")
        with pytest.raises(Killed):
            world.tenants.release(ALICE)
    world.restart()

    world.recover()

    assert world.row_state(ALICE) == "cold"
    assert world.saved(ALICE) == {"colour": "green"}
