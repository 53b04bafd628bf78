"""The CLI's side of the API: JSON over the daemon's Unix socket, problems turned back into our errors.

On the standard library's HTTP client, because a person at a prompt waits for its import: 10 ms where httpx takes 70.
"""

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from claw_runtime.errors import ClawError, DaemonUnreachable, by_slug

CONNECT_TIMEOUT = 5.0
"""Seconds; once connected the daemon owns the time: a release may drain for minutes, and a restore may be long."""

_PIECE = 1 << 18


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("claw")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(CONNECT_TIMEOUT)
        try:
            self.sock.connect(str(self._path))
        except OSError:
            self.close()
            raise
        self.sock.settimeout(None)


class Client:
    """One daemon.

    Raises (every method): DaemonUnreachable when nothing answers on the socket, else the class of errors.py that the
    daemon's problem names.
    """

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._http = _UnixConnection(socket)

    def close(self) -> None:
        """Let go of the connection."""
        self._http.close()

    def get(self, path: str, **query: Any) -> Any:
        """GET; the JSON answer."""
        return json.loads(self._read(self._ask("GET", _target(path, query))))

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """POST; the JSON answer."""
        return json.loads(self._read(self._ask("POST", _target(path, {}), json.dumps(dict(body)).encode())))

    def stream(self, path: str, **query: Any) -> Iterator[bytes]:
        """GET; the body in pieces."""
        answer = self._ask("GET", _target(path, query))
        while piece := self._read(answer, _PIECE):
            yield piece

    def _ask(self, method: str, target: str, body: bytes | None = None) -> http.client.HTTPResponse:
        """The answer's beginning. Raises the problem that it is."""
        headers = {"Content-Type": "application/json"} if body is not None else {}
        try:
            self._http.connect()
        except OSError as error:
            raise DaemonUnreachable(
                "the daemon does not answer", why=f"{self._socket}: {error}", hint="start it: claw-runtime up"
            ) from error
        try:
            self._http.request(method, target, body, headers)
            answer = self._http.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise _went_away(error) from error
        if answer.status >= 400:
            raise _problem(answer.status, self._read(answer))
        return answer

    def _read(self, answer: http.client.HTTPResponse, size: int | None = None) -> bytes:
        try:
            return answer.read(size)
        except (OSError, http.client.HTTPException) as error:
            raise _went_away(error) from error


def _target(path: str, query: Mapping[str, Any]) -> str:
    options = urlencode({name: value for name, value in query.items() if value is not None})
    return quote(path, safe="/%") + (f"?{options}" if options else "")


def _went_away(error: Exception) -> DaemonUnreachable:
    return DaemonUnreachable(
        "the daemon went away during the request",
        why=str(error) or type(error).__name__,
        hint="start it again: claw-runtime up   (it finishes or undoes what was half done)",
    )


def _problem(status: int, body: bytes) -> ClawError:
    try:
        problem = json.loads(body)
        slug = str(problem["type"]).removeprefix("urn:claw:")
        return by_slug(slug)(problem["title"], why=problem["detail"], hint=problem["hint"])
    except (ValueError, KeyError, TypeError):
        return ClawError(f"the daemon answered {status}", why=body[:500].decode("utf-8", "replace"))
