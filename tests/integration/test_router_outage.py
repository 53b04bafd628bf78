"""Clients of a tenant have one address, which outlives the daemon and its router."""

import http.client
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from claw_runtime.router import presence
from fakes import live_podman
from fakes.daemon import Daemon
from fakes.load import Load

pytestmark = [pytest.mark.podman]


@pytest.fixture(scope="module")
def daemon(session_home: Path, small_image: str) -> Iterator[Daemon]:
    """One daemon with a router at a port that the kernel chose."""
    with live_podman.directory_in(session_home) as home:
        (home / "bucket").mkdir()
        file = home / "small.yaml"
        file.write_text(
            f"id: small\nimage: {small_image}\nports: [{{container: 8080}}]\n"
            "healthcheck: {path: /healthz, ready_timeout: 60s}\nvolumes: {state: {target: /state}}\n"
            "pool: {min_size: 1, max_size: 3, affinity_timeout: 0}\n"
        )
        with socket.create_server(("127.0.0.1", 0)) as free:
            ingress = f"127.0.0.1:{free.getsockname()[1]}"
        made = Daemon(home / "d", [file], {"CLAW_BUCKET": f"file://{home}/bucket", "CLAW_INGRESS": ingress})
        made.start(ready=1)
        yield made
        made.close()


@pytest.fixture(scope="module")
def base(daemon: Daemon) -> str:
    """The address of alice's program for a client that can send no header."""
    daemon.ok("claim", "alice")
    said = daemon.ok("token", "create", "hook", "--tenant", "alice", "--scope", "link", "-o", "json").json
    path = urlsplit(said["url"]).path
    return f"http://{daemon.environment['CLAW_INGRESS']}{path.rstrip('/')}"


def router(daemon: Daemon) -> presence.Presence:
    found = presence.present(Path(daemon.environment["CLAW_RUN"]) / "router.lock")
    assert found is not None
    return found


def status(url: str) -> int:
    """Of one request, to the router."""
    place = urlsplit(url)
    asking = http.client.HTTPConnection(place.hostname or "", place.port or 0, timeout=60)
    try:
        asking.request("GET", place.path)
        return asking.getresponse().status
    finally:
        asking.close()


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL", "SIGKILL to its process group"])
def test_the_address_outlives_the_daemon(daemon: Daemon, base: str, how: str) -> None:
    """Under 20 requests a second, the daemon ends and another one starts: none is lost, and the router is the same."""
    before = router(daemon)
    place = urlsplit(base)
    with Load(f"http://{place.netloc}", f"{place.path}/healthz", rate=20.0) as load:
        process = daemon.process
        assert process is not None
        if how == "SIGTERM":
            assert daemon.stop() == 0
        elif how == "SIGKILL":
            daemon.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)
        daemon.start()
    assert load.counted.lost == []
    assert load.counted.asked > 0
    assert router(daemon) == before


def test_a_router_that_was_killed_is_started_again(daemon: Daemon, base: str) -> None:
    """The next one gets its table from the daemon; its clients need nothing new."""
    before = router(daemon)
    assert before.end(signal.SIGKILL, within=20)
    for _ in range(200):
        try:
            if status(f"{base}/healthz") == 200:
                break
        except OSError:
            pass
        time.sleep(0.1)
    assert status(f"{base}/healthz") == 200
    assert router(daemon).pid != before.pid
