"""A client that waits for a tenant gets it, or the reason why not; nothing is tried too often, or at the wrong time."""

from pathlib import Path

import pytest
from claw_runtime.errors import EngineFailed, PoolExhausted, TenantLocked
from claw_runtime.ingress.wakes import FIRST, LONGEST, WANTED
from claw_runtime.ports import CRASH_LOOP
from claw_runtime.tenancy import TenantId
from fakes.ingress import Host
from fakes.router import until
from fakes.world import FROZEN, PARKED, WORKLOAD

ALICE = TenantId("alice")


def released(host: Host) -> None:
    """Alice was here and is not."""
    host.tenants.claim(ALICE, "small")
    host.tenants.release(ALICE)


@pytest.mark.parametrize(("workload", "rung"), [(FROZEN, "frozen"), (PARKED, "parked"), (WORKLOAD, "cold")])
def test_a_sleeping_tenant_is_claimed(directory: Path, workload: str, rung: str) -> None:
    """Whatever is left of it here; the event says what it was, and what the client sent."""
    host = Host(directory, workload)
    released(host)
    router = host.connect()
    router.say({"wake": {"tenant": "alice", "trigger": "http"}})
    until(lambda: router.route("alice").get("address"))
    assert host.row_state("alice") == "active"
    until(lambda: "woken" in host.heard("alice"))
    [woken] = [event for event in host.events.newest(tenant="alice") if event.kind == "woken"]
    assert (woken.detail["rung"], woken.detail["trigger"]) == (rung, "http")
    host.close()


def test_a_wake_of_a_running_tenant_changes_nothing(host: Host) -> None:
    """The table was late: no second claim, no event."""
    host.tenants.claim(ALICE, "small")
    host.wakes.want(ALICE, "http")
    assert "woken" not in host.heard("alice")


def test_a_stranger_is_not_claimed(host: Host) -> None:
    """Whom this host does not know has no pool either."""
    router = host.connect()
    router.say({"wake": {"tenant": "nobody", "trigger": "http"}})
    until(lambda: router.failed)
    assert "not-claimed" in router.failed[0]["why"]
    assert host.ledger.tenant(TenantId("nobody")) is None


class Refusing:
    """Claims that fail."""

    def __init__(self, error: Exception) -> None:
        self.error, self.tries = error, 0

    def claim(self, tenant: TenantId, pool: str) -> None:
        del tenant, pool
        self.tries += 1
        raise self.error


def failing(host: Host, error: Exception) -> Refusing:
    """From now on claims of this host's wakes fail."""
    released(host)
    claims = Refusing(error)
    host.wakes._tenants = claims  # type: ignore[assignment]
    return claims


def test_a_failed_wake_tells_the_reason_and_is_tried_ever_more_slowly(host: Host) -> None:
    """The reason's name and no more, since a client of a tenant may be anybody."""
    claims = failing(host, EngineFailed("podman broke", why="its secret reason"))
    router = host.connect()
    pauses = []
    for count in range(1, 11):
        host.wakes.want(ALICE, "http")
        until(lambda count=count: len(router.failed) == count)
        pauses.append(router.failed[-1]["again"])
        assert router.failed[-1]["why"] == "the tenant did not wake: engine-failed"
        host.clock.advance(pauses[-1])
    assert pauses[:4] == [FIRST, 2 * FIRST, 4 * FIRST, 8 * FIRST]
    assert pauses[-1] == LONGEST
    assert claims.tries == 10


def test_between_attempts_clients_are_answered_at_once(host: Host) -> None:
    """With the seconds that are left."""
    claims = failing(host, EngineFailed("podman broke"))
    router = host.connect()
    host.wakes.want(ALICE, "http")
    host.clock.advance(0.5)
    host.wakes.want(ALICE, "ws")
    until(lambda: len(router.failed) == 2)
    assert router.failed[1]["again"] == FIRST - 0.5
    assert claims.tries == 1


def test_a_full_pool_says_when_to_come_back(host: Host) -> None:
    """Its own estimate counts when it is longer than the pause."""
    failing(host, PoolExhausted("the pool is full", retry_after=30))
    router = host.connect()
    host.wakes.want(ALICE, "http")
    until(lambda: router.failed)
    assert (router.failed[0]["why"], router.failed[0]["again"]) == ("the tenant did not wake: pool-exhausted", 30.0)


def test_an_error_of_ours_is_a_failure_too(host: Host) -> None:
    """No client waits for its whole time because of a mistake here."""
    failing(host, RuntimeError("a bug"))
    router = host.connect()
    host.wakes.want(ALICE, "http")
    until(lambda: router.failed)
    assert router.failed[0]["why"] == "the tenant did not wake: error"


def test_a_success_ends_the_pauses(host: Host) -> None:
    """Also a person's claim is one."""
    failing(host, TenantLocked("another host has it"))
    router = host.connect()
    host.wakes.want(ALICE, "http")
    host.wakes._tenants = host.tenants
    host.tenants.claim(ALICE, "small")
    host.wakes.want(ALICE, "http")
    host.tenants.release(ALICE)
    host.wakes.want(ALICE, "http")
    assert host.row_state("alice") == "active"
    assert len(router.failed) <= 1


def test_a_crash_loop_stays_down(host: Host) -> None:
    """Only a person's claim ends it: its clients would start it for ever."""
    released(host)
    host.ledger.note(ALICE, restart=CRASH_LOOP)
    router = host.connect()
    host.wakes.want(ALICE, "http")
    until(lambda: router.failed)
    assert router.failed[0]["why"] == "the tenant did not wake: crash-loop"
    assert host.row_state("alice") == "cold"


def test_a_wake_waits_for_the_operation_under_way(host: Host) -> None:
    """No thread waits with it; when the operation has ended, the tenant is claimed."""
    released(host)
    with host.link.fenced(ALICE):
        host.wakes.want(ALICE, "http")
        host.wakes.look()
        assert host.row_state("alice") == "cold"
    host.wakes.look()
    assert host.row_state("alice") == "active"


def test_a_wake_at_the_beginning_of_a_release_is_for_after_it(host: Host) -> None:
    """Its tenant still runs then, but the router holds the request already."""
    host.tenants.claim(ALICE, "small")
    with host.link.fenced(ALICE):
        host.wakes.want(ALICE, "http")
        host.tenants.release(ALICE)
    host.wakes.look()
    assert host.row_state("alice") == "active"


def test_a_wake_that_nobody_waits_for_any_more_is_dropped(host: Host) -> None:
    """Its client has had its answer long ago."""
    released(host)
    with host.link.fenced(ALICE):
        host.wakes.want(ALICE, "http")
        host.clock.advance(WANTED + 1)
    host.wakes.look()
    assert host.row_state("alice") == "cold"


def test_a_tenant_that_the_daemon_claims_by_itself_is_left_to_it(host: Host) -> None:
    """A claim for clients would begin its count of failures anew, and no crash loop would ever be seen."""
    released(host)
    host.ledger.note(ALICE, restart="ended", failures=2)
    host.wakes.want(ALICE, "http")
    row = host.ledger.tenant(ALICE)
    assert row is not None
    assert (row.state, row.failures) == ("cold", 2)
