"""HEAD is lost, older or of another store: the tenant does not start, and nothing of it on this host is removed."""

from collections.abc import Callable
from pathlib import Path

import pytest
from claw_runtime.errors import RestoreFailed
from claw_runtime.formats.head import HeadRefused
from claw_runtime.objects.memory import MemoryStore
from claw_runtime.operations.maintenance import DAY, Maintenance
from claw_runtime.tenancy import Keys, TenantId
from fakes.world import World

ALICE = TenantId("alice")
HEAD = Keys(ALICE).head
Harm = Callable[[World, bytes], None]


def used(world: World, **files: str) -> bytes:
    """A tenant that was claimed twice, wrote, and was released; its HEAD before the last generation."""
    world.tenants.claim(ALICE, "small")
    world.write(ALICE, {"shape": "round"})
    world.tenants.sync(ALICE)
    old, _ = world.store.get(HEAD)
    world.write(ALICE, files or {"colour": "blue"})
    world.tenants.release(ALICE)
    return old


def lost(world: World, _old: bytes) -> None:
    world.store.delete(HEAD)


def older(world: World, old: bytes) -> None:
    world.store.put(HEAD, old)


def damaged(world: World, _old: bytes) -> None:
    world.store.put(HEAD, world.store.get(HEAD)[0][:-30])


def emptied(world: World, _old: bytes) -> None:
    for item in list(world.store.list("")):
        world.store.delete(item.key)


HARMS = pytest.mark.parametrize("harm", [lost, older, damaged, emptied])


def objects(world: World) -> dict[str, bytes]:
    return {item.key: world.store.get(item.key)[0] for item in world.store.list("")}


def repaired(world: World, before: dict[str, bytes]) -> None:
    for key, data in before.items():
        world.store.put(key, data)


def check_refused(world: World) -> None:
    """Everything that would end the rest or use the state is refused."""
    for call in (
        lambda: world.tenants.claim(ALICE, "small"),
        lambda: world.tenants.release(ALICE, affinity=False),
        lambda: world.tenants.release(ALICE, sync=False),
        lambda: world.tenants.collect(ALICE, grace=0),
    ):
        with pytest.raises(HeadRefused):
            call()


@HARMS
@pytest.mark.parametrize("again", [False, True])
def test_a_parked_tree_stays(parked: World, harm: Harm, *, again: bool) -> None:
    """A claim, the end of its rest, a release and a collection leave it, also after a restart of the daemon; it is used
    when HEAD is back."""
    old = used(parked)
    before = objects(parked)
    harm(parked, old)
    after = objects(parked)
    if again:
        parked.restart()

    check_refused(parked)
    parked.clock.advance(600)
    parked.standby.expire()
    parked.recovery.recover()

    assert objects(parked) == after
    assert parked.row_state(ALICE) == "parked"
    repaired(parked, before)
    assert parked.tenants.claim(ALICE, "small").state == "tree"
    assert (parked.state(ALICE) / "colour").read_text() == "blue"


@HARMS
@pytest.mark.parametrize("again", [False, True])
def test_a_frozen_container_stays(frozen: World, harm: Harm, *, again: bool) -> None:
    """Likewise; it is the same container when HEAD is back."""
    old = used(frozen)
    before, containers = objects(frozen), frozen.engine.list(frozen.pools.owner_labels)
    harm(frozen, old)
    after = objects(frozen)
    if again:
        frozen.restart()

    check_refused(frozen)
    frozen.clock.advance(600)
    frozen.standby.expire()
    frozen.recovery.recover()
    frozen.recovery.supervise()

    assert objects(frozen) == after
    assert frozen.row_state(ALICE) == "frozen"
    assert frozen.engine.list(frozen.pools.owner_labels) == containers
    repaired(frozen, before)
    assert frozen.tenants.claim(ALICE, "small").source == "frozen"
    assert (frozen.state(ALICE) / "colour").read_text() == "blue"


@HARMS
def test_the_tree_of_a_frozen_container_that_is_gone_stays(frozen: World, harm: Harm) -> None:
    """A reboot ends the container; its tree is not in the store for sure, so it stays until HEAD is back."""
    old = used(frozen)
    before, tree = objects(frozen), frozen.state(ALICE)
    harm(frozen, old)
    [container] = [one for one in frozen.engine.list(frozen.pools.owner_labels) if one.state == "paused"]
    frozen.engine.remove(container.id)
    frozen.restart()
    frozen.recover()
    frozen.recovery.supervise()

    assert frozen.row_state(ALICE) == "frozen"
    assert (tree / "colour").read_text() == "blue"
    repaired(frozen, before)
    frozen.recovery.supervise()
    assert frozen.row_state(ALICE) == "cold"
    assert frozen.saved(ALICE) == {"colour": "blue", "shape": "round"}


