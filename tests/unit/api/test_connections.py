"""Clients that only hold connections over TCP keep nobody out."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from urllib.parse import urlsplit

import httpx
import pytest
from claw_runtime.api import server
from claw_runtime.api.connections import Connections
from fakes.faces import listening
from fakes.world import World

MOST = 4


@pytest.fixture
def base(world: World, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URL of an API whose bounds are small."""
    monkeypatch.setattr(server, "Connections", partial(Connections, most=MOST, **getattr(request, "param", {})))
    with listening(world) as (_, url):
        yield url


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
