"""Admits requests over TCP, tenant by tenant, before anything of them is parsed.

A request costs the event loop and the interpreter's lock about as much when it is refused as when it is served. So
requests beyond a tenant's share must not only be kept from the threads (`lanes.py`): they must cost next to nothing.
Here they are bytes that wait in a line of their tenant. A request whose client hangs up meanwhile is never parsed.

A tenant that asks for one thing after the other never waits. Requests that come beside others of their tenant get
`RATE` turns a second after a burst, and at most `TOGETHER` of a tenant are young at a time. An old one waits for the
store, the engine or a log rather than for the processor.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import structlog

from claw_runtime.api.lanes import PATIENCE, Lane

log = structlog.get_logger(__name__)

TOGETHER: Final = 2
"""Young requests of one tenant at a time."""

YOUNG: Final = 0.02
"""Seconds for which a request counts as young."""

RATE: Final = 50.0
"""Turns a second of a tenant's requests that come beside others."""

BURST: Final = 32
"""Turns that a tenant may take at once after a quiet time."""

TELL_EVERY: Final = 10.0
"""Seconds between two lines of the log about refused requests."""


class Loop(Protocol):
    """What is needed of an event loop."""

    def time(self) -> float: ...
    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any) -> Any: ...


class Waiting(Protocol):
    """A request that asks for its turn; called by the event loop alone."""

    def begin(self, started: "StartedRequest") -> bool:
        """Its turn has come; `Admission.end(started)` must follow. False if there is no request: nothing must."""

    def refuse(self, why: str) -> None:
        """Its turn did not come in time."""


@dataclass(slots=True, eq=False)
class StartedRequest:
    """A request that has begun."""

    holder: str
    lane: str
    began: float
    ended: bool = False


class Admission:
    """The requests of all tenants, those that have begun and those that wait; used by the event loop alone.

    Args:
        patience: Seconds that a request waits for its turn.
        loop: Tells the time.
    """

    def __init__(self, *, patience: float = PATIENCE, loop: Callable[[], Loop] = asyncio.get_running_loop) -> None:
        self._patience, self._loop = patience, loop
        self._lines: dict[str, _Line] = {}
        self._refused, self._tell_at = 0, 0.0

    def ask(self, one: Waiting, holder: str, lane: Lane) -> None:
        """Begin a request, or let it wait for its turn."""
        line = self._lines.get(holder)
        if line is None:
            line = self._lines[holder] = _Line(holder, self._loop())
        line.ask(one, lane, self._loop().call_later(self._patience, self._refuse, one, holder, lane))

    def withdraw(self, one: Waiting, holder: str) -> None:
        """Let a request wait no more: its client has gone."""
        if line := self._lines.get(holder):
            line.remove(one)

    def end(self, started: StartedRequest) -> None:
        """Give the place to the next."""
        line = self._lines[started.holder]
        line.end(started)
        line.admit()

    def waiting(self, holder: str) -> int:
        """Requests that wait for their turn."""
        line = self._lines.get(holder)
        return line.waiting if line else 0

    def _refuse(self, one: Waiting, holder: str, lane: Lane) -> None:
        line = self._lines[holder]
        line.remove(one)
        why = line.why(lane)
        self._refused += 1
        now = self._loop().time()
        if now >= self._tell_at:  # not each one: a client that asks in a loop would fill the log
            log.warning("requests refused", lane=lane.name, of=holder, requests=self._refused, why=why)
            self._refused, self._tell_at = 0, now + TELL_EVERY
        one.refuse(why)


class _Line:
    """The requests of one tenant, by lane."""

    def __init__(self, holder: str, loop: Loop) -> None:
        self.holder, self._loop = holder, loop
        self.waiting = 0
        self._lanes: dict[str, tuple[Lane, dict[Waiting, Any]]] = {}  # those in which requests wait; the next one first
        self._in_lane: Counter[str] = Counter()
        self._young = list[StartedRequest]()
        self._budget, self._counted_at = float(BURST), loop.time()
        self._again: Any = None

    def ask(self, one: Waiting, lane: Lane, timer: Any) -> None:
        self._pass_time()
        is_alone = not self.waiting and not self._young
        self._lanes.setdefault(lane.name, (lane, {}))[1][one] = timer
        self.waiting += 1
        if is_alone and self._in_lane[lane.name] < lane.tenant:
            self._begin(lane, one, cost=0)
        else:
            self.admit()

    def remove(self, one: Waiting) -> None:
        for name, (_, line) in self._lanes.items():
            if one in line:
                self._taken(name, one)
                return

    def end(self, started: StartedRequest) -> None:
        started.ended = True
        self._in_lane[started.lane] -= 1
        if not self._in_lane[started.lane]:
            del self._in_lane[started.lane]

    def admit(self) -> None:
        """Begin what may begin now, and come back for what may soon."""
        while self.waiting:
            if wait := self._pause():
                if self._again is None:
                    self._again = self._loop.call_later(wait, self._come_back)
                return
            free = next((lane for lane, _ in self._lanes.values() if self._in_lane[lane.name] < lane.tenant), None)
            if free is None:
                return
            self._begin(free, next(iter(self._lanes[free.name][1])), cost=1)

    def why(self, lane: Lane) -> str:
        """What kept a request of this lane from its turn."""
        count = self._in_lane[lane.name]
        kind, _, name = self.holder.partition(" ")
        whose = f"of {kind} {name!r}" if name else "without a valid token"
        if count >= lane.tenant:
            return f"{count} such requests {whose} are in progress"
        return f"the requests {whose} that wait get {RATE:g} turns a second"

    def _begin(self, lane: Lane, one: Waiting, *, cost: int) -> None:
        self._taken(lane.name, one)
        if lane.name in self._lanes:  # the other lanes are next
            self._lanes[lane.name] = self._lanes.pop(lane.name)
        self._in_lane[lane.name] += 1
        started = StartedRequest(self.holder, lane.name, self._loop.time())
        if one.begin(started):
            self._young.append(started)
            self._budget -= cost
        else:
            self.end(started)

    def _pause(self) -> float:
        """Seconds until the next of those that wait may begin; 0 if one may."""
        self._pass_time()
        if len(self._young) >= TOGETHER:
            return max(self._young[0].began + YOUNG - self._counted_at, 0.001)
        if self._budget < 1:
            return max((1 - self._budget) / RATE, 0.001)
        return 0.0

    def _pass_time(self) -> None:
        now = self._loop.time()
        self._budget = min(float(BURST), self._budget + (now - self._counted_at) * RATE)
        self._counted_at = now
        self._young = [started for started in self._young if not started.ended and started.began > now - YOUNG]

    def _come_back(self) -> None:
        self._again = None
        self.admit()

    def _taken(self, name: str, one: Waiting) -> None:
        line = self._lanes[name][1]
        line.pop(one).cancel()
        self.waiting -= 1
        if not line:
            del self._lanes[name]
