"""Trouble of one tenant keeps no other waiting: what is done for many goes on to the next one."""

import sqlite3

import pytest
from claw_runtime.errors import EngineFailed, EngineUnavailable
from claw_runtime.tenancy import TenantId
from fakes.world import FROZEN, World

ALICE, BOB = TenantId("alice"), TenantId("bob")
pytestmark = pytest.mark.world(workload=FROZEN)


def claimed(world: World, *tenants: TenantId) -> None:
    for tenant in tenants:
        world.tenants.claim(tenant, "small")
        world.write(tenant, {"colour": "blue"})


class TestOneOfMany:
    @pytest.mark.parametrize(
        "error", [EngineFailed("its log is damaged"), RuntimeError("nobody foresaw it"), sqlite3.OperationalError("no")]
    )
    @pytest.mark.parametrize("method", ["logs", "stop"])
    def test_an_ended_tenant_does_not_keep_others_from_their_end(
        self, world: World, monkeypatch: pytest.MonkeyPatch, method: str, error: Exception
    ) -> None:
        """Whatever fails for one whose container has ended, those after it are committed at the same look."""
        claimed(world, ALICE, BOB)
        of_alice = world.tenants.find(ALICE)[1].container  # type: ignore[union-attr]
        for tenant in (ALICE, BOB):
            world.engine.crash(world.tenants.find(tenant)[1].container)  # type: ignore[union-attr, arg-type]
        real = getattr(world.engine, method)

        def failing(container: str, *args: object, **options: object) -> object:
            if container == of_alice:
                raise error
            return real(container, *args, **options)

        monkeypatch.setattr(world.engine, method, failing)

        world.recovery.supervise()

        assert world.row_state(BOB) == "cold"
        assert world.saved(BOB) == {"colour": "blue"}

    @pytest.mark.parametrize("error", [EngineUnavailable("away"), RuntimeError("nobody foresaw it")])
    @pytest.mark.parametrize("method", ["inspect", "logs"])
    def test_a_daemon_starts_whatever_one_tenant_is(self, world: World, method: str, error: Exception) -> None:
        """Recovery goes on to the next tenant when one of them cannot even be looked at."""
        claimed(world, ALICE, BOB)
        for tenant in (ALICE, BOB):
            world.engine.crash(world.tenants.find(tenant)[1].container)  # type: ignore[union-attr, arg-type]
        world.restart()
        world.engine.fail(method, error)

        world.recovery.recover()

        assert world.row_state(BOB) == "cold"
        world.recovery.supervise()
        world.recovery.retry()
        assert world.row_state(ALICE) == "cold"
        assert world.saved(ALICE) == {"colour": "blue"}

    def test_a_rest_that_cannot_end_does_not_keep_others(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """A frozen tenant whose end fails in a way that nobody foresaw is left for the next look, others are ended."""
        claimed(world, ALICE, BOB)
        for tenant in (ALICE, BOB):
            world.tenants.release(tenant)
        world.clock.advance(61)
        real, of_alice = world.engine.stop, world.tenants.find(ALICE)[1].container  # type: ignore[union-attr]

        def failing(container: str, timeout: int) -> int | None:
            if container == of_alice:
                raise RuntimeError("odd")
            return real(container, timeout)

        monkeypatch.setattr(world.engine, "stop", failing)

        world.recovery.expire()

        assert world.row_state(BOB) == "cold"
