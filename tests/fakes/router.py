"""The router's end of its conversation with the daemon, by script."""

import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any


class FakeRouter:
    """Listens as the router does, keeps what it hears, and answers questions for activity with `rows`."""

    def __init__(self, path: Path) -> None:
        self.tables: list[dict[str, Any]] = []
        self.failed: list[dict[str, Any]] = []
        self.rows: Callable[[], list[dict[str, Any]]] = list
        self.answers = True
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._talking: socket.socket | None = None
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                self._talking, _ = self._listener.accept()
                with suppress(OSError), self._talking, self._talking.makefile("rb") as lines:
                    for line in lines:
                        self._hear(json.loads(line))

    def _hear(self, said: dict[str, Any]) -> None:
        if "table" in said:
            self.tables.append(said["table"])
        if "failed" in said:
            self.failed.append(said["failed"])
        if "activity" in said and self.answers:
            self.say({"activity": self.rows()})

    def say(self, what: object) -> None:
        """Send one line."""
        self.send(json.dumps(what).encode() + b"\n")

    def send(self, line: bytes) -> None:
        """Send bytes as they are."""
        assert self._talking is not None
        self._talking.sendall(line)

    def route(self, tenant: str) -> dict[str, Any]:
        """The tenant's route in the newest table; empty if it has none."""
        rows = self.tables[-1]["routes"] if self.tables else []
        return next((row for row in rows if row["tenant"] == tenant), {})

    def hang_up(self) -> None:
        """End the conversation, as a router that restarts does."""
        if self._talking is not None:
            with suppress(OSError):
                self._talking.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.hang_up()


def until(true: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.005)
