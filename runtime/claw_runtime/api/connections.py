"""Connections over TCP: how many are open, and how long a client may take until it asks.

Whoever reaches the port can connect, with a token or without, and a connection costs the daemon a descriptor. So there
is a bound. When it is reached, a new connection takes the place of the oldest that has no complete request: clients
that only hold connections keep nobody out. The Unix socket, which only the host's own user reaches, has no bound.
"""

import asyncio
import socket
from typing import Any, Final

from uvicorn.protocols.http.h11_impl import H11Protocol

MOST: Final = 512
"""Connections over TCP that are open at once."""

PATIENCE: Final = 10.0
"""Seconds after which a connection is closed over which no request has begun."""


class Connections:
    """The TCP connections of one API, oldest first; used by the event loop alone."""

    def __init__(self, *, most: int = MOST, patience: float = PATIENCE) -> None:
        self._most, self._patience = most, patience
        self._open: dict[Connection, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        return len(self._open)

    def protocol(self) -> type["Connection"]:
        """What uvicorn makes of each connection."""
        return type("BoundedConnection", (Connection,), {"connections_open": self})

    def enter(self, connection: "Connection") -> None:
        """Count a new one, and close another if there are too many; the new one, if all others are at work."""
        if len(self._open) >= self._most:
            victim = next((one for one in self._open if one.is_incomplete), connection)
            self.leave(victim)
            victim.transport.abort()
            if victim is connection:
                return
        self._open[connection] = asyncio.get_running_loop().call_later(self._patience, connection.close_incomplete)

    def leave(self, connection: "Connection") -> None:
        """Count it no more."""
        if timer := self._open.pop(connection, None):
            timer.cancel()


class Connection(H11Protocol):
    """One connection of uvicorn's, counted if it came over TCP."""

    connections_open: Connections

    @property
    def is_incomplete(self) -> bool:
        """Whether no request is at work: none has come, not all of it, or it is answered."""
        return self.cycle is None or self.cycle.more_body or self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        super().connection_made(transport)
        found: Any = transport.get_extra_info("socket")
        if found is not None and found.family != socket.AF_UNIX:
            self.connections_open.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.connections_open.leave(self)
        super().connection_lost(exc)

    def close_incomplete(self) -> None:
        """Close it, unless the head of a request has come; a body has a time of its own (`api/bodies.py`)."""
        if self.cycle is None:
            self.transport.abort()
