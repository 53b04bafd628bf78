"""A tenant meets another image: what that writes counts only once it is ready, and until then there is a way back."""

from pathlib import Path

import pytest
from claw_runtime.errors import Conflict, EngineFailed, ImageMissing, NotClaimed, NotReady, StoreUnavailable
from claw_runtime.ports import ContainerSpec
from claw_runtime.tenancy import TenantId
from fakes.engine import FakeEngine
from fakes.world import IMAGE, World

ALICE = TenantId("alice")
NEW = "localhost/small:new"
DARK = (503, b'{"failing": ["all"]}')


@pytest.fixture
def world(world: World) -> World:
    """A host where alice has state that `IMAGE` wrote, and where `NEW` is loaded."""
    world.engine.add_image(NEW)
    used(world)
    return world


def used(world: World) -> None:
    world.tenants.claim(ALICE, "small")
    world.write(ALICE, {"colour": "blue"})
    world.tenants.release(ALICE)


def image_id(world: World, reference: str) -> str:
    return world.engine.image(reference).id


def running(world: World) -> str:
    """Id of the image that alice runs."""
    row = world.ledger.tenant(ALICE)
    assert row is not None
    found = world.host.look(row).container
    assert found is not None
    return found.image_id


def proven(world: World) -> str:
    row = world.ledger.tenant(ALICE)
    assert row is not None
    return row.proven


def broken(world: World, image: str = NEW) -> None:
    """From now on containers of the image scribble into the state and never get ready."""
    bad = image_id(world, image)

    def started(spec: ContainerSpec) -> None:
        if spec.image == bad:
            world.write(ALICE, {"colour": "scribbled", "junk": "junk"})
        world.prober.always = DARK if spec.image == bad else (200, b"{}")

    world.engine.started = started


def words(world: World) -> dict[str, str]:
    root = world.state(ALICE)
    return {path.name: path.read_text() for path in root.iterdir()}


