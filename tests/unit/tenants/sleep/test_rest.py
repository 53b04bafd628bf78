"""Tenants at rest when things go wrong around them: nothing of the past is woken, no part of a tree is taken for all of
it, and nobody waits for a slot that one at rest could give."""

import os
import threading
import time
from pathlib import Path

import pytest
from claw_runtime.errors import ClawError, DiskFull, PoolExhausted, StoreUnavailable
from claw_runtime.fsutil import write_new
from claw_runtime.tenancy import LABEL_CONTRACT, TenantId
from claw_runtime.tenants import trees
from fakes.refusals import refuse
from fakes.waiters import contract
from fakes.world import IMAGE, World

ALICE, BOB, CAROL = TenantId("alice"), TenantId("bob"), TenantId("carol")


def used(world: World, tenant: TenantId = ALICE, **files: str) -> str:
    """A tenant that was claimed, wrote, and was released; the id of its container."""
    container = world.tenants.claim(tenant, "small").container
    world.write(tenant, files or {"colour": "blue", "shape": "round"})
    world.tenants.release(tenant)
    return container


def elsewhere(world: World, tmp_path: Path) -> None:
    """Another host claims alice, writes and releases."""
    other = World(tmp_path / "other", store=world.store, owner="host-b")
    other.tenants.claim(ALICE, "small")
    other.write(ALICE, {"colour": "red"})
    other.tenants.release(ALICE)
    other.close()


