"""What tenants' clients do, as the router reports it: ages in seconds, since its clock is not ours."""

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from claw_runtime.ports import Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """The clients of one tenant.

    Attributes:
        requests, sockets: Open ones.
        held: Requests that wait for the tenant.
        frame_age: Seconds since a client sent data in a WebSocket; infinite if none did since the router's start.
        request_age: Seconds since a request ended, likewise.
    """

    requests: int = 0
    sockets: int = 0
    held: int = 0
    frame_age: float = 0.0
    request_age: float = 0.0


class Reports:
    """The router's last report. Whatever is not known counts as activity: without a router all are active now, and a
    router knows nothing from before its start."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._since: float | None = None
        self._at = 0.0
        self._rows: Mapping[str, Mapping[str, Any]] = {}
        self._heard = 0
        self.counters: Mapping[str, Any] = {}

    def began(self) -> None:
        """A conversation with a router began."""
        with self._changed:
            self._since, self._rows, self._heard = self._clock.monotonic(), {}, 0

    def ended(self) -> None:
        """There is no router now."""
        with self._changed:
            self._since, self._rows = None, {}
            self._changed.notify_all()

    def hear(self, rows: Sequence[Mapping[str, Any]], counters: Mapping[str, Any]) -> None:
        """Keep a report. Raises `KeyError`, `TypeError` for another form."""
        found = {str(row["tenant"]): row for row in rows}
        with self._changed:
            self._rows, self._at = found, self._clock.monotonic()
            self.counters = counters
            self._heard += 1
            self._changed.notify_all()

    @property
    def heard(self) -> int:
        """Reports of this conversation."""
        return self._heard

    def wait(self, count: int, timeout: float) -> bool:
        """Wait until this conversation had so many reports; False if it ended, or after so many seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._heard >= count or self._since is None, timeout)
            return self._since is not None and self._heard >= count

    def of(self, tenant: str) -> Activity:
        """The tenant's clients now."""
        with self._changed:
            now, since, row = self._clock.monotonic(), self._since, self._rows.get(tenant)
            if since is None:
                return Activity()
            known = now - since
            if row is None:
                return Activity(frame_age=known, request_age=known)
            passed = now - self._at

        unseen = row["frame_age"] is None and row["request_age"] is None

        def age(name: str) -> float:
            return float(row[name]) + passed if row[name] is not None else known if unseen else math.inf

        return Activity(
            requests=int(row["requests"]),
            sockets=int(row["sockets"]),
            held=int(row["held"]),
            frame_age=age("frame_age"),
            request_age=age("request_age"),
        )
