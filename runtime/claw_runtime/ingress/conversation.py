"""The daemon's side of its conversation with the router: a Unix socket of this user, one JSON document a line.

The router listens and outlives the daemon. The daemon connects, again after either of them restarted.
"""

import json
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import structlog

log = structlog.get_logger(__name__)

PATIENCE: Final = 5.0
"""Seconds in which the router takes a line, or it is left and asked again."""

LINE: Final = 16 * 1024 * 1024
"""Bytes of a line, at most."""


class Conversation:
    """Connects, sends lines, and gives each line that comes to a function. Threads may share it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket: socket.socket | None = None
        self._sending = threading.Lock()

    @property
    def is_connected(self) -> bool:
        """Whether a router is there."""
        return self._socket is not None

    def talk(
        self, stopping: threading.Event, began: Callable[[], None], hear: Callable[[Mapping[str, Any]], None]
    ) -> None:
        """One conversation, until either side ends it or `stopping`; returns at once if no router is there.

        Args:
            began: Called before any line is heard.
            hear: Gets each line; it must not wait for anything.
        """
        with suppress(OSError), self._connect() as ours:
            self._socket = ours
            try:
                began()
                self._listen(ours, stopping, hear)
            finally:
                self._socket = None

    def _connect(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX)
        try:
            made.settimeout(PATIENCE)
            made.connect(str(self._path))
        except OSError:
            made.close()
            raise
        return made

    def _listen(
        self, ours: socket.socket, stopping: threading.Event, hear: Callable[[Mapping[str, Any]], None]
    ) -> None:
        rest = bytearray()
        while len(rest) <= LINE:
            if stopping.is_set():
                return
            try:
                more = ours.recv(65_536)
            except TimeoutError:
                continue
            if not more:
                return
            rest += more
            *lines, rest = rest.split(b"\n") if b"\n" in more else [rest]
            for line in lines:
                try:
                    hear(_document(line))
                except (ValueError, KeyError, TypeError) as error:
                    log.warning("the router sent a line that is not understood", why=str(error))
                    return
        log.warning("the router sent a line that is too long")

    def say(self, what: Mapping[str, Any]) -> bool:
        """Send one line; False when there is no router, or it does not take the line."""
        line = json.dumps(what, separators=(",", ":")).encode() + b"\n"
        with self._sending:
            ours = self._socket
            if ours is None:
                return False
            try:
                ours.sendall(line)
            except OSError:  # half a line may be out: what follows would not be understood
                self.close()
                return False
        return True

    def close(self) -> None:
        """End the present connection."""
        if (ours := self._socket) is not None:
            with suppress(OSError):
                ours.shutdown(socket.SHUT_RDWR)


def _document(line: bytearray) -> Mapping[str, Any]:
    """Raises `ValueError`, `TypeError`."""
    found = json.loads(line)
    if not isinstance(found, dict):
        raise TypeError("it is not an object")
    return found
