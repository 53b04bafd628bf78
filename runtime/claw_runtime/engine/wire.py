"""Podman's API over its Unix socket for streamed answers, which podman-py cannot read and cancel.

Such an answer (a command's output, a log) has its own connection, so no other call waits for it, and another thread can
end it.
"""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from claw_runtime import unix_http
from claw_runtime.engine.refusals import refusal

STDOUT, STDERR = 1, 2
_PREFIX = "/v4.0.0/libpod"
_HEADER = 8


class Call:
    """One request to Podman and its answer.

    Args:
        path: Podman's socket.
        operation, subject: The operation and its object, for errors.
        timeout: Seconds until the answer begins, and between its pieces; None waits.
    """

    def __init__(self, path: Path, operation: str, subject: str, *, timeout: float | None = 60.0) -> None:
        self._operation, self._subject = operation, subject
        self._ended = threading.Event()
        self._reading = threading.Lock()
        self._answer: unix_http.Answer | None = None
        try:
            self._socket = unix_http.connected(path, within=timeout, timeout=timeout)
        except OSError as error:
            raise refusal(operation, subject, None, str(error)) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. A thread that reads from it gets the end of the stream."""
        self._ended.set()
        with suppress(OSError):  # the other side closed it first
            self._socket.shutdown(socket.SHUT_RDWR)
        with self._reading:  # the line above woke a reader, which ends first
            self._socket.close()
            if self._answer is not None:
                self._answer.close()

    @property
    def closed(self) -> bool:
        return self._ended.is_set()

    def send(self, method: str, path: str, body: object = None) -> Self:
        """Send the request. Raises the error of `refusals.refusal`."""
        data = None if body is None else json.dumps(body).encode()
        try:
            answer = self._answer = unix_http.ask(self._socket, method, _PREFIX + path, data)
            status, content = answer.status, b"" if answer.status < 400 else b"".join(answer.pieces())
        except OSError as error:
            self.close()
            raise refusal(self._operation, self._subject, None, str(error) or type(error).__name__) from error
        if status >= 400:
            self.close()
            raise refusal(self._operation, self._subject, status, _message(content))
        return self

    def json(self) -> Any:
        """The whole answer."""
        return json.loads(b"".join(self._pieces()))

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """Pieces of a multiplexed answer, each with its stream: `STDOUT` or `STDERR`, in the order of their arrival."""
        held = bytearray()
        for piece in self._pieces():
            held += piece
            while len(held) >= _HEADER:
                end = _HEADER + int.from_bytes(held[4:_HEADER], "big")
                if len(held) < end:
                    break
                yield held[0], bytes(held[_HEADER:end])
                del held[:end]

    def _pieces(self) -> Iterator[bytes]:
        """Received pieces, until the answer ends or the call is closed."""
        if self._answer is None:
            return
        pieces = self._answer.pieces()
        while piece := self._next(pieces):
            yield piece

    def _next(self, pieces: Iterator[bytes]) -> bytes:
        with self._reading:
            if self._ended.is_set():
                return b""
            try:
                return next(pieces, b"")
            except OSError as error:
                if self._ended.is_set():
                    return b""
                raise refusal(self._operation, self._subject, None, str(error) or type(error).__name__) from error


def _message(content: bytes) -> str:
    """Podman's message from its error document."""
    try:
        return str(json.loads(content)["message"])
    except (ValueError, KeyError, TypeError):
        return content.decode(errors="replace")
