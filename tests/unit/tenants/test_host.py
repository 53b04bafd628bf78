"""What a tenant has on its host is looked up once for each operation."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from claw_runtime.tenancy import TenantId
from fakes.world import World

ALICE = TenantId("alice")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    made.pools.keep()
    made.tenants.claim(ALICE, "small")
    made.write("alice", {"name": "alice"})
    made.engine.calls.clear()
    yield made
    made.close()


def asked(world: World) -> dict[str, int]:
    """How often the engine was asked for a container and for an image."""
    return {name: world.engine.calls.count(name) for name in ("inspect", "image")}


def test_a_release_asks_for_its_container_and_image_once(world: World) -> None:
    """Hooks, stop, commit and removal share one look at the container and one at its image."""
    assert world.tenants.release(ALICE).generation is not None

    assert asked(world) == {"inspect": 1, "image": 1}


def test_a_sync_asks_for_its_container_and_image_once(world: World) -> None:
    """A commit of a running tenant costs the engine two questions."""
    world.tenants.sync(ALICE)

    assert asked(world) == {"inspect": 1, "image": 1}


def test_a_claim_of_a_running_tenant_asks_once(world: World) -> None:
    """The answer for a tenant that already runs comes from one look."""
    assert world.tenants.claim(ALICE, "small").already

    assert asked(world) == {"inspect": 1, "image": 1}


def test_the_end_of_a_container_that_died_asks_once(world: World) -> None:
    """Recovery hands what it saw to the release that follows."""
    row = world.ledger.tenant(ALICE)
    assert row is not None
    found = world.host.look(row).container
    assert found is not None
    world.engine.crash(found.id)
    world.engine.calls.clear()

    world.recovery.supervise()

    assert world.row_state(ALICE) == "cold"
    assert asked(world) == {"inspect": 1, "image": 1}


def test_an_occupancy_keeps_what_it_saw(world: World) -> None:
    """It asks when it is asked, and then never again: a later change needs a new look."""
    row = world.ledger.tenant(ALICE)
    assert row is not None
    here = world.host.look(row)
    assert asked(world) == {"inspect": 0, "image": 0}

    assert here.is_live
    assert here.container is not None
    world.engine.crash(here.container.id)

    assert here.is_live
    assert not world.host.look(row).is_live
    assert asked(world) == {"inspect": 2, "image": 0}
