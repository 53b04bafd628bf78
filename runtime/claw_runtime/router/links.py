"""Connections in pairs: a client's, and one to the tenant that its present request is for. Tenants share nothing.

Both sides are read in pieces of 64 kB at most, and neither is read on while the other takes no more.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog

from claw_runtime.router import heads
from claw_runtime.router.bodies import BadBody, Body, body
from claw_runtime.router.frames import Frames
from claw_runtime.router.heads import BadHead, Field, Request
from claw_runtime.router.sides import PIECE, Side, Tenant
from claw_runtime.router.ways import Decision, Refusal, Way, refused

log = structlog.get_logger(__name__)

HEAD_WITHIN: Final = 10.0
"""Seconds from the first byte of a head to its last."""
IDLE: Final = 75.0
"""Seconds that a client's connection may be open between two requests."""
STALLED: Final = 120.0
"""Seconds that the body of a request may pause."""
CONNECT_WITHIN: Final = 2.0
DIALS: Final = 3
DIAL_AGAIN: Final = 0.25
RESTARTING: Final = b"\x88\x02\x03\xf4"
"""The close frame of a WebSocket whose server restarts: 1012."""

WEBSOCKET: Final = ((b"connection", b"Upgrade"), (b"upgrade", b"websocket"))
_BODILESS: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"DELETE", b"TRACE"))


class Door(Protocol):
    """Decides about requests."""

    def decide(self, request: Request, client: "Client") -> Decision | Awaitable[Decision]:
        """Where it goes; awaited while the tenant wakes, with the request's body unread."""

    def again(self, way: Way) -> Awaitable[Decision]:
        """Ask again about a tenant that could not be reached; it may have moved."""

    def poke(self, tenant: str) -> None:
        """A client of a WebSocket sent data."""


@dataclass(slots=True, eq=False)
class Connections:
    """All connections of clients; ends those that take too long.

    Attributes:
        most: Connections at the same time; a client beyond them is not heard.
        answers: Answers of tenants so far, by the first digit of their status.
        refusals: Answers of the router itself so far, by their status.
        draining: Whether each connection ends with the answer of its present request.
    """

    most: int = 10_000
    clients: "set[Client]" = field(default_factory=set)
    answers: Counter[int] = field(default_factory=Counter)
    refusals: Counter[int] = field(default_factory=Counter)
    draining: bool = False

    def drain(self) -> None:
        """End all connections: each after the answer of its present request, those without one at once."""
        self.draining = True
        for client in list(self.clients):
            client.drain()

    def sweep(self) -> None:
        """End clients whose time is over; called every second."""
        now = asyncio.get_running_loop().time()
        for client in [one for one in self.clients if one.until is not None and one.until < now]:
            client.late()


