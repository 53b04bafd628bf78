"""Two connections in a pair, with real sockets: what a client sends reaches its tenant, and nothing stays behind."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from claw_runtime.router import links, sides
from claw_runtime.router.heads import Request
from claw_runtime.router.links import Client, Connections
from claw_runtime.router.ways import Decision, Refusal, Traffic, Way, refused

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class Door:
    """Sends every request to one address; `held` requests wait for an event."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address, self.traffic, self.poked = address, Traffic(), 0
        self.held: asyncio.Event | None = None
        self.cancelled = 0

    def decide(self, request: Request, client: Client) -> Decision | Awaitable[Decision]:
        if request.target == b"/no":
            return refused(401, "no")
        way = Way(
            "alice",
            self.address,
            request.method + b" " + request.target + b" HTTP/1.1",
            self._fields(request),
            self.traffic,
        )
        return way if self.held is None else self._later(self.held, way)

    def _fields(self, request: Request) -> tuple[tuple[bytes, bytes], ...]:
        return ((b"host", request.host), *request.fields)

    async def _later(self, event: asyncio.Event, way: Way) -> Decision:
        try:
            await event.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return way

    async def again(self, way: Way) -> Decision:
        return Refusal(b"503 Service Unavailable", ((b"retry-after", b"1"),))

    def poke(self, tenant: str) -> None:
        self.poked += 1


class Rig:
    """A router before one tenant, and a client's connection."""

    def __init__(self, door: Door, port: int, connections: Connections) -> None:
        self.door, self.port, self.connections = door, port, connections

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(self, data: bytes) -> bytes:
        """Everything that comes back until the connection ends."""
        reader, writer = await self.open()
        writer.write(data)
        async with asyncio.timeout(20):
            got = await reader.read()
        writer.close()
        return got


