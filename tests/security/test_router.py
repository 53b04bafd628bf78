"""Many clients of several tenants at once, while tenants move and sleep, the daemon goes and the router restarts."""

import asyncio
import random
import signal
import subprocess
import time
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from claw_runtime.tenancy import Layout
from fakes.routing import ARGV, FakeDaemon, route, table, there

pytestmark = pytest.mark.spawns
REQUESTS = 10_000
CLIENTS = 24
TOKENS = {name: f"claw_{name}" for name in ("alice", "bob", "carol")}


class Programs:
    """Each tenant's program, at two addresses: its answers hold its name, and the path and body of the request."""

    def __init__(self) -> None:
        self.at: dict[str, list[list[Any]]] = {}
        self._servers = list[asyncio.Server]()

    async def open(self) -> None:
        for name in TOKENS:
            for _ in range(2):
                server = await asyncio.start_server(lambda r, w, name=name: self._serve(name, r, w), "127.0.0.1", 0)
                self._servers.append(server)
                self.at.setdefault(name, []).append(list(server.sockets[0].getsockname()))

    async def _serve(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:-2])
                body = await reader.readexactly(int(fields.get("content-length", "0")))
                said = f"{name} {head.split(' ')[1]} ".encode() + body
                if len(said) % 2:
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(said) + said)
                else:
                    chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (len(said), said)
                    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)
                await writer.drain()

    def close(self) -> None:
        for server in self._servers:
            server.close()


class Client:
    """One connection at a time, kept for requests to whatever tenant."""

    def __init__(self, port: int, seen: Counter[str]) -> None:
        self._port, self._seen = port, seen
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, name: str, path: str, body: bytes) -> str:
        """The whole answer, after as many attempts as are needed."""
        method = "POST" if body else "GET"
        head = f"{method} /~{name}{path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKENS[name]}\r\n"
        sent = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body if body else f"{head}\r\n".encode()
        while True:
            try:
                status, content = await self._once(sent)
            except (ConnectionError, asyncio.IncompleteReadError):
                self._seen["closed"] += 1
                await self.forget()
                await asyncio.sleep(0.02)
                continue
            self._seen[str(status)] += 1
            if status == 503:
                await asyncio.sleep(0.02)
                continue
            assert status == 200, (status, content)
            return content.decode()

    async def _once(self, sent: bytes) -> tuple[int, bytes]:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(sent)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        if "transfer-encoding: chunked" in head:
            size = int(await reader.readuntil(b"\r\n"), 16)
            content = (await reader.readexactly(size + 2))[:-2]
            assert await reader.readexactly(5) == b"0\r\n\r\n"
        else:
            content = await reader.readexactly(int(head.split("content-length: ")[1].split("\r\n")[0]))
        if "connection: close" in head:
            await self.forget()
        return int(head.split(" ")[1]), content

    async def forget(self) -> None:
        """Close the connection."""
        streams, self._streams = self._streams, None
        if streams is not None:
            streams[1].close()
            with suppress(ConnectionError):
                await streams[1].wait_closed()


class Chaos:
    """A daemon that moves and fences tenants, lets them sleep and wakes them, and goes away; and a restart of the
    router."""

    def __init__(self, layout: Layout, programs: Programs, dice: random.Random) -> None:
        self._layout, self._programs, self._dice = layout, programs, dice
        self.routers = list[subprocess.Popen[bytes]]()
        self.address = "127.0.0.1:0"

    async def start(self) -> int:
        self.routers.append(subprocess.Popen([*ARGV, self.address, str(self._layout.run)], stderr=subprocess.DEVNULL))
        until = time.monotonic() + 20
        while (found := await asyncio.to_thread(there, self._layout)) is None or found.pid != self.routers[-1].pid:
            assert time.monotonic() < until
            await asyncio.sleep(0.02)
        self.address = found.address
        self._say()
        return int(found.address.rpartition(":")[2])

    def _say(self, **changed: Any) -> None:
        daemon = FakeDaemon(self._layout.router_socket)
        rows = []
        for name in TOKENS:
            row = route(name, self._dice.choice(self._programs.at[name]))
            rows.append({**row, **changed.get(name, {})})
        daemon.say({"table": table(*rows, tokens=TOKENS)})
        daemon.close()

    async def go(self) -> None:
        """One change after another; each daemon says one table and goes away."""
        for count in range(1_000_000):
            name = self._dice.choice(list(TOKENS))
            self._say(**{name: self._dice.choice([{"fenced": True}, {"rung": "parked", "address": None}])})
            await asyncio.sleep(0.05)
            self._say()
            await asyncio.sleep(0.05)
            if count in (8, 20):
                self.routers[-1].send_signal(signal.SIGTERM)
                await self.start()


def test_no_answer_is_lost_and_none_is_anothers(tmp_path: Path) -> None:
    """Ten thousand requests with and without bodies over connections that change tenants: each answer is that tenant's,
    for that path and that body."""
    dice, seen, wrong = random.Random(14), Counter[str](), list[str]()
    layout = Layout(home=tmp_path, run=tmp_path)

    async def client(port: int, number: int) -> None:
        one = Client(port, seen)
        for count in range(REQUESTS // CLIENTS + 1):
            name, path = dice.choice(list(TOKENS)), f"/{number}-{count}"
            body = dice.randbytes(dice.choice([1, 300, 5000])).hex().encode() if dice.random() < 0.4 else b""
            answer = await one.ask(name, path, body)
            if answer != f"{name} {path} {body.decode()}":
                wrong.append(f"{name} {path}: {answer[:60]}")
        await one.forget()

    async def body() -> None:
        programs = Programs()
        await programs.open()
        chaos = Chaos(layout, programs, dice)
        try:
            port = await chaos.start()
            going = asyncio.ensure_future(chaos.go())
            async with asyncio.timeout(240):
                await asyncio.gather(*(client(port, number) for number in range(CLIENTS)))
            assert not going.done(), going.exception()
            going.cancel()
        finally:
            programs.close()
            for router in chaos.routers:
                router.kill()
                router.wait(20)
            await asyncio.sleep(0.2)  # the programs' connections close
        assert len(chaos.routers) > 1

    asyncio.run(body())
    assert wrong == []
    assert seen["200"] >= REQUESTS
    assert set(seen) <= {"200", "503", "closed"}