def half_removed(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The disk fails in the middle of every removal of a tree."""

    def removing(path: Path) -> None:
        for number, name in enumerate(sorted(path.glob("*"))):
            if number:
                raise OSError(5, "Input/output error", str(name))
            name.unlink()

    monkeypatch.setattr(trees, "remove_tree", removing)
    return monkeypatch


class TestPast:
    def test_a_claim_that_failed_leaves_no_right(
        self, frozen: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After a claim of a frozen tenant that failed, and another host's turn, its old memory is not woken."""
        container = used(frozen)
        with monkeypatch.context() as patch:
            patch.setattr(frozen.claimer, "_announce_start", refuse(DiskFull("no room for the ledger")))
            with pytest.raises(DiskFull):
                frozen.tenants.claim(ALICE, "small")
        frozen.recovery.retry()
        assert frozen.row_state(ALICE) == "frozen"
        elsewhere(frozen, tmp_path)

        claim = frozen.tenants.claim(ALICE, "small")

        assert claim.container != container
        assert (frozen.state(ALICE) / "colour").read_text() == "red"

    def test_dropping_a_frozen_tenant_wakes_nobody(self, frozen: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """`release --no-sync` of a frozen tenant ends its container without a thaw; what was committed stays."""
        container = used(frozen)
        monkeypatch.setattr(frozen.engine, "stop", refuse(AssertionError("woken")))

        frozen.tenants.release(ALICE, sync=False)

        assert frozen.row_state(ALICE) == "cold"
        assert frozen.engine.inspect(container) is None
        assert frozen.saved(ALICE) == {"colour": "blue", "shape": "round"}

    def test_changed_values_end_it(self, frozen: World) -> None:
        """A tenant whose secret has changed since its freeze gets a container that knows the new one."""
        frozen.engine.add_image(IMAGE, labels={LABEL_CONTRACT: contract()})
        secret = frozen.layout.secrets(ALICE) / "OPENROUTER_API_KEY"
        secret.parent.mkdir(mode=0o700, parents=True)
        write_new(secret, b"old")
        container = used(frozen)
        assert frozen.tenants.claim(ALICE, "small").source == "frozen"
        frozen.tenants.release(ALICE)
        secret.write_bytes(b"new")

        claim = frozen.tenants.claim(ALICE, "small")

        assert (claim.source == "frozen", claim.container == container) == (False, False)
        _, slot = frozen.tenants.find(ALICE)
        assert slot is not None
        assert "new" in (frozen.layout.slot(slot.id).values / "values.json").read_text()

    def test_a_drained_pool_wakes_nobody(self, frozen: World) -> None:
        """A pool that takes no claims takes none of frozen tenants either; it stays frozen."""
        used(frozen)
        frozen.pools.drain_pool("small")

        with pytest.raises(PoolExhausted, match="takes no claims"):
            frozen.tenants.claim(ALICE, "small")

        assert frozen.row_state(ALICE) == "frozen"
        frozen.pools.undrain("small")
        assert frozen.tenants.claim(ALICE, "small").source == "frozen"


class TestHalfRemoved:
    def test_part_of_a_parked_tree_is_not_claimed(self, parked: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """A parked tree whose removal the disk stopped half way is never a tenant's state again."""
        used(parked)
        parked.clock.advance(61)
        with monkeypatch.context() as patch:
            half_removed(patch)
            parked.recovery.expire()
        assert parked.row_state(ALICE) == "parked"

        claim = parked.tenants.claim(ALICE, "small")

        assert claim.state == "restored"
        assert sorted(os.listdir(parked.state(ALICE))) == ["colour", "shape"]

    def test_part_of_a_frozen_tree_is_not_committed(
        self, frozen: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A frozen tenant that was being removed while another host had it is not committed when that one is done."""
        used(frozen)
        other = World(tmp_path / "other", store=frozen.store, owner="host-b")
        other.tenants.claim(ALICE, "small")
        frozen.clock.advance(61)
        with monkeypatch.context() as patch:

            def destroy(slot: str) -> None:
                (frozen.layout.slot(slot).state / "colour").unlink()
                raise OSError(5, "Input/output error")

            patch.setattr(frozen.pools, "destroy", destroy)
            frozen.recovery.expire()
        assert frozen.row_state(ALICE) == "frozen"
        other.tenants.release(ALICE)  # nothing has changed: HEAD is of the generation that is frozen here
        other.close()

        frozen.recovery.expire()

        assert frozen.row_state(ALICE) == "cold"
        assert frozen.saved(ALICE) == {"colour": "blue", "shape": "round"}


class TestTime:
    def test_a_silent_engine_ends_nobody(self, parked: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """While the engine does not answer, or the image is missing, nobody's time is over."""
        used(parked)
        monkeypatch.setattr(parked.engine, "image", refuse(ClawError("it does not answer")))
        parked.pools._templates._current.clear()

        parked.recovery.expire()

        assert parked.row_state(ALICE) == "parked"

    def test_looking_costs_the_engine_nothing(self, parked: World) -> None:
        """However many tenants rest, the look for those whose time is over asks the engine for none of them."""
        for tenant in (ALICE, BOB):
            used(parked, tenant)
        parked.engine.calls.clear()

        parked.recovery.expire()

        assert parked.engine.calls == []


class TestLine:
    def test_a_release_lets_the_next_in(self, frozen: World) -> None:
        """A claim that waits for a slot of a full pool gets that of a tenant that is released meanwhile."""
        for tenant in (ALICE, BOB, CAROL):
            frozen.tenants.claim(tenant, "small")
        answers: list[str] = []
        claim = threading.Thread(
            target=lambda: answers.append(frozen.tenants.claim(TenantId("dora"), "small", wait=5).source)
        )
        claim.start()
        while not frozen.pools.show("small").queue:
            time.sleep(0.005)

        frozen.tenants.release(ALICE)
        claim.join(5)

        assert answers == ["cold"]

    def test_one_that_came_late_is_let_in_by_the_next_look(self, frozen: World) -> None:
        """A tenant that froze just as a claim began to wait makes room at the next look."""
        used(frozen)
        for tenant in (BOB, CAROL):
            frozen.tenants.claim(tenant, "small")
        with frozen.pools._inventory("small").queue.enter():
            frozen.recovery.expire()

        assert frozen.row_state(ALICE) == "cold"


def test_a_store_that_is_away_leaves_the_thaw_undone(frozen: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frozen tenant whose lease cannot be had stays as it was at every try, and is back when the store is."""
    used(frozen)
    for operation in ("put", "get"):
        with monkeypatch.context() as patch:
            patch.setattr(frozen.store, operation, refuse(StoreUnavailable("down")))
            with pytest.raises(StoreUnavailable):
                frozen.tenants.claim(ALICE, "small")
        assert frozen.row_state(ALICE) == "frozen"

    assert frozen.tenants.claim(ALICE, "small").source == "frozen"
