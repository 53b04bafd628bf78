"""What a tenant's container may not do, asked of the kernel inside a real one (marker `podman`).

Every control was taken out of `engine/options.py` once, by hand, on Podman 4.3.1, and a test failed for each:
cap_drop, no_new_privileges, seccomp (unconfined), user (root), the mapping (host, keep-id), read_only, the mode of
tmpfs, the values' nosuid, nodev and ro, allow_host_loopback=false, 127.0.0.1 in `ports`, network none, the service's
own environment (with httpproxy), shm_size (a larger one), ulimits, the pid, ipc, uts, net and cgroup namespaces (host),
one more bind (the runtime directory), one device, and privileged.

`nosuid,nodev` on writable binds is asked for, but crun 1.8.1 applies it to read-only binds only (runc and later crun to
both): what stands there instead is no-new-privileges, and that no device can be made.
"""

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from claw_runtime.engine.podman import PodmanEngine
from claw_runtime.ports import Bind, ContainerSpec, ExecResult
from fakes import live_podman

pytestmark = pytest.mark.podman

TMPFS = ("/config", "/tmp", "/var/tmp")
BINDS = ("/state", "/logs", "/run/claw")
# Podman's own: name resolution and identity, read-only, and the usual kernel file systems.
OF_PODMAN = {"/", "/proc", "/sys", "/dev", "/dev/pts", "/dev/mqueue", "/dev/shm", "/sys/fs/cgroup"} | {
    "/etc/hosts",
    "/etc/hostname",
    "/etc/passwd",
    "/etc/group",
    "/etc/resolv.conf",
    "/run/.containerenv",
    "/run/podman-init",
}
HARMLESS_DEVICES = {"null", "zero", "full", "tty", "random", "urandom", "console"}
MASKED = ("/proc/", "/sys/", "/dev/")


@dataclass(frozen=True)
class Tenant:
    """A running container with all that a slot has, and where its directories are on the host."""

    engine: PodmanEngine
    container: str
    home: Path

    def run(self, *argv: str) -> ExecResult:
        return self.engine.execute(self.container, argv)

    def text(self, *argv: str) -> str:
        said = self.run(*argv)
        assert said.exit_code == 0, said.stderr.decode(errors="replace")
        return said.stdout.decode()

    def mounts(self) -> dict[str, tuple[set[str], str]]:
        """Target → options and file system type, from the container's own /proc/self/mountinfo."""
        found = {}
        for line in self.text("cat", "/proc/self/mountinfo").splitlines():
            before, _, after = line.partition(" - ")
            fields = before.split()
            found[fields[4]] = (set(fields[5].split(",")), after.split()[0])
        return found


@pytest.fixture(scope="module")
def image() -> str:
    """The small image."""
    return live_podman.small_image()


@pytest.fixture(scope="module")
def tenants(image: str) -> Iterator[tuple[Tenant, Tenant]]:
    """Two tenants side by side; nothing of them is left afterwards."""
    with pytest.MonkeyPatch.context() as patch, live_podman.directory_in() as home:
        patch.setenv("HTTPS_PROXY", "http://canary")
        patch.setenv("CLAW_CANARY", "canary")
        made = []
        with live_podman.engine_at(home / "podman.sock") as engine:
            try:
                for name in ("alice", "bob"):
                    binds = [Bind(source=home / name / target[1:], target=target) for target in BINDS]
                    for bind in binds:
                        bind.source.mkdir(parents=True)
                    spec = ContainerSpec(
                        name=f"claw-test-hardening-{os.getpid()}-{name}",
                        image=image,
                        binds=[*binds[:2], Bind(source=binds[2].source, target=binds[2].target, read_only=True)],
                        tmpfs=TMPFS,
                        port=8080,
                        environment={"CLAW_PLAIN": "1"},
                    )
                    made.append(Tenant(engine, engine.create(spec), home / name))
                    engine.start(made[-1].container)
                yield made[0], made[1]
            finally:
                for tenant in made:
                    engine.remove(tenant.container)
        assert live_podman.left_containers(home) == []
        assert live_podman.left_processes(home) == []


@pytest.fixture
def tenant(tenants: tuple[Tenant, Tenant]) -> Tenant:
    """The first of them."""
    return tenants[0]


@pytest.mark.parametrize("process", ["1", "self"])
def test_no_capability_can_be_had(tenant: Tenant, process: str) -> None:
    """Neither the program nor a command run beside it has a capability, or can get one; seccomp filters both."""
    lines = tenant.text("cat", f"/proc/{process}/status").splitlines()
    status = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[name], 16) == 0, name
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"


