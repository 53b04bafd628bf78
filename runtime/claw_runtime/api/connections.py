"""Connections over TCP: how many are open, how long a client may take until it asks, and when its request begins.

Any program that reaches the port can connect, with a token or without, and a connection costs the daemon a descriptor.
So there is a bound. When it is reached, a new connection takes the place of one of the tenant that holds most of them:
its oldest without a request at work. Clients that only hold connections keep nobody out, and end no other tenant's
connection. The Unix socket, which only the host's own user reaches, has no bound.

A request over TCP is not parsed before its turn (`admission.py`). Here are the requests after the first of a
connection; the first waits outside the parser altogether (`accepting.py`).
"""

import asyncio
import socket
from functools import lru_cache
from typing import Any, Final, Protocol

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from claw_runtime.api import heads
from claw_runtime.api.admission import Admission, StartedRequest
from claw_runtime.api.guard import SENT_ALONG
from claw_runtime.api.heads import Heads
from claw_runtime.api.problems import problem
from claw_runtime.errors import Busy

MOST: Final = 512
"""Connections over TCP that are open at once."""

PATIENCE: Final = 10.0
"""Seconds after which a connection is closed over which no request has begun."""

HELD: Final = 64 << 10
"""Bytes of a request that are kept while it waits for its turn; no more are read then."""

UNASKED: Final = "?"
"""The holder of connections over which no head has come."""


class Held(Protocol):
    """A connection as it is counted."""

    holder: str

    @property
    def is_incomplete(self) -> bool:
        """Whether no request is at work: none has come, not all of it, it waits for its turn, or it is answered."""

    def abort(self) -> None:
        """Close it, whatever it does."""

    def close_incomplete(self) -> None:
        """Close it, unless the head of a request has come; a body has a time of its own (`api/bodies.py`)."""


