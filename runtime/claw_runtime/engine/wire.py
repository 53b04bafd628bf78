"""Podman's API over its Unix socket for what podman-py cannot do: an answer that is read as it comes, and let go of.

Such an answer (a command's output, a log) has a connection of its own, so that nobody else waits behind it, and it can
be ended from another thread.
"""

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, Self

from claw_runtime.engine.refusals import refusal

STDOUT, STDERR = 1, 2
_PREFIX = "/v4.0.0/libpod"
_HEADER = 8
_PIECE = 1 << 16


class Call:
    """One request to Podman and its answer.

    Args:
        path: Podman's socket.
        operation, subject: What is tried on what, for errors.
        timeout: Seconds until the answer begins, and between its pieces; None waits.
    """

    def __init__(self, path: Path, operation: str, subject: str, *, timeout: float | None = 60.0) -> None:
        self._operation, self._subject = operation, subject
        self._ended = threading.Event()
        self._reading = threading.Lock()
        self._answer: HTTPResponse | None = None
        self._connection = HTTPConnection("localhost", timeout=timeout)
        self._connection.sock = self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(os.fspath(path))
        except OSError as error:
            self._socket.close()
            raise refusal(operation, subject, None, str(error)) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the connection. Another thread that reads gets the end."""
        self._ended.set()
        with suppress(OSError):  # the other side was first
            self._socket.shutdown(socket.SHUT_RDWR)
        with self._reading:  # http.client does not bear to be closed under a reader, which the line above woke
            self._connection.close()
            self._socket.close()
            if self._answer is not None:
                self._answer.close()

    @property
    def closed(self) -> bool:
        return self._ended.is_set()

    def send(self, method: str, path: str, body: object = None) -> Self:
        """Ask. Raises what `refusals.refusal` makes of a refusal."""
        data = None if body is None else json.dumps(body)
        try:
            self._connection.request(method, _PREFIX + path, data, {"Content-Type": "application/json"})
            self._answer = self._connection.getresponse()
            status, content = self._answer.status, b"" if self._answer.status < 400 else self._answer.read()
        except (OSError, HTTPException) as error:
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
        """What comes, until it ends or the call is closed."""
        if self._answer is None:
            return
        while piece := self._read(self._answer):
            yield piece

    def _read(self, answer: HTTPResponse) -> bytes:
        with self._reading:
            if self._ended.is_set():
                return b""
            try:
                return answer.read1(_PIECE)
            except (OSError, HTTPException) as error:
                if self._ended.is_set():
                    return b""
                raise refusal(self._operation, self._subject, None, str(error) or type(error).__name__) from error


def _message(content: bytes) -> str:
    """Podman's own words out of its error document."""
    try:
        return str(json.loads(content)["message"])
    except (ValueError, KeyError, TypeError):
        return content.decode(errors="replace")
