"""Heads are read and written anew: what is about one connection stays behind, everything else arrives as it was."""

import pytest
from claw_runtime.router import heads

HOST = b"Host: Alice.Example:8080\r\n"


def test_a_request_arrives_as_it_was() -> None:
    """Method, target and fields in their sequence, repeated ones and odd values too."""
    head = b"PATCH /a//b?x=%2F HTTP/1.1\r\n" + HOST + b"Cookie: a\r\nX-Y:  \xe9 \r\nCOOKIE: b\r\nEmpty:\r\n\r\n"
    found = heads.request(head)
    assert (found.method, found.target, found.host) == (b"PATCH", b"/a//b?x=%2F", b"alice.example:8080")
    assert found.fields == ((b"cookie", b"a"), (b"x-y", b"\xe9"), (b"cookie", b"b"), (b"empty", b""))
    assert (found.framing, found.keeps, found.websocket, found.expects) == (0, True, False, False)
    assert found.field(b"x-y") == b"\xe9"
    assert found.field(b"cookie") is None


def test_what_is_about_the_connection_stays_behind() -> None:
    """Fields of one hop go, also those that `Connection` names, and those about the body are written anew."""
    head = (
        b"POST / HTTP/1.1\r\n"
        + HOST
        + b"Connection: close, X-Secret\r\nX-Secret: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\n"
        b"Proxy-Connection: a\r\nTransfer-Encoding: Chunked\r\nTrailer: x\r\nUpgrade: h2c\r\n"
        b"Expect: 100-Continue\r\nX: 1\r\n\r\n"
    )
    found = heads.request(head)
    assert found.fields == ((b"x", b"1"),)
    assert (found.framing, found.keeps, found.expects) == ("chunked", False, True)


@pytest.mark.parametrize(
    ("given", "keeps"),
    [(b"1.1\r\n", True), (b"1.0\r\n", False), (b"1.0\r\nConnection: Keep-Alive\r\n", True)],
)
def test_an_old_client_keeps_its_connection_only_if_it_asks(given: bytes, keeps: bool) -> None:
    """HTTP/1.0 ends its connection after each answer by default."""
    found = heads.request(b"GET / HTTP/" + given + HOST + b"\r\n")
    assert (found.keeps, found.is_old) == (keeps, given.startswith(b"1.0"))


def test_a_websocket_is_asked_for() -> None:
    """By both fields, in any case and among other options; without either it is an ordinary request."""
    for options, protocol, asked in (
        (b"keep-alive, UPGRADE", b"WebSocket", True),
        (b"keep-alive", b"websocket", False),
        (b"upgrade", b"h2c", False),
    ):
        head = b"GET / HTTP/1.1\r\n" + HOST + b"Connection: " + options + b"\r\nUpgrade: " + protocol + b"\r\n\r\n"
        assert heads.request(head).websocket is asked


@pytest.mark.parametrize(
    ("method", "head", "framing", "bodiless"),
    [
        (b"GET", b"200 OK\r\nContent-Length: 7\r\n", 7, False),
        (b"GET", b"200 OK\r\nTransfer-Encoding: chunked\r\n", "chunked", False),
        (b"GET", b"200 OK\r\n", "close", False),
        (b"HEAD", b"200 OK\r\nContent-Length: 7\r\n", 0, True),
        (b"GET", b"304 Not Modified\r\nContent-Length: 7\r\n", 0, True),
        (b"GET", b"204 No Content\r\n", 0, True),
        (b"GET", b"204\r\nContent-Length: 0\r\n", 0, True),
    ],
)
def test_the_end_of_an_answer_is_known(method: bytes, head: bytes, framing: heads.Framing, bodiless: bool) -> None:
    """By its length, its chunks or the end of the connection; no body follows a HEAD, 204 or 304."""
    found = heads.answer(b"HTTP/1.1 " + head + b"\r\n", method)
    assert (found.framing, found.bodiless) == (framing, bodiless)
    told = dict(found.fields).get(b"content-length")
    assert told == (b"7" if bodiless and b"7" in head else None)


def test_a_head_is_found_in_pieces() -> None:
    """A head is whole when its empty line is there; what follows is not part of it."""
    whole = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"
    assert [heads.end(whole[:size]) for size in range(len(whole))] == [0] * len(whole)
    assert heads.end(whole + b"rest") == len(whole)
