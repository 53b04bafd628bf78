"""No more tenants rest than the workload allows, however many are released at the same moment."""

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from claw_runtime.errors import EngineFailed
from claw_runtime.state.repository import CommitRequest, CommitResult
from claw_runtime.tenancy import TenantId
from fakes.world import FROZEN, World

TENANTS = [TenantId(f"t{number}") for number in range(8)]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Eight tenants run; two may stay frozen, and three trees parked."""
    text = FROZEN.replace("max_size: 3", "max_size: 12").replace("tree: 2", "tree: 3")
    made = World(tmp_path, workload=text)
    claim_all(made)
    yield made
    made.close()


def claim_all(world: World) -> None:
    for tenant in TENANTS:
        world.tenants.claim(tenant, "small")
        world.write(tenant, {"word": tenant})


def release_all(world: World) -> list[str | None]:
    """Release all at once: each commits while all others do."""
    together, real = threading.Barrier(len(TENANTS)), world.repository.committer.commit

    def commit(request: CommitRequest) -> CommitResult:
        if request.right.tenant in TENANTS:
            together.wait(30)
        return real(request)

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(len(TENANTS)) as threads:
        patch.setattr(world.repository.committer, "commit", commit)
        return [done.affinity for done in threads.map(world.tenants.release, TENANTS)]


def rests(world: World) -> dict[str, int]:
    return dict(Counter(row.state for row in world.ledger.tenants() if row.state != "cold"))


def test_eight_releases_at_once(world: World) -> None:
    """Two stay frozen and three parked; three do not rest, and all have their state in the store."""
    told = release_all(world)

    assert Counter(told) == {"frozen": 2, "parked": 3, None: 3}
    assert rests(world) == {"frozen": 2, "parked": 3}
    assert [world.saved(tenant) for tenant in TENANTS] == [{"word": tenant} for tenant in TENANTS]
    assert world.leftovers() == []


def test_those_that_rest_make_room_one_each(world: World) -> None:
    """Two frozen tenants of before make room for two of the eight, not for one, and not for more."""
    for tenant in TENANTS[:2]:
        world.tenants.release(tenant)
    for tenant in TENANTS[:2]:
        world.tenants.claim(tenant, "small")
    others = [TenantId("before-1"), TenantId("before-2")]
    for tenant in others:
        world.tenants.claim(tenant, "small")
    for tenant in others:
        world.tenants.release(tenant)
    assert rests(world)["frozen"] == 2

    release_all(world)

    assert rests(world) == {"frozen": 2, "parked": 3}
    assert [world.row_state(tenant) for tenant in others] == ["cold", "cold"]


def test_a_release_that_fails_leaves_its_place(world: World) -> None:
    """The place is free for the next tenant."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.repository.committer, "commit", _fail)
        for tenant in TENANTS[:3]:
            with pytest.raises(OSError, match="no"):
                world.tenants.release(tenant)

    assert [world.tenants.release(tenant).affinity for tenant in TENANTS[3:5]] == ["frozen", "frozen"]


def _fail(*_: object, **__: object) -> None:
    raise OSError("no")


def test_a_lowered_count_ends_the_oldest(world: World) -> None:
    """An operator's count holds for those that rest already, and for the next release."""
    for tenant in TENANTS[:2]:
        world.tenants.release(tenant)
        world.clock.advance(1)
    world.pools.scale("small", warmth={"frozen": 1})

    world.recovery.expire()

    assert [world.row_state(tenant) for tenant in TENANTS[:2]] == ["cold", "frozen"]
    world.tenants.release(TENANTS[2])
    assert [world.row_state(tenant) for tenant in TENANTS[1:3]] == ["cold", "frozen"]


def test_a_host_that_cannot_freeze_parks_so_many(world: World) -> None:
    """Trees take the place of frozen containers, and are as bounded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.engine, "pause", _refuse)
        for tenant in TENANTS:
            world.tenants.release(tenant)
            world.clock.advance(1)

    world.recovery.expire()

    assert rests(world) == {"parked": 3}


def _refuse(*_: object) -> None:
    raise EngineFailed("this host cannot freeze")
