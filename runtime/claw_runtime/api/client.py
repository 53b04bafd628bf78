"""The CLI's side of the API: JSON over the daemon's Unix socket, problems turned back into our errors."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from claw_runtime.errors import ClawError, DaemonUnreachable, by_slug


class Client:
    """One daemon.

    Raises (every method): DaemonUnreachable when nothing answers on the socket, else the class of errors.py that the
    daemon's problem names.
    """

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        transport = httpx.HTTPTransport(uds=str(socket))
        # A release may drain for minutes and a restore may be long: the daemon owns the time limits.
        self._http = httpx.Client(transport=transport, base_url="http://claw", timeout=httpx.Timeout(5, read=None))

    def close(self) -> None:
        """Let go of the connection."""
        self._http.close()

    def get(self, path: str, **query: Any) -> Any:
        """GET; the JSON answer."""
        return self._send("GET", path, params={k: v for k, v in query.items() if v is not None})

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """POST; the JSON answer."""
        return self._send("POST", path, json=dict(body))

    def stream(self, path: str, **query: Any) -> Iterator[bytes]:
        """GET; the body in pieces."""
        params = {k: v for k, v in query.items() if v is not None}
        try:
            with self._http.stream("GET", path, params=params) as answer:
                if answer.is_error:
                    answer.read()
                    raise _problem(answer)
                yield from answer.iter_bytes()
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    def _send(self, method: str, path: str, **options: Any) -> Any:
        try:
            answer = self._http.request(method, path, **options)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        if answer.is_error:
            raise _problem(answer)
        return answer.json()

    def _unreachable(self, error: httpx.TransportError) -> DaemonUnreachable:
        if isinstance(error, httpx.ConnectError):
            return DaemonUnreachable(
                "the daemon does not answer", why=f"{self._socket}: {error}", hint="start it: claw-runtime up"
            )
        return DaemonUnreachable(
            "the daemon went away during the request",
            why=str(error) or type(error).__name__,
            hint="start it again: claw-runtime up   (it finishes or undoes what was half done)",
        )


def _problem(answer: httpx.Response) -> ClawError:
    try:
        problem = answer.json()
        slug = str(problem["type"]).removeprefix("urn:claw:")
        return by_slug(slug)(problem["title"], why=problem["detail"], hint=problem["hint"])
    except (ValueError, KeyError, TypeError):
        return ClawError(f"the daemon answered {answer.status_code}", why=answer.text[:500])
