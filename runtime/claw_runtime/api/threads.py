"""Threads for requests that wait: each kind has its own, so that a waiting kind does not delay the others.

A claim may wait minutes for a slot, a release drains and uploads, a log is followed for hours. If they shared the
framework's forty threads with all other requests, forty claims would make `status` wait, and claims that wait for a
slot would block the release that frees one.
"""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import anyio.to_thread
from anyio import CapacityLimiter
from anyio.lowlevel import RunVar
from starlette.types import Receive

from claw_runtime.errors import Conflict

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Lane:
    """Threads of one kind of request; a request beyond their number waits for one.

    Threads are created when needed, and end when idle.
    """

    name: str
    threads: int
    _limiter: RunVar[CapacityLimiter]
    _busy: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def turn(self, tenant: str) -> Iterator[None]:
        """Count a request of a tenant, which may use at most a third of the lane, so that no tenant can fill it.

        Raises:
            Conflict: The tenant has too many requests in progress.
        """
        most = self.threads // 3
        if self._busy[tenant] >= most:
            raise Conflict(
                f"too many requests for tenant {tenant!r} at once",
                why=f"{most} such requests are in progress",
                hint="wait for their answers",
                retry_after=1,
            )
        self._busy[tenant] += 1
        try:
            yield
        finally:
            self._busy[tenant] -= 1
            if not self._busy[tenant]:
                del self._busy[tenant]

    async def run(self, work: Callable[[], Answer], *, leave: bool = False) -> Answer:
        """Do the work in a thread of the lane.

        Args:
            leave: Do not wait for the work when the request is cancelled; something else ends it then.
        """
        return await anyio.to_thread.run_sync(work, limiter=self._here(), abandon_on_cancel=leave)

    def _here(self) -> CapacityLimiter:
        """The limiter of this event loop."""
        try:
            return self._limiter.get()
        except LookupError:
            limiter = CapacityLimiter(self.threads)
            self._limiter.set(limiter)
            return limiter


@contextmanager
def gone(receive: Receive) -> Iterator[Callable[[], bool]]:
    """A function for a thread that returns whether the client has closed the connection; valid within the block."""
    closed = threading.Event()

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        closed.set()

    watching = asyncio.ensure_future(watch())
    try:
        yield closed.is_set
    finally:
        watching.cancel()


def _lane(name: str, threads: int) -> Lane:
    return Lane(name, threads, RunVar(f"claw-{name}"))


CLAIMS = _lane("claims", 128)
ENDINGS = _lane("endings", 64)
"""Releases and syncs."""
FOLLOWERS = _lane("followers", 64)
"""Logs."""
READERS = _lane("readers", 32)
"""Listings and files out of the object store, which may be slow, or not answer."""
