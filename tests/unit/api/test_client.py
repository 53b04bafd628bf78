"""The command line's own HTTP: every form of answer that our server gives, and every way that one can break off."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from claw_runtime.api.client import Client
from claw_runtime.errors import ClawError, DaemonUnreachable, PoolExhausted

Answers = Callable[..., Client]


class Server:
    """Answers each connection with the given bytes, whatever is asked, and remembers what was."""

    def __init__(self, path: Path, pieces: list[bytes], *, pause: float = 0.0, stays: bool = False) -> None:
        self.asked = b""
        self._pieces, self._pause, self._stays = pieces, pause, stays
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        self.done = threading.Event()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            while b"\r\n\r\n" not in self.asked:
                self.asked += connection.recv(1 << 16)
            for piece in self._pieces:
                connection.sendall(piece)
                time.sleep(self._pause)
            if self._stays:
                self.done.wait(5)

    def close(self) -> None:
        self.done.set()
        self._thread.join(5)
        self._listener.close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Callable[..., tuple[Client, Server]]]:
    made: list[Server] = []

    def serve(*pieces: bytes, timeout: float | None = None, **options: object) -> tuple[Client, Server]:
        server = Server(tmp_path / "s", list(pieces), **options)  # type: ignore[arg-type]
        made.append(server)
        return Client(tmp_path / "s", timeout=timeout), server

    yield serve
    for server in made:
        server.close()


Served = Callable[..., tuple[Client, Server]]
OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "pieces",
    [
        (OK + b"Content-Length: 7\r\n\r\n" + b'{"a":1}',),
        (OK + b'transfer-ENCODING: chunked\r\n\r\n3\r\n{"a\r\n4;x=y\r\n":1}\r\n0\r\n\r\n',),
        (OK + b"\r\n", b'{"a"', b":1}"),
        tuple(bytes([byte]) for byte in OK + b"Content-Length: 7\r\n\r\n" + b'{"a":1}'),
        (b"HTTP/1.1 201 Created\nContent-Length: 7\n\n" + b'{"a":1}',),
    ],
    ids=["length", "chunks", "until the end", "byte by byte", "bare line ends"],
)
def test_every_form_of_a_body(served: Served, pieces: tuple[bytes, ...]) -> None:
    """A body with a length, in chunks or up to the end is the same document, however it is cut on its way."""
    client, _ = served(*pieces)

    assert client.get("/x") == {"a": 1}


def test_what_is_sent(served: Served) -> None:
    """A request is one line, two or four headers and the body; names and options cannot add to it."""
    client, server = served(OK + b"Content-Length: 2\r\n\r\n{}")
    client.post("/api/ä b\r\nX: y", {"k": "v"}, tail=3, none=None, follow=True)

    head, _, body = server.asked.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /api/%C3%A4%20b%0D%0AX%3A%20y?tail=3&follow=true HTTP/1.1"
    assert lines[1:] == ["Host: claw", "Connection: close", "Content-Type: application/json", "Content-Length: 10"]
    assert json.loads(body) == {"k": "v"}


def test_a_stream_comes_as_it_is_written(served: Served) -> None:
    """A piece of a followed log is there before the next one is written."""
    client, server = served(OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\none\n\r\n", stays=True)
    pieces = client.stream("/logs")

    assert next(pieces) == b"one\n"
    server.done.set()
    with pytest.raises(DaemonUnreachable, match="the daemon stopped"):
        next(pieces)


def test_problems_are_our_errors(served: Served) -> None:
    """A problem has the class, the words and the hint that the daemon gave it."""
    body = json.dumps({"type": "urn:claw:pool-exhausted", "title": "full", "detail": "why", "hint": "wait"}).encode()
    client, _ = served(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    with pytest.raises(PoolExhausted) as caught:
        client.get("/x")
    assert (caught.value.brief, caught.value.why, caught.value.hint) == ("full", "why", "wait")


@pytest.mark.parametrize("body", [b"oops", b"[]", b'{"type": 1}'])
def test_problems_of_strangers(served: Served, body: bytes) -> None:
    """An error that is no problem of ours is told as it is."""
    client, _ = served(b"HTTP/1.1 500 Oh\r\n\r\n" + body)

    with pytest.raises(ClawError, match="the daemon answered 500"):
        client.get("/x")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 20",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        OK,
        OK + b"Content-Length: 9\r\n\r\n{}",
        OK + b"Content-Length: x\r\n\r\n{}",
        OK + b"Transfer-Encoding: chunked\r\n\r\n9\r\n{}",
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n",
        OK + b"Content-Length: 2\r\n\r\n{]",
    ],
)
def test_answers_that_break_off(served: Served, answer: bytes) -> None:
    """Half an answer, or none, is never a whole one: the daemon went away."""
    client, _ = served(answer)

    with pytest.raises(DaemonUnreachable, match="the daemon stopped during the request"):
        client.get("/x")


def test_nobody_there(tmp_path: Path) -> None:
    """Without a socket, and with one that nobody listens on, the error names it and the way to start a daemon."""
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / "stale"))
    left.close()

    for name in ("none", "stale"):
        with pytest.raises(DaemonUnreachable, match="does not answer") as caught:
            Client(tmp_path / name).get("/x")
        assert str(tmp_path / name) in caught.value.why
        assert "claw-runtime up" in caught.value.hint


def test_patience_has_an_end(served: Served) -> None:
    """With a timeout a daemon that says nothing is one that is not there."""
    client, _ = served(stays=True, timeout=0.05)
    begun = time.monotonic()

    with pytest.raises(DaemonUnreachable):
        client.get("/x")
    assert time.monotonic() - begun < 3