class Connections:
    """The TCP connections of one API, oldest first; used by the event loop alone."""

    def __init__(
        self, reader: Heads, admission: Admission | None = None, *, most: int = MOST, patience: float = PATIENCE
    ) -> None:
        self.heads, self.admission = reader, admission or Admission()
        self._most, self._patience = most, patience
        self._open: dict[Held, asyncio.TimerHandle] = {}
        self._held: dict[str, dict[Held, None]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def protocol(self) -> type["Connection"]:
        """What uvicorn makes of each connection."""
        return type("BoundedConnection", (Connection,), {"connections_open": self})

    def enter(self, one: Held) -> None:
        """Count a new one, and close another if there are too many; the new one, if all others are at work."""
        if len(self._open) >= self._most:
            victim = self._victim() or one
            self.leave(victim)
            victim.abort()
            if victim is one:
                return
        self._open[one] = asyncio.get_running_loop().call_later(self._patience, one.close_incomplete)
        self._held.setdefault(one.holder, {})[one] = None

    def belongs(self, one: Held, holder: str) -> None:
        """Count it as the holder's from now on."""
        if one in self._open and holder != one.holder:
            self._drop(one)
            self._held.setdefault(holder, {})[one] = None
        one.holder = holder

    def leave(self, one: Held) -> None:
        """Count it no more."""
        if timer := self._open.pop(one, None):
            timer.cancel()
            self._drop(one)

    def _drop(self, one: Held) -> None:
        held = self._held[one.holder]
        del held[one]
        if not held:
            del self._held[one.holder]

    def _victim(self) -> Held | None:
        for held in sorted(self._held.values(), key=len, reverse=True):
            if found := next((one for one in held if one.is_incomplete), None):
                return found
        return None


class Connection(H11Protocol):
    """One connection of uvicorn's. Over TCP it is counted, and each of its requests waits for its turn."""

    connections_open: Connections

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.holder = UNASKED
        self._over_tcp = self._in_line = self._parsing = self._is_given = False
        self._bytes = b""  # what the parser does not have yet
        self._has_turn = False  # the request that the parser sees next
        self._started: StartedRequest | None = None

    @property
    def is_incomplete(self) -> bool:
        """Whether no request is at work: none has come, not all of it, it waits for its turn, or it is answered."""
        return not self._is_at_work or bool(self.cycle.more_body)

    @property
    def _is_at_work(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def _is_between(self) -> bool:
        """Whether the next bytes begin a request."""
        return self._over_tcp and not self._parsing and self.conn.their_state is h11.IDLE

    def give(self, holder: str, started: StartedRequest | None) -> None:
        """Its first request has its turn already; called before the connection is made."""
        self.holder, self._is_given, self._started = holder, True, started

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        super().connection_made(transport)
        found: Any = transport.get_extra_info("socket")
        if found is not None and found.family != socket.AF_UNIX:
            self._over_tcp = True
            self._served, self.app = self.app, self._serve
            self.connections_open.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.connections_open.leave(self)
        if self._in_line:
            self._in_line = False
            self.connections_open.admission.withdraw(self, self.holder)
        if not self._is_at_work:
            self._end()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse it; the bytes of a request over TCP wait for their turn first."""
        if not self._is_between:
            super().data_received(data)
            return
        self._bytes += data
        if self._is_given:
            self._is_given = False
            if not self.begin(self._started):
                self._end()
        elif not self._in_line:
            self._ask()
        elif len(self._bytes) > HELD:
            self.flow.pause_reading()

    def handle_events(self) -> None:
        """Go on with what the parser has: after an answer, this is what was sent ahead of it."""
        if self._is_between:
            self._ask()
        else:
            super().handle_events()

    def begin(self, started: StartedRequest | None) -> bool:
        """Parse the request, which begins it. False if the parser sees none in it: the connection ends."""
        self._in_line = False
        if self.transport.is_closing():
            return False
        self._has_turn, self._started = True, started
        waited, self._bytes = self._bytes, b""
        self._parsing = True
        try:
            self.flow.resume_reading()
            if waited:
                super().data_received(waited)
            else:
                super().handle_events()
        finally:
            self._parsing = False
        if not self._is_at_work and not self.transport.is_closing():
            self.transport.abort()
        return self._is_at_work

    def refuse(self, why: str) -> None:
        """Answer 429, and close the connection."""
        self._in_line = False
        self.transport.write(refusal(why))
        self.transport.close()

    def abort(self) -> None:
        self.transport.abort()

    def close_incomplete(self) -> None:
        if self.cycle is None and not self._in_line:
            self.transport.abort()

    def _ask(self) -> None:
        """Ask for the turn of the next request, if its head is here."""
        head = heads.whole(self.conn.trailing_data[0] + self._bytes)
        if head is None:
            return
        self._unset_keepalive_if_required()
        asked = self.connections_open.heads.read(head)
        self.connections_open.belongs(self, asked.holder)
        if asked.limited:
            self._in_line = True
            self.connections_open.admission.ask(self, asked.holder, asked.lane)
        else:
            self.begin(None)

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve a request that has a turn. One without was sent ahead, behind a body that nobody read."""
        has_turn, started = self._has_turn, self._started
        self._has_turn, self._started = False, None
        try:
            if has_turn:
                await self._served(scope, receive, send)
            else:
                await problem(_busy("it was sent before the answer to the one before it"))(scope, receive, send)
        finally:
            if started:
                self.connections_open.admission.end(started)

    def _end(self) -> None:
        started, self._has_turn, self._started = self._started, False, None
        if started:
            self.connections_open.admission.end(started)


@lru_cache(64)
def refusal(why: str) -> bytes:
    """The whole answer to a request that did not get its turn."""
    answer = problem(_busy(why))
    head = [b"HTTP/1.1 429 Too Many Requests", b"connection: close"]
    head += [name + b": " + value for name, value in (*answer.raw_headers, *SENT_ALONG)]
    return b"\r\n".join((*head, b"", bytes(answer.body)))


def _busy(why: str) -> Busy:
    return Busy(
        "this request did not get its turn",
        why=why,
        hint="ask again later, with fewer requests at once; docs/API.md has the limits",
        retry_after=1,
    )