def test_the_program_is_the_host_user(tenant: Tenant) -> None:
    """Inside and outside it has the same uid and gid, so that its files belong to nobody else; it is never root."""
    assert tenant.text("id", "-u").strip() == str(os.getuid())
    assert tenant.text("id", "-g").strip() == str(os.getgid())
    seen = tenant.engine.inspect(tenant.container)
    assert seen is not None
    assert Path(f"/proc/{seen.pid}").stat().st_uid == os.getuid()
    assert (tenant.home / "state" / "starts").stat().st_uid == os.getuid()


@pytest.mark.parametrize(("kind", "own"), [("uid", os.getuid()), ("gid", os.getgid())])
def test_no_more_users_exist_than_are_needed(tenant: Tenant, kind: str, own: int) -> None:
    """Two ids are mapped, each alone: the program's own, and the owner of the image's files, who is not this user
    outside."""
    lines = tenant.text("cat", f"/proc/self/{kind}_map").splitlines()
    assert [[int(word) for word in line.split()] for line in lines] == [[0, 1, 1], [own, 0, 1]]
    for target in ("/", "/etc/passwd", "/bin/busybox"):
        assert tenant.text("stat", "-c", f"%{kind[0]}", target).strip() == "0"
    assert tenant.run("chown", "1:1", "/state/starts").exit_code != 0


def test_only_the_given_places_can_be_written(tenant: Tenant) -> None:
    """The root and the values are read-only; whatever is mounted writable was asked for."""
    for path in ("/x", "/etc/x", "/bin/x", "/run/x", "/var/x", "/run/claw/x", "/sys/x", "/etc/passwd"):
        assert tenant.run("sh", "-c", f"echo x >> {path}").exit_code != 0, path
    writable = {
        target
        for target, (options, kind) in tenant.mounts().items()
        if "rw" in options and kind not in ("proc", "devpts", "mqueue", "devtmpfs")
    }
    if tenant.engine.info().cgroup_version == "v1":  # there runc cannot make it read-only, and it is root's
        writable -= {"/sys/fs/cgroup"}
        assert tenant.run("sh", "-c", "mkdir /sys/fs/cgroup/x || mkdir /sys/fs/cgroup/*/x").exit_code != 0
    assert writable - {"/dev", "/dev/shm"} == {*TMPFS, "/state", "/logs"}


def test_places_in_memory_are_bounded(tenant: Tenant) -> None:
    """/dev/shm holds 64 MiB; message queues, which the kernel counts for all tenants together, cannot be made; /run and
    /dev take nothing."""
    assert tenant.text("df", "-k", "/dev/shm").split()[-5] == str(64 << 10)
    filled = tenant.run("dd", "if=/dev/zero", "of=/dev/shm/x", "bs=1M", "count=80")
    assert filled.exit_code != 0
    assert b"No space left" in filled.stderr
    tenant.text("rm", "/dev/shm/x")
    assert "Max msgqueue size" in (limits := tenant.text("cat", "/proc/1/limits"))
    assert next(line.split()[-3:] for line in limits.splitlines() if "msgqueue" in line) == ["0", "0", "bytes"]
    for path in ("/dev/mqueue/x", "/dev/x", "/run/x", "/dev/pts/x"):
        assert tenant.run("touch", path).exit_code != 0, path


@pytest.mark.parametrize("path", TMPFS)
def test_temporary_places_are_for_any_user(tenant: Tenant, path: str) -> None:
    """A tmpfs of mode 1777, nosuid and nodev, that the program can really write."""
    options, kind = tenant.mounts()[path]
    assert kind == "tmpfs"
    assert {"rw", "nosuid", "nodev"} <= options
    assert tenant.text("stat", "-c", "%a", path).strip() == "1777"
    tenant.text("sh", "-c", f"echo x > {path}/x && rm {path}/x")


def test_nothing_else_of_the_host_is_mounted(tenant: Tenant) -> None:
    """No runtime directory, no Podman socket, no home: only what was asked for, and what Podman itself needs."""
    found = tenant.mounts()
    unexpected = {
        target for target in found if target not in {*OF_PODMAN, *TMPFS, *BINDS} and not target.startswith(MASKED)
    }
    assert unexpected == set()
    assert set(tenant.text("ls", "-A", "/run").split()) == {".containerenv", "claw", "podman-init"}
    assert tenant.text("find", "/", "-xdev", "-type", "s").strip() == ""
    options, _kind = found["/run/claw"]
    assert {"ro", "nosuid", "nodev"} <= options


