"""Tenants' users do not notice that the daemon restarts: no request to a published port is lost.

Podman's API service ends with its daemon. The processes that forward a published port are its children; they must
outlive it, which a host without systemd guarantees as long as nothing but the service itself is ended.
"""

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import live_podman
from fakes.daemon import Daemon
from fakes.load import Load

pytestmark = [pytest.mark.podman]
HELPERS = ("slirp4netns", "rootlessport", "pasta")


@pytest.fixture(scope="module")
def daemon(session_home: Path, small_image: str) -> Iterator[Daemon]:
    """One daemon, in a process group of its own as a shell gives it one, whose store is a directory."""
    with live_podman.directory_in(session_home) as home:
        (home / "bucket").mkdir()
        file = home / "small.yaml"
        file.write_text(
            f"id: small\nimage: {small_image}\nports: [{{container: 8080}}]\n"
            "healthcheck: {path: /healthz, ready_timeout: 20s}\nvolumes: {state: {target: /state}}\n"
            "pool: {min_size: 1, max_size: 3, affinity_timeout: 0}\n"
        )
        daemon = Daemon(home / "d", [file], {"CLAW_BUCKET": f"file://{home}/bucket"})
        daemon.start(ready=1)
        yield daemon
        daemon.close()


@pytest.fixture
def endpoint(daemon: Daemon) -> Iterator[str]:
    """Where a tenant's program answers."""
    yield daemon.ok("claim", "alice", "-o", "json").json["endpoints"]["http"]
    daemon.ok("release", "alice", "--no-sync")


def helpers() -> dict[int, tuple[str, int]]:
    """Process id → name and session of this user's processes that forward ports or packets."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            name = (entry / "cmdline").read_bytes().split(b"\0")[0].decode(errors="replace").rpartition("/")[2]
            if entry.stat().st_uid == os.getuid() and name in HELPERS:
                found[int(entry.name)] = name, os.getsid(int(entry.name))
        except OSError:
            continue  # it ended while we looked
    return found


def half_asked(endpoint: str) -> socket.socket:
    """A connection whose request is not complete yet."""
    host, port = endpoint.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=20)
    connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
    return connection


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL", "SIGKILL to its process group"])
def test_a_restart_loses_no_request(daemon: Daemon, endpoint: str, how: str) -> None:
    """Under 50 requests a second, the daemon ends and another one starts: each request is answered, and so is the one
    that was half sent before. The processes that forward the port are the same ones."""
    before = helpers()
    assert daemon.process is not None
    with Load(endpoint) as load, half_asked(endpoint) as held:
        time.sleep(1)
        if how == "SIGTERM":
            assert daemon.stop() == 0
        elif how == "SIGKILL":
            daemon.kill()
        else:
            os.killpg(daemon.process.pid, signal.SIGKILL)
            daemon.process.wait(30)
        time.sleep(1)
        alone = helpers()
        held.sendall(b"\r\n")
        assert held.recv(100).startswith(b"HTTP/1.1 200")
        daemon.start(ready=1)
        time.sleep(1)

    assert load.counted.lost == []
    assert load.counted.asked > 100
    assert before.items() & alone.items(), "no process forwards the port"
    assert daemon.ok("status", "alice", "-o", "json").json["state"] == "active"


def test_what_forwards_a_port_is_in_no_group_with_the_daemon(daemon: Daemon, endpoint: str) -> None:
    """A terminal that closes, or Ctrl-C in it, signals the daemon's session only: the helpers are in others."""
    assert endpoint
    assert daemon.process is not None
    sessions = {session for _name, session in helpers().values()}

    assert sessions
    assert os.getsid(daemon.process.pid) not in sessions


def test_the_service_manager_hears_of_each_step(session_home: Path) -> None:
    """Ready when the API answers, alive while it does, and stopping as soon as SIGTERM came."""
    with live_podman.directory_in(session_home) as home, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        (home / "bucket").mkdir()
        manager.bind(f"{home}/notify")
        manager.settimeout(90)
        daemon = Daemon(home / "d", [], {"CLAW_BUCKET": f"file://{home}/bucket"})
        daemon.environment |= {"NOTIFY_SOCKET": f"{home}/notify", "WATCHDOG_USEC": "1500000"}
        daemon.start()
        first, second = manager.recv(4096), manager.recv(4096)
        assert daemon.stop() == 0
        assert first.startswith(b"READY=1\nWATCHDOG=1\nSTATUS=")
        assert second.startswith(b"WATCHDOG=1\nSTATUS=")
        while (last := manager.recv(4096)).startswith(b"WATCHDOG"):
            pass
        assert last.startswith(b"STOPPING=1")
