"""Tenants at rest: back in their own container or on their own tree, and only while that is what the store has."""

from pathlib import Path

import pytest
from claw_runtime.errors import DiskFull, EngineFailed, NotClaimed, PoolExhausted, StoreUnavailable
from claw_runtime.formats.envelope import Sealer
from claw_runtime.formats.manifest import Manifest
from claw_runtime.ports import ObjectStore
from claw_runtime.state import restorer
from claw_runtime.tenancy import TenantId
from fakes.world import World

ALICE, BOB, CAROL = TenantId("alice"), TenantId("bob"), TenantId("carol")


def used(world: World, tenant: TenantId = ALICE, colour: str = "blue") -> str:
    """A tenant that was claimed, wrote, and was released; the id of its container."""
    container = world.tenants.claim(tenant, "small").container
    world.write(tenant, {"colour.txt": colour})
    world.tenants.release(tenant)
    return container


def elsewhere(world: World, tmp_path: Path, colour: str) -> None:
    """Another host claims alice, writes and releases."""
    other = World(tmp_path / "other", store=world.store, owner="host-b")
    other.tenants.claim(ALICE, "small")
    other.write(ALICE, {"colour.txt": colour})
    other.tenants.release(ALICE)
    other.close()


class TestFrozen:
    def test_a_tenant_finds_its_own_container(self, frozen: World) -> None:
        """After a release the container is paused and committed; the next claim wakes that very container."""
        container = used(frozen)
        assert frozen.row_state(ALICE) == "frozen"
        assert frozen.engine.inspect(container).state == "paused"  # type: ignore[union-attr]
        assert frozen.saved(ALICE) == {"colour.txt": "blue"}

        claim = frozen.tenants.claim(ALICE, "small")

        assert (claim.container, claim.source, claim.state, claim.generation) == (container, "frozen", "frozen", 1)
        assert frozen.engine.inspect(container).state == "running"  # type: ignore[union-attr]
        frozen.write(ALICE, {"colour.txt": "green"})
        frozen.tenants.release(ALICE)
        assert frozen.saved(ALICE) == {"colour.txt": "green"}

    def test_another_tenant_never_gets_it(self, frozen: World) -> None:
        """A frozen container is its tenant's alone, also when no other slot is left."""
        container = used(frozen)
        for tenant in (BOB, CAROL):
            assert frozen.tenants.claim(tenant, "small").container != container
            assert not (frozen.state(tenant) / "colour.txt").exists()

    def test_what_another_host_went_on_from_is_dropped(self, frozen: World, tmp_path: Path) -> None:
        """A frozen container whose generation is not HEAD's any more is destroyed without a thaw."""
        container = used(frozen)
        elsewhere(frozen, tmp_path, "red")

        claim = frozen.tenants.claim(ALICE, "small")

        assert (claim.container != container, claim.state, claim.generation) == (True, "restored", 2)
        assert (frozen.state(ALICE) / "colour.txt").read_text() == "red"
        assert frozen.engine.inspect(container) is None
        assert "unpause" not in frozen.engine.calls

    def test_the_oldest_goes_when_there_are_too_many(self, frozen: World) -> None:
        """No more than `warmth.frozen` stay; the one that has rested longest is stopped and committed."""
        for tenant in (ALICE, BOB, CAROL):
            used(frozen, tenant)
            frozen.clock.advance(1)
        assert [frozen.row_state(tenant) for tenant in (ALICE, BOB, CAROL)] == ["cold", "frozen", "frozen"]
        assert frozen.saved(ALICE) == {"colour.txt": "blue"}

    def test_it_makes_room_for_a_claim(self, frozen: World) -> None:
        """A pool that is full of frozen tenants still gives a slot to a new one."""
        for tenant in (ALICE, BOB):
            used(frozen, tenant)
            frozen.clock.advance(1)
        frozen.tenants.claim(CAROL, "small")
        frozen.tenants.claim(TenantId("dave"), "small")
        assert frozen.row_state(ALICE) == "cold"
        assert frozen.row_state(BOB) == "frozen"

    def test_it_ends_when_its_time_is_over(self, frozen: World) -> None:
        """After the timeout the program is stopped as in a release, and what it still wrote is committed."""
        used(frozen)
        frozen.write(ALICE, {"last-words.txt": "flushed"})  # as its handler of SIGTERM would
        frozen.recovery.expire()
        assert frozen.row_state(ALICE) == "frozen"

        frozen.clock.advance(61)
        frozen.recovery.expire()

        assert frozen.row_state(ALICE) == "cold"
        assert frozen.saved(ALICE) == {"colour.txt": "blue", "last-words.txt": "flushed"}
        assert "stop" in frozen.engine.calls

    def test_a_store_that_is_away_ends_nothing(self, frozen: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without the store a frozen tenant stays frozen, at its end and at its claim."""
        container = used(frozen)
        with monkeypatch.context() as patch:
            patch.setattr(frozen.repository.leases, "acquire", _raise(StoreUnavailable("down")))
            frozen.clock.advance(61)
            frozen.recovery.expire()
            assert frozen.row_state(ALICE) == "frozen"
            with pytest.raises(StoreUnavailable):
                frozen.tenants.claim(ALICE, "small")
            assert frozen.row_state(ALICE) == "frozen"
        assert frozen.tenants.claim(ALICE, "small").container == container

    def test_a_container_that_does_not_come_back_is_replaced(self, frozen: World) -> None:
        """A frozen program that is not ready after the thaw is committed and replaced by a new one."""
        container = used(frozen)
        frozen.prober.always = None

        def answer_others(port: int, *_: object) -> tuple[int, bytes] | None:
            mine = frozen.engine.inspect(container)
            return None if mine and mine.host_port == port else (200, b"{}")

        frozen.prober.get = answer_others  # type: ignore[method-assign, assignment]

        claim = frozen.tenants.claim(ALICE, "small")

        assert (claim.container != container, claim.source) == (True, "cold")
        assert (frozen.state(ALICE) / "colour.txt").read_text() == "blue"

    def test_a_host_that_cannot_pause_parks_the_tree(self, frozen: World) -> None:
        """Affinity is no promise: when the engine cannot pause, the tree is parked and nothing else changes."""
        frozen.engine.fail("pause", EngineFailed("no cgroup"))
        used(frozen)
        assert frozen.row_state(ALICE) == "parked"
        assert frozen.saved(ALICE) == {"colour.txt": "blue"}

    def test_a_new_template_ends_it(self, frozen: World) -> None:
        """A container of another image than the pool's is not woken; its tenant gets a new one."""
        container = used(frozen)
        frozen.engine.add_image("localhost/small:dev")
        frozen.pools.keep()

        claim = frozen.tenants.claim(ALICE, "small")

        assert (claim.container != container, claim.state) == (True, "restored")
        assert (frozen.state(ALICE) / "colour.txt").read_text() == "blue"

    def test_it_survives_a_new_daemon_and_not_a_reboot(self, frozen: World) -> None:
        """A restart leaves it frozen; when its container is gone, the store has what it was."""
        container = used(frozen)
        frozen.restart()
        frozen.recover()
        assert frozen.row_state(ALICE) == "frozen"

        frozen.engine.remove(container)
        frozen.restart()
        frozen.recover()

        assert (frozen.row_state(ALICE), frozen.leftovers()) == ("cold", [])
        frozen.tenants.claim(ALICE, "small")
        assert (frozen.state(ALICE) / "colour.txt").read_text() == "blue"

    def test_one_that_somebody_woke_is_committed(self, frozen: World) -> None:
        """A frozen container that was unpaused by hand may have written; nothing of it is lost."""
        container = used(frozen)
        frozen.engine.unpause(container)
        frozen.write(ALICE, {"colour.txt": "green"})
        frozen.restart()
        frozen.recover()
        assert frozen.row_state(ALICE) == "cold"
        assert frozen.saved(ALICE) == {"colour.txt": "green"}

    def test_release_can_leave_nothing(self, frozen: World) -> None:
        """`affinity=False` leaves neither container nor tree, also for a tenant that already rests."""
        used(frozen)
        assert frozen.tenants.release(ALICE, affinity=False).affinity is None
        frozen.tenants.claim(ALICE, "small")
        frozen.tenants.release(ALICE, affinity=False)
        assert (frozen.row_state(ALICE), list(frozen.layout.slots.iterdir())[1:]) == ("cold", [])

    def test_a_second_release_reports_that_nothing_is_claimed(self, frozen: World) -> None:
        """A tenant at rest is released already."""
        used(frozen)
        with pytest.raises(NotClaimed):
            frozen.tenants.release(ALICE)
        assert frozen.row_state(ALICE) == "frozen"


class TestParked:
    def test_a_tenant_finds_its_tree(self, parked: World) -> None:
        """The parked tree becomes the new slot's state without a restore, with what the store never gets."""
        used(parked)
        assert parked.row_state(ALICE) == "parked"

        claim = parked.tenants.claim(ALICE, "small")

        assert (claim.source, claim.state, claim.generation) == ("cold", "tree", 1)
        assert (parked.state(ALICE) / "colour.txt").read_text() == "blue"
        assert not parked.layout.parked_tree(ALICE).exists()

    def test_of_an_older_tree_what_has_not_changed_is_kept(self, parked: World, tmp_path: Path) -> None:
        """HEAD's generation is restored: what differs is fetched, the rest is moved, and nothing else comes along."""
        parked.tenants.claim(ALICE, "small")
        parked.write(ALICE, {"large.bin": "x" * 300_000, "colour.txt": "blue", "old.txt": "gone tomorrow"})
        inode = (parked.state(ALICE) / "large.bin").stat().st_ino
        parked.tenants.release(ALICE)
        (parked.layout.parked_tree(ALICE) / "unknown").touch()
        other = World(tmp_path / "other", store=parked.store, owner="host-b")
        other.tenants.claim(ALICE, "small")
        other.write(ALICE, {"colour.txt": "red"})
        (other.state(ALICE) / "old.txt").unlink()
        other.tenants.release(ALICE)
        other.close()

        claim = parked.tenants.claim(ALICE, "small")

        assert (claim.state, claim.generation) == ("restored", 2)
        state = parked.state(ALICE)
        assert sorted(path.name for path in state.iterdir()) == ["colour.txt", "large.bin"]
        assert (state / "colour.txt").read_text() == "red"
        assert (state / "large.bin").stat().st_ino == inode
        left = [path.name for path in parked.layout.tenants.joinpath(ALICE).iterdir()]
        assert not {"donor", "staging", "parked"} & {*left}

    def test_a_disk_that_cannot_hold_both_holds_the_new_one(
        self, parked: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The older tree goes first then."""
        used(parked)
        elsewhere(parked, tmp_path, "red")
        checked = restorer.check_room

        def tight(store: ObjectStore, document: Manifest, directory: Path, sealer: Sealer) -> None:
            if parked.layout.donor(ALICE).exists():
                raise DiskFull("no room for both")
            checked(store, document, directory, sealer)

        monkeypatch.setattr(restorer, "check_room", tight)

        assert parked.tenants.claim(ALICE, "small").generation == 2
        assert (parked.state(ALICE) / "colour.txt").read_text() == "red"

    def test_it_ends_when_its_time_is_over(self, parked: World) -> None:
        """After the timeout nothing of the tenant is on this host but its logs."""
        used(parked)
        parked.clock.advance(61)
        parked.recovery.expire()
        assert parked.row_state(ALICE) == "cold"
        assert not parked.layout.parked_tree(ALICE).exists()

    def test_a_claim_that_finds_no_slot_leaves_it(self, parked: World) -> None:
        """A claim that is turned away before the tree was touched costs no affinity."""
        used(parked)
        for tenant in ("b", "c", "d"):
            parked.tenants.claim(TenantId(tenant), "small")
        with pytest.raises(PoolExhausted):
            parked.tenants.claim(ALICE, "small")
        assert parked.row_state(ALICE) == "parked"

    def test_half_removed_tree_is_never_used(self, parked: World) -> None:
        """A crash while a parked tree is removed leaves no part of it for the next claim."""
        used(parked)
        parked.ledger.note(ALICE, step="clear")
        (parked.layout.parked_tree(ALICE) / "colour.txt").unlink()
        parked.restart()
        parked.recover()
        parked.tenants.claim(ALICE, "small")
        assert (parked.state(ALICE) / "colour.txt").read_text() == "blue"


def _raise(error: Exception) -> object:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail
