"""A reboot of an ordinary host: who was claimed is claimed again, with the state that was there, and nobody else."""

import json
from collections.abc import Iterator

import pytest
from lab import claw, hosts, image
from lab.hosts import Host

ALWAYS = f"{image.WORKLOAD}policy: {{on_boot: always}}\n"


@pytest.fixture(scope="module")
def rebooted(nspawn_host: Host) -> Iterator[Host]:
    """A host after a reboot. Alice ran before, bob's program had ended, carol was released."""
    host = nspawn_host
    try:
        claw.install(host, ALWAYS)
        host.ok("for name in alice bob carol; do claw-runtime claim $name; done")
        host.ok("claw-runtime exec alice -- sh -c 'echo blue > /state/colour'")
        host.run("claw-runtime exec bob -- kill 1")
        host.ok("claw-runtime release carol --no-affinity")
        hosts.eventually(lambda: claw.state(host, "bob") == "cold")
        host.reboot()
        hosts.eventually(lambda: claw.state(host, "alice") == "active")
        yield host
    finally:
        host.run("for name in alice bob; do claw-runtime release $name --no-sync; done; claw-runtime uninstall")


def test_a_tenant_that_ran_runs_again(rebooted: Host) -> None:
    """Her port answers, and what she had written since her last commit is there."""
    url = json.loads(rebooted.ok("claw-runtime status alice -o json"))["endpoints"]["http"]
    assert rebooted.ok(f"curl --silent --max-time 10 {url}/healthz") == "ok"
    assert rebooted.ok("claw-runtime exec alice -- cat /state/colour") == "blue"


def test_an_always_on_tenant_runs_again(rebooted: Host) -> None:
    """With `on_boot: always`, it need not have run before; it was claimed and not released."""
    hosts.eventually(lambda: claw.state(rebooted, "bob") == "active")
    assert json.loads(rebooted.ok("claw-runtime status bob -o json"))["endpoints"]["http"]


def test_a_released_tenant_stays_at_rest(rebooted: Host) -> None:
    """When all that are to run do, the one that was released does not."""
    hosts.eventually(lambda: claw.state(rebooted, "bob") == "active")
    assert claw.state(rebooted, "carol") == "cold"
