"""A tenant whose pool is gone, or no longer fits its image, still ends with its state in the store."""

from pathlib import Path

import pytest
from claw_runtime.errors import StoreUnavailable, UploadFailed
from claw_runtime.spec import loader
from claw_runtime.tenancy import LABEL_CONTRACT, TenantId
from fakes.refusals import refuse
from fakes.waiters import contract
from fakes.world import FROZEN, IMAGE, WORKLOAD, World

ALICE = TenantId("alice")
OTHER = WORKLOAD.replace("id: small", "id: large")
pytestmark = pytest.mark.world(workload=FROZEN)


def claimed(world: World, *tenants: TenantId) -> None:
    for tenant in tenants:
        world.tenants.claim(tenant, "small")
        world.write(tenant, {"colour": "blue"})


def without_its_pool(world: World) -> None:
    """A new daemon that finds no workload file of the pool."""
    world.text = OTHER
    world.restart()


class TestPoolThatIsGone:
    """The workload file is removed by hand, and the daemon is started again."""

    def test_a_running_tenant_can_be_released(self, world: World) -> None:
        """Its state is committed, and nothing of it stays."""
        claimed(world, ALICE)
        without_its_pool(world)
        world.recover()
        assert world.row_state(ALICE) == "active"

        world.tenants.release(ALICE)

        assert world.saved(ALICE) == {"colour": "blue"}
        assert (world.row_state(ALICE), world.leftovers()) == ("cold", [])

    def test_a_tenant_that_ended_is_committed(self, world: World) -> None:
        """A container that has ended is no reason to keep its tenant's words from the store."""
        claimed(world, ALICE)
        world.engine.crash(world.tenants.find(ALICE)[1].container)  # type: ignore[union-attr, arg-type]
        without_its_pool(world)

        world.recover()

        assert world.saved(ALICE) == {"colour": "blue"}
        assert world.row_state(ALICE) == "cold"

    def test_after_a_reboot_too(self, world: World) -> None:
        """When no container is left to tell its image, the tenant's row does."""
        claimed(world, ALICE)
        world.engine.lose()
        without_its_pool(world)

        world.recover()

        assert world.saved(ALICE) == {"colour": "blue"}
        assert world.row_state(ALICE) == "cold"

    def test_a_frozen_tenant_is_ended(self, world: World) -> None:
        """Nobody can claim it any more: it is stopped and committed."""
        claimed(world, ALICE)
        world.tenants.release(ALICE)
        without_its_pool(world)
        world.recover()

        world.recovery.expire()

        assert world.row_state(ALICE) == "cold"
        assert world.leftovers() == []

    def test_a_kept_tree_reaches_the_store(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """What the store did not take is tried again all the same."""
        claimed(world, ALICE)
        with monkeypatch.context() as patch:
            patch.setattr(world.store, "put", refuse(StoreUnavailable("down")))
            with pytest.raises(UploadFailed):
                world.tenants.release(ALICE)
        without_its_pool(world)

        world.recovery.retry()

        assert world.row_state(ALICE) == "cold"
        assert world.saved(ALICE) == {"colour": "blue"}

    def test_what_is_not_wanted_can_be_dropped(self, world: World) -> None:
        """`release --no-sync` ends it as well."""
        claimed(world, ALICE)
        without_its_pool(world)
        world.recover()

        world.tenants.release(ALICE, sync=False)

        assert (world.row_state(ALICE), world.leftovers()) == ("cold", [])


def test_a_file_that_its_image_no_longer_suits_keeps_nobody(world: World) -> None:
    """A tenant still runs on an old image that does not offer what the file asks of the new one: it can be released."""
    claimed(world, ALICE)
    world.engine.add_image(IMAGE, labels={LABEL_CONTRACT: contract()})
    text = FROZEN.replace("frozen: 2", "prewarmed: 1")
    world.pools.put(loader.parse(text, Path("small.yaml")))

    world.tenants.release(ALICE)

    assert world.saved(ALICE) == {"colour": "blue"}
