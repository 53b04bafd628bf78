"""A fresh host of each release: it boots, services of its user linger, Podman works, and claw serves a tenant."""

import json
import re
from collections.abc import Iterator

import pytest
from lab import claw, hosts, image
from lab.hosts import Host, Ran

PODMAN = {"bookworm": "4.3.", "trixie": "5.4."}
HELPERS = {"bookworm": "slirp4netns", "trixie": "pasta"}
"""What gives containers a network: the helper that each Podman takes by itself."""
LIMITS = {"memory": "memory", "cpus": "cpu", "pids": "pids"}
"""Limits of a workload, and the controllers of the kernel that enforce them."""


@pytest.fixture(scope="module")
def host(nspawn_host: Host) -> Host:
    """The host under test."""
    return nspawn_host


@pytest.fixture(scope="module")
def daemon(host: Host) -> Iterator[Host]:
    """The host with claw as a transient service of its user, and one slot of the small image."""
    (host.share / "small.yaml").write_text(image.WORKLOAD)
    host.ok(
        "systemd-run --user --quiet --unit=claw --setenv=PATH=$PATH claw-runtime up --limits drop /lab/small.yaml",
    )
    try:
        hosts.eventually(lambda: claw.slots(host) >= 1)
        yield host
    finally:
        host.run("claw-runtime release alice --no-sync; systemctl --user stop claw")


def test_it_is_the_release(host: Host) -> None:
    """The host is the Debian that its name says, with that release's Podman."""
    assert host.ok(". /etc/os-release; echo $VERSION_CODENAME") == host.dist
    assert host.ok("podman --version").removeprefix("podman version ").startswith(PODMAN[host.dist])


def test_systemd_starts_everything(host: Host) -> None:
    """Systemd is the first process, and no unit failed: neither of the host nor of the user."""
    assert host.ok("cat /proc/1/comm") == "systemd"
    assert host.ok("systemctl is-system-running --wait || systemctl --failed", user="root") == "running"
    assert host.ok("systemctl --user is-system-running --wait || systemctl --user --failed") == "running"


def test_the_user_lingers(host: Host) -> None:
    """The user's services run although nobody is logged in."""
    assert host.ok("loginctl show-user claw --property=Linger --value") == "yes"


def test_a_script_runs_in_the_users_session(host: Host) -> None:
    """A test's script is a service of the user's own systemd, as the user's own units are."""
    user, group = host.ok("id -un; grep ^0: /proc/self/cgroup").splitlines()
    assert user == "claw"
    assert re.fullmatch(r"0::/user\.slice/user-\d+\.slice/user@\d+\.service/app\.slice/run-.*\.service", group)


def test_podman_runs_a_container(host: Host) -> None:
    """Podman is rootless, with overlay storage and cgroup v2, and runs a container."""
    facts = "{{.Host.Security.Rootless}} {{.Store.GraphDriverName}} {{.Host.CgroupsVersion}} {{.Host.CgroupManager}}"
    assert host.ok(f"podman info --format '{facts}'") == "true overlay v2 systemd"
    assert host.ok(f"podman run --rm --network=none {image.NAME} echo hello") == "started\nhello"


def test_doctor_says_what_is_true(host: Host) -> None:
    """`doctor` finds nothing that keeps the host from running tenants, and the limits that its kernel enforces."""
    findings = {one["check"]: one for one in json.loads(host.ok("claw-runtime doctor -o json"))}
    group = "/sys/fs/cgroup$(systemctl --user show --property=ControlGroup --value)"
    enforced = host.ok(f'cat "{group}/cgroup.controllers"')
    missing = sorted(limit for limit, controller in LIMITS.items() if controller not in enforced.split())

    assert {check: one for check, one in findings.items() if one["verdict"] == "fail"} == {}
    assert findings["rootless"]["verdict"] == "ok"
    assert PODMAN[host.dist] in findings["podman answers"]["detail"]
    if missing:
        assert findings["limits"]["verdict"] == "warn"
        assert findings["limits"]["detail"] == f"not enforceable here: {', '.join(missing)}"
    else:
        assert findings["limits"]["verdict"] == "ok"


def test_a_tenants_port_answers(daemon: Host) -> None:
    """The daemon is a service of the user; a tenant that it serves answers on the published port."""
    assert daemon.ok("systemctl --user is-active claw") == "active"
    url = json.loads(daemon.ok("claw-runtime claim alice -o json"))["endpoints"]["http"]
    answer = daemon.ok(f"curl --silent --max-time 10 --write-out ' %{{http_code}}' {url}/healthz")
    assert answer.split() == ["ok", "200"]


def test_podmans_own_helper_gives_tenants_a_network(daemon: Host) -> None:
    """`doctor` names it, and the tenant's container has it."""
    findings = {one["check"]: one for one in json.loads(daemon.ok("claw-runtime doctor -o json"))}
    container = json.loads(daemon.ok("claw-runtime claim alice -o json"))["containerId"]
    mode = daemon.ok(f"podman inspect --format '{{{{.HostConfig.NetworkMode}}}}' {container}")

    assert findings["network helper"]["detail"] == HELPERS[daemon.dist]
    assert mode.partition(":")[0] == HELPERS[daemon.dist]


def knock(host: Host, address: str, port: int) -> Ran:
    """Try to connect from inside alice's container."""
    return host.run(f"claw-runtime exec alice -- sh -c 'echo | timeout 5 nc -w 2 {address} {port} >/dev/null'")


def test_the_hosts_loopback_is_out_of_reach(daemon: Host) -> None:
    """A server on the host's 127.0.0.1 answers the host, and no tenant, by none of the host's addresses."""
    daemon.ok("claw-runtime claim alice")
    daemon.ok("systemd-run --user --quiet --unit=secret busybox httpd -f -p 127.0.0.1:9099 -h /lab")
    try:
        daemon.ok("timeout 20 sh -c 'until curl --silent http://127.0.0.1:9099/small.yaml; do sleep 0.1; done'")
        route = daemon.run("claw-runtime exec alice -- ip route").out
        gateways = re.findall(r"^default via (\S+)", route, re.MULTILINE)
        named = daemon.ok("claw-runtime exec alice -- grep host.containers /etc/hosts || true").split()[:1]
        assert knock(daemon, "127.0.0.1", 8080).code == 0  # connecting as such works: this is its own program
        for address in ("127.0.0.1", *gateways, *named):
            assert "can't connect" in knock(daemon, address, 9099).err, address
    finally:
        daemon.run("systemctl --user stop secret")


def test_a_tenant_keeps_its_state(daemon: Host) -> None:
    """What a tenant wrote is there after a release and another claim."""
    daemon.ok("claw-runtime claim alice && claw-runtime exec alice -- sh -c 'echo blue > /state/colour'")
    daemon.ok("claw-runtime release alice --no-affinity && claw-runtime claim alice")
    assert daemon.ok("claw-runtime exec alice -- cat /state/colour") == "blue"


def test_what_is_left_running_outlives_the_unit(daemon: Host) -> None:
    """`exec --detach` within a service of systemd leaves its command running when that service has ended."""
    daemon.ok("claw-runtime claim alice")
    daemon.ok("claw-runtime exec --detach alice -- sleep 300")  # the script is a service
    assert daemon.ok("claw-runtime exec alice -- pidof sleep")
