"""Clients that only hold connections over TCP keep nobody out."""

import errno
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from claw_runtime.api import accepting, server
from claw_runtime.api.connections import Connections
from claw_runtime.daemon.assembly import Runtime
from fakes.faces import listening
from fakes.world import World

MOST = 4


@pytest.fixture
def base(world: World, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URL of an API whose bounds are small."""
    monkeypatch.setattr(server, "Connections", partial(Connections, most=MOST, **getattr(request, "param", {})))
    with listening(world) as (_, url):
        yield url


@pytest.fixture
def served(world: World) -> Iterator[tuple[Runtime, str]]:
    """A daemon's parts, and the URL of its API."""
    with listening(world) as served:
        yield served


def head(runtime: Runtime, tenant: str, line: str = "GET /livez", *more: str) -> bytes:
    """The head of a request with a new token of the tenant."""
    token = runtime.tokens.create(f"t{len(runtime.tokens.all())}", "tenant", tenant=tenant)[1].reveal()
    lines = (f"{line} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {token}", *more, "", "")
    return "\r\n".join(lines).encode()


def statuses(connection: socket.socket, count: int) -> list[int]:
    """The status of each of so many answers."""
    text = b""
    while text.count(b"HTTP/1.1 ") < count and (piece := connection.recv(1 << 16)):
        text += piece
    return [int(part[:3]) for part in text.split(b"HTTP/1.1 ")[1:]]


def connected(base: str, sent: bytes = b"") -> socket.socket:
    made = socket.create_connection((urlsplit(base).hostname, urlsplit(base).port), timeout=10)
    made.sendall(sent)
    return made


def is_closed(connection: socket.socket) -> bool:
    """Whether the server closes it within the timeout."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n",
        b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"POST /api/v1/pools HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n{",
    ],
    ids=["silent", "half-a-head", "answered", "half-a-body"],
)
def test_held_connections_keep_nobody_out(base: str, sent: bytes) -> None:
    """Three times as many as there may be, and everybody else still has an answer; the oldest are closed for it."""
    with ExitStack() as stack:
        held = [stack.enter_context(connected(base, sent)) for _ in range(3 * MOST)]
        for _ in range(3):
            assert httpx.get(f"{base}/livez").status_code == 401
        held[-1].settimeout(0.1)
        if not sent:
            assert is_closed(held[0])
            assert not is_closed(held[-1])


@pytest.mark.parametrize("base", [{"patience": 0.2}], indirect=True)
@pytest.mark.parametrize("sent", [b"", b"GET /livez HTTP/1.1\r\n"], ids=["silent", "half-a-head"])
def test_a_request_that_never_comes_ends_the_connection(base: str, sent: bytes) -> None:
    """Also when there is room for it."""
    with connected(base, sent) as connection:
        assert is_closed(connection)


@pytest.mark.parametrize("base", [{"patience": 0.2}], indirect=True)
def test_a_connection_that_asks_in_time_stays(base: str) -> None:
    """A client that keeps its connection asks again over it."""
    with httpx.Client(base_url=base) as client:
        for _ in range(3):
            assert client.get("/livez").status_code == 401
            time.sleep(0.15)


def test_held_connections_end_no_other_tenants(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenant that keeps its connection has it, although it is the oldest, and others open three times too many."""
    monkeypatch.setattr(server, "Connections", partial(Connections, most=MOST))
    with listening(world) as (runtime, url), ExitStack() as stack:
        bob, alice = head(runtime, "bob"), head(runtime, "alice")
        kept = stack.enter_context(connected(url, bob))
        assert statuses(kept, 1) == [200]
        for number in range(3 * MOST):
            one = stack.enter_context(connected(url, alice if number % 2 else b""))
            if number % 2:
                assert statuses(one, 1) == [200]
        kept.sendall(bob)
        assert statuses(kept, 1) == [200]


def test_a_head_may_come_in_pieces(served: tuple[Runtime, str]) -> None:
    """Also that of a second request on a connection that is kept."""
    runtime, url = served
    asked = head(runtime, "alice")
    with connected(url) as connection:
        for cut in (1, 30, len(asked) - 1):
            connection.sendall(asked[:cut])
            time.sleep(0.05)
            connection.sendall(asked[cut:])
            assert statuses(connection, 1) == [200]


def test_requests_sent_ahead_are_answered_in_order(served: tuple[Runtime, str]) -> None:
    """Each of them waits for its turn; a request that is not HTTP ends the connection."""
    runtime, url = served
    asked = head(runtime, "alice")
    unknown = asked.replace(b"/livez", b"/api/v1/tenants/alice/none")
    with connected(url, asked + unknown + asked + b"nothing\r\n\r\n") as connection:
        assert statuses(connection, 5) == [200, 404, 200, 400]  # all that come before it ends


def test_what_follows_a_refused_body_has_no_turn(served: tuple[Runtime, str]) -> None:
    """A request behind a body that nobody read is refused, since its head was not seen before."""
    runtime, url = served
    asked = head(runtime, "alice")
    refused = b"POST /api/v1/tenants/alice/claim HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 4\r\n\r\n"
    with connected(url, refused) as connection:
        assert statuses(connection, 1) == [401]
        connection.sendall(b"1234" + asked)
        assert statuses(connection, 1) == [429]


def test_tls_is_refused_at_once(served: tuple[Runtime, str]) -> None:
    """A client that speaks HTTPS to the port learns of it; also on a connection that is kept."""
    runtime, url = served
    for before in (b"", head(runtime, "alice")):
        with connected(url, before) as connection:
            connection.settimeout(5)
            assert not before or statuses(connection, 1) == [200]
            connection.sendall(b"\x16\x03\x01\x02\x00\x01")
            assert statuses(connection, 1) == [400]


@pytest.mark.parametrize("sent", [b"x" * 20_000, b"\r\n\r\n", b"GET\r\n\r\n"], ids=["long", "empty", "short"])
def test_what_is_no_request_ends_its_connection_alone(served: tuple[Runtime, str], sent: bytes) -> None:
    """It takes no place from others for longer."""
    runtime, url = served
    for _ in range(20):
        with connected(url, sent) as connection:
            connection.settimeout(5)
            connection.recv(1000)
    assert httpx.get(f"{url}/livez").status_code == 401
    with connected(url, head(runtime, "alice")) as connection:
        assert statuses(connection, 1) == [200]


def test_a_host_without_descriptors_accepts_again_later(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure to accept is retried after a pause; the connection waits meanwhile."""
    monkeypatch.setattr(accepting, "PAUSE", 0.05)
    failures = [OSError(errno.EMFILE, "too many open files")] * 3

    class Scarce(socket.socket):
        def accept(self) -> Any:
            if failures:
                raise failures.pop()
            return super().accept()

    monkeypatch.setattr("claw_runtime.api.server.socket.socket", Scarce)
    with listening(world) as (_, url):
        assert httpx.get(f"{url}/livez").status_code == 401
    assert not failures
