"""Probes of running workloads, in a test's own time."""

from pathlib import Path

import pytest
from claw_runtime.ports import ExecResult
from claw_runtime.tenancy import TenantId
from fakes.faces import Api, runtime_of
from fakes.world import WORKLOAD, World

ALICE = TenantId("alice")
PROBED = WORKLOAD.replace("path: /ready,", "path: /ready, interval: 10s, retries: 2,")
pytestmark = pytest.mark.world(workload=PROBED)


def pass_time(world: World, seconds: float) -> None:
    """Look, wait, look again."""
    world.liveness.look()
    world.clock.advance(seconds)
    world.liveness.look()


def test_a_tenant_is_healthy_until_it_fails_often_enough(world: World) -> None:
    """One failed probe is bad luck, `retries` in a row are unhealthy, and one success ends it."""
    world.tenants.claim(ALICE, "small")
    pass_time(world, 10)
    pulses = [world.liveness.of(ALICE)]
    for always in (None, None, (200, b"")):
        world.prober.always = always
        pass_time(world, 10)
        pulses.append(world.liveness.of(ALICE))
    assert [(pulse.healthy, pulse.failures) for pulse in pulses if pulse] == [
        (True, 0),
        (True, 1),
        (False, 2),
        (True, 0),
    ]
    assert [pulse.why for pulse in pulses if pulse][2] == "nothing answered"


def test_nobody_is_probed_before_its_time(world: World) -> None:
    """Between two probes of a tenant there is its interval, whatever the loop does."""
    world.tenants.claim(ALICE, "small")
    world.prober.always = None
    for _ in range(9):
        pass_time(world, 1)
    pulse = world.liveness.of(ALICE)
    assert pulse is not None
    assert pulse.failures == 0


def test_a_released_tenant_is_forgotten(world: World) -> None:
    """A new claim begins with a clean pulse."""
    world.tenants.claim(ALICE, "small")
    world.prober.always = None
    pass_time(world, 10)
    world.prober.always = (200, b"")
    world.tenants.release(ALICE)
    world.liveness.look()
    assert world.liveness.of(ALICE) is None


def test_a_command_is_a_probe_too(tmp_path: Path) -> None:
    """A workload that gives a test list is ready, and healthy, when the command ends with 0."""
    http = "healthcheck: {path: /ready, ready_timeout: 5s, ignore_failing: [optional]}"
    text = WORKLOAD.replace(http, 'healthcheck: {test: ["CMD", "check"], interval: 10s, retries: 1}')
    world = World(tmp_path, workload=text)
    codes = [1, 0, 3]
    world.engine.commands = lambda *_: ExecResult(exit_code=codes.pop(0), stdout=b"", stderr=b"no heart")
    world.tenants.claim(ALICE, "small")
    pass_time(world, 10)
    pulse = world.liveness.of(ALICE)
    assert pulse is not None
    assert (pulse.healthy, pulse.why) == (False, "check: exit code 3, no heart")
    world.close()


def test_the_status_says_who_is_unhealthy(world: World) -> None:
    """A status names health and what the last failed probe missed; one that was not probed yet says nothing."""
    api = Api(runtime_of(world))
    world.tenants.claim(ALICE, "small")
    assert api.get("/api/v1/tenants/alice/status").json()["health"] is None
    world.prober.always = None
    for _ in range(2):
        pass_time(world, 10)
    one, all_ = api.get("/api/v1/tenants/alice/status").json(), api.get("/api/v1/tenants").json()
    assert (one["health"], one["missing"]) == ("unhealthy", "nothing answered")
    assert all_ == [one]


def test_the_first_look_of_a_daemon_is_at_once(world: World) -> None:
    """A tenant that ran before the daemon started is probed without its start period or first interval."""
    world.tenants.claim(ALICE, "small")
    world.restart()
    world.recover()
    world.prober.always = None

    world.liveness.probe_all()
    world.liveness.look()

    pulse = world.liveness.of(ALICE)
    assert pulse is not None
    assert pulse.failures == 1
