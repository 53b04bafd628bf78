"""A browser is admitted on real parts, and a client's requests last: none fails while its tenant is released."""

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from fakes import live_podman
from fakes.daemon import Daemon

pytestmark = [pytest.mark.podman, pytest.mark.s3]

WORKLOAD = """id: small
image: {image}
ports: [{{container: 8080}}]
healthcheck: {{path: /healthz, ready_timeout: 20s}}
volumes: {{state: {{target: /state}}, logs: {{target: /logs}}}}
pool: {{min_size: 1, max_size: 4, affinity_timeout: 60s}}
"""


class Front:
    """A daemon with a router, and a client of the router."""

    def __init__(self, daemon: Daemon, port: int) -> None:
        self.daemon, self.port = daemon, port
        self.token = daemon.ok("token", "create", "bot", "--tenant", "alice").out.strip()

    def ask(self, path: str = "/~alice/name", host: str = "", **fields: str) -> http.client.HTTPResponse:
        """One request, with alice's token unless it has fields of its own; its answer, which was read."""
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        given = fields or {"Authorization": f"Bearer {self.token}"}
        client.request("GET", path, headers={"Host": host or f"localhost:{self.port}", **given})
        answer = client.getresponse()
        answer.read()
        client.close()
        return answer

    def state(self) -> str:
        return str(self.daemon.ok("status", "alice", "-o", "json").json["state"])

    def wait(self) -> None:
        """Until the daemon talks with the router."""
        deadline = time.monotonic() + 60
        while self.daemon.ok("route", "list", "-o", "json").json[0]["clients"] is None:
            assert time.monotonic() < deadline, self.daemon.log[-3000:]
            time.sleep(0.1)


@pytest.fixture(scope="module")
def front(session_home: Path, small_image: str) -> Iterator[Front]:
    with live_podman.directory_in(session_home) as home, socket.create_server(("127.0.0.1", 0)) as taken:
        path, port = home / "small.yaml", taken.getsockname()[1]
        path.write_text(WORKLOAD.format(image=small_image))
        daemon = Daemon(home / "d", [path], {"CLAW_INGRESS": f"127.0.0.1:{port}"})
        taken.close()
        daemon.start(ready=1)
        daemon.ok("claim", "alice")
        daemon.ok("exec", "alice", "--", "sh", "-c", "echo alice > /state/name")
        made = Front(daemon, port)
        made.wait()
        try:
            yield made
        finally:
            daemon.close()
            daemon.ok("router", "--end")  # it outlives its daemon


@pytest.fixture(autouse=True)
def active(front: Front) -> None:
    """Each test begins with a running alice and a connected router."""
    front.daemon.ok("claim", "alice")
    front.wait()
    deadline = time.monotonic() + 30
    while front.ask().status != 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize("options", [(), ("--no-affinity",)], ids=("parked", "cold"))
def test_a_request_wakes_a_tenant(front: Front, options: tuple[str, ...]) -> None:
    """The client notices only that it takes longer."""
    front.daemon.ok("release", "alice", *options)
    assert front.ask(Authorization="Bearer claw_x").status == 401
    assert front.state() != "active"
    assert front.ask().status == 200
    assert front.state() == "active"


def test_no_request_is_lost_while_a_tenant_is_released(front: Front) -> None:
    """What comes meanwhile is held, and wakes the tenant afterwards."""
    ends, statuses = threading.Event(), list[int]()

    def go() -> None:
        while not ends.is_set():
            statuses.append(front.ask().status)

    with ThreadPoolExecutor(4) as clients:
        done = [clients.submit(go) for _ in range(4)]
        try:
            for _ in range(3):
                time.sleep(0.5)
                front.daemon.ok("release", "alice")
                deadline = time.monotonic() + 20
                while front.state() != "active" and time.monotonic() < deadline:
                    time.sleep(0.1)
        finally:
            ends.set()
        for one in done:
            one.result(60)
    assert front.state() == "active"
    assert len(statuses) > 20
    assert set(statuses) == {200}


def test_a_ticket_lets_one_browser_in(front: Front) -> None:
    """Its cookie opens the tenant from then on; the ticket is worth nothing any more."""
    url = urlsplit(front.daemon.ok("open", "alice", "--print").out.strip())
    assert url.netloc == f"alice.localhost:{front.port}"
    target = f"{url.path}?{url.query}"
    entered = front.ask(target, url.netloc, Accept="text/html")
    assert (entered.status, entered.getheader("location")) == (303, "/")
    cookie = (entered.getheader("set-cookie") or "").split(";")[0]
    assert front.ask("/name", url.netloc, Cookie=cookie).status == 200
    assert front.ask(target, url.netloc, Accept="text/html").status == 401
