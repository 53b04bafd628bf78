"""Pools over a fake engine."""

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest
from claw_runtime.errors import EngineFailed, ImageMissing
from claw_runtime.ports import EngineInfo
from claw_runtime.services.pools import FIRST_BACKOFF, Pools
from claw_runtime.tenancy import TenantId
from fakes.world import IMAGE, World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def states(world: World) -> list[str]:
    return sorted(slot.state for slot in world.ledger.slots())


class TestKeep:
    def test_fills_to_min_size_with_initialised_containers(self, world: World) -> None:
        """A pass makes min_size slots, prepared and not started."""
        world.pools.keep()

        assert states(world) == ["ready", "ready"]
        assert {c.state for c in world.engine.list(world.pools.owner_labels)} == {"initialized"}
        assert "start" not in world.engine.calls

    def test_second_pass_changes_nothing(self, world: World) -> None:
        """A full pool is left alone."""
        world.pools.keep()
        before = world.ledger.slots()

        world.pools.keep()

        assert world.ledger.slots() == before

    def test_refills_after_a_claim_up_to_max_size(self, world: World) -> None:
        """Claimed slots count towards max_size, not towards min_size."""
        world.pools.keep()
        for tenant in ("a", "b"):
            world.claims.claim(TenantId(tenant), "small")

        world.pools.keep()

        assert states(world) == ["claimed", "claimed", "ready"]

    def test_new_image_replaces_waiting_slots(self, world: World) -> None:
        """When the tag names another image, ready slots are made anew and claimed ones are left alone."""
        world.pools.keep()
        world.claims.claim(TenantId("a"), "small")
        old = {slot.id for slot in world.ledger.slots() if slot.state == "ready"}
        world.engine.add_image("other")
        world.engine.add_image(IMAGE)

        world.pools.keep()

        ready = {slot.id for slot in world.ledger.slots() if slot.state == "ready"}
        assert len(ready) == 2
        assert not ready & old
        assert world.row_state("a") == "active"

    def test_failing_engine_backs_off_and_says_why(self, world: World) -> None:
        """A slot that cannot be made leaves nothing behind, waits before the next try, and shows in the status."""
        world.engine.fail("initialize", EngineFailed("no room for a network"))
        world.pools.keep()

        world.pools.keep()

        assert world.engine.calls.count("create") == 1
        assert world.pools.status()[0].error == "no room for a network"
        assert world.leftovers() == []
        world.clock.sleep(FIRST_BACKOFF + 0.1)
        world.pools.keep()
        assert states(world) == ["ready", "ready"]
        assert world.pools.status()[0].error == ""

    def test_missing_image_is_told(self, world: World) -> None:
        """A pool whose image is not there stays empty and says so."""
        world.engine.fail("image", ImageMissing("image localhost/small:dev is not there"))

        world.pools.keep()

        assert "is not there" in world.pools.status()[0].error

    def test_slot_that_is_being_replaced_is_not_taken(self, world: World) -> None:
        """A claim that planned with the old image finds no old slot once its removal has begun."""
        world.pools.keep()
        old = world.ledger.slots()[0].recipe
        world.ledger.begin_claim(TenantId("a"), "small", 0.0)
        world.engine.add_image("other")
        world.engine.add_image(IMAGE)
        taken, slots = [], {slot.id for slot in world.ledger.slots()}
        real = world.engine.remove

        def remove(container: str) -> None:
            found = world.ledger.take_slot("small", old, TenantId("a"))
            taken.append(found and found.id)
            real(container)

        world.engine.remove = remove  # type: ignore[method-assign]
        world.pools.keep()

        doomed = [slot for slot in slots if world.ledger.slot(slot) is None]
        assert not set(doomed) & set(taken)
        row = world.ledger.tenant(TenantId("a"))
        assert row is not None
        assert row.slot is None or row.slot not in doomed

    def test_claim_replaces_an_old_slot_when_there_is_no_room(self, world: World) -> None:
        """Waiting slots of an image that was replaced are not `in use`: a claim takes their place."""
        world.pools.keep()
        world.claims.claim(TenantId("a"), "small")
        world.pools.keep()
        world.engine.add_image("other")
        world.engine.add_image(IMAGE)
        world.restart()  # a daemon that has not looked at its pools yet

        claim = world.claims.claim(TenantId("b"), "small")

        assert claim.source == "cold"
        assert states(world) == ["claimed", "claimed", "ready"]
        assert world.leftovers() == []

    def test_full_disk_leaves_no_slot_and_says_why(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """A slot whose directories cannot be made is no slot, and the next pass makes it."""
        full = OSError(errno.ENOSPC, "No space left on device")
        with monkeypatch.context() as patch:
            patch.setattr(world.pools._slots, "_make_directories", _raise(full))
            world.pools.keep()

        assert states(world) == []
        assert "No space left" in world.pools.status()[0].error
        world.clock.sleep(FIRST_BACKOFF + 0.1)
        world.pools.keep()
        assert states(world) == ["ready", "ready"]

    def test_slot_that_could_not_be_removed_is_removed_later(self, world: World) -> None:
        """A slot that failed, and whose container could not be removed either, does not take a place for ever."""
        world.engine.fail("initialize", EngineFailed("no"))
        world.engine.fail("remove", EngineFailed("no"))
        world.pools.keep()
        assert states(world) == ["filling"]

        world.clock.sleep(FIRST_BACKOFF + 0.1)
        world.pools.keep()

        assert (states(world), world.leftovers()) == (["ready", "ready"], [])


def _raise(error: Exception) -> object:
    def fail(*_: object) -> None:
        raise error

    return fail


class TestLimits:
    def test_limit_that_cannot_be_enforced_is_refused(self, world: World) -> None:
        """Without the operator's word a limit is never dropped silently."""
        pools = limited(world, drop=False)

        pools.keep()

        assert "memory" in pools.status()[0].error

    def test_limit_is_dropped_when_told(self, world: World) -> None:
        """With `limits: drop` the slot is made without it."""
        pools = limited(world, drop=True)

        pools.keep()

        containers = world.engine.list(pools.owner_labels)
        assert [world.engine.spec(found.id).memory for found in containers] == [None, None]


def limited(world: World, *, drop: bool) -> Pools:
    """Pools of a workload with a memory limit, on a host without controllers."""
    from claw_runtime.spec import loader

    info = world.engine.info()
    world.engine.host = EngineInfo(
        version=info.version,
        rootless=True,
        storage_driver="overlay",
        cgroup_version="v2",
        cgroup_controllers=(),
        runtime="fake",
    )
    text = world._text + "deploy: {resources: {limits: {memory: 64m}}}\n"
    return Pools(
        engine=world.engine,
        ledger=world.ledger,
        layout=world.layout,
        clock=world.clock,
        owner=world.owner,
        documents={"small": loader.parse(text, Path("small.yaml"))},
        drop_limits=drop,
    )


class TestRecover:
    def test_waiting_slots_survive_a_restart(self, world: World) -> None:
        """Initialised containers of the last daemon are used on."""
        world.pools.keep()
        before = {slot.id for slot in world.ledger.slots()}

        world.restart()
        world.recover()

        assert {slot.id for slot in world.ledger.slots()} == before

    def test_half_made_slot_is_removed(self, world: World) -> None:
        """A slot that was being filled is removed with its container and directories."""
        world.engine.fail("inspect", KeyboardInterrupt())  # type: ignore[arg-type]
        with pytest.raises(KeyboardInterrupt):
            world.pools.keep()
        assert states(world) == ["filling"]

        world.restart()
        world.recover()

        assert states(world) == []
        assert world.engine.list(world.pools.owner_labels) == []
        assert world.leftovers() == []

    def test_container_without_a_row_is_removed(self, world: World) -> None:
        """A container of ours that the ledger does not know is removed."""
        world.pools.keep()
        slot = world.ledger.slots()[0]
        world.ledger.drop_slot(slot.id)

        world.recover()

        assert len(world.engine.list(world.pools.owner_labels)) == 1

    def test_containers_of_other_runtimes_are_left_alone(self, world: World, tmp_path: Path) -> None:
        """Two runtimes under one user do not touch each other's containers."""
        world.pools.keep()
        world.owner = "host-b"
        world.layout = type(world.layout)(home=tmp_path / "b", run=tmp_path / "b-run")
        world.ledger.close()
        del world.ledger
        world.restart()

        world.recover()

        assert len(world.engine.list({"io.claw.owner": "host-a"})) == 2

    def test_drain_removes_waiting_slots_only(self, world: World) -> None:
        """What a clean stop leaves are the tenants' containers."""
        world.pools.keep()
        world.claims.claim(TenantId("a"), "small")

        world.pools.drain()

        assert states(world) == ["claimed"]
