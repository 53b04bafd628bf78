"""Accepts connections over TCP, a few at a time, and lets their first requests wait as bytes that the kernel holds.

A transport and a parser cost several times as much as a connection itself. A client that connects, asks and hangs up
in a loop would keep the event loop busy with them. So the head of the first request is looked at where the kernel has
it, and the rest is made when the request's turn has come.
"""

import asyncio
import errno
import select
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import structlog

from claw_runtime.api import heads
from claw_runtime.api.admission import StartedRequest
from claw_runtime.api.connections import UNASKED, Connection, Connections, refusal

log = structlog.get_logger(__name__)

AT_ONCE: Final = 8
"""Connections that are accepted before the event loop does something else."""

FULL: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""What a host without room for another connection says."""

PAUSE: Final = 1.0
"""Seconds until a full host is asked again."""


class Watch:
    """Learns of clients that hang up while their bytes stay unread, which a loop's readers cannot."""

    def __init__(self) -> None:
        self._events = select.epoll()
        self._watched: dict[int, Arrival] = {}
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._events, self.look)

    def add(self, one: "Arrival") -> None:
        """Abort it when its client hangs up."""
        self._watched[one.socket.fileno()] = one
        self._events.register(one.socket, select.EPOLLRDHUP)

    def remove(self, one: "Arrival") -> None:
        """Watch it no more."""
        if self._watched.pop(one.socket.fileno(), None):
            self._events.unregister(one.socket)

    def look(self) -> None:
        """Abort those whose clients have hung up by now."""
        for number, _ in self._events.poll(0):
            self._watched[number].abort()

    def close(self) -> None:
        """End."""
        self._loop.remove_reader(self._events)
        self._events.close()


class Acceptor:
    """Accepts the connections of one listening socket; used by the event loop alone.

    Args:
        make: A new protocol of the server.
    """

    def __init__(self, listener: socket.socket, connections: Connections, make: Callable[[], Connection]) -> None:
        self._listener, self._make = listener, make
        self.connections, self.loop = connections, asyncio.get_running_loop()
        self.hung_up = Watch()
        self.arrivals, self._opening = set[Arrival](), set[asyncio.Task[None]]()
        listener.setblocking(False)
        self._listen()

    def close(self) -> None:
        """Accept no more, and close connections whose first request has not begun."""
        self.loop.remove_reader(self._listener)
        for one in list(self.arrivals):
            one.abort()
        self.hung_up.close()

    def open(self, one: "Arrival", started: StartedRequest | None = None, *, is_begun: bool = True) -> None:
        """Make a transport and a parser for it, which begin its request, or wait for its head."""
        self.connections.leave(one)
        self.arrivals.discard(one)
        task = self.loop.create_task(self._open(one, started, is_begun))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _open(self, one: "Arrival", started: StartedRequest | None, is_begun: bool) -> None:
        protocol = self._make()
        if is_begun:
            protocol.give(one.holder, started)
        try:
            await self.loop.connect_accepted_socket(lambda: protocol, one.socket)
        except OSError:
            one.socket.close()
            if started and not started.ended:
                self.connections.admission.end(started)

    def _listen(self) -> None:
        if self._listener.fileno() >= 0:
            self.loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            try:
                accepted, _address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in FULL:
                    raise
                log.warning("no room for another connection", error=str(error))
                self.loop.remove_reader(self._listener)
                self.loop.call_later(PAUSE, self._listen)
                return
            accepted.setblocking(False)
            one = Arrival(accepted, self)
            self.arrivals.add(one)
            self.connections.enter(one)
            one.look()


class Arrival:
    """A connection whose first request has not begun."""

    def __init__(self, accepted: socket.socket, acceptor: Acceptor) -> None:
        self.socket, self._acceptor = accepted, acceptor
        self.holder = UNASKED
        self._in_line = self._is_watched = self._is_closed = False

    @property
    def is_incomplete(self) -> bool:
        return True

    def look(self) -> None:
        """Ask for a turn if the head of a request is here, else wait for it."""
        if self._is_closed:
            return
        try:
            head = self.socket.recv(heads.MOST + 1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            self._watch()
            return
        except OSError:
            head = b""
        if not head:
            self.abort()
            return
        self._unwatch()
        whole = heads.whole(head)
        if whole is None:  # what is left unread would wake the event loop again and again
            self._acceptor.open(self, is_begun=False)
            return
        asked = self._acceptor.connections.heads.read(whole)
        self._acceptor.connections.belongs(self, asked.holder)
        if asked.limited:
            self._wait(in_line=True)
            self._acceptor.connections.admission.ask(self, asked.holder, asked.lane)
        else:
            self._acceptor.open(self)

    def begin(self, started: StartedRequest) -> bool:
        """Open it, unless the client has hung up."""
        self._acceptor.hung_up.look()
        if self._is_closed:
            return False
        self._wait(in_line=False)
        self._acceptor.open(self, started)
        return True

    def refuse(self, why: str) -> None:
        """Answer 429, and close the connection."""
        self._wait(in_line=False)
        with suppress(OSError):
            self.socket.recv(heads.MOST, 0)  # a socket that is closed with unread bytes takes its answer back
            self.socket.send(refusal(why))
        self.abort()

    def abort(self) -> None:
        """Close it."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._in_line:
            self._wait(in_line=False)
            self._acceptor.connections.admission.withdraw(self, self.holder)
        self._unwatch()
        self._acceptor.arrivals.discard(self)
        self._acceptor.connections.leave(self)
        self.socket.close()

    def close_incomplete(self) -> None:
        if not self._in_line:
            self.abort()

    def _wait(self, *, in_line: bool) -> None:
        self._in_line = in_line
        if in_line:
            self._acceptor.hung_up.add(self)
        else:
            self._acceptor.hung_up.remove(self)

    def _watch(self) -> None:
        if not self._is_watched:
            self._is_watched = True
            self._acceptor.loop.add_reader(self.socket, self.look)

    def _unwatch(self) -> None:
        if self._is_watched:
            self._is_watched = False
            self._acceptor.loop.remove_reader(self.socket)
