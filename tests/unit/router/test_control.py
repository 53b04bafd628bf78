"""The router and the daemon talk over one socket: tables and failures one way, wakes and activity the other."""

import asyncio
import json
import stat
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from claw_runtime.router.control import Control
from claw_runtime.router.door import Gate
from claw_runtime.router.table import digest
from claw_runtime.router.ways import Traffic

ROUTE = {
    "tenant": "alice",
    "rung": "active",
    "address": ["127.0.0.1", 4000],
    "secret": "own",
    "fenced": False,
    "hooks": [],
}
HOOK = {"path": "/hooks", "methods": ["POST"], "most": 100, "rate": 60}
TABLE = {
    "domain": "claw.example",
    "routes": [{**ROUTE, "hooks": [HOOK]}],
    "tokens": [{"tenant": "alice", "sha256": digest(b"claw_1"), "expires_at": None}],
    "links": [],
    "key": "00" * 32,
}


class Daemon:
    """The other end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def say(self, what: object) -> None:
        self.writer.write(json.dumps(what).encode() + b"\n")

    async def hear(self) -> Any:
        async with asyncio.timeout(10):
            return json.loads(await self.reader.readline())


def run(
    tmp_path: Path,
    test: Callable[[Control, Gate, Callable[[], Coroutine[Any, Any, Daemon]]], Coroutine[Any, Any, None]],
) -> None:
    async def body() -> None:
        control, opened = Control(), list[Daemon]()
        control.gate = Gate(control, lambda: 0.0)
        await control.listen(tmp_path / "router.sock")

        async def connect() -> Daemon:
            opened.append(Daemon(*await asyncio.open_unix_connection(tmp_path / "router.sock")))
            return opened[-1]

        try:
            await test(control, control.gate, connect)
        finally:
            control.close()
            for one in opened:
                one.writer.close()
            await asyncio.sleep(0.05)

    asyncio.run(body())


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def test_a_table_arrives_whole(tmp_path: Path) -> None:
    """Routes with their hooks, and passes by digest; the socket is this user's alone."""

    async def test(control: Control, gate: Gate, connect: Callable[[], Coroutine[Any, Any, Daemon]]) -> None:
        assert stat.S_IMODE((tmp_path / "router.sock").stat().st_mode) == 0o600
        daemon = await connect()
        daemon.say({"table": TABLE})
        await until(lambda: gate.table.routes)
        assert gate.table.domain == b"claw.example"
        route = gate.table.routes["alice"]
        assert (route.address, route.secret, route.is_open) == (("127.0.0.1", 4000), b"own", True)
        assert (route.hooks[0].path, route.hooks[0].methods, route.hooks[0].most) == (b"/hooks", {b"POST"}, 100)
        assert gate.table.opens(gate.table.tokens, b"claw_1", "alice", 0.0)

    run(tmp_path, test)


def test_a_wake_is_heard_also_by_a_daemon_that_comes_later(tmp_path: Path) -> None:
    """What nobody could hear is said first, once for each tenant."""

    async def test(control: Control, gate: Gate, connect: Callable[[], Coroutine[Any, Any, Daemon]]) -> None:
        control.wake("alice", "http")
        control.wake("alice", "ws")
        control.wake("bob", "hook")
        daemon = await connect()
        assert await daemon.hear() == {"wake": {"tenant": "alice", "trigger": "http"}}
        assert await daemon.hear() == {"wake": {"tenant": "bob", "trigger": "hook"}}
        control.wake("alice", "frame")
        assert await daemon.hear() == {"wake": {"tenant": "alice", "trigger": "frame"}}

    run(tmp_path, test)


def test_the_last_table_stays_when_the_daemon_goes(tmp_path: Path) -> None:
    """Neither the end of a conversation nor nonsense changes what the router knows; the newer daemon is heard."""

    async def test(control: Control, gate: Gate, connect: Callable[[], Coroutine[Any, Any, Daemon]]) -> None:
        first = await connect()
        first.say({"table": TABLE})
        await until(lambda: gate.table.routes)
        second = await connect()
        assert await first.reader.read() == b""
        second.writer.write(b"nonsense\n")
        assert await second.reader.read() == b""
        assert gate.table.routes
        third = await connect()
        third.say({"table": {**TABLE, "routes": []}})
        await until(lambda: not gate.table.routes)

    run(tmp_path, test)


def test_activity_is_given_as_ages(tmp_path: Path) -> None:
    """Open requests and sockets are counted; times are seconds ago, so that clocks need not agree."""

    async def test(control: Control, gate: Gate, connect: Callable[[], Coroutine[Any, Any, Daemon]]) -> None:
        now = asyncio.get_running_loop().time()
        gate.traffic["alice"] = Traffic(requests=1, sockets=2, frame_at=now - 5.0)
        daemon = await connect()
        daemon.say({"activity": True})
        (row,) = (await daemon.hear())["activity"]
        assert (row["tenant"], row["requests"], row["sockets"], row["held"]) == ("alice", 1, 2, 0)
        assert 5.0 <= row["frame_age"] < 15.0
        assert row["request_age"] is None

    run(tmp_path, test)
