"""Answers that are read as they come: pieces cut anywhere, refusals, ends, and being let go from another thread."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from claw_runtime.engine.executing import KEPT, _Tail
from claw_runtime.engine.lines import LogLines
from claw_runtime.engine.wire import STDERR, STDOUT, Call
from claw_runtime.errors import EngineFailed, EngineUnavailable, NotClaimed

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
Serve = Callable[..., Call]


def frame(stream: int, data: bytes) -> bytes:
    """A piece as Podman sends it."""
    return bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Answers one call with these pieces, then closes, or holds the line until the test is over."""
    over, threads, calls = threading.Event(), [], []

    def begin(*pieces: bytes, hold: bool = False) -> Call:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(tmp_path / "s"))
        listener.listen()

        def answer() -> None:
            with listener, listener.accept()[0] as connection:
                connection.recv(1000)
                for piece in pieces:
                    connection.sendall(piece)
                if hold:
                    over.wait(10)

        threads.append(threading.Thread(target=answer))
        threads[-1].start()
        calls.append(Call(tmp_path / "s", "read the log of", "c", timeout=5))
        return calls[-1]

    yield begin
    over.set()
    for call in calls:
        call.close()
    for thread in threads:
        thread.join()


def test_frames_are_put_together(serve: Serve) -> None:
    """Wherever the stream was cut, in a header too, each frame comes whole and in order."""
    content = frame(STDOUT, b"one\n") + frame(STDERR, b"") + frame(STDERR, bytes(range(256)))
    call = serve(OK, *[content[at : at + 5] for at in range(0, len(content), 5)]).send("GET", "/x")
    assert [found for found in call.frames() if found[1]] == [(STDOUT, b"one\n"), (STDERR, bytes(range(256)))]


def test_lines_of_two_streams_do_not_mix(serve: Serve) -> None:
    """Half a line waits for its rest, the other stream's lines come meanwhile; the last may lack its newline."""
    content = frame(1, b"a") + frame(2, b"x\ny") + frame(1, b"b\nc\n") + frame(2, b"z")
    assert list(LogLines(serve(OK, content).send("GET", "/x"))) == [b"x", b"ab", b"c", b"yz"]


def test_a_line_without_end_comes_in_parts(serve: Serve) -> None:
    """So that one does not fill the memory."""
    content = frame(1, b"a" * (1 << 20)) + frame(1, b"bc\n")
    assert list(LogLines(serve(OK, content).send("GET", "/x"))) == [b"a" * (1 << 20), b"bc"]


@pytest.mark.parametrize(("status", "kind"), [(404, NotClaimed), (500, EngineFailed)])
def test_a_refusal_is_reported_in_podmans_words(serve: Serve, status: int, kind: type[Exception]) -> None:
    """And is the error that podman-py's would have become."""
    body = json.dumps({"cause": "c", "message": "what Podman said"}).encode()
    head = b"HTTP/1.1 %d Nope\r\nContent-Length: %d\r\n\r\n" % (status, len(body))
    with pytest.raises(kind, match="what Podman said"):
        serve(head, body).send("GET", "/x")


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 2", CHUNKED + b"20\r\nhalf"])
def test_podman_going_away_is_an_error_not_an_end(serve: Serve, said: bytes) -> None:
    """Before the answer, or in the middle of it: who waits must not take it for the container's end."""
    call = serve(said)
    with pytest.raises(EngineUnavailable):
        list(call.send("GET", "/x").frames())


def test_nobody_there_is_an_error(tmp_path: Path) -> None:
    """A socket without a service behind it."""
    with pytest.raises(EngineUnavailable):
        Call(tmp_path / "none", "look at", "c")


def test_a_reader_is_woken_when_another_thread_closes(serve: Serve) -> None:
    """It gets the end, whatever was half read."""
    lines = LogLines(serve(CHUNKED, b"c\r\n" + frame(1, b"one\n") + b"\r\n", hold=True).send("GET", "/x"))
    assert next(lines) == b"one"
    closing = threading.Timer(0.1, lines.close)
    closing.start()
    assert list(lines) == []
    closing.join()
    assert list(lines) == []


def test_the_last_of_much_output_is_kept() -> None:
    """Of whatever pieces it came in, and no more memory than that and one piece."""
    tail = _Tail()
    for number in range(300):
        tail.add(bytes([number % 256]) * 10_000)
    assert len(tail.bytes()) == KEPT
    assert tail.bytes().endswith(bytes([299 % 256]) * 10_000)
    assert sum(map(len, tail._pieces)) < KEPT + 10_000