class Client(Side):
    """A client's connection: one request after another; what comes early waits.

    Attributes:
        until: When it is late, on the event loop's clock; None while it cannot be.
    """

    def __init__(self, door: Door, connections: Connections) -> None:
        super().__init__()
        self._door, self._all = door, connections
        self.until: float | None = None
        self._early = b""
        self._request: Request | None = None
        self._body: Body | None = None
        self._way: Way | None = None
        self._tenant: Tenant | None = None
        self._frames: Frames | None = None
        self._work: asyncio.Task[None] | None = None
        self._sent = self._begun = self._last = self._over = False

    @property
    def peer(self) -> bytes:
        """The address of the other end."""
        found = self.transport.get_extra_info("peername") if self.transport else None
        return str(found[0]).removeprefix("::ffff:").encode("ascii") if isinstance(found, tuple) else b"unknown"

    @property
    def early(self) -> int:
        """Bytes that came before they could be sent on."""
        return len(self._early)

    # --- what comes ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if len(self._all.clients) >= self._all.most:
            self._over = True
            self.abort()
            return
        self._all.clients.add(self)
        self._within(HEAD_WITHIN)

    def received(self, data: bytes) -> None:
        if self._frames is not None:
            self._frame(data)
        elif self._over:
            return
        elif self._sent and self._body is not None and not self._body.ended:
            self._send(data)
        else:
            self._early += data
            if self._request is None:
                self._next()
            if len(self._early) >= PIECE:
                self.read_on(on=False)

    def _next(self) -> None:
        """Begin the next request, if its head is here."""
        try:
            at = heads.end(self._early)
            if not at:
                return
            head, self._early = self._early[:at], self._early[at:]
            request = heads.request(head)
        except BadHead as error:
            self._refuse(refused(error.status, str(error)))
            return
        self._request, self._body, self.until = request, body(request.framing), None
        decision = self._door.decide(request, self)
        if isinstance(decision, Way | Refusal):
            self._decided(decision)
        else:
            self._work = asyncio.ensure_future(self._wait(decision))

    async def _wait(self, decision: Awaitable[Decision]) -> None:
        self._decided(await decision)

    # --- on its way ---

    def _decided(self, decision: Decision) -> None:
        self._work = None
        if isinstance(decision, Refusal):
            self._refuse(decision)
            return
        self._way = decision
        decision.traffic.requests += 1
        if self._tenant is not None and self._tenant.carries(decision):
            self._forward(self._tenant)
            return
        self._part()
        self._work = asyncio.ensure_future(self._dial(decision, DIALS))

    async def _dial(self, way: Way, dials: int) -> None:
        loop = asyncio.get_running_loop()
        for number in range(dials):
            try:
                async with asyncio.timeout(CONNECT_WITHIN):
                    _, tenant = await loop.create_connection(lambda: Tenant(self, way), *way.address)
            except (OSError, TimeoutError):
                await asyncio.sleep(DIAL_AGAIN * (number + 1))
                continue
            self._tenant, self._work = tenant, None
            self._forward(tenant)
            return
        decision = await self._door.again(way)
        self._done()
        self._decided(decision)

    def _forward(self, tenant: Tenant) -> None:
        request, way = self._request, self._way
        if request is None or way is None:
            return
        tenant.begin(request.method, heads.written(way.first, [*way.fields, *_about_the_connection(request)]))
        if request.expects:
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._sent = True
        if self._body is not None and not self._body.ended:
            early, self._early = self._early, b""
            self._within(STALLED)
            if early:
                self._send(early)
            self.read_on(on=True)

    def _send(self, data: bytes) -> None:
        if self._body is None or self._tenant is None:
            return
        try:
            mine, rest = self._body.take(data)
        except BadBody as error:
            self.failed(str(error), status=400)
            return
        if mine:
            self._tenant.write(mine)
        if self._body.ended:
            self._early, self.until = rest, None
        else:
            self._within(STALLED)

    # --- the answer ---

    def begins(self, answer: heads.Answer) -> bool:
        """Write the head of the tenant's answer; whether its body is framed as this client knows it."""
        request, body = self._request, self._body
        if request is None or body is None:
            return True
        old = request.is_old and answer.framing == "chunked"
        framing: heads.Framing = "close" if old else answer.framing
        self._begun = True
        self._last = not request.keeps or not body.ended or framing == "close" or self._all.draining
        self._all.answers[answer.status // 100] += 1
        fields = [*answer.fields, *(() if answer.bodiless else heads.framed(framing))]
        if self._last:
            fields.append((b"connection", b"close"))
        elif request.is_old:
            fields.append((b"connection", b"keep-alive"))
        self.write(heads.written(b"HTTP/1.1 %d %s" % (answer.status, answer.reason), fields))
        return not old

    def upgrades(self, answer: heads.Answer) -> bool:
        """Write the head that begins a WebSocket; False if nobody asked for one."""
        if self._request is None or not self._request.websocket or self._way is None:
            self.failed("it changes the protocol, which nobody asked for")
            return False
        self._frames, self.until, self._begun = Frames(), None, True
        self._all.answers[1] += 1
        self._way.traffic.requests -= 1
        self._way.traffic.sockets += 1
        self._way.traffic.holders[self._way.holder] += 1
        fields = (*answer.fields, *WEBSOCKET)
        self.write(heads.written(b"HTTP/1.1 101 %s" % answer.reason, fields))
        early, self._early = self._early, b""
        if early:
            asyncio.get_running_loop().call_soon(self.received, early)
        self.read_on(on=True)
        return True

    def answered(self) -> None:
        """The tenant's answer is whole."""
        last, tenant = self._last, self._tenant
        self._done()
        if tenant is None or not tenant.is_free:
            self._part()
        if last:
            self._part()
            self._close()
            return
        self._within(IDLE)
        if self._early:
            asyncio.get_running_loop().call_soon(self._again)
        self.read_on(on=True)

    def _again(self) -> None:
        """Begin a request that came early. It is called by the loop, not deeper with each of them."""
        if self._request is None and not self._over:
            self._next()

    def failed(self, why: str, status: int = 502) -> None:
        """The request cannot be finished."""
        begun = self._begun
        self._done()
        self._part()
        if begun:
            self.abort()
        else:
            self._refuse(refused(status, why))

    def _refuse(self, refusal: Refusal) -> None:
        """Answer in place of a tenant."""
        request, ended = self._request, self._body is not None and self._body.ended
        keeps = request is not None and request.keeps and ended and not self._all.draining
        self._all.refusals[int(refusal.status[:3])] += 1
        fields = [*refusal.fields, (b"content-length", b"%d" % len(refusal.content))]
        if not keeps:
            fields.append((b"connection", b"close"))
        content = b"" if request is not None and request.method == b"HEAD" else refusal.content
        self.write(heads.written(b"HTTP/1.1 " + refusal.status, fields) + content)
        self._request = self._body = None
        if keeps:
            self._within(IDLE)
            asyncio.get_running_loop().call_soon(self._again)
        else:
            self._close()

    # --- a WebSocket ---

    def _frame(self, data: bytes) -> None:
        if self._frames is None or self._way is None or self._tenant is None:
            return
        if self._frames.count(data):
            self._way.traffic.frame_at = asyncio.get_running_loop().time()
            self._door.poke(self._way.tenant)
        self._tenant.write(data)

    def restarting(self, *, whole: bool) -> None:
        """The tenant's side of a WebSocket has ended; `whole`: not in the middle of a frame."""
        if whole:
            self.write(RESTARTING)
        self._done()
        self._part()
        self._close()

    # --- ends ---

    def drain(self) -> None:
        """End with the answer of the present request; at once without one, and a WebSocket after its present frame."""
        if self._frames is not None:
            self.restarting(whole=self._tenant is not None and self._tenant.is_between)
        elif self._request is not None:
            self._last = True
        elif not self._over:
            self._close()

    def late(self) -> None:
        """End what takes too long."""
        self.until = None
        if self._over or (self._request is None and not self._early):
            self.abort()
        elif self._request is None:
            self._refuse(refused(408, "the head of the request did not come"))
        else:
            self.failed("the body of the request did not come", status=408)

    def pause_writing(self) -> None:
        if self._tenant is not None:
            self._tenant.read_on(on=False)

    def resume_writing(self) -> None:
        if self._tenant is not None:
            self._tenant.read_on(on=True)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._all.clients.discard(self)
        if self._work is not None:
            self._work.cancel()
        self._done()
        self._part()

    def _done(self) -> None:
        """The request is over, in whatever way."""
        way, self._way = self._way, None
        if way is not None:
            if self._frames is not None:
                way.traffic.sockets -= 1
                way.traffic.holders[way.holder] -= 1
                way.traffic.holders += Counter()  # drops those without one
            else:
                way.traffic.requests -= 1
                way.traffic.request_at = asyncio.get_running_loop().time()
        self._frames = None
        self._request, self._sent, self._begun = None, False, False

    def _part(self) -> None:
        """Give up the connection to the tenant."""
        tenant, self._tenant = self._tenant, None
        if tenant is not None:
            tenant.forget()

    def _close(self) -> None:
        """Close, and take what is still coming for a moment: a reset would take the answer back."""
        self._over = True
        self._within(2.0)
        if self.transport is not None and self.transport.can_write_eof() and not self.transport.is_closing():
            self.transport.write_eof()
        self.read_on(on=True)

    def _within(self, seconds: float) -> None:
        self.until = asyncio.get_running_loop().time() + seconds


def _about_the_connection(request: Request) -> Sequence[Field]:
    """What the tenant's side learns about the body, and about the protocol that is asked for."""
    if request.websocket:
        return WEBSOCKET
    return heads.framed(request.framing) if request.framing != 0 or request.method not in _BODILESS else ()
