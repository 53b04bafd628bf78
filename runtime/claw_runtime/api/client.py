"""The client of the API for the CLI: JSON over the daemon's Unix socket; problems become errors of errors.py."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from claw_runtime import unix_http
from claw_runtime.errors import ClawError, DaemonUnreachable, by_slug

CONNECT_TIMEOUT = 5.0
"""Seconds to connect; after that there is no timeout, since a release or restore may take minutes."""


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
        self._answer: unix_http.Answer | None = None

    def close(self) -> None:
        """Close the connection, even during an answer."""
        if self._answer is not None:
            self._answer.close()
            self._answer = None

    def get(self, path: str, /, **query: Any) -> Any:
        """GET; the JSON answer."""
        return self._document("GET", _target(path, query))

    def get_many(self, path: str, query: Sequence[tuple[str, str]]) -> Any:
        """GET with options that may come more than once; the JSON answer."""
        return self._document(
            "GET", f"{quote(path, safe='/%', errors='surrogateescape')}?{urlencode(query, errors='surrogateescape')}"
        )

    def post(self, path: str, body: Mapping[str, Any] | None = None, **query: Any) -> Any:
        """POST; the JSON answer."""
        return self._document("POST", _target(path, query), json.dumps(dict(body or {})).encode())

    def delete(self, path: str, **query: Any) -> Any:
        """DELETE; the JSON answer."""
        return self._document("DELETE", _target(path, query))

    def stream(self, path: str, /, **query: Any) -> Iterator[bytes]:
        """GET; the body in pieces, each as soon as it arrives."""
        answer = self._ask("GET", _target(path, query))
        try:
            yield from answer.pieces()
        except OSError as error:
            raise _went_away(error) from error
        finally:
            self.close()

    def _document(self, method: str, target: str, body: bytes | None = None) -> Any:
        answer = self._ask(method, target, body)
        try:
            return json.loads(b"".join(answer.pieces()))
        except (OSError, ValueError) as error:
            raise _went_away(error) from error
        finally:
            self.close()

    def _ask(self, method: str, target: str, body: bytes | None = None) -> unix_http.Answer:
        """The response, with its headers read. Raises the class of a problem."""
        self.close()
        try:
            connection = unix_http.connected(self._path, within=self._timeout or CONNECT_TIMEOUT, timeout=self._timeout)
        except OSError as error:
            raise DaemonUnreachable(
                "the daemon does not answer", why=f"{self._path}: {error}", hint="start it: claw-runtime up"
            ) from error
        try:
            answer = self._answer = unix_http.ask(connection, method, target, body)
            if answer.status < 400:
                return answer
            problem = b"".join(answer.pieces())
        except OSError as error:
            self.close()
            raise _went_away(error) from error
        finally:
            connection.close()  # the stream made of it stays open
        self.close()
        raise _problem(answer.status, problem)


def _target(path: str, query: Mapping[str, Any]) -> str:
    """A request's target in ASCII without spaces; options that are None are left out."""
    told = {name: str(value).lower() if isinstance(value, bool) else value for name, value in query.items()}
    options = urlencode({name: value for name, value in told.items() if value is not None}, errors="surrogateescape")
    return quote(path, safe="/%", errors="surrogateescape") + (f"?{options}" if options else "")


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
