"""Tenants that do nothing wrong: how long their claims, answers and commits take while another one does its worst."""

import http.client
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from claw_runtime.api.client import Client
from claw_runtime.errors import ClawError
from claw_runtime.tenancy import Layout

TICK: Final = "(while :; do date > /state/tick; sleep 0.5; done) >/dev/null 2>&1 </dev/null &"
"""What a neighbour's program does all the time, so that each of its commits has something to store."""
PATIENCE: Final = 60.0
"""Seconds after which a question counts as failed."""


@dataclass(slots=True)
class Seen:
    """Seconds, by what was asked for, and what failed."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, kind: str, seconds: float) -> None:
        self.seconds.setdefault(kind, []).append(seconds)

    def quantile(self, kind: str, share: float) -> float:
        """NaN when nothing was seen."""
        ordered = sorted(self.seconds.get(kind, ()))
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")

    def median(self, kind: str) -> float:
        return statistics.median(self.seconds[kind]) if self.seconds.get(kind) else float("nan")


class Neighbours:
    """Tenants that run, and visitors that are claimed and released again and again.

    Args:
        count: Tenants that run all the time.
        execute: Runs a shell script in a tenant's container.
    """

    def __init__(self, layout: Layout, count: int, execute: Callable[[str, str], None]) -> None:
        self._layout, self._execute = layout, execute
        self.tenants = [f"neighbour-{number}" for number in range(count)]
        self._ports: list[int] = []

    def settle(self) -> None:
        """Claim them, and start what they do."""
        with self._client() as api:
            for tenant in self.tenants:
                self._ports.append(
                    int(api.post(f"/api/v1/tenants/{tenant}/claim", {"wait": PATIENCE})["endpoints"]["port"])
                )
                self._execute(tenant, TICK)

    def watch(self, seconds: float, visitors: int = 2) -> Seen:
        """Ask everything again and again for so long: claims of visitors, answers of programs, the status, commits."""
        seen, over = Seen(), threading.Event()
        jobs = [lambda name=f"visitor-{number}": self._visit(name, seen, over) for number in range(visitors)]
        jobs += [lambda: self._answers(seen, over), lambda: self._statuses(seen, over)]
        threads = [threading.Thread(target=job, daemon=True) for job in jobs]
        for thread in threads:
            thread.start()
        time.sleep(seconds)
        over.set()
        for thread in threads:
            thread.join(3 * PATIENCE)
        if any(thread.is_alive() for thread in threads):
            seen.failures.append(f"no answer within {3 * PATIENCE:g} s")
        return seen

    def release(self) -> None:
        with self._client() as api:
            for tenant in self.tenants:
                api.post(f"/api/v1/tenants/{tenant}/release", {"sync": False})

    @contextmanager
    def _client(self) -> Iterator[Client]:
        client = Client(self._layout.api_socket, timeout=PATIENCE)
        try:
            yield client
        finally:
            client.close()

    @contextmanager
    def _timed(self, kind: str, seen: Seen) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        except (ClawError, OSError, http.client.HTTPException, AssertionError) as error:
            seen.failures.append(f"{kind}: {error}")
            time.sleep(0.1)
        else:
            seen.add(kind, time.monotonic() - began)

    def _visit(self, tenant: str, seen: Seen, over: threading.Event) -> None:
        with self._client() as api:
            while not over.is_set():
                with self._timed("claim", seen):
                    api.post(f"/api/v1/tenants/{tenant}/claim", {"wait": PATIENCE})
                with self._timed("release", seen):
                    api.post(f"/api/v1/tenants/{tenant}/release", {})
                over.wait(0.2)

    def _answers(self, seen: Seen, over: threading.Event) -> None:
        while not over.is_set():
            for port in self._ports:
                with self._timed("answer", seen):
                    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
                    connection.request("GET", "/healthz")
                    assert connection.getresponse().status == 200
                    connection.close()
                over.wait(0.02)

    def _statuses(self, seen: Seen, over: threading.Event) -> None:
        with self._client() as api:
            while not over.is_set():
                rows = list[Any]()
                with self._timed("status", seen):
                    rows = list(api.get("/api/v1/tenants"))
                for row in rows:
                    last = row["syncStatus"]["lastSync"]
                    if row["tenantId"] in self.tenants and last:
                        seen.add("unsaved", time.time() - datetime.fromisoformat(last).timestamp())
                over.wait(0.2)


KINDS: Final[Sequence[str]] = ("claim", "release", "answer", "status", "unsaved")
"""What is measured: the last is the age of what is stored of a running tenant, the others are one question each."""
