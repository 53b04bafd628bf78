"""HTTP/1.1 over a Unix socket: one request a connection, and an answer that is read as it comes.

The command line speaks to the daemon with it, and the daemon to Podman. A person at a prompt waits for every import,
so this is no more than that: the standard library's client costs 10 ms, httpx 70. Every failure is an `OSError`, which
the caller turns into an error of its own.
"""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_PIECE = 1 << 18
_LINE = 1 << 16
_NO_CONTENT = 204


class TornAnswer(ConnectionError):
    """The answer is not whole, or is no HTTP."""


def connected(path: Path, *, within: float | None = None, timeout: float | None = None) -> socket.socket:
    """A connection to a Unix socket.

    Args:
        path: The socket.
        within: Seconds that connecting may take; None waits.
        timeout: Seconds that every later step may take; None waits.

    Raises:
        OSError: Nothing accepts there.
    """
    made = socket.socket(socket.AF_UNIX)
    try:
        made.settimeout(within)
        made.connect(os.fspath(path))
        made.settimeout(timeout)
    except OSError:
        made.close()
        raise
    return made


def ask(connection: socket.socket, method: str, target: str, body: bytes | None = None) -> "Answer":
    """Send a request, and read the answer's beginning.

    Args:
        connection: A new connection. It may be closed before the answer, which holds it open.
        method: `GET`, `POST`, …
        target: Path and query, ASCII without spaces.
        body: A JSON document.

    Raises:
        OSError: The answer breaks off, or takes too long.
    """
    head = f"{method} {target} HTTP/1.1\r\nHost: claw\r\nConnection: close\r\n"
    if body is not None:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    connection.sendall(f"{head}\r\n".encode("ascii") + (body or b""))
    stream = connection.makefile("rb")
    try:
        return Answer(stream)
    except OSError:
        stream.close()
        raise


class Answer:
    """Status and headers of an answer, and its body, which is read when asked for.

    Raises: TornAnswer: It is no HTTP, or its head is cut short.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._headers: dict[bytes, bytes] = {}
        version, _, rest = self._line().partition(b" ")
        if not version.startswith(b"HTTP/1.") or not rest[:3].isdigit():
            raise TornAnswer("the process that answers there does not speak HTTP")
        self.status = int(rest[:3])
        while header := self._line():
            name, _, value = header.partition(b":")
            self._headers[name.strip().lower()] = value.strip()

    def close(self) -> None:
        """Let go of the connection."""
        self._stream.close()

    def pieces(self) -> Iterator[bytes]:
        """The body, each piece as soon as it is there.

        Raises:
            OSError: It ends too early, or the next piece takes too long.
        """
        if self.status == _NO_CONTENT:
            return
        if self._headers.get(b"transfer-encoding", b"").lower() == b"chunked":
            while size := self._size(self._line().partition(b";")[0], 16):
                yield from self._exactly(size)
                self._line()
        elif b"content-length" in self._headers:
            yield from self._exactly(self._size(self._headers[b"content-length"], 10))
        else:
            while piece := self._read(_PIECE):
                yield piece

    def _exactly(self, size: int) -> Iterator[bytes]:
        while size:
            piece = self._read(min(size, _PIECE))
            if not piece:
                raise TornAnswer("the answer was cut short")
            size -= len(piece)
            yield piece

    def _read(self, size: int) -> bytes:
        """What is there, at most `size` bytes: a log that is followed must not wait for a full buffer."""
        return self._stream.read1(size)  # type: ignore[attr-defined, no-any-return]

    def _line(self) -> bytes:
        line = self._stream.readline(_LINE)
        if not line.endswith(b"\n"):
            raise TornAnswer("the answer was cut short")
        return line.rstrip(b"\r\n")

    @staticmethod
    def _size(text: bytes, base: int) -> int:
        try:
            return int(text, base)
        except ValueError as error:
            raise TornAnswer("the answer has no Content-Length") from error
