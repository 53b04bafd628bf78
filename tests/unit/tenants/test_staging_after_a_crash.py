"""A tree that was being made when its process was killed goes at the next start; one that somebody needs stays."""

import pytest
from claw_runtime.tenancy import TenantId
from fakes.world import FROZEN, World

ALICE, BOB, CAROL = map(TenantId, ("alice", "bob", "carol"))
pytestmark = pytest.mark.world(workload=FROZEN)


def stage(world: World, tenant: TenantId) -> None:
    """What an import leaves when its daemon is killed."""
    for place in (world.layout.staging(tenant), world.layout.donor(tenant)):
        (place / "deep").mkdir(parents=True)
        (place / "deep" / "file").write_text("half")


def test_what_a_killed_import_left_is_removed(world: World) -> None:
    """Of a tenant that no row knows, and of one that was here before; names that are no tenant's are left alone."""
    world.tenants.claim(ALICE, "small")
    world.tenants.release(ALICE, affinity=False)
    stage(world, ALICE)
    stage(world, BOB)
    stranger = world.layout.tenants / "Not a tenant" / "staging"
    stranger.mkdir(parents=True)
    world.restart()

    world.recover()

    for tenant in (ALICE, BOB):
        assert not world.layout.staging(tenant).exists()
        assert not world.layout.donor(tenant).exists()
    assert stranger.exists()


def test_a_staged_tree_that_is_needed_stays(world: World) -> None:
    """While another operation works on the tenant, and while the tenant is here."""
    world.tenants.claim(CAROL, "small")
    stage(world, BOB)
    stage(world, CAROL)
    with world.locks.held(BOB):
        world.recovery.recover()
    assert world.layout.staging(BOB).exists()
    assert world.layout.staging(CAROL).exists()