@asynccontextmanager
async def rig(tenant: Handler):
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await tenant(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    behind = await asyncio.start_server(handle, "127.0.0.1", 0)
    door, connections = Door(behind.sockets[0].getsockname()), Connections()
    front = await asyncio.get_running_loop().create_server(lambda: Client(door, connections), "127.0.0.1", 0)
    try:
        yield Rig(door, front.sockets[0].getsockname()[1], connections)
    finally:
        front.close()
        behind.close()
        for one in list(connections.clients):
            one.abort()
        await asyncio.sleep(0.05)  # what was closed is closed by the loop


async def head(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers each request with its own head and body, in chunks."""
    while True:
        first = await head(reader)
        body = b""
        if b"chunked" in first:
            while size := int(await reader.readline(), 16):
                body += (await reader.readexactly(size + 2))[:-2]
            await reader.readline()
        elif b"content-length: " in first:
            body = await reader.readexactly(int(first.split(b"content-length: ")[1].split(b"\r\n")[0]))
        content = first + body
        writer.write(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(content), content)
        )
        await writer.drain()


def run(test: Callable[[Rig], Awaitable[None]], tenant: Handler = echo) -> None:
    async def body() -> None:
        async with rig(tenant) as made:
            await test(made)
            async with asyncio.timeout(20):
                while made.door.traffic.requests or made.door.traffic.sockets:
                    await asyncio.sleep(0.01)

    asyncio.run(body())


def test_requests_follow_each_other() -> None:
    """Two requests over one connection, the second sent early, get their own answers; the second ends it."""

    async def test(made: Rig) -> None:
        close = b"POST /2 HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc"
        got = await made.ask(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n" + close)
        one, two = got.split(b"HTTP/1.1 200 OK")[1:]
        assert b"GET /1 HTTP/1.1" in one
        assert b"connection: close" not in one
        assert b"POST /2 HTTP/1.1" in two
        assert b"connection: close" in two
        assert b"content-length: 3\r\n\r\nabc" in two
        assert made.door.traffic.request_at is not None

    run(test)


def test_a_chunked_body_is_framed_anew() -> None:
    """What comes in chunks, cut anywhere, arrives in chunks."""

    async def test(made: Rig) -> None:
        reader, writer = await made.open()
        head = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        for byte in head + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n":
            writer.write(bytes((byte,)))
            await writer.drain()
        assert b"abcde\r\n0\r\n\r\n" in await reader.read()
        writer.close()

    run(test)


def test_an_old_client_gets_no_chunks() -> None:
    """HTTP/1.0 gets the bytes, and their end is that of the connection."""

    async def test(made: Rig) -> None:
        got = await made.ask(b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n")
        assert b"transfer-encoding" not in got
        assert got.endswith(b"\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n")

    run(test)


def test_large_bodies_pass_both_ways_in_little_memory() -> None:
    """20 MB there and back arrive unchanged, while a slow reader keeps at most some pieces in the router."""
    content = random.Random(1).randbytes(20_000_000)

    async def tenant(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content))
        while piece := await reader.read(50_000):
            writer.write(piece)
            await writer.drain()

    async def test(made: Rig) -> None:
        reader, writer = await made.open()
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(content))
        writer.write(content)
        await asyncio.sleep(0.5)
        (client,) = made.connections.clients
        assert client.transport is not None
        assert client.transport.get_write_buffer_size() <= sides.HIGH + sides.PIECE
        await head(reader)
        assert await reader.readexactly(len(content)) == content
        writer.close()

    run(test, tenant)


def test_a_websocket_is_passed_on_and_counted() -> None:
    """Bytes go both ways at once; a frame with data counts as a sign of a person, a ping does not."""

    async def tenant(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await head(reader)
        assert b"upgrade: websocket" in asked
        assert b"connection: Upgrade" in asked
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x81\x02hi")
        while piece := await reader.read(1000):
            writer.write(piece)

    async def test(made: Rig) -> None:
        reader, writer = await made.open()
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        assert b"101 Switching Protocols" in await head(reader)
        assert await reader.readexactly(4) == b"\x81\x02hi"
        assert (made.door.traffic.requests, made.door.traffic.sockets) == (0, 1)
        assert made.door.traffic.holders == {"": 1}
        writer.write(b"\x89\x80\0\0\0\0")
        assert await reader.readexactly(6) == b"\x89\x80\0\0\0\0"
        assert made.door.traffic.frame_at is None
        writer.write(b"\x81\x81\0\0\0\0a")
        assert await reader.readexactly(7) == b"\x81\x81\0\0\0\0a"
        assert made.door.traffic.frame_at is not None
        assert made.door.poked == 1
        writer.close()

    run(test, tenant)


def test_a_websocket_of_a_program_that_ends_is_told_to_come_back() -> None:
    """The client gets the close frame 1012 when its tenant's side ends."""

    async def tenant(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        await writer.drain()

    async def test(made: Rig) -> None:
        got = await made.ask(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        assert got.endswith(b"\r\n\r\n" + links.RESTARTING)

    run(test, tenant)


@pytest.mark.parametrize(
    "answer", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: a\r\n\r\n"]
)
def test_a_program_without_an_answer_gives_502(answer: bytes) -> None:
    """One that closes, answers nonsense, or changes the protocol unasked: the client learns it at once."""

    async def tenant(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        writer.write(answer)

    async def test(made: Rig) -> None:
        assert (await made.ask(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))).startswith(b"HTTP/1.1 502 ")

    run(test, tenant)


def test_half_an_answer_ends_the_connection() -> None:
    """A client never takes half a body for a whole one."""

    async def tenant(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
        await writer.drain()

    async def test(made: Rig) -> None:
        reader, writer = await made.open()
        writer.write(GET)
        await head(reader)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await reader.readexactly(10)
        writer.close()

    run(test, tenant)


def test_nothing_of_a_request_after_a_refusal_is_a_request() -> None:
    """The body of a refused request is never read as the next one."""

    async def test(made: Rig) -> None:
        inner = b"GET /inner HTTP/1.1\r\nHost: a\r\n\r\n"
        got = await made.ask(b"POST /no HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(inner) + inner)
        assert got.startswith(b"HTTP/1.1 401 ")
        assert b"inner" not in got

    run(test)


def test_a_tenant_that_cannot_be_reached_is_asked_for_again() -> None:
    """After three tries the door decides anew."""

    async def test(made: Rig) -> None:
        made.door.address = ("127.0.0.1", 1)
        got = await made.ask(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert got.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1" in got

    run(test)


def test_a_client_that_waits_may_leave() -> None:
    """Whoever hangs up while a tenant wakes waits no longer, and takes no place."""

    async def test(made: Rig) -> None:
        made.door.held = asyncio.Event()
        _, writer = await made.open()
        writer.write(GET)
        while not made.connections.clients:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        writer.close()
        async with asyncio.timeout(5):
            while made.connections.clients:
                await asyncio.sleep(0.01)
        assert made.door.cancelled == 1

    run(test)


def test_the_body_of_a_request_that_waits_stays_with_its_client() -> None:
    """While a tenant wakes, the router takes no more than a piece or two of the body."""

    async def test(made: Rig) -> None:
        made.door.held = asyncio.Event()
        reader, writer = await made.open()
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\nConnection: close\r\n\r\n")
        writer.write(b"a" * 9_000_000)
        await asyncio.sleep(0.3)
        (client,) = made.connections.clients
        assert sides.PIECE <= client.early <= 2 * sides.PIECE
        made.door.held.set()
        assert len(await reader.read()) > 9_000_000
        writer.close()

    run(test)


@pytest.mark.parametrize(
    ("sent", "status"),
    [(b"GET / HT", b"408"), (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc", b"408"), (b"", b"")],
)
def test_a_client_that_takes_for_ever_is_ended(sent: bytes, status: bytes) -> None:
    """Half a head, half a body, or nothing at all: the connection ends when its time is over."""

    async def test(made: Rig) -> None:
        reader, writer = await made.open()
        writer.write(sent)
        await asyncio.sleep(0.2)
        (client,) = made.connections.clients
        made.connections.sweep()
        assert client in made.connections.clients
        assert client.until is not None
        client.until = 0.0
        made.connections.sweep()
        got = await reader.read()
        assert got.split(b" ")[1:2] == ([status] if status else [])
        writer.close()

    run(test)


def test_a_client_that_expects_permission_gets_it_when_the_tenant_is_reached() -> None:
    """`100 Continue` comes first, then the answer to the body."""

    async def test(made: Rig) -> None:
        reader, writer = await made.open()
        writer.write(
            b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\nConnection: close\r\n\r\n"
        )
        assert await head(reader) == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"abc")
        assert b"abc" in await reader.read()
        writer.close()

    run(test)


def test_at_the_routers_end_each_connection_ends_in_good_order() -> None:
    """A WebSocket gets the close frame 1012, a connection without a request is closed, and an answer under way ends
    first."""
    going = asyncio.Event()

    async def tenant(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"upgrade: websocket" in (await head(reader)):
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
            await reader.read()
            return
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        await going.wait()
        writer.write(b"cd")

    async def test(made: Rig) -> None:
        socket, socket_writer = await made.open()
        socket_writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        await head(socket)
        slow, slow_writer = await made.open()
        slow_writer.write(GET)
        await head(slow)
        idle, idle_writer = await made.open()
        await until(lambda: len(made.connections.clients) == 3)
        made.connections.drain()
        assert await socket.read() == links.RESTARTING
        assert await idle.read() == b""
        going.set()
        assert await slow.read() == b"abcd"
        for writer in (socket_writer, slow_writer, idle_writer):
            writer.close()

    run(test, tenant)


def test_connections_beyond_the_most_are_not_heard() -> None:
    """Those that are open go on; when one ends, the next is heard."""

    async def tenant(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async def test(made: Rig) -> None:
        made.connections.most = 1
        first, first_writer = await made.open()
        await until(lambda: len(made.connections.clients) == 1)
        second, second_writer = await made.open()
        with suppress(ConnectionError):
            assert await second.read() == b""
        second_writer.close()
        first_writer.write(GET)
        assert b"200 OK" in await head(first)
        first_writer.close()
        await until(lambda: not made.connections.clients)
        assert (await made.ask(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))).endswith(b"ok")

    run(test, tenant)
