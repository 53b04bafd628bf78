"""A lease that nobody needs any more is given back before the ledger forgets that it was ours."""

from pathlib import Path

import pytest
from claw_runtime.tenancy import TenantId
from fakes.world import WORKLOAD, World

ALICE = TenantId("alice")
POOL = "pool: {min_size: 2, max_size: 3, affinity_timeout: 0}"
FROZEN = WORKLOAD.replace(POOL, "pool: {max_size: 3, affinity_timeout: 60s, warmth: {created: 1, frozen: 2}}")


class Killed(BaseException):
    """SIGKILL: nothing of ours may catch it."""


def killed(*_: object, **__: object) -> None:
    """The daemon dies here."""
    raise Killed


def is_free(world: World) -> bool:
    """Whether another host could have the tenant."""
    head = world.repository.generations.head(ALICE)
    return head is None or head.owner is None


def test_a_release_without_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before the lease is given back, the next daemon gives it back."""
    world = World(tmp_path)
    world.tenants.claim(ALICE, "small")
    with monkeypatch.context() as patch:
        patch.setattr(world.repository.leases, "give_back", killed)
        with pytest.raises(Killed):
            world.tenants.release(ALICE, sync=False)
    world.restart()

    world.recover()

    assert (world.row_state("alice"), is_free(world)) == ("cold", True)
    world.close()


def test_a_frozen_container_of_the_past(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed when a claim had found that others went on, and before it began anew, the tenant is free again."""
    world = World(tmp_path, workload=FROZEN)
    world.tenants.claim(ALICE, "small")
    world.write("alice", {"colour": "green"})
    world.tenants.release(ALICE)
    other = World(tmp_path / "other", store=world.store, owner="host-b")
    other.tenants.claim(ALICE, "small")
    other.write("alice", {"colour": "blue"})
    other.tenants.release(ALICE)
    other.close()
    with monkeypatch.context() as patch:
        patch.setattr(world.pools, "take", killed)
        with pytest.raises(Killed):
            world.tenants.claim(ALICE, "small")
    world.restart()

    world.recover()

    assert (world.row_state("alice"), is_free(world)) == ("cold", True)
    world.close()
