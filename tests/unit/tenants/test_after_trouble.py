"""Claims and releases that come after one that failed half way: whatever is the only copy stays, whatever was ours is
given back, and nobody's running container is touched."""

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest
from claw_runtime.errors import (
    EngineFailed,
    Fenced,
    NotClaimed,
    PoolExhausted,
    RestoreFailed,
    StoreUnavailable,
    UploadFailed,
)
from claw_runtime.tenancy import TenantId
from fakes.refusals import refuse
from fakes.world import World

ALICE, BOB, CAROL = TenantId("alice"), TenantId("bob"), TenantId("carol")
pytestmark = pytest.mark.world(filled=True)


class Killed(BaseException):
    """SIGKILL: nothing of ours may catch it."""


@pytest.fixture
def other(tmp_path: Path, world: World) -> Iterator[World]:
    """Another host on the same store."""
    made = World(tmp_path / "other", store=world.store, owner="host-b")
    yield made
    made.close()


def remembered(world: World, tenant: TenantId = ALICE) -> None:
    """Give the tenant a first generation with one file."""
    world.tenants.claim(tenant, "small")
    world.write(tenant, {"colour": "blue"})
    world.tenants.release(tenant)
    world.pools.keep()


def kept(world: World, monkeypatch: pytest.MonkeyPatch, tenant: TenantId = ALICE) -> None:
    """The tenant's newest words are `green`, in a tree on this host that the store did not take."""
    remembered(world, tenant)
    world.tenants.claim(tenant, "small")
    world.write(tenant, {"colour": "green"})
    with monkeypatch.context() as patch:
        patch.setattr(world.store, "put", refuse(StoreUnavailable("down")))
        with pytest.raises(UploadFailed):
            world.tenants.release(tenant)
    world.pools.keep()


def owner(world: World, tenant: TenantId = ALICE) -> str | None:
    head = world.repository.generations.head(tenant)
    return head and head.owner


class TestOvertaken:
    """The tree here grew from a generation that another host has gone on from."""

    @pytest.fixture
    def overtaken(self, world: World, other: World, monkeypatch: pytest.MonkeyPatch) -> World:
        kept(world, monkeypatch)
        other.tenants.claim(ALICE, "small", take_over=True)
        other.write(ALICE, {"colour": "red"})
        other.tenants.release(ALICE)
        return world

    def test_kept_tree_outlives_a_claim_after_a_retry(self, overtaken: World) -> None:
        """The other host's generation is not taken for ours: the only copy of our words is not removed."""
        overtaken.recovery.retry()

        with pytest.raises(RestoreFailed):
            overtaken.tenants.claim(ALICE, "small")

        assert overtaken.kept(ALICE) == {"colour": "green"}
        assert overtaken.saved(ALICE) == {"colour": "red"}

    def test_kept_tree_outlives_a_release_after_a_retry(self, overtaken: World) -> None:
        """A release of it says again that it is fenced."""
        overtaken.recovery.retry()

        with pytest.raises(Fenced):
            overtaken.tenants.release(ALICE)

        assert overtaken.kept(ALICE) == {"colour": "green"}

    def test_the_other_host_can_go_on(self, overtaken: World, other: World) -> None:
        """A commit that was refused leaves no lease of ours: the other host's next claim needs no take-over."""
        overtaken.recovery.retry()

        assert owner(overtaken) is None
        assert other.tenants.claim(ALICE, "small").generation == 2

    def test_a_refused_claim_keeps_the_reason(self, overtaken: World) -> None:
        """After a claim that was refused the status still says why the tree is kept, and no retry starts again."""
        overtaken.recovery.retry()
        with pytest.raises(RestoreFailed):
            overtaken.tenants.claim(ALICE, "small")

        row, _ = overtaken.tenants.find(ALICE)

        assert row.error.startswith(RestoreFailed.slug)


