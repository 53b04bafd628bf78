"""A lease that nobody needs any more is given back before the ledger forgets that it was ours."""

from pathlib import Path

import pytest
from claw_runtime.errors import NotClaimed, StoreUnavailable, UploadFailed
from claw_runtime.interchange.tar_in import Interchange
from claw_runtime.objects.memory import MemoryStore
from claw_runtime.tenancy import TenantId
from fakes.stores import Fault, FaultyStore
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


def killed_import(world: World, source: Path, patch: pytest.MonkeyPatch) -> None:
    """The daemon dies while alice's import is committed."""
    source.mkdir()
    (source / "colour").write_text("green")
    interchange = Interchange(world.repository, world.layout, world.tenants.still)
    with patch.context() as here:
        here.setattr(world.repository.committer, "commit", killed)
        here.setattr(world.repository.leases, "give_back", killed)
        with pytest.raises(Killed):
            interchange.bring(ALICE, source)
    world.restart()


def test_an_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed during the import of a tenant that was never claimed here, the next daemon gives its lease back."""
    world = World(tmp_path)
    killed_import(world, tmp_path / "source", monkeypatch)
    assert not is_free(world)

    world.recover()

    assert is_free(world)
    assert not world.repository.leases.held()
    world.close()


@pytest.mark.parametrize("rests", ["cold", "parked", "frozen"])
def test_a_collection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rests: str) -> None:
    """Killed while the garbage of a tenant without a running container is collected, the lease is given back."""
    world = World(tmp_path, workload=FROZEN.replace("frozen: 2", "tree: 2") if rests == "parked" else FROZEN)
    world.tenants.claim(ALICE, "small")
    world.write("alice", {"colour": "green"})
    world.tenants.release(ALICE, affinity=rests != "cold")
    with monkeypatch.context() as patch:
        patch.setattr(world.repository.garbage, "collect", killed)
        patch.setattr(world.repository.leases, "give_back", killed)
        with pytest.raises(Killed):
            world.tenants.collect(ALICE)
    world.restart()
    assert (world.row_state("alice"), is_free(world)) == (rests, False)

    world.recover()

    assert (world.row_state("alice"), is_free(world)) == (rests, True)
    world.close()


def test_release_on_that_host_gives_the_lease_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error of every other host advises it, so it works for a tenant that has no row; once."""
    world = World(tmp_path)
    killed_import(world, tmp_path / "source", monkeypatch)

    assert world.tenants.release(ALICE).generation is None
    assert is_free(world)
    with pytest.raises(NotClaimed):
        world.tenants.release(ALICE)
    world.close()


def test_release_on_that_host_after_its_ledger_was_lost(tmp_path: Path) -> None:
    """Only HEAD names the owner then."""
    world = World(tmp_path)
    world.repository.leases.acquire(ALICE)
    world.ledger.close()
    world.layout.ledger.unlink()
    del world.ledger
    world.restart()

    world.tenants.release(ALICE)

    assert is_free(world)
    world.close()


def test_a_lease_that_could_not_be_given_back_is_given_back_later(tmp_path: Path) -> None:
    """The store was away when a tenant was released without a commit: the daemon tries again while it runs."""
    world = World(tmp_path)
    world.tenants.claim(ALICE, "small")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.repository.leases, "give_back", lambda _: (_ for _ in ()).throw(StoreUnavailable("away")))
        world.tenants.release(ALICE, sync=False)
    assert (world.row_state("alice"), is_free(world)) == ("cold", False)

    world.recovery.retry()

    assert is_free(world)
    world.close()


def test_the_lease_of_a_running_or_kept_tenant_stays(tmp_path: Path) -> None:
    """Another host would continue from an older generation."""
    store = FaultyStore(MemoryStore())
    world = World(tmp_path, store=store)
    world.tenants.claim(ALICE, "small")
    world.restart()
    world.recover()
    world.recovery.retry()
    assert not is_free(world)

    store.tell(Fault(operation="put", key="packs", action="unavailable", times=10**6))
    world.write("alice", {"colour": "green"})
    with pytest.raises(UploadFailed):
        world.tenants.release(ALICE)
    world.restart()
    world.recover()
    assert (world.row_state("alice"), is_free(world)) == ("kept", False)
    world.close()
