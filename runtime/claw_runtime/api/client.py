"""The CLI's side of the API: JSON over the daemon's Unix socket, problems turned back into our errors.

A person at a prompt waits for every import, so this speaks the little HTTP/1.1 that it needs by itself: one request a
connection, to a server that is ours. The standard library's client costs 10 ms more, httpx 70.
"""

import json
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, urlencode

from claw_runtime.errors import ClawError, DaemonUnreachable, by_slug

CONNECT_TIMEOUT = 5.0
"""Seconds; once connected the daemon owns the time: a release may drain for minutes, and a restore may be long."""

_PIECE = 1 << 18
_LINE = 1 << 16


class _Torn(Exception):
    """The answer is not whole, or is no HTTP."""


class Client:
    """One daemon.

    Raises (every method): DaemonUnreachable when nothing answers on the socket, or the answer breaks off; else the
    class of errors.py that the daemon's problem names.

    Args:
        path: The daemon's Unix socket.
        timeout: Seconds that connecting and every piece of an answer may take; None waits.
    """

    def __init__(self, path: Path, *, timeout: float | None = None) -> None:
        self._path = path
        self._timeout = timeout
        self._answer: _Answer | None = None

    def close(self) -> None:
        """Let go of the connection, if an answer is still coming."""
        if self._answer is not None:
            self._answer.close()
            self._answer = None

    def get(self, path: str, **query: Any) -> Any:
        """GET; the JSON answer."""
        return self._document("GET", _target(path, query))

    def get_many(self, path: str, query: Sequence[tuple[str, str]]) -> Any:
        """GET with options that may come more than once; the JSON answer."""
        return self._document("GET", f"{quote(path, safe='/%')}?{urlencode(query)}")

    def post(self, path: str, body: Mapping[str, Any] | None = None, **query: Any) -> Any:
        """POST; the JSON answer."""
        return self._document("POST", _target(path, query), json.dumps(dict(body or {})).encode())

    def delete(self, path: str, **query: Any) -> Any:
        """DELETE; the JSON answer."""
        return self._document("DELETE", _target(path, query))

    def stream(self, path: str, **query: Any) -> Iterator[bytes]:
        """GET; the body in pieces, each as soon as it is there."""
        answer = self._ask("GET", _target(path, query))
        try:
            yield from answer.pieces()
        except (OSError, _Torn) as error:
            raise _went_away(error) from error
        finally:
            self.close()

    def _document(self, method: str, target: str, body: bytes | None = None) -> Any:
        answer = self._ask(method, target, body)
        try:
            return json.loads(b"".join(answer.pieces()))
        except (OSError, ValueError, _Torn) as error:
            raise _went_away(error) from error
        finally:
            self.close()

    def _ask(self, method: str, target: str, body: bytes | None = None) -> "_Answer":
        """The answer's beginning. Raises the problem that it is."""
        self.close()
        head = f"{method} {target} HTTP/1.1\r\nHost: claw\r\nConnection: close\r\n"
        if body is not None:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        try:
            connection = self._connected()
        except OSError as error:
            raise DaemonUnreachable(
                "the daemon does not answer", why=f"{self._path}: {error}", hint="start it: claw-runtime up"
            ) from error
        try:
            connection.sendall(f"{head}\r\n".encode("ascii") + (body or b""))
            answer = self._answer = _Answer(connection.makefile("rb"))
            answer.begin()
            if answer.status < 400:
                return answer
            problem = b"".join(answer.pieces())
        except (OSError, _Torn) as error:
            self.close()
            raise _went_away(error) from error
        finally:
            connection.close()  # the stream made of it goes on
        self.close()
        raise _problem(answer.status, problem)

    def _connected(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            made.settimeout(self._timeout or CONNECT_TIMEOUT)
            made.connect(str(self._path))
            made.settimeout(self._timeout)
        except OSError:
            made.close()
            raise
        return made


class _Answer:
    """Status and headers of an answer, which `begin` reads, and its body, which is read when asked for."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._headers: dict[bytes, bytes] = {}
        self.status = 0

    def close(self) -> None:
        """Let go of the connection."""
        self._stream.close()

    def begin(self) -> None:
        """Raises `_Torn`."""
        version, _, rest = self._line().partition(b" ")
        if not version.startswith(b"HTTP/1.") or not rest[:3].isdigit():
            raise _Torn("the process that answers there does not speak HTTP")
        self.status = int(rest[:3])
        while header := self._line():
            name, _, value = header.partition(b":")
            self._headers[name.strip().lower()] = value.strip()

    def pieces(self) -> Iterator[bytes]:
        """The body. Raises `_Torn` when it ends too early."""
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
                raise _Torn("the answer was cut short")
            size -= len(piece)
            yield piece

    def _read(self, size: int) -> bytes:
        """What is there, at most `size` bytes: a log that is followed must not wait for a full buffer."""
        return self._stream.read1(size)  # type: ignore[attr-defined, no-any-return]

    def _line(self) -> bytes:
        line = self._stream.readline(_LINE)
        if not line.endswith(b"\n"):
            raise _Torn("the answer was cut short")
        return line.rstrip(b"\r\n")

    @staticmethod
    def _size(text: bytes, base: int) -> int:
        try:
            return int(text, base)
        except ValueError as error:
            raise _Torn("the answer has no Content-Length") from error


def _target(path: str, query: Mapping[str, Any]) -> str:
    """A request's target: ASCII without spaces, whatever the path holds; options that are None are left out."""
    told = {name: str(value).lower() if isinstance(value, bool) else value for name, value in query.items()}
    options = urlencode({name: value for name, value in told.items() if value is not None})
    return quote(path, safe="/%") + (f"?{options}" if options else "")


def _went_away(error: Exception) -> DaemonUnreachable:
    return DaemonUnreachable(
        "the daemon stopped during the request",
        why=str(error) or type(error).__name__,
        hint="start it again: claw-runtime up   (it finishes or undoes incomplete work)",
    )


def _problem(status: int, body: bytes) -> ClawError:
    try:
        problem = json.loads(body)
        slug = str(problem["type"]).removeprefix("urn:claw:")
        return by_slug(slug)(problem["title"], why=problem["detail"], hint=problem["hint"])
    except (ValueError, KeyError, TypeError):
        return ClawError(f"the daemon answered {status}", why=body[:500].decode("utf-8", "replace"))
