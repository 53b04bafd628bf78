"""Requests that two servers could read in two ways: none reaches a tenant, and each gets one clear answer."""

import pytest
from claw_runtime.router import heads
from claw_runtime.router.heads import BadHead

HOST = b"Host: alice.example\r\n"

HOSTILE = {
    "two lengths": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "two equal lengths": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\n",
    "a list of lengths": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 1, 1\r\n\r\n",
    "a length with a sign": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: +1\r\n\r\n",
    "a negative length": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: -1\r\n\r\n",
    "a length in hexadecimal": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 0x1\r\n\r\n",
    "a length with an underscore": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 1_0\r\n\r\n",
    "a length without digits": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: \r\n\r\n",
    "a length beyond all numbers": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 99999999999999999999\r\n\r\n",
    "a length and chunks": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    "chunks and a length": b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
    "chunks in HTTP/1.0": b"POST / HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n",
    "two codings": b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
    "chunks twice": b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "identity": b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: identity\r\n\r\n",
    "chunks with a tab": b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: \x0bchunked\r\n\r\n",
    "xchunked": b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: xchunked\r\n\r\n",
    "a blank before the colon": b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding : chunked\r\n\r\n",
    "a blank before the name": b"POST / HTTP/1.1\r\n" + HOST + b" Transfer-Encoding: chunked\r\n\r\n",
    "a folded line": b"POST / HTTP/1.1\r\n" + HOST + b"X: a\r\n Content-Length: 1\r\n\r\n",
    "a folded line with a tab": b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding:\r\n\tchunked\r\n\r\n",
    "bare line feeds": b"GET / HTTP/1.1\nHost: alice.example\n\r\n\r\n",
    "one bare line feed": b"GET / HTTP/1.1\r\n" + HOST + b"X: a\nContent-Length: 1\r\n\r\n",
    "a bare carriage return": b"GET / HTTP/1.1\r\n" + HOST + b"X: a\rContent-Length: 1\r\n\r\n",
    "NUL in a value": b"GET / HTTP/1.1\r\n" + HOST + b"X: a\0b\r\n\r\n",
    "NUL in a name": b"GET / HTTP/1.1\r\n" + HOST + b"X\0: a\r\n\r\n",
    "a name without a colon": b"GET / HTTP/1.1\r\n" + HOST + b"X\r\n\r\n",
    "no name": b"GET / HTTP/1.1\r\n" + HOST + b": a\r\n\r\n",
    "a name that is no token": b"GET / HTTP/1.1\r\n" + HOST + b"X(y): a\r\n\r\n",
    "a control character": b"GET / HTTP/1.1\r\n" + HOST + b"X: \x01\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\n" + HOST + b"Host: bob.example\r\n\r\n",
    "two equal hosts": b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n",
    "an empty host": b"GET / HTTP/1.1\r\nHost:\r\n\r\n",
    "a host with a path": b"GET / HTTP/1.1\r\nHost: alice.example/bob\r\n\r\n",
    "a host with a user": b"GET / HTTP/1.1\r\nHost: bob@alice.example\r\n\r\n",
    "a list of hosts": b"GET / HTTP/1.1\r\nHost: alice.example, bob.example\r\n\r\n",
    "an absolute target": b"GET http://bob.example/ HTTP/1.1\r\n" + HOST + b"\r\n",
    "a target without a slash": b"GET alice HTTP/1.1\r\n" + HOST + b"\r\n",
    "a tunnel": b"CONNECT bob.example:443 HTTP/1.1\r\n" + HOST + b"\r\n",
    "a target with a blank": b"GET /a b HTTP/1.1\r\n" + HOST + b"\r\n",
    "a target that is no ASCII": b"GET /\xff HTTP/1.1\r\n" + HOST + b"\r\n",
    "two blanks": b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/1.2": b"GET / HTTP/1.2\r\n" + HOST + b"\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\n",
    "HTTP/1.1 in lower case": b"GET / http/1.1\r\n" + HOST + b"\r\n",
    "another protocol": b"GET / RTSP/1.1\r\n" + HOST + b"\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "an empty line first": b"\r\nGET / HTTP/1.1\r\n" + HOST + b"\r\n",
    "a method that is no token": b"GE\tT / HTTP/1.1\r\n" + HOST + b"\r\n",
    "an unknown expectation": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\nExpect: 200-ok\r\n\r\n",
    "a WebSocket with a body": (
        b"GET / HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n\r\n"
    ),
    "a WebSocket by POST": b"POST / HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "a WebSocket in HTTP/1.0": b"GET / HTTP/1.0\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_request_with_two_readings_is_refused(name: str) -> None:
    """The head is refused, whatever comes after it."""
    with pytest.raises(BadHead):
        heads.request(HOSTILE[name])


def test_a_head_without_end_is_refused() -> None:
    """More than 32 kB without the end of a head are not kept."""
    assert heads.end(b"GET / HTTP/1.1\r\nX: " + b"a" * 1000) == 0
    with pytest.raises(BadHead) as refused:
        heads.end(b"GET / HTTP/1.1\r\nX: " + b"a" * heads.MOST)
    assert refused.value.status == 431


ANSWERS = {
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "a length and chunks": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    "a folded line": b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
    "a bare line feed": b"HTTP/1.1 200 OK\r\nX: a\nSet-Cookie: b\r\n\r\n",
    "no status": b"HTTP/1.1 OK\r\n\r\n",
    "no HTTP": b"hello\r\n\r\n",
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_with_two_readings_is_refused(name: str) -> None:
    """A tenant's program cannot split its answer either: the client gets 502."""
    with pytest.raises(BadHead) as refused:
        heads.answer(ANSWERS[name], b"GET")
    assert refused.value.status == 502
