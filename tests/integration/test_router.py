"""Requests reach tenants on real Podman through one address, and claim those that sleep."""

import http.client
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from fakes import live_podman
from fakes.daemon import Daemon, on_small_image

pytestmark = pytest.mark.podman
TENANTS = ("alice", "bob", "carol")
REQUESTS = 300


@pytest.fixture(scope="module")
def port() -> int:
    """A free one."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture(scope="module")
def daemon(session_home: Path, small_image: str, port: int) -> Iterator[Daemon]:
    """A daemon with a router, and three tenants of which each has its name in a file; all are cold."""
    settings = {"CLAW_INGRESS": f"127.0.0.1:{port}"}
    with live_podman.directory_in(session_home) as home:
        with on_small_image(home, small_image, settings=settings) as made:
            for tenant in TENANTS:
                made.ok("claim", tenant)
                made.ok("exec", tenant, "--", "sh", "-c", f"echo {tenant} > /state/name")
                made.ok("release", tenant, "--no-affinity")
            yield made
        made.ok("router", "--end")  # it outlives its daemon


@pytest.fixture(scope="module")
def tokens(daemon: Daemon) -> dict[str, str]:
    """A token of each tenant."""
    return {one: daemon.ok("token", "create", f"{one}s-bot", "--tenant", one).out.strip() for one in TENANTS}


def ask(port: int, tenant: str, token: str, path: str = "/name") -> tuple[int, str]:
    """Status and body of one request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", f"/~{tenant}{path}", headers={"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode().strip()
    finally:
        connection.close()


def test_nobody_else_gets_in(daemon: Daemon, tokens: dict[str, str], port: int) -> None:
    """Another tenant's token, no valid token and a tenant that does not exist get the same answer, and wake nobody."""
    answers = [ask(port, "bob", tokens["alice"]), ask(port, "bob", "claw_x"), ask(port, "nobody", tokens["alice"])]

    assert {status for status, _ in answers} == {401}
    assert len({body for _, body in answers}) == 1
    assert daemon.ok("status", "bob", "-o", "json").json["state"] == "cold"


def test_no_request_is_lost_or_answered_by_another(daemon: Daemon, tokens: dict[str, str], port: int) -> None:
    """While tenants are released and claimed all the time, each request is answered by its own tenant."""
    over, wrong, seen = threading.Event(), list[tuple[str, int, str]](), Counter[str]()
    numbers = iter(range(REQUESTS))

    def client() -> None:
        for number in numbers:
            tenant = TENANTS[number % len(TENANTS)]
            status, body = ask(port, tenant, tokens[tenant])
            seen["answered" if status == 200 else body] += 1
            if (status, body) != (200, tenant) and status != 503:
                wrong.append((tenant, status, body))

    def operator() -> None:
        while not over.is_set():
            for tenant in TENANTS:
                daemon.cli("release", tenant)
                time.sleep(0.2)

    releases = threading.Thread(target=operator)
    clients = [threading.Thread(target=client) for _ in range(4)]
    for thread in (releases, *clients):
        thread.start()
    for thread in clients:
        thread.join()
    over.set()
    releases.join()

    assert not wrong
    assert seen["answered"] >= 0.99 * REQUESTS, seen
    for tenant in TENANTS:
        with suppress(AssertionError):
            daemon.ok("release", tenant)
