"""A proxy on loopback in front of a real S3 server: what it is told to do to a request, it does; all else goes through.

The store under test signs for the proxy's address, which is passed on, so that the server finds the signature right.
"""

import http.client
import http.server
import socket
import struct
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import urlsplit

Wire = Literal[
    "reset before",  # the connection is reset in the middle of the request's body; the server sees nothing
    "reset after",  # the server has answered; the answer is lost
    "stall",  # likewise, and the connection stays open
    "trickle",  # the body comes a byte at a time
    "cut",  # half of the body, after the length of all of it
    "short",  # half of the body, and a length that says so
    "flip",  # one bit of the answer's body is another
    "flip up",  # one bit of the request's body is another
    "last page",  # a listing says that there is no more
]
STALL_SECONDS: Final = 3.0
_HALF: Final = frozenset({"cut", "short"})
_HOP: Final = frozenset({"connection", "transfer-encoding", "content-length", "date", "server"})


@dataclass(frozen=True, kw_only=True)
class Says:
    """An answer of its own; the server sees nothing."""

    status: int
    code: str


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What happens to the `first` and the following `times` requests of a method whose target contains `part`."""

    does: Wire | Says
    method: str = ""
    part: str = ""
    first: int = 1
    times: int = 1


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


class S3Proxy:
    """In front of one server; `seen` are (method, target) of the requests since the last `tell`."""

    def __init__(self, upstream: str) -> None:
        self._upstream = urlsplit(upstream).netloc
        self._lock = threading.Lock()
        self.seen: list[tuple[str, str]] = []
        self._faults: dict[Fault, int] = {}
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _any(self) -> None:
                with suppress(OSError):
                    proxy._handle(self)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _any  # noqa: N815

            def log_message(self, *_args: object) -> None:
                pass

        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._http.block_on_close = False
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        self.endpoint = f"http://127.0.0.1:{self._http.server_port}"

    def tell(self, *faults: Fault) -> None:
        """From now on these faults, and no others; what was seen is forgotten."""
        with self._lock:
            self.seen.clear()
            self._faults = dict.fromkeys(faults, 0)

    def count(self, method: str, part: str = "") -> int:
        """How many such requests came since the last `tell`."""
        with self._lock:
            return sum(1 for seen, target in self.seen if seen == method and part in target)

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def _chosen(self, method: str, target: str) -> Wire | Says | None:
        with self._lock:
            self.seen.append((method, target))
            chosen: Wire | Says | None = None
            for fault in self._faults:
                if fault.method in {"", method} and fault.part in target:
                    self._faults[fault] += 1
                    if fault.first <= self._faults[fault] < fault.first + fault.times:
                        chosen = chosen or fault.does
            return chosen

    def _handle(self, request: http.server.BaseHTTPRequestHandler) -> None:
        does = self._chosen(request.command, request.path)
        length = int(request.headers.get("Content-Length") or 0)
        if does == "reset before":
            request.rfile.read(length // 2)
            _reset(request)
            return
        body = request.rfile.read(length)
        if isinstance(does, Says):
            text = f"<Error><Code>{does.code}</Code><Message>a test said so</Message></Error>".encode()
            _send(request, _Answer(does.status, {"Content-Type": "application/xml"}, text), None)
            return
        answer = self._forward(request, _flipped(body) if does == "flip up" else body)
        if does == "stall":
            time.sleep(STALL_SECONDS)
        if does in {"stall", "reset after"}:
            _reset(request)
            return
        _send(request, answer, does)

    def _forward(self, request: http.server.BaseHTTPRequestHandler, body: bytes) -> _Answer:
        connection = http.client.HTTPConnection(self._upstream, timeout=30)
        try:
            connection.putrequest(request.command, request.path, skip_host=True, skip_accept_encoding=True)
            for name, value in request.headers.items():
                if name.lower() not in {"connection", "expect"}:
                    connection.putheader(name, value)
            connection.endheaders(body)
            came = connection.getresponse()
            headers = {name: value for name, value in came.getheaders() if name.lower() not in _HOP}
            return _Answer(came.status, headers, came.read())
        finally:
            connection.close()


def _send(request: http.server.BaseHTTPRequestHandler, answer: _Answer, does: Wire | None) -> None:
    body = answer.body
    if does == "flip":
        body = _flipped(body)
    if does == "last page":
        body = body.replace(b"<IsTruncated>true<", b"<IsTruncated>false<")
    half = body[: len(body) // 2] if does in _HALF else body
    request.send_response(answer.status)
    for name, value in answer.headers.items():
        request.send_header(name, value)
    if answer.status != 204:
        request.send_header("Content-Length", str(len(body if does == "cut" else half)))
    request.end_headers()
    if request.command == "HEAD":
        return
    if does == "trickle":
        for place in range(len(half)):
            request.wfile.write(half[place : place + 1])
            request.wfile.flush()
            time.sleep(0.05)
    else:
        request.wfile.write(half)
        request.wfile.flush()
    if does == "cut":
        _reset(request)


def _flipped(body: bytes) -> bytes:
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :] if body else body


def _reset(request: http.server.BaseHTTPRequestHandler) -> None:
    """Not a farewell but a broken connection."""
    request.close_connection = True
    request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.connection.close()
