"""A tenant's secrets: a release needs none, and its last words show none."""

import pytest
from claw_runtime import logs
from claw_runtime.fsutil import write_new
from claw_runtime.tenancy import LABEL_CONTRACT, TenantId
from fakes.waiters import contract
from fakes.world import FROZEN, IMAGE, World

ALICE = TenantId("alice")
pytestmark = pytest.mark.world(workload=FROZEN)


def claimed(world: World, *tenants: TenantId) -> None:
    for tenant in tenants:
        world.tenants.claim(tenant, "small")
        world.write(tenant, {"colour": "blue"})


def test_a_secret_that_cannot_be_read_keeps_nobody(world: World) -> None:
    """A release needs no secret: one that was spoilt since the claim does not keep the state from the store."""
    world.engine.add_image(IMAGE, labels={LABEL_CONTRACT: contract()})
    claimed(world, ALICE)
    spoilt = world.layout.secrets(ALICE) / "OPENROUTER_API_KEY"
    spoilt.mkdir(parents=True)

    world.tenants.release(ALICE, affinity=False)

    assert world.saved(ALICE) == {"colour": "blue"}


@pytest.mark.parametrize("restarted", [True, False])
def test_last_words_are_told_without_secrets(world: World, monkeypatch: pytest.MonkeyPatch, restarted: bool) -> None:
    """What a program printed before it ended is told in its status, but not the secrets in it: not after a restart
    either, when nobody has read them yet."""
    world.engine.add_image(IMAGE, labels={LABEL_CONTRACT: contract()})
    secret = world.layout.secrets(ALICE) / "OPENROUTER_API_KEY"
    secret.parent.mkdir(mode=0o700, parents=True)
    write_new(secret, b"plain-as-day-1234")
    claimed(world, ALICE)
    container = world.tenants.find(ALICE)[1].container  # type: ignore[union-attr]
    world.engine.say(container, b"I cannot use plain-as-day-1234 any more\n")  # type: ignore[arg-type]
    world.engine.crash(container)  # type: ignore[arg-type]
    monkeypatch.setattr(logs, "_known", {})

    if restarted:
        world.restart()
        world.recover()
    else:
        world.recovery.supervise()

    row, _ = world.tenants.find(ALICE)
    assert "I cannot use [redacted] any more" in row.error
    assert "plain-as-day" not in str(world.events.newest())