def test_no_device_of_the_host_is_there(tenant: Tenant) -> None:
    """Only the harmless character devices, and none can be made: not in /state, not in /tmp."""
    devices = tenant.text("find", "/dev", "-type", "c", "-o", "-type", "b").split()
    assert {Path(device).name for device in devices if not device.startswith("/dev/pts")} <= HARMLESS_DEVICES
    for place in ("/state", "/tmp"):
        assert tenant.run("mknod", f"{place}/sda", "b", "8", "0").exit_code != 0


@pytest.mark.parametrize("kind", ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"])
def test_every_namespace_is_its_own(tenants: tuple[Tenant, Tenant], kind: str) -> None:
    """Neither the host's nor the other tenant's."""
    if kind == "cgroup" and tenants[0].engine.info().cgroup_version == "v1":
        pytest.skip("Podman gives no cgroup namespace on a cgroup v1 host")
    here = [Path(f"/proc/self/ns/{kind}").readlink()]
    for tenant in tenants:
        seen = tenant.engine.inspect(tenant.container)
        assert seen is not None
        here.append(Path(f"/proc/{seen.pid}/ns/{kind}").readlink())
    assert len(set(here)) == 3


def knock(tenant: Tenant, address: str, port: int) -> str:
    """Try to connect from inside: "" when it worked, else what the kernel said."""
    said = tenant.run("sh", "-c", f"echo | timeout 5 nc -w 2 {address} {port} >/dev/null")
    return said.stderr.decode()


def test_the_hosts_loopback_is_out_of_reach(tenants: tuple[Tenant, Tenant]) -> None:
    """Neither a server on the host's 127.0.0.1 nor the other tenant's port answers, by any address of the host."""
    alice, bob = tenants
    other = bob.engine.inspect(bob.container)
    assert other is not None
    assert other.host_port is not None
    assert knock(alice, "127.0.0.1", 8080) == ""  # connecting as such works: this is its own program
    # There is a network. With slirp4netns, its gateway stands for the host.
    gateway = next(line.split()[2] for line in alice.text("ip", "route").splitlines() if line.startswith("default via"))
    host = next(line.split()[0] for line in alice.text("cat", "/etc/hosts").splitlines() if "host.containers" in line)
    with socket.create_server(("127.0.0.1", 0)) as server:
        for port in (server.getsockname()[1], other.host_port):
            socket.create_connection(("127.0.0.1", port), timeout=5).close()  # it is there, for the host
            for address in ("127.0.0.1", gateway, host):
                assert "can't connect" in knock(alice, address, port), f"{address}:{port}"


def test_the_port_is_published_on_loopback_only(tenant: Tenant) -> None:
    """The kernel's table has one listener on that port, on 127.0.0.1, and none for IPv6."""
    seen = tenant.engine.inspect(tenant.container)
    assert seen is not None
    listeners = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state = line.split()[:4]
            address, _, port = local.partition(":")
            if state == "0A" and int(port, 16) == seen.host_port:
                listeners.append(address)
    assert listeners == ["0100007F"]


def test_without_a_network_there_is_only_loopback(image: str) -> None:
    """`none` has no interface but lo, and publishes nothing."""
    with live_podman.directory_in() as home, live_podman.engine_at(home / "podman.sock") as engine:
        spec = ContainerSpec(
            name=f"claw-test-hardening-{os.getpid()}-none", image=image, network="none", port=8080, tmpfs=("/state",)
        )
        container = engine.create(spec)
        try:
            engine.start(container)
            assert engine.execute(container, ["ls", "/sys/class/net"]).stdout == b"lo\n"
        finally:
            engine.remove(container)


def test_the_hosts_environment_stays_there(tenant: Tenant) -> None:
    """Neither a proxy nor anything else of the daemon's environment is in the container's."""
    names = {line.partition("=")[0] for line in tenant.text("env").splitlines()}
    assert names <= {"PATH", "HOME", "HOSTNAME", "TERM", "container", "SHLVL", "PWD", "CLAW_PLAIN"}


def test_processes_of_others_cannot_be_seen(tenant: Tenant) -> None:
    """The container's process table starts with its own init, which runs its program."""
    assert tenant.text("cat", "/proc/1/cmdline").replace("\0", " ").split()[-1] == "/bin/entry"
    assert len(tenant.text("ls", "/proc").split()) < 100