class TestByItself:
    def test_a_tenant_becomes_used_to_its_image(self, world: World) -> None:
        """The image of the last good claim is remembered, by its id."""
        assert proven(world) == image_id(world, IMAGE)

    def test_a_good_image_takes_over(self, world: World) -> None:
        """A tenant's claim after a change of image runs the new one with its state, and says nothing special."""
        world.pools.set_image("small", NEW)

        claim = world.tenants.claim(ALICE, "small")

        assert (claim.fell_back, claim.generation, words(world)) == ("", 1, {"colour": "blue"})
        assert running(world) == proven(world) == image_id(world, NEW)

    def test_a_bad_image_gives_way_to_the_one_before(self, world: World) -> None:
        """The tenant is up with the image and state that it had; the claim and the events say why."""
        world.pools.set_image("small", NEW)
        broken(world)

        claim = world.tenants.claim(ALICE, "small")

        assert "not ready" in claim.fell_back
        assert running(world) == proven(world) == image_id(world, IMAGE)
        assert words(world) == {"colour": "blue"}
        assert world.saved(ALICE) == {"colour": "blue"}
        assert [event.kind for event in world.events.newest(tenant="alice")][-2:] == ["fell-back", "claimed"]
        assert world.leftovers() == []

    def test_an_image_that_cannot_be_made_a_container_gives_way_too(self, world: World) -> None:
        """A refusal of the engine to make the new container is the new image's fault."""
        world.pools.set_image("small", NEW)
        world.engine.fail("initialize", EngineFailed("podman refused", why="no entrypoint"))

        assert "no entrypoint" in world.tenants.claim(ALICE, "small").fell_back
        assert running(world) == image_id(world, IMAGE)

    def test_a_name_that_moved_a_moment_ago_is_seen_too(self, world: World) -> None:
        """The image of the slot counts, not the one that the reconciler saw last: no claim slips through in between."""
        assert proven(world) == world.pools.template("small").image_id
        world.engine.add_image(IMAGE)
        broken(world, IMAGE)

        claim = world.tenants.claim(ALICE, "small")

        assert "not ready" in claim.fell_back
        assert (running(world), words(world)) == (proven(world), {"colour": "blue"})
        assert proven(world) != image_id(world, IMAGE)

    def test_the_same_image_is_not_tried_twice(self, world: World) -> None:
        """A program that fails with the image that it always had is told as it is, and what it wrote is committed."""
        broken(world, IMAGE)
        with pytest.raises(NotReady):
            world.tenants.claim(ALICE, "small")
        assert world.saved(ALICE)["junk"] == "junk"
        assert [event.kind for event in world.events.newest()].count("fell-back") == 0

    def test_without_the_image_before_there_is_an_error(self, world: World) -> None:
        """When the old image is gone from the engine, the claim fails, and what the new one wrote is dropped."""
        world.pools.set_image("small", NEW)
        broken(world)
        world.engine.remove_image(IMAGE)

        with pytest.raises(NotReady):
            world.tenants.claim(ALICE, "small")
        assert (world.row_state(ALICE), world.saved(ALICE)) == ("cold", {"colour": "blue"})

    def test_a_missing_image_is_no_reason_to_fall_back(self, world: World) -> None:
        """Only what the image itself does wrong leads back to the one before."""
        world.pools.set_image("small", NEW)
        world.engine.remove_image(NEW)
        with pytest.raises(ImageMissing):
            world.tenants.claim(ALICE, "small")

    def test_state_that_another_host_wrote_is_not_given_to_the_old_image(self, world: World, tmp_path: Path) -> None:
        """Once another host went on, nobody knows here which image the state suits."""
        other = World(tmp_path / "other", store=world.store, owner="host-b")
        other.tenants.claim(ALICE, "small")
        other.write(ALICE, {"colour": "newer"})
        other.tenants.release(ALICE)
        other.close()
        world.pools.set_image("small", NEW)
        broken(world)

        with pytest.raises(NotReady):
            world.tenants.claim(ALICE, "small")
        assert world.saved(ALICE) == {"colour": "newer"}

    def test_a_tree_that_was_kept_is_committed_first(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """What could not be uploaded is in the store before a new image may touch it, and is there after it failed."""
        world.tenants.claim(ALICE, "small")
        world.write(ALICE, {"colour": "newest"})
        with monkeypatch.context() as patch:
            patch.setattr(world.store, "put", _away)
            with pytest.raises(Exception, match="not committed"):
                world.tenants.release(ALICE)
        world.pools.set_image("small", NEW)
        broken(world)

        claim = world.tenants.claim(ALICE, "small")

        assert claim.fell_back
        assert words(world) == world.saved(ALICE) == {"colour": "newest"}

    def test_a_first_claim_is_no_trial(self, tmp_path: Path) -> None:
        """What a program writes that never became ready is kept when there was nothing before it."""
        world = World(tmp_path / "first")
        world.prober.always = DARK
        world.engine.started = lambda spec: world.write(ALICE, {"colour": "first"})
        with pytest.raises(NotReady):
            world.tenants.claim(ALICE, "small")
        assert world.saved(ALICE) == {"colour": "first"}
        world.close()


class TestHeld:
    """A trial that somebody watches: it goes on after the program is ready."""

    @pytest.fixture
    def held(self, world: World) -> World:
        world.tenants.claim(ALICE, "small", image=NEW, trial=True)
        world.write(ALICE, {"colour": "migrated"})
        return world

    def test_accepted_it_counts(self, held: World) -> None:
        """After `accept` the container is like any other."""
        assert held.tenants.accept(ALICE)
        assert not held.tenants.accept(ALICE)
        held.tenants.release(ALICE)
        assert held.saved(ALICE) == {"colour": "migrated"}
        assert proven(held) == image_id(held, NEW)

    def test_rejected_it_never_was(self, held: World) -> None:
        """After `reject` the tenant is cold, its state as before, and the next claim has the image before."""
        assert held.tenants.reject(ALICE, "it was too slow")
        assert not held.tenants.reject(ALICE, "again")
        row = held.ledger.tenant(ALICE)
        assert row is not None
        assert (row.state, row.error, row.trial) == ("cold", "it was too slow", 0)
        assert held.repository.generations.head(ALICE).owner is None  # type: ignore[union-attr]
        held.tenants.claim(ALICE, "small")
        assert (words(held), running(held)) == ({"colour": "blue"}, image_id(held, IMAGE))

    @pytest.mark.parametrize("seen_by", ["supervise", "claim", "release", "restart"])
    def test_one_that_ends_by_itself_never_was(self, held: World, seen_by: str) -> None:
        """Whoever sees first that its container ended: what it wrote is dropped, not committed."""
        slot = held.ledger.slot(held.ledger.tenant(ALICE).slot or "")  # type: ignore[union-attr]
        assert slot is not None
        held.engine.crash(slot.container or "")
        match seen_by:
            case "supervise":
                held.recovery.supervise()
            case "claim":
                held.tenants.claim(ALICE, "small")
                assert words(held) == {"colour": "blue"}
            case "release":
                with pytest.raises(NotClaimed):
                    held.tenants.release(ALICE)
            case _:
                held.restart()
                held.recover()
        assert held.saved(ALICE) == {"colour": "blue"}
        assert held.row_state(ALICE) == ("active" if seen_by == "claim" else "cold")
        assert held.leftovers() == []

    def test_it_outlives_the_daemon(self, held: World) -> None:
        """A restart leaves a running trial alone, and it can still be rejected."""
        held.restart()
        held.recover()
        assert held.row_state(ALICE) == "active"
        assert held.tenants.reject(ALICE, "no")
        assert held.saved(ALICE) == {"colour": "blue"}

    def test_a_release_ends_it_well(self, held: World) -> None:
        """A tenant that was used and released in good order has seen the image work."""
        held.tenants.release(ALICE)
        assert held.saved(ALICE) == {"colour": "migrated"}
        assert proven(held) == image_id(held, NEW)

    def test_it_is_not_synced(self, held: World) -> None:
        """A commit in its middle would make the way back impossible."""
        with pytest.raises(Conflict, match="cannot be synced now"):
            held.tenants.sync(ALICE)
        held.tenants.accept(ALICE)
        assert held.tenants.sync(ALICE).number == 2


def test_readiness_can_be_asked_for(world: World) -> None:
    """What an active tenant's program lacks is told, or how its container ended."""
    claim = world.tenants.claim(ALICE, "small")
    row = world.ledger.tenant(ALICE)
    assert row is not None
    assert world.tenants.missing(row.id) is None
    world.prober.always = DARK
    assert "503" in (world.tenants.missing(row.id) or "")
    assert isinstance(world.engine, FakeEngine)
    world.engine.crash(claim.container, 3)
    assert "exit code 3" in (world.tenants.missing(row.id) or "")


def _away(*args: object, **options: object) -> str:
    raise StoreUnavailable("down")
