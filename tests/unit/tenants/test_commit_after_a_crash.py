"""A commit that a crash cut off is told as what the store has, and is never taken for another host's."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from claw_runtime.errors import ClawError
from claw_runtime.tenancy import TenantId
from fakes.refusals import refuse
from fakes.world import FROZEN, World

ALICE = TenantId("alice")
pytestmark = pytest.mark.world(workload=FROZEN)


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


@pytest.fixture
def other(world: World, tmp_path: Path) -> Iterator[World]:
    """Another host on the same store."""
    made = World(tmp_path / "other", workload=FROZEN, store=world.store, owner="host-b")
    yield made
    made.close()


class TestTakenOverAfterTheSwap:
    """The host dies after HEAD was swapped by a release and before that is noted; another host takes the tenant."""

    @pytest.fixture
    def killed(self, world: World, monkeypatch: pytest.MonkeyPatch) -> World:
        claimed(world, ALICE)
        with monkeypatch.context() as patch:
            killed_at_a_note(world, patch, base=1)
            with pytest.raises(Killed):
                world.tenants.release(ALICE, affinity=False)
        return world

    @pytest.mark.parametrize("ends", ["claimed", "committed"])
    def test_the_tree_is_known_to_be_stored(self, killed: World, other: World, ends: str) -> None:
        """By the digest of its generation: nothing is kept, and the other host's state stays."""
        assert other.tenants.claim(ALICE, "small").generation == 1
        if ends == "committed":
            other.write(ALICE, {"colour": "red"})
            other.tenants.release(ALICE, affinity=False)
        killed.restart()

        killed.recover()

        row, _ = killed.tenants.find(ALICE)
        assert (row.state, row.base, row.error, killed.kept(ALICE)) == ("cold", 1, "", {})
        head = killed.repository.generations.head(ALICE)
        assert head is not None
        assert (head.generation, head.owner) == ((2, None) if ends == "committed" else (1, "host-b"))
        if ends == "committed":
            assert other.saved(ALICE) == {"colour": "red"}
            assert killed.tenants.claim(ALICE, "small").generation == 2

    def test_a_frozen_program_runs_no_more(self, world: World, other: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is not thawed to be stopped, since it could write what no generation has."""
        claimed(world, ALICE)
        with monkeypatch.context() as patch:
            killed_at_a_note(world, patch, base=1)
            with pytest.raises(Killed):
                world.tenants.release(ALICE)
        other.tenants.claim(ALICE, "small")
        world.restart()

        world.recover()

        assert (world.row_state(ALICE), world.kept(ALICE)) == ("frozen", {})
        world.clock.sleep(61)
        world.recovery.expire()
        assert (world.row_state(ALICE), world.kept(ALICE)) == ("cold", {})

    def test_an_unchanged_tree_is_stored(self, killed: World, other: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """It made no generation of its own."""
        killed.restart()
        killed.recover()
        killed.tenants.claim(ALICE, "small")
        with monkeypatch.context() as patch:
            killed_at_a_note(killed, patch, base=1)
            with pytest.raises(Killed):
                killed.tenants.release(ALICE, affinity=False)
        other.tenants.claim(ALICE, "small")
        killed.restart()

        killed.recover()

        assert (killed.row_state(ALICE), killed.kept(ALICE)) == ("cold", {})

    def test_a_later_claim_is_not_taken_for_it(
        self, killed: World, other: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What the next release could not swap is kept: the digest of an earlier one says nothing about it."""
        killed.restart()
        killed.recover()
        killed.tenants.claim(ALICE, "small")
        killed.write(ALICE, {"colour": "green"})
        with monkeypatch.context() as patch:
            patch.setattr(killed.repository.committer._publisher, "seal", refuse(Killed()))
            with pytest.raises(Killed):
                killed.tenants.release(ALICE, affinity=False)
        other.tenants.claim(ALICE, "small", take_over=True)
        killed.restart()

        killed.recover()

        assert (killed.row_state(ALICE), killed.kept(ALICE)) == ("kept", {"colour": "green"})

    def test_a_swap_that_did_not_happen_is_kept(
        self, world: World, other: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The digest was noted, but the other host was first."""
        claimed(world, ALICE)
        with monkeypatch.context() as patch:
            patch.setattr(world.repository.committer._publisher, "publish", refuse(Killed()))
            with pytest.raises(Killed):
                world.tenants.release(ALICE, affinity=False)
        other.tenants.claim(ALICE, "small", take_over=True)
        other.write(ALICE, {"colour": "red"})
        other.tenants.release(ALICE, affinity=False)
        world.restart()

        world.recover()

        assert (world.row_state(ALICE), world.kept(ALICE)) == ("kept", {"colour": "blue"})
        assert other.saved(ALICE) == {"colour": "red"}


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
