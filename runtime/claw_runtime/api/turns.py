"""Turns: a request enters its lane, runs in the lane's threads, and learns that its client has gone.

A place in a lane is free again when the request's thread has ended, not when its client has gone: otherwise clients
that hang up would leave ever more threads behind. Work therefore asks `Turn.gone` between two steps.
"""

import asyncio
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TypeVar

import anyio.to_thread
import structlog
from anyio import CapacityLimiter
from starlette.types import Message, Receive

from claw_runtime.access.tokens import Grant
from claw_runtime.api.lanes import PATIENCE, PATIENCE_LOCAL, WAITING_MOST, Lane
from claw_runtime.errors import Busy

log = structlog.get_logger(__name__)

Answer = TypeVar("Answer")

TELL_EVERY = 10.0
"""Seconds between two lines of the log about refused requests of one lane."""

_current: ContextVar["Turn"] = ContextVar("claw-turn")


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose request it is: its token (None over the Unix socket), and the tenant that it is about."""

    token: str | None
    tenant: str | None

    @property
    def share(self) -> tuple[bool, str | None]:
        """What a tenant's share is counted for: requests of tokens take nothing from the host's own user."""
        return self.token is None, self.tenant

    @property
    def group(self) -> tuple[bool, str | None]:
        """With whom it takes turns: others of its tenant, or else of its token."""
        return self.token is None, self.tenant or self.token


@dataclass(slots=True, eq=False)
class Turn:
    """One request in its lane; `lane` is None for a request that needs none."""

    lane: "_Queue | None"
    caller: Caller
    _left: threading.Event = field(default_factory=threading.Event)
    _when_gone: list[Callable[[], None]] = field(default_factory=list)
    _held: bool = True

    async def run(self, work: Callable[[], Answer]) -> Answer:
        """Do the work in a thread, and wait for its end, also if the client goes meanwhile."""
        return await anyio.to_thread.run_sync(work, limiter=CapacityLimiter(1))

    def gone(self) -> bool:
        """Whether the client has closed the connection; for any thread."""
        return self._left.is_set()

    def check(self) -> None:
        """For work that changes nothing, between two steps. Raises `ClientGone` when the client has gone."""
        if self._left.is_set():
            raise ClientGone

    def when_gone(self, end: Callable[[], None]) -> None:
        """Call this, which must not block, when the client has gone; at once if it has."""
        self._when_gone.append(end)
        if self._left.is_set():
            end()

    def leave(self) -> None:
        """Count the client as gone."""
        self._left.set()
        for end in self._when_gone:
            end()

    def pause(self) -> None:
        """Leave the place to others, still counted as the tenant's, while the request only waits."""
        if self.lane and self._held:
            self._held = False
            self.lane.pause(self.caller)

    async def resume(self) -> None:
        """Take a place again, however long that takes."""
        if self.lane and not self._held:
            await self.lane.enter(self.caller, patience=None, resumed=True)
            self._held = True

    def end(self) -> None:
        """Give the place back."""
        if self.lane:
            self.lane.leave(self.caller, paused=not self._held)


class ClientGone(Exception):
    """Nobody waits for the work any more. It ends the work and is no one's error."""


def current() -> Turn:
    """The turn of the request that this task serves."""
    return _current.get()


class Lanes:
    """The lanes of one API, as they are used now.

    Args:
        patience: Seconds that a request over TCP waits for its turn.
    """

    def __init__(self, *, patience: float = PATIENCE, patience_local: float = PATIENCE_LOCAL) -> None:
        self._patience, self._patience_local = patience, patience_local
        self._queues: dict[str, _Queue] = {}
        self._reading: set[Turn] = set()
        self._ended = False

    @asynccontextmanager
    async def turn(self, lane: Lane | None, grant: Grant, tenant: str | None) -> AsyncIterator[Turn]:
        """A place in the lane until the block ends. Raises `Busy`."""
        caller = Caller(None if grant.local else grant.name, tenant)
        queue = self.queue(lane) if lane else None
        if queue:
            await queue.enter(caller, patience=self._patience_local if grant.local else self._patience)
        turn = Turn(queue, caller)
        token = _current.set(turn)
        if lane and lane.reads:
            self._reading.add(turn)
            if self._ended:
                turn.leave()
        try:
            yield turn
        finally:
            self._reading.discard(turn)
            _current.reset(token)
            turn.end()

    def end_reading(self) -> None:
        """End requests that change nothing and may last long, those that run and those that come."""
        self._ended = True
        for turn in list(self._reading):
            turn.leave()

    def queue(self, lane: Lane) -> "_Queue":
        """A lane as it is used now."""
        return self._queues.setdefault(lane.name, _Queue(lane))


