"""What `status` shows of claims that the daemon makes by itself."""

import pytest
from claw_runtime.tenancy import TenantId
from fakes.terminal import Call
from fakes.world import World

pytest_plugins = ["fakes.terminal_fixtures"]
pytestmark = pytest.mark.world(filled=True, served=True)
ALICE = TenantId("alice")


@pytest.fixture
def down(claw: Call, world: World) -> World:
    """Alice's state is in the store, and she has no container."""
    claw("claim", "alice")
    claw("release", "alice")
    return world


def test_a_tenant_that_is_claimed_again_after_a_reboot(claw: Call, down: World) -> None:
    """Until it runs its state is `restarting`, with the reason of the last failure; then status says why it runs."""
    down.ledger.note(ALICE, restart="reboot", failures=2, error="not claimed again yet: no slot")
    table, one = claw("status"), claw("status", "alice")
    assert table.out.splitlines()[1].split()[:2] == ["alice", "restarting"]
    assert "alice: not claimed again yet: no slot" in table.err
    assert "claimed again now, after a reboot of the machine; failures in a row: 2" in one.out
    assert claw("status", "alice", "-o", "json").json["restart"] == {"reason": "reboot", "failures": 2, "nextAt": None}

    down.restarts.look()

    assert "claimed again after a reboot of the machine" in claw("status", "alice").out
    assert claw("status", "alice", "-o", "json").json["restarted"] == "reboot"


def test_a_crash_loop(claw: Call, down: World) -> None:
    """A tenant that stays down is named so in the table, with the reason below."""
    down.ledger.note(ALICE, restart="crash-loop", failures=5, error="crash loop: it failed 5 times in a row")
    table = claw("status")
    assert table.out.splitlines()[1].split()[:2] == ["alice", "crash-loop"]
    assert "alice: crash loop: it failed 5 times in a row" in table.err
    assert "it stays down until it is claimed" in claw("status", "alice").out


def test_how_many_are_claimed_again(claw: Call, down: World) -> None:
    """The table of all tenants says how far the claims after a reboot have come."""
    down.boot = "first"
    down.restarts.note_boot()
    down.ledger.note(ALICE, restart="reboot")
    down.restarts.note_boot()
    assert "claimed again after a reboot: 0 of 1 tenants" in claw("status").err

    down.restarts.look()

    assert "after a reboot:" not in claw("status").err