class TestLease:
    """Who holds the tenant after something failed."""

    def test_failed_restore_gives_the_tenant_back(
        self, world: World, other: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A host that cannot restore a tenant does not lock it for all others."""
        remembered(world)
        monkeypatch.setattr(world.repository.restorer, "restore", refuse(RestoreFailed("disk")))
        with pytest.raises(RestoreFailed):
            world.tenants.claim(ALICE, "small")

        assert other.tenants.claim(ALICE, "small").generation == 1

    def test_kept_tree_keeps_the_lease_when_a_claim_fails(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """While the newest tree is only here, no other host may go on from an older generation."""
        kept(world, monkeypatch)
        monkeypatch.setattr(world.claimer, "_hand_over", refuse(EngineFailed("no")))
        with pytest.raises(EngineFailed):
            world.tenants.claim(ALICE, "small")

        assert (owner(world), world.kept(ALICE)) == ("host-a", {"colour": "green"})

    def test_dropping_after_a_restart_gives_the_tenant_back(self, world: World) -> None:
        """`--no-sync` gives the lease back also when another daemon than the claiming one does it."""
        remembered(world)
        world.tenants.claim(ALICE, "small")
        world.restart()
        world.recover()

        world.tenants.release(ALICE, sync=False)

        assert owner(world) is None

    def test_dropping_a_kept_tree_gives_the_tenant_back(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """`--no-sync` of a kept tree ends what we had of the tenant."""
        kept(world, monkeypatch)

        world.tenants.release(ALICE, sync=False)

        assert (owner(world), world.kept(ALICE), world.row_state(ALICE)) == (None, {}, "cold")


class TestUnsettled:
    """The engine failed before the tree was safe: the slot still holds the only copy."""

    @pytest.fixture
    def stuck(self, world: World) -> World:
        remembered(world)
        world.tenants.claim(ALICE, "small")
        world.write(ALICE, {"colour": "green"})
        world.engine.fail("stop", EngineFailed("no"))
        with pytest.raises(EngineFailed):
            world.tenants.release(ALICE)
        world.pools.keep()
        return world

    def test_claim_does_not_take_another_slot(self, stuck: World) -> None:
        """A claim that cannot settle the last one says so, and forgets no slot."""
        stuck.engine.fail("stop", EngineFailed("no"))

        with pytest.raises(EngineFailed):
            stuck.tenants.claim(ALICE, "small")

        assert (stuck.state(ALICE) / "colour").read_text() == "green"
        stuck.tenants.release(ALICE)
        assert stuck.saved(ALICE) == {"colour": "green"}
        assert stuck.leftovers() == []

    def test_claim_without_a_slot_does_not_destroy_the_old_one(self, stuck: World) -> None:
        """Nor is the old slot undone when there is no new one."""
        for tenant in (BOB, CAROL):
            stuck.tenants.claim(tenant, "small")
        stuck.engine.fail("stop", EngineFailed("no"))
        with pytest.raises((EngineFailed, PoolExhausted)):
            stuck.tenants.claim(ALICE, "small")

        stuck.tenants.release(ALICE)

        assert stuck.saved(ALICE) == {"colour": "green"}

    def test_reconciler_releases_it_when_the_engine_is_back(self, stuck: World) -> None:
        """A release that the engine stopped half way is finished without anybody asking."""
        stuck.recovery.retry()

        assert stuck.saved(ALICE) == {"colour": "green"}
        assert (stuck.row_state(ALICE), stuck.leftovers()) == ("cold", [])


class TestHalfRestored:
    def test_is_never_committed(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """A tree that was only partly restored does not become a generation by a release."""
        world.tenants.claim(ALICE, "small")
        world.write(ALICE, {"a": "1", "b": "2"})
        world.tenants.release(ALICE)
        world.pools.keep()

        def halfway(tenant: TenantId, slot: str, _shared: object) -> None:
            staged = world.layout.staging(tenant) / "a"
            staged.rename(world.layout.slot(slot).state / "a")
            raise OSError(errno.EIO, "I/O error")

        with monkeypatch.context() as patch:
            patch.setattr(world.claimer._trees, "staging_into_slot", halfway)
            world.engine.fail("remove", EngineFailed("no"))
            with pytest.raises((EngineFailed, OSError)):
                world.tenants.claim(ALICE, "small")

        with pytest.raises(NotClaimed):
            world.tenants.release(ALICE)

        assert world.saved(ALICE) == {"a": "1", "b": "2"}
        assert (world.row_state(ALICE), world.leftovers()) == ("cold", [])


class TestRetry:
    def test_tenant_that_was_claimed_meanwhile_is_left_alone(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A retry that reached a tenant late does not stop the container that the tenant got meanwhile."""
        kept(world, monkeypatch)
        kept(world, monkeypatch, BOB)
        real = world.repository.committer.commit

        def slow(*args: object, **options: object) -> object:
            if world.row_state(BOB) == "kept":
                world.tenants.claim(BOB, "small")
            return real(*args, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(world.repository.committer, "commit", slow)
        world.recovery.retry()

        assert (world.row_state(ALICE), world.row_state(BOB)) == ("cold", "active")
        assert world.tenants.claim(BOB, "small").already

    def test_one_broken_tree_does_not_stop_the_others(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """A tree that this host cannot read is no reason not to save the next tenant's."""
        kept(world, monkeypatch)
        kept(world, monkeypatch, BOB)
        real = world.releaser._trees.whole

        def whole(row: object, *rest: object) -> object:
            if row.id == ALICE:  # type: ignore[attr-defined]
                raise OSError(errno.EIO, "I/O error")
            return real(row, *rest)  # type: ignore[arg-type]

        monkeypatch.setattr(world.releaser._trees, "whole", whole)
        world.recovery.retry()

        assert (world.row_state(ALICE), world.row_state(BOB)) == ("kept", "cold")


class TestLostAnswer:
    def test_is_recognised_after_an_outage_at_the_next_start(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A commit that landed before a kill is ours also when the store was away while the next daemon started."""
        remembered(world)
        world.tenants.claim(ALICE, "small")
        world.write(ALICE, {"colour": "green"})
        real = world.repository.committer.commit

        def dying(*args: object, **options: object) -> None:
            real(*args, **options)  # type: ignore[arg-type]
            raise Killed

        monkeypatch.setattr(world.repository.committer, "commit", dying)
        with pytest.raises(Killed):
            world.tenants.release(ALICE)
        world.restart()
        with monkeypatch.context() as patch:
            patch.setattr(world.store, "get", refuse(StoreUnavailable("down")))
            world.recover()
        assert world.row_state(ALICE) == "kept"

        world.recovery.retry()

        assert (world.row_state(ALICE), world.kept(ALICE)) == ("cold", {})
        assert world.saved(ALICE) == {"colour": "green"}


class TestStart:
    @pytest.mark.parametrize("claiming", [False, True])
    def test_after_a_kill_between_directories_and_row(
        self, world: World, monkeypatch: pytest.MonkeyPatch, claiming: bool
    ) -> None:
        """A slot whose directories are gone and whose row is not keeps no daemon from starting; the tree is kept."""
        if claiming:
            kept(world, monkeypatch)
            monkeypatch.setattr(world.claimer, "_hand_over", refuse(EngineFailed("no")))
        else:
            remembered(world)
            world.tenants.claim(ALICE, "small")
            world.write(ALICE, {"colour": "green"})
            monkeypatch.setattr(world.store, "put", refuse(StoreUnavailable("down")))
        monkeypatch.setattr(world.ledger, "drop_slot", refuse(Killed()))  # type: ignore[arg-type]
        with pytest.raises(Killed):
            _ = world.tenants.claim(ALICE, "small") if claiming else world.tenants.release(ALICE)
        monkeypatch.undo()

        world.restart()
        world.recover()

        if claiming:
            assert world.kept(ALICE) == {"colour": "green"}
        else:
            assert world.saved(ALICE) == {"colour": "green"}
        assert world.leftovers() == []

    def test_one_broken_tenant_keeps_nobody_else_waiting(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """A tenant that cannot be recovered waits for its own next claim or release; the daemon starts."""
        for tenant in (ALICE, BOB):
            remembered(world, tenant)
            world.tenants.claim(tenant, "small")
            world.write(tenant, {"colour": "green"})
        for container in world.engine.list(world.pools.owner_labels):
            world.engine.remove(container.id)
        world.restart()
        real = world.pools.destroy

        def destroy(slot: str) -> None:
            row = world.ledger.tenant(ALICE)
            if row and row.slot == slot:
                raise EngineFailed("no")
            real(slot)

        with monkeypatch.context() as patch:
            patch.setattr(world.pools, "destroy", destroy)
            world.recover()

        assert (world.row_state(BOB), world.saved(BOB)) == ("cold", {"colour": "green"})
        world.tenants.claim(ALICE, "small")
        assert (world.state(ALICE) / "colour").read_text() == "green"