class _Queue:
    """The places of one lane, and the requests that wait for one; used by the event loop alone."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.running = 0
        self._refused, self._tell_at = 0, 0.0
        self._of_tenant: Counter[object] = Counter()
        self._paused: Counter[object] = Counter()
        self._of_token: Counter[object] = Counter()
        self._waiting: OrderedDict[object, deque[tuple[Caller, asyncio.Future[None], bool]]] = OrderedDict()

    async def enter(self, caller: Caller, *, patience: float | None, resumed: bool = False) -> None:
        """Wait for a place.

        Args:
            patience: Seconds; None waits as long as it takes.
            resumed: The request was paused, so it is counted as the tenant's already.

        Raises:
            Busy: There was none.
        """
        if (resumed or caller.group not in self._waiting) and not self._full(caller, resumed=resumed):
            self._take(caller, resumed=resumed)
            return
        line = self._waiting.setdefault(caller.group, deque())
        if len(line) >= WAITING_MOST:
            raise self._busy(caller)
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (caller, place, resumed)
        if resumed:  # before those that need what it is counted for
            line.appendleft(entry)
        else:
            line.append(entry)
        try:
            async with asyncio.timeout(patience):
                await place
        except TimeoutError:
            if place.done() and not place.cancelled():
                return  # it came in the last moment
            raise self._busy(caller) from None
        except BaseException:
            if place.done() and not place.cancelled():
                (self.pause if resumed else self.leave)(caller)
            raise
        finally:
            with suppress(ValueError):
                line.remove(entry)
            if not line and self._waiting.get(caller.group) is line:
                del self._waiting[caller.group]
            self._admit()  # it may have stood before others

    def pause(self, caller: Caller) -> None:
        """Give the place to another, and stay counted as the tenant's."""
        if caller.tenant:
            self._paused[caller.share] += 1
        self.leave(caller)

    def leave(self, caller: Caller, *, paused: bool = False) -> None:
        """Give the place back, or what is counted of a paused request."""
        if paused:
            if caller.tenant:
                _less(self._paused, caller.share)
        else:
            self.running -= 1
            if caller.tenant:
                _less(self._of_tenant, caller.share)
            if caller.token:
                _less(self._of_token, caller.token)
        self._admit()

    def _take(self, caller: Caller, *, resumed: bool) -> None:
        self.running += 1
        if caller.tenant:
            self._of_tenant[caller.share] += 1
            if resumed:
                _less(self._paused, caller.share)
        if caller.token:
            self._of_token[caller.token] += 1

    def _full(self, caller: Caller, *, resumed: bool = False) -> str:
        """What keeps this request from a place; empty if nothing does."""
        lane, tenant, token = self.lane, caller.tenant, caller.token
        if tenant and self._of_tenant[caller.share] + self._paused[caller.share] - resumed >= lane.tenant:
            return f"{lane.tenant} such requests of tenant {tenant[:60]!r} are in progress"
        if token and self._of_token[token] >= lane.token:
            return f"{lane.token} such requests of the token {token!r} are in progress"
        if self._no_place(caller):
            return f"{self.running} such requests are in progress"
        return ""

    def _no_place(self, caller: Caller) -> bool:
        return self.running >= self.lane.slots - (self.lane.reserve if caller.token else 0)

    def _admit(self) -> None:
        """Give the free places to those that wait: one of each group, then the next of each."""
        again = True
        while again and self._waiting:
            again = False
            for group in list(self._waiting):
                line = self._waiting[group]
                while line and line[0][1].done():
                    line.popleft()
                if line and not self._full(line[0][0], resumed=line[0][2]):
                    caller, place, resumed = line.popleft()
                    self._take(caller, resumed=resumed)
                    place.set_result(None)
                    self._waiting.move_to_end(group)
                    again = True
                if not line:
                    del self._waiting[group]

    def _busy(self, caller: Caller) -> Busy:
        self._refused += 1
        now = asyncio.get_running_loop().time()
        if now >= self._tell_at:  # not each one: a client that asks in a loop would fill the log
            log.warning("requests refused", lane=self.lane.name, requests=self._refused, why=self._full(caller))
            self._refused, self._tell_at = 0, now + TELL_EVERY
        return Busy(
            f"the lane {self.lane.name!r} of the API is busy",
            why=self._full(caller) or "other requests were first",
            hint="ask again later, with fewer requests at once; docs/API.md has the limits",
            retry_after=1,
            status=503 if self._no_place(caller) else 429,
        )


def _less(counts: Counter[object], name: object) -> None:
    counts[name] -= 1
    if counts[name] <= 0:
        del counts[name]


@asynccontextmanager
async def watched(turn: Turn, body: bytes, receive: Receive) -> AsyncIterator[Receive]:
    """What the application receives: the whole body, then the end of the connection, which `turn` learns of as well."""
    pending, left = [body], asyncio.Event()

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        turn.leave()
        left.set()

    async def again() -> Message:
        if pending:
            return {"type": "http.request", "body": pending.pop(), "more_body": False}
        await left.wait()
        return {"type": "http.disconnect"}

    watching = asyncio.ensure_future(watch())
    try:
        yield again
    finally:
        watching.cancel()
