"""A host whose kernel has every controller: claw's limits hold, and a tenant that exceeds one harms nobody else."""

import json
import re
from collections.abc import Iterator

import pytest
from lab import claw, hosts, image
from lab.hosts import Host

pytestmark = pytest.mark.uml

SERVE = "httpd -p 8080 -h /state; until [ -e /state/eat ]; do sleep 0.5; done; rm /state/eat; sync; exec tail /dev/zero"
WORKLOAD = f"""\
{image.WORKLOAD}command: [sh, -c, "{SERVE}"]
deploy: {{resources: {{limits: {{cpus: "0.2", memory: 32m, pids: 40}}}}}}
"""
GROUP = "/sys/fs/cgroup"


@pytest.fixture(scope="module")
def daemon(uml_host: Host) -> Iterator[Host]:
    """The host with claw as a transient service of its user; alice and bob are claimed."""
    host = uml_host
    (host.share / "small.yaml").write_text(WORKLOAD)
    host.ok("systemd-run --user --quiet --unit=claw --setenv=PATH=$PATH claw-runtime up /lab/small.yaml")
    try:
        hosts.eventually(lambda: claw.slots(host) >= 1)
        host.ok("claw-runtime claim alice; claw-runtime claim bob --wait 60")
        yield host
    finally:
        host.run("systemctl --user stop claw")


def inside(host: Host, tenant: str, script: str) -> str:
    """The output of a shell script in the tenant's container; how it ends does not matter."""
    (host.share / "inside").write_text(script)
    return host.run(f'claw-runtime exec {tenant} -- sh -c "$(cat /lab/inside)"').out


def status(host: Host, tenant: str) -> dict[str, object]:
    """One tenant's status."""
    answer: dict[str, object] = json.loads(host.ok(f"claw-runtime status {tenant} -o json"))
    return answer


def bob_answers(host: Host) -> None:
    """The other tenant is active, in the container that it had, and answers on its port."""
    said = status(host, "bob")
    assert (said["state"], said["restarted"]) == ("active", None)
    host.ok(f"curl --silent --fail --max-time 30 http://127.0.0.1:{said['port']}/healthz")


@pytest.mark.quick
def test_doctor_finds_every_limit(uml_host: Host) -> None:
    """A container has limits of memory, processors and processes, also when a service of the user runs `doctor`."""
    (uml_host.share / "probed.yaml").write_text(image.WORKLOAD)
    findings = {one["check"]: one for one in json.loads(uml_host.ok("claw-runtime doctor /lab/probed.yaml -o json"))}
    assert findings["limits"]["verdict"] == "ok"
    assert findings["limits"]["detail"] == "a container had its limits of cpus, memory, pids"
    assert uml_host.ok("podman ps --all --quiet --filter label=io.claw.probe") == ""


def test_the_kernel_has_the_limits(daemon: Host) -> None:
    """The container's own control group holds what the workload file sets, and no swap."""
    files = [f"{GROUP}/{name}" for name in ("memory.max", "memory.swap.max", "pids.max", "cpu.max")]
    assert inside(daemon, "alice", f"cat {' '.join(files)}").split() == [str(32 << 20), "0", "40", "20000", "100000"]


def test_a_busy_tenant_is_throttled(daemon: Host) -> None:
    """A program that computes without a pause has the fifth of a processor that its workload file sets."""
    inside(daemon, "alice", "timeout 4 sh -c 'while :; do :; done'")
    counts = dict(line.split() for line in inside(daemon, "alice", f"cat {GROUP}/cpu.stat").splitlines())
    assert int(counts["nr_throttled"]) > 10
    bob_answers(daemon)


def test_a_fork_bomb_ends_at_its_limit(daemon: Host) -> None:
    """More processes than the limit are refused in that container alone, and its tenant stays active."""
    inside(daemon, "alice", "i=0; while [ $i -lt 80 ]; do sleep 5 & i=$((i+1)); done")
    # A command has no place in the container either until some of them have ended.
    hosts.eventually(
        lambda: re.search(r"^max [1-9]", inside(daemon, "alice", f"cat {GROUP}/pids.events"), re.MULTILINE)
    )
    assert status(daemon, "alice")["state"] == "active"
    bob_answers(daemon)


def test_a_program_without_memory_is_named(daemon: Host) -> None:
    """The kernel kills it at its limit: `status` says so, and what it wrote is saved and there after a claim."""
    inside(daemon, "alice", "echo blue > /state/colour; touch /state/eat")
    hosts.eventually(lambda: status(daemon, "alice")["state"] == "cold")
    said = status(daemon, "alice")["syncStatus"]
    assert isinstance(said, dict)
    assert "out of memory" in str(said["error"])
    assert said["generation"] == 1
    bob_answers(daemon)
    daemon.ok("claw-runtime claim alice --wait 60")
    assert inside(daemon, "alice", "cat /state/colour").strip() == "blue"
