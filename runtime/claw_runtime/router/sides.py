"""One connection, read in pieces; and the one to a tenant, which carries one client's requests."""

import asyncio
from abc import abstractmethod
from typing import TYPE_CHECKING, Final, cast

from claw_runtime.router import heads
from claw_runtime.router.bodies import BadBody, Body, body
from claw_runtime.router.frames import Frames
from claw_runtime.router.heads import BadHead
from claw_runtime.router.ways import Way

if TYPE_CHECKING:
    from claw_runtime.router.links import Client

PIECE: Final = 64 * 1024
"""Bytes that are read at once, and that may wait before a connection is not read any more."""
HIGH: Final = 32 * 1024

_piece = memoryview(bytearray(PIECE))  # what was read is copied at once, so one is enough for all connections


class Side(asyncio.BufferedProtocol):
    """One connection, in pieces of `PIECE`."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=HIGH)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        return _piece

    def buffer_updated(self, nbytes: int) -> None:
        self.received(bytes(_piece[:nbytes]))

    @abstractmethod
    def received(self, data: bytes) -> None:
        """Bytes that came, at most `PIECE`."""

    def write(self, data: bytes) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def read_on(self, *, on: bool) -> None:
        """Whether to read more."""
        if self.transport is None or on != self._paused or self.transport.is_closing():
            return
        self._paused = not on
        (self.transport.resume_reading if on else self.transport.pause_reading)()

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()


class Tenant(Side):
    """A connection to a tenant, for one client and one request after another.

    Attributes:
        is_free: Whether it can carry another request.
    """

    def __init__(self, client: "Client", way: Way) -> None:
        super().__init__()
        self._client: Client | None = client
        self._to = (way.tenant, way.address)
        self.is_free = False
        self._method = b""
        self._head = b""
        self._answer: heads.Answer | None = None
        self._body: Body | None = None
        self._frames: Frames | None = None

    def carries(self, way: Way) -> bool:
        """Whether the next request can go this way over it."""
        return self.is_free and self._to == (way.tenant, way.address)

    @property
    def is_between(self) -> bool:
        """Whether a WebSocket's last frame for the client is whole."""
        return self._frames is not None and self._frames.is_between

    def begin(self, method: bytes, head: bytes) -> None:
        """Send the head of a request; its body follows through `write`."""
        self.is_free, self._method = False, method
        self._head, self._answer, self._body = b"", None, None
        self.write(head)

    def forget(self) -> None:
        """End it; its client wants nothing more of it."""
        self._client, self.is_free = None, False
        self.abort()

    def received(self, data: bytes) -> None:
        if self._client is None or self.is_free:  # nothing was asked
            self.abort()
        elif self._frames is not None:
            self._frames.count(data)
            self._client.write(data)
        elif self._body is not None:
            self._pass(self._client, data)
        else:
            self._head += data
            self._read(self._client)

    def _read(self, client: "Client") -> None:
        try:
            while at := heads.end(self._head):
                head, self._head = self._head[:at], self._head[at:]
                answer = heads.answer(head, self._method)
                if answer.is_final:
                    self._begin(client, answer)
                    return
        except BadHead as error:
            client.failed(str(error))

    def _begin(self, client: "Client", answer: heads.Answer) -> None:
        rest, self._head, self._answer = self._head, b"", answer
        if answer.status == 101:
            if client.upgrades(answer):
                self._frames = Frames()
                if rest:
                    self.received(rest)
            return
        self._body = body(answer.framing, plain=not client.begins(answer))
        self._pass(client, rest)

    def _pass(self, client: "Client", data: bytes) -> None:
        if self._body is None or self._answer is None:
            return
        try:
            mine, rest = self._body.take(data)
        except BadBody as error:
            client.failed(str(error))
            return
        if mine:
            client.write(mine)
        if self._body.ended:
            self._end(client, keeps=self._answer.keeps and not rest)

    def _end(self, client: "Client", *, keeps: bool) -> None:
        self._body, self._answer, self.is_free = None, None, keeps
        client.answered()

    def pause_writing(self) -> None:
        if self._client is not None:
            self._client.read_on(on=False)

    def resume_writing(self) -> None:
        if self._client is not None:
            self._client.read_on(on=True)

    def connection_lost(self, exc: Exception | None) -> None:
        client, was_free, self.is_free = self._client, self.is_free, False
        if client is None or was_free:
            return
        if self._frames is not None:
            client.restarting(whole=self._frames.is_between)
        elif self._answer is not None and self._answer.framing == "close" and self._body is not None and exc is None:
            self._end(client, keeps=False)
        else:
            client.failed("the tenant closed the connection")
