"""Serves the API on a Unix socket and, if configured, a TCP address; one server for both."""

import errno
import ipaddress
import logging
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import uvicorn

from claw_runtime import unix_http
from claw_runtime.api.accepting import Acceptor
from claw_runtime.api.app import create_app
from claw_runtime.api.connections import Connection, Connections
from claw_runtime.api.heads import Heads
from claw_runtime.api.refusals import SERVER_LINES
from claw_runtime.api.turns import Lanes
from claw_runtime.daemon.assembly import Runtime
from claw_runtime.errors import ClawError, DaemonRunning, InvalidSpec, PortTaken

BACKLOG = 1024
"""Connections that may wait to be accepted. A Unix socket refuses the next one at once."""

CONNECT = 5.0
"""Seconds that a process may take to accept a connection to its socket."""


class Server(uvicorn.Server):
    """A server that accepts TCP connections by itself, and at a shutdown first ends requests which only read."""

    def __init__(self, config: uvicorn.Config, protocol: type[Connection], ending: Callable[[], None]) -> None:
        super().__init__(config)
        self._protocol, self._ending = protocol, ending
        self._acceptors = list[Acceptor]()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept connections."""
        given = sockets or []
        await super().startup([one for one in given if one.family == socket.AF_UNIX])
        self._acceptors = [
            Acceptor(one, self._protocol.connections_open, self._made) for one in given if one.family != socket.AF_UNIX
        ]

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, and finish running requests."""
        self._ending()
        for acceptor in self._acceptors:
            acceptor.close()
        await super().shutdown(sockets)

    def _made(self) -> Connection:
        return self._protocol(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)


def server(runtime: Runtime, ending: Callable[[], None] = lambda: None) -> Server:
    """The server of one runtime; `run(sockets=…)` returns after SIGTERM or SIGINT. `ending` is called when one came."""
    logging.getLogger("uvicorn.error").addFilter(SERVER_LINES)
    lanes, protocol = Lanes(), Connections(Heads(runtime.tokens)).protocol()
    # Its own words about starting and ending are not for operators. The headers of a proxy are nobody's word here.
    config = uvicorn.Config(
        create_app(runtime, lanes),
        http=protocol,
        log_config=None,
        log_level="warning",
        access_log=False,
        lifespan="off",
        ws="none",
        proxy_headers=False,
        server_header=False,
    )

    def end() -> None:
        ending()
        lanes.end_reading()

    return Server(config, protocol, end)


def listen_at(path: Path) -> socket.socket:
    """A Unix socket with mode 0600 from its first moment; a stale one, at which nobody listens, is replaced.

    Raises:
        DaemonRunning: A process listens there.
    """
    if _listened_at(path):
        raise DaemonRunning(
            f"another process listens on {path}",
            why="it accepts connections there, but does not hold the lock of the run directory",
            hint="stop that process, or set CLAW_RUN to another directory",
        )
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    os.fchmod(listener.fileno(), 0o600)  # Linux gives it to the name; a umask would also reach other threads' files
    listener.bind(str(path))
    listener.listen(BACKLOG)
    return listener


def _listened_at(path: Path) -> bool:
    """Whether a process listens on a socket. Only a refusal shows that none does: one that is busy may not answer."""
    try:
        unix_http.connected(path, within=CONNECT).close()
    except (ConnectionRefusedError, FileNotFoundError):
        return False
    except OSError:
        return True
    return True


def identity(path: Path) -> tuple[int, int] | None:
    """Device and inode of a name, which tell one socket from the next of the same name; None if there is none."""
    with suppress(FileNotFoundError):
        status = path.lstat()
        return status.st_dev, status.st_ino
    return None


def listen_on(address: tuple[str, int]) -> socket.socket:
    """A TCP socket on an address of this host.

    Raises:
        PortTaken: Another process listens there.
        ClawError: The address is not this host's.
    """
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    # With the protocol named, asyncio sends small pieces at once; without, every answer waits 40 ms for an ACK.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        problem = PortTaken if error.errno == errno.EADDRINUSE else ClawError
        raise problem(
            f"the API cannot listen on {shown(address)}",
            why=error.strerror or str(error),
            hint="choose another address or port with --listen",
        ) from error
    return listener


def check_reach(address: tuple[str, int] | None, *, expose: bool) -> None:
    """Refuse an address that other machines can reach, unless it was explicitly exposed. Raises `InvalidSpec`."""
    if address is not None and not ipaddress.ip_address(address[0]).is_loopback and not expose:
        raise InvalidSpec(
            f"{shown(address)} can be reached from other machines",
            why="the API uses plain HTTP: others on the network could read tokens and answers",
            hint="put a TLS proxy in front of 127.0.0.1, or add --expose if the network is private",
        )


def shown(address: tuple[str, int]) -> str:
    """`127.0.0.1:7070`, `[::1]:7070`."""
    return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"