@HARMS
def test_a_running_tenant_keeps_its_tree(parked: World, harm: Harm) -> None:
    """A sync fails and the tenant runs on. A release keeps the tree, which is committed once HEAD is back."""
    old = used(parked)
    parked.tenants.claim(ALICE, "small")
    parked.write(ALICE, {"colour": "red"})
    before = objects(parked)
    harm(parked, old)
    after = objects(parked)

    with pytest.raises(HeadRefused):
        parked.tenants.sync(ALICE)
    assert parked.row_state(ALICE) == "active"
    with pytest.raises(HeadRefused, match="was not committed; nothing is lost") as refused:
        parked.tenants.release(ALICE)
    assert "the daemon retries" in refused.value.hint
    parked.recovery.retry()
    with pytest.raises(HeadRefused):
        parked.tenants.claim(ALICE, "small")
    parked.restart()
    parked.recovery.recover()

    assert objects(parked) == after
    assert parked.kept(ALICE) == {"colour": "red", "shape": "round"}
    repaired(parked, before)
    parked.recovery.retry()
    assert parked.row_state(ALICE) == "cold"
    assert parked.saved(ALICE) == {"colour": "red", "shape": "round"}


@HARMS
def test_a_collection_in_the_background_removes_nothing(parked: World, harm: Harm) -> None:
    """Days pass; each generation is still there when HEAD is back."""
    old = used(parked)
    before = objects(parked)
    harm(parked, old)
    after = objects(parked)
    maintenance = Maintenance(parked.tenants, parked.ledger, parked.clock, lambda _pool: None)
    for _ in range(5):
        maintenance.collect()
        parked.clock.advance(DAY)

    assert objects(parked) == after
    repaired(parked, before)
    assert parked.saved(ALICE) == {"colour": "blue", "shape": "round"}


def test_two_hosts_refuse_the_same_tenant(parked: World, tmp_path: Path) -> None:
    """Also the host that never had it: its generations are there."""
    lost(parked, used(parked))
    other = World(tmp_path / "other", store=parked.store, owner="host-b")
    try:
        for world in (parked, other):
            with pytest.raises(HeadRefused, match="HEAD of tenant alice is missing"):
                world.tenants.claim(ALICE, "small")
        assert other.row_state(ALICE) == "cold"
        assert other.leftovers() == []
    finally:
        other.close()


def test_a_tenant_that_is_new_begins_empty(parked: World) -> None:
    """Also one that was claimed and never wrote, and one whose state a person removed."""
    assert parked.tenants.claim(ALICE, "small").state == "empty"
    parked.tenants.release(ALICE)
    assert parked.tenants.claim(ALICE, "small").state in ("empty", "tree")
    parked.tenants.release(ALICE, affinity=False)
    used(parked)
    with parked.tenants.still(ALICE):
        parked.repository.bury(ALICE)
    assert parked.tenants.claim(ALICE, "small").state == "empty"


def other_lineage(world: World, tmp_path: Path) -> None:
    """The store of the world gets, under the same numbers and epochs, what another host stored elsewhere."""
    other = World(tmp_path / "elsewhere", store=MemoryStore(), owner="host-b")
    used(other, colour="green")
    emptied(world, b"")
    repaired(world, objects(other))
    other.close()
    world.ledger.database.connection.execute("DELETE FROM head")


def test_a_parked_tree_of_another_lineage_is_not_adopted(parked: World, tmp_path: Path) -> None:
    """Its generation has the number of HEAD's, and another digest."""
    used(parked)
    other_lineage(parked, tmp_path)
    claim = parked.tenants.claim(ALICE, "small")
    assert (claim.generation, claim.state) == (2, "restored")
    assert (parked.state(ALICE) / "colour").read_text() == "green"


def test_a_frozen_container_of_another_lineage_is_not_thawed(frozen: World, tmp_path: Path) -> None:
    """Likewise."""
    used(frozen)
    other_lineage(frozen, tmp_path)
    claim = frozen.tenants.claim(ALICE, "small")
    assert (claim.generation, claim.state) == (2, "restored")
    assert (frozen.state(ALICE) / "colour").read_text() == "green"


def test_a_kept_tree_of_another_lineage_is_not_committed(parked: World, tmp_path: Path) -> None:
    """It stays on this host, although number, epoch and step say that its commit is in the store."""
    used(parked)
    parked.tenants.claim(ALICE, "small")
    parked.write(ALICE, {"colour": "red"})
    lost(parked, b"")
    with pytest.raises(RestoreFailed):
        parked.tenants.release(ALICE)
    other_lineage(parked, tmp_path)

    for _ in range(2):
        parked.recovery.retry()
        with pytest.raises(RestoreFailed, match="of another lineage"):
            parked.tenants.claim(ALICE, "small")
    assert parked.kept(ALICE) == {"colour": "red", "shape": "round"}
    assert parked.saved(ALICE)["colour"] == "green"


def test_a_tree_from_before_digests_is_adopted_by_its_number(parked: World) -> None:
    """A row of an older ledger has no digest."""
    used(parked)
    parked.ledger.note(ALICE, base_sha256="")
    assert parked.tenants.claim(ALICE, "small").state == "tree"
