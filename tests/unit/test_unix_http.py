"""The HTTP that the command line and the daemon share; its forms of answers are in tests/unit/api/test_client.py."""

import socket
import time
from pathlib import Path

import pytest
from claw_runtime import unix_http


@pytest.fixture
def pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a connection: the client's and the server's."""
    ours, theirs = socket.socketpair()
    ours.settimeout(5)
    return ours, theirs


def test_an_answer_outlives_its_connection(pair: tuple[socket.socket, socket.socket]) -> None:
    """The connection may be closed once the answer has begun."""
    ours, theirs = pair
    theirs.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    with ours:
        answer = unix_http.ask(ours, "GET", "/x")
    theirs.close()

    assert b"".join(answer.pieces()) == b"ok"
    answer.close()


def test_no_content_ends_at_once(pair: tuple[socket.socket, socket.socket]) -> None:
    """An answer without a body is over before the server closes."""
    ours, theirs = pair
    theirs.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
    with ours, theirs:
        answer = unix_http.ask(ours, "POST", "/x", b"{}")
        assert (answer.status, list(answer.pieces())) == (204, [])
        answer.close()


def test_every_failure_is_an_oserror(pair: tuple[socket.socket, socket.socket], tmp_path: Path) -> None:
    """Nobody there, silence beyond the timeout, and an answer that is cut short: one kind to catch."""
    ours, theirs = pair
    with pytest.raises(OSError, match="No such file"):
        unix_http.connected(tmp_path / "none")
    with ours:
        ours.settimeout(0.05)
        begun = time.monotonic()
        with pytest.raises(TimeoutError):
            unix_http.ask(ours, "GET", "/x")
        assert time.monotonic() - begun < 3
        theirs.recv(1000)
        theirs.sendall(b"HTTP/1.1 200 OK\r\nContent-Le")
        theirs.close()
        with pytest.raises(unix_http.TornAnswer, match="cut short"):
            unix_http.Answer(ours.makefile("rb"))
