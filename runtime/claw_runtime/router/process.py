"""The router as a process: it listens, sweeps late clients, and ends in good order.

It knows nothing of tenants but the daemon's table, and imports no other room: a fault of the daemon is none here. While
there is no daemon, it works with the last table; requests for tenants that sleep wait as long as they may, and are then
told when to come back.
"""

import asyncio
import errno
import importlib
import signal
import socket
import time
from collections.abc import Callable, Coroutine
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final

import structlog

from claw_runtime import __version__
from claw_runtime.errors import ClawError, PortTaken
from claw_runtime.fsutil import open_files
from claw_runtime.router.control import Control
from claw_runtime.router.door import Gate
from claw_runtime.router.links import Client, Connections
from claw_runtime.router.own import HEALTH, NAME, Own
from claw_runtime.router.presence import Presence, claimed

log = structlog.get_logger(__name__)

DRAIN: Final = 10.0
"""Seconds that requests under way may take when the router ends."""
SWEEP: Final = 1.0
"""Seconds between two looks for clients that take too long."""
BACKLOG: Final = 1024
OPEN_FILES: Final = 65_536
_RESERVED: Final = 64
"""Files that are no connections."""

Address = tuple[str, int]


def run(
    address: Address,
    *,
    lock: Path,
    control: Path,
    began: Callable[[Presence], None] = lambda _: None,
    listen: Callable[[Address], socket.socket] | None = None,
) -> None:
    """Be the router of a run directory until SIGTERM or SIGINT.

    Args:
        address: Where clients reach it; port 0 takes any.
        lock: The file that names the router; `control`: the socket for the daemon. Both are in the run directory.
        began: Called when it listens.
        listen: Makes the socket; default: `listening`.

    Raises:
        PortTaken: Another process listens at the address.
        DaemonRunning: Another router has the run directory.
        ClawError: The address is not this host's.
    """
    files = open_files(OPEN_FILES)
    with ExitStack() as stack:  # the lock is given up before the last requests end, so that a successor may begin
        describe = stack.enter_context(claimed(lock))
        with (listen or listening)(address) as listener:
            presence = describe(shown(listener.getsockname()[:2]), __version__)
            most = max(16, (files - _RESERVED) // 2)
            _loop(_serve(listener, control, presence, began=began, leave=stack.close, most=most))


def _loop(main: Coroutine[Any, Any, None]) -> None:
    """Run it on uvloop where that is installed."""
    factory: Any = None
    with suppress(ImportError):
        factory = importlib.import_module("uvloop").new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main)


async def _serve(
    listener: socket.socket,
    control: Path,
    presence: Presence,
    *,
    began: Callable[[Presence], None],
    leave: Callable[[], None],
    most: int,
) -> None:
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    daemon = Control()
    gate = daemon.gate = Gate(daemon, time.time)
    connections = daemon.connections = Connections(most=most)
    own = Own(gate, presence.name)
    await daemon.listen(control)
    server = await loop.create_server(lambda: Client(own, connections), sock=listener, backlog=BACKLOG)
    log.info("the router listens", address=presence.address, event_loop=type(loop).__module__.partition(".")[0])
    began(presence)
    while not ended.is_set():
        with suppress(TimeoutError):
            async with asyncio.timeout(SWEEP):
                await ended.wait()
        connections.sweep()
    # What is given up first is what a successor needs: address, socket and lock.
    server.close()
    daemon.close()
    await asyncio.sleep(0.01)  # uvloop closes them in its next rounds
    listener.close()
    control.unlink(missing_ok=True)
    leave()
    await _drain(gate, connections)


async def _drain(gate: Gate, connections: Connections) -> None:
    """Let requests under way come to their end, within `DRAIN` seconds."""
    loop = asyncio.get_running_loop()
    until = loop.time() + DRAIN
    gate.end()
    connections.drain()
    while connections.clients and loop.time() < until:
        await asyncio.sleep(0.05)
        connections.sweep()
    if cut := len(connections.clients):
        log.warning("connections were cut at the router's end", connections=cut)
    for client in list(connections.clients):
        client.abort()
    await asyncio.sleep(0)


def listening(address: Address) -> socket.socket:
    """A TCP socket that listens on an address of this host.

    Raises:
        PortTaken: Another process listens there.
        ClawError: The address is not this host's, or needs a right that this user lacks.
    """
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind(address)
        made.listen(BACKLOG)
    except OSError as error:
        made.close()
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(
                f"the router cannot listen on {shown(address)}",
                why="another process listens there",
                hint="end that process, or set CLAW_INGRESS to another address",
                port=address[1],
            ) from error
        raise ClawError(
            f"the router cannot listen on {shown(address)}",
            why=error.strerror or str(error),
            hint="set CLAW_INGRESS to an address of this host, with a port above 1023",
        ) from error
    return made


def shown(address: Address) -> str:
    """`127.0.0.1:8080`, `[::1]:8080`."""
    return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"


def answers(presence: Presence, within: float = 5.0) -> bool:
    """Whether that router answers at its address: it, and no other server."""
    host, _, port = presence.address.rpartition(":")
    bare = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host.strip("[]"), host.strip("[]"))  # noqa: S104
    wanted = NAME + b": " + presence.name.encode()
    try:
        with socket.create_connection((bare, int(port)), timeout=within) as connection:
            connection.sendall(b"GET " + HEALTH + b" HTTP/1.1\r\nHost: claw\r\nConnection: close\r\n\r\n")
            got = b""
            while len(got) < 4096 and (more := connection.recv(4096)):
                got += more
    except OSError:
        return False
    return got.startswith(b"HTTP/1.1 200 ") and wanted in got.split(b"\r\n")
