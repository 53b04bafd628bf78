"""Each route has a lane, and no tenant, token or client that hung up takes a lane from the others."""

import asyncio
import gc
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from claw_runtime.access.tokens import LOCAL, Grant
from claw_runtime.api import admission, lanes, readiness, routing
from claw_runtime.api.app import create_api
from claw_runtime.api.lanes import LANES, Lane, lane_of, tenant_of
from claw_runtime.api.turns import Lanes
from claw_runtime.errors import Busy, StoreUnavailable
from claw_runtime.tenancy import TenantId
from fakes.faces import Api, client, listening, runtime_of, serving
from fakes.world import WORKLOAD, World

ALICE = "/api/v1/tenants/alice"
SMALL = Lane(name="test", slots=6, tenant=2, token=4, reserve=1)
NARROW = Lane(name="narrow", slots=1, tenant=1, token=1, reserve=0)
pytestmark = pytest.mark.world(workload=WORKLOAD.replace("max_size: 3", "max_size: 40"))


def grant(name: str) -> Grant:
    return Grant(name=name, scope="admin")


class TestTable:
    def test_every_route_has_a_lane(self, world: World) -> None:
        """There is no route outside the table, and no row without a route."""
        paths = create_api(runtime_of(world)).openapi()["paths"]
        routes = {f"{method.upper()} {path}" for path, operations in paths.items() for method in operations}

        assert routes == set(LANES)

    def test_only_probes_have_none(self) -> None:
        """What needs no lane answers without a thread of its own."""
        assert [row for row, lane in LANES.items() if lane is None] == ["GET /livez", "GET /readyz"]

    def test_every_share_is_smaller_than_its_lane(self) -> None:
        """One tenant and one token leave room for others, and tokens leave room for the host's own user."""
        for lane in {lane.name: lane for lane in (*LANES.values(), lanes.FOLLOWERS) if lane}.values():
            assert lane.tenant < lane.slots - lane.reserve
            assert lane.token < lane.slots - lane.reserve
            assert lane.reserve > 0

    @pytest.mark.parametrize(
        ("method", "path", "query", "lane"),
        [
            ("GET", f"{ALICE}/logs", b"tail=1", lanes.LOGS),
            ("GET", f"{ALICE}/logs", b"follow=false", lanes.LOGS),
            ("GET", f"{ALICE}/logs", b"follow=true", lanes.FOLLOWERS),
            ("GET", f"{ALICE}/logs", b"follow=0&follow=ON", lanes.FOLLOWERS),
            ("GET", f"{ALICE}/files/a/b/c", b"", lanes.STREAMS),
            ("GET", f"{ALICE}/files", b"", lanes.READERS),
            ("POST", f"{ALICE}/snapshots/recover", b"", lanes.CHANGES),
            ("POST", f"{ALICE}/claim", b"", lanes.CLAIMS),
            ("GET", "/nowhere", b"", lanes.LOOKS),
            ("GET", "/livez", b"", None),
        ],
    )
    def test_a_request_runs_in_the_lane_of_its_route(
        self, method: str, path: str, query: bytes, lane: Lane | None
    ) -> None:
        """By method and path; a log that is followed is another kind than one that ends."""
        assert lane_of(method, path, query) is lane

    @pytest.mark.parametrize(
        ("path", "tenant"), [(ALICE, "alice"), (f"{ALICE}/files/x/y", "alice"), ("/api/v1/tenants", None)]
    )
    def test_the_path_names_the_tenant(self, path: str, tenant: str | None) -> None:
        """The share of a tenant is counted whatever the token."""
        assert tenant_of(path) == tenant


class TestTurns:
    def test_a_tenant_gets_its_share_and_others_the_rest(self) -> None:
        """The third request of a tenant waits; one of another tenant does not."""

        async def go() -> None:
            some = Lanes(patience=0.05)
            async with some.turn(SMALL, grant("a"), "alice"), some.turn(SMALL, grant("b"), "alice"):
                with pytest.raises(Busy, match="2 such requests of tenant 'alice'") as refused:
                    async with some.turn(SMALL, grant("c"), "alice"):
                        pass
                assert refused.value.facts == {"retry_after": 1, "status": 429}
                async with some.turn(SMALL, grant("c"), "bob"):
                    pass

        asyncio.run(go())

    def test_a_token_gets_its_share_over_all_tenants(self) -> None:
        """A token for many tenants leaves room for another token."""

        async def go() -> None:
            some = Lanes(patience=0.05)
            async with AsyncTurns(some, [("a", f"t{n}") for n in range(SMALL.token)]):
                with pytest.raises(Busy, match="4 such requests of the token 'a'"):
                    async with some.turn(SMALL, grant("a"), "other"):
                        pass
                async with some.turn(SMALL, grant("b"), "other"):
                    pass

        asyncio.run(go())

    def test_the_host_itself_has_places_left(self) -> None:
        """When tokens have all that they may have, a request over the socket still gets its place, at once."""

        async def go() -> None:
            some = Lanes(patience=0.05)
            async with AsyncTurns(some, [(f"t{n}", f"t{n}") for n in range(SMALL.slots - SMALL.reserve)]):
                with pytest.raises(Busy, match="5 such requests are in progress") as refused:
                    async with some.turn(SMALL, grant("x"), "x"):
                        pass
                assert refused.value.facts["status"] == 503
                async with some.turn(SMALL, LOCAL, "t0"):
                    pass

        asyncio.run(go())

    @pytest.mark.parametrize("lane", [SMALL, NARROW], ids=["small", "narrow"])
    def test_tenants_take_turns(self, lane: Lane) -> None:
        """One that waits with many requests is not served before one that waits with a single one, whether its share
        keeps it back or only its turn."""

        async def go() -> list[str]:
            some, order = Lanes(patience=20), list[str]()

            async def one(tenant: str) -> None:
                async with some.turn(lane, grant(tenant), tenant):
                    order.append(tenant)

            async with AsyncTurns(some, [(f"t{n}", f"t{n}") for n in range(lane.slots - lane.reserve)], lane):
                waiting = [asyncio.ensure_future(one("greedy")) for _ in range(9)]
                await asyncio.sleep(0)
                waiting.append(asyncio.ensure_future(one("modest")))
                await asyncio.sleep(0.01)
                assert order == []
            await asyncio.gather(*waiting)
            return order

        order = asyncio.run(go())
        assert sorted(order) == ["greedy"] * 9 + ["modest"]
        assert order.index("modest") <= 2

    def test_more_may_not_even_wait(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The number of waiting requests is bounded too: each holds memory."""
        monkeypatch.setattr("claw_runtime.api.turns.WAITING_MOST", 3)

        async def go() -> int:
            some = Lanes(patience=0.2)

            async def one() -> bool:
                try:
                    async with some.turn(SMALL, grant("a"), "alice"):
                        return True
                except Busy:
                    return False

            async with AsyncTurns(some, [("a", "alice"), ("a", "alice")]):
                waiting = [asyncio.ensure_future(one()) for _ in range(10)]
                await asyncio.sleep(0.05)
                return sum(task.done() for task in waiting)

        assert asyncio.run(go()) == 7

    def test_a_paused_request_comes_back_before_new_ones_of_its_tenant(self) -> None:
        """Otherwise a new request would wait for the paused one, and the paused one behind the new one."""

        async def go() -> None:
            some = Lanes(patience=20)

            async def new() -> None:
                async with some.turn(SMALL, grant("a"), "alice"):
                    pass

            async with some.turn(SMALL, grant("a"), "alice") as one, some.turn(SMALL, grant("a"), "alice"):
                one.pause()
                late = asyncio.ensure_future(new())
                await asyncio.sleep(0.01)
                assert not late.done()
                await asyncio.wait_for(one.resume(), 5)
            await late

        asyncio.run(go())

    def test_nothing_is_counted_when_all_are_gone(self) -> None:
        """Whatever the order in which requests wait, are refused, cancelled or served, all places come back."""

        async def go() -> None:
            some = Lanes(patience=0.02)

            async def one(number: int) -> None:
                try:
                    async with some.turn(SMALL, grant(f"k{number % 3}"), f"t{number % 4}") as turn:
                        await asyncio.sleep(0.001 * (number % 7))
                        turn.pause()
                        await asyncio.sleep(0.001)
                        if number % 5:
                            await turn.resume()
                except Busy:
                    pass

            tasks = [asyncio.ensure_future(one(number)) for number in range(200)]
            await asyncio.sleep(0.005)
            for task in tasks[::9]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            queue = some.queue(SMALL)
            assert (queue.running, queue._of_tenant, queue._of_token, queue._paused) == (0, {}, {}, {})
            assert not queue._waiting

        asyncio.run(go())


class AsyncTurns:
    """Several turns at once, until the block ends."""

    def __init__(self, some: Lanes, callers: list[tuple[str, str]], lane: Lane = SMALL) -> None:
        self._some, self._callers, self._lane = some, callers, lane
        self._open: list[Any] = []

    async def __aenter__(self) -> None:
        for token, tenant in self._callers:
            turn = self._some.turn(self._lane, grant(token), tenant)
            await turn.__aenter__()
            self._open.append(turn)

    async def __aexit__(self, *_: object) -> None:
        for turn in self._open:
            await turn.__aexit__(None, None, None)


@contextmanager
def stuck(target: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Semaphore]:
    """A method that hangs until the block ends; the semaphore counts its calls."""
    go, begun = threading.Event(), threading.Semaphore(0)
    real: Callable[..., Any] = getattr(target, name)

    def slow(*arguments: Any, **options: Any) -> Any:
        begun.release()
        assert go.wait(60)
        return real(*arguments, **options)

    monkeypatch.setattr(target, name, slow)
    try:
        yield begun
    finally:
        go.set()


class TestOthers:
    """One tenant, with a token, does its worst over TCP; another tenant and the operator get their answers."""

    @pytest.fixture
    def served(self, world: World) -> Iterator[tuple[World, str, Callable[[str], httpx.Client]]]:
        with listening(world) as (runtime, url), ExitStack() as stack:

            def of(tenant: str) -> httpx.Client:
                token = runtime.tokens.create(f"of-{tenant}", "tenant", tenant=tenant)[1].reveal()
                return stack.enter_context(
                    httpx.Client(
                        base_url=url,
                        headers={"Authorization": f"Bearer {token}"},
                        timeout=120,
                        limits=httpx.Limits(max_connections=1000),
                    )
                )

            for tenant in ("alice", "bob"):
                world.tenants.claim(TenantId(tenant), "small")
            yield world, url, of

    def hang_up(
        self, http: httpx.Client, path: str, count: int, until: Callable[[], object] = lambda: time.sleep(0.3)
    ) -> None:
        """Send requests, and close each connection without reading; the first ones when they are at work."""
        host, port = str(http.base_url).removeprefix("http://").rstrip("/").split(":")
        head = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: {http.headers['Authorization']}\r\n\r\n"
        with ExitStack() as stack:
            for _ in range(count):
                one = stack.enter_context(socket.create_connection((host, int(port))))
                one.sendall(head.encode())
            until()

    @pytest.mark.parametrize("path", ["verify", "export", "files", "snapshots", "stored", "files/a", "status"])
    def test_requests_that_hang_leave_the_others_alone(
        self, served: Any, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """120 requests of a tenant that wait for the store, and hung up: at most its share of threads is busy."""
        world, _, of = served
        alice, bob = of("alice"), of("bob")
        world.write("alice", {"a": "x"})
        world.tenants.sync(TenantId("alice"))
        before = threading.active_count()
        real, go = world.store.get, threading.Event()

        def get(key: str) -> Any:
            if "alice" in key:
                go.wait(30)
            return real(key)

        monkeypatch.setattr(world.store, "get", get)
        try:
            self.hang_up(alice, f"{ALICE}/{path}", 120)
            began = time.monotonic()
            assert bob.get("/api/v1/tenants/bob/status").status_code == 200
            assert bob.post("/api/v1/tenants/bob/claim", json={}).status_code == 200
            assert bob.get("/api/v1/tenants/bob/logs").status_code == 200
            with client(world) as operator:
                assert operator.get(f"{ALICE}/status").status_code == 200
            took = time.monotonic() - began
            assert threading.active_count() - before < 25
        finally:
            go.set()
        assert took < 5

    def test_verifications_end_with_their_client(self, served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """A verification whose client hung up reads no further pack, and the next one gets its place."""
        _, _, of = served
        alice = of("alice")
        asked, go = [], threading.Event()

        def verify(tenant: str, *, generation: object, report: object, check: Callable[[], None]) -> None:
            asked.append(tenant)
            for _ in range(1000):
                check()
                if go.wait(0.02):
                    break

        monkeypatch.setattr("claw_runtime.state.verify.Verifier.verify", lambda _self, *a, **k: verify(*a, **k))

        def begun(number: int) -> None:
            deadline = time.monotonic() + 10
            while len(asked) < number and time.monotonic() < deadline:
                time.sleep(0.01)

        for number in range(1, 4):
            self.hang_up(alice, f"{ALICE}/verify", 1, lambda number=number: begun(number))  # type: ignore[misc]
        go.set()

        assert len(asked) == 3

    def test_a_request_whose_client_left_before_its_turn_never_runs(
        self, served: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """While a tenant's share hangs, 100 clients ask and hang up: nothing of theirs is run, or even parsed."""
        world, _, of = served
        alice = of("alice")
        parsed = []
        real = Lanes.turn
        monkeypatch.setattr(Lanes, "turn", lambda *a: (parsed.append(a), real(*a))[1])
        with ThreadPoolExecutor(8) as pool, stuck(world.repository.generations, "manifest", monkeypatch) as begun:
            late = [pool.submit(alice.get, f"{ALICE}/files") for _ in range(lanes.READERS.tenant)]
            for _ in late:
                assert begun.acquire(timeout=100)
            self.hang_up(alice, f"{ALICE}/files", 100)
            assert alice.get(f"{ALICE}/status").status_code == 200
        for one in late:
            one.result(10)
        assert alice.get(f"{ALICE}/files").status_code == 404

        assert len(parsed) == lanes.READERS.tenant + 2

    def test_a_flood_is_hardly_parsed(self, served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of 300 requests at once, a tenant's turns are parsed and no more, while another's are all answered."""
        _, _, of = served
        alice, bob = of("alice"), of("bob")
        parsed = []
        real = Lanes.turn

        def turn(some: Lanes, lane: Lane, grant: Grant, tenant: str) -> Any:
            parsed.append(grant.tenant)
            return real(some, lane, grant, tenant)

        monkeypatch.setattr(Lanes, "turn", turn)
        began, rounds = time.monotonic(), 20
        codes = list[int]()
        self.hang_up(
            alice,
            f"{ALICE}/status",
            300,
            lambda: codes.extend(bob.get("/api/v1/tenants/bob/status").status_code for _ in range(rounds)),
        )
        turns = admission.BURST + admission.TOGETHER + admission.RATE * (time.monotonic() - began)

        assert codes == [200] * rounds
        assert parsed.count("bob") == rounds
        assert 0 < parsed.count("alice") <= turns

    def test_followers_of_one_tenant_shut_no_other_log(self, served: Any) -> None:
        """80 followers of alice's log: bob's log and the operator's are there, and places come back with their end."""
        world, _, of = served
        alice, bob = of("alice"), of("bob")
        with ThreadPoolExecutor(80) as pool, ExitStack() as open_ones:

            def follow(_n: int) -> int:
                answer = alice.send(alice.build_request("GET", f"{ALICE}/logs?follow=true"), stream=True)
                open_ones.callback(answer.close)
                return answer.status_code

            codes = list(pool.map(follow, range(80)))
            assert codes.count(200) == lanes.FOLLOWERS.tenant
            assert codes.count(429) == 80 - lanes.FOLLOWERS.tenant
            with bob.stream("GET", "/api/v1/tenants/bob/logs?follow=true") as answer:
                assert answer.status_code == 200
            with client(world) as operator, operator.stream("GET", f"{ALICE}/logs?follow=true") as answer:
                assert answer.status_code == 200
        deadline = time.monotonic() + 10
        code = 0
        while code != 200 and time.monotonic() < deadline:
            with alice.stream("GET", f"{ALICE}/logs?follow=true") as answer:
                code = answer.status_code
        assert code == 200

    def test_a_refusal_tells_when_to_come_again(self, served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """429 as a problem, with Retry-After, its own exit code, and what the limit is."""
        world, _, of = served
        alice = of("alice")
        with ThreadPoolExecutor(20) as pool, stuck(world.repository.generations, "manifest", monkeypatch):
            asked = [pool.submit(alice.get, f"{ALICE}/files") for _ in range(lanes.READERS.tenant + 1)]
            refused = next(one.result() for one in self.soon(asked))

            assert refused.status_code == 429
            assert refused.headers["retry-after"] == "1"
            assert refused.json()["type"] == "urn:claw:busy"
            assert refused.json()["exitCode"] == 40
            assert "4 such requests of tenant 'alice'" in refused.json()["detail"]

    def soon(self, asked: list[Any]) -> Iterator[Any]:
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            yield from (one for one in asked if one.done())
            time.sleep(0.02)

    def test_a_body_that_never_comes_holds_only_its_tenant(self, served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Requests whose body does not arrive take their tenant's share, not the lane, and end after a while."""
        monkeypatch.setattr("claw_runtime.api.guard.BODY_WITHIN", 3.0)
        _, url, of = served
        alice, bob = of("alice"), of("bob")
        host, port = url.removeprefix("http://").split(":")
        head = (
            f"POST {ALICE}/claim HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
            f"Content-Length: 100\r\nAuthorization: {alice.headers['Authorization']}\r\n\r\n"
        )
        with ExitStack() as stack:
            ones = [stack.enter_context(socket.create_connection((host, int(port)))) for _ in range(200)]
            for one in ones:
                one.sendall(head.encode())
            assert bob.post("/api/v1/tenants/bob/claim", json={}).status_code == 200
            answers = []
            for one in ones:
                one.settimeout(15)
                answers.append(one.recv(12))
        assert set(answers) == {b"HTTP/1.1 408", b"HTTP/1.1 429"}
        assert answers.count(b"HTTP/1.1 408") >= lanes.CLAIMS.tenant


class TestProbes:
    def test_livez_and_status_answer_whatever_hangs(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """With engine and store hung, and 45 readiness probes waiting, both come within a tenth of a second."""
        world.tenants.claim(TenantId("alice"), "small")
        monkeypatch.setattr(readiness, "WITHIN", 300.0)
        with serving(world), ThreadPoolExecutor(45) as pool, stuck(world.engine, "info", monkeypatch) as begun:

            def ready(_n: int) -> int:
                with client(world) as one:
                    return one.get("/readyz").status_code

            late = [pool.submit(ready, number) for number in range(45)]
            assert begun.acquire(timeout=100)
            time.sleep(0.3)
            took = []
            with client(world) as one:
                one.get("/livez")
                for path in ("/livez", f"{ALICE}/status", "/api/v1/tenants", "/api/v1/pools") * 5:
                    began = time.monotonic()
                    assert one.get(path).status_code == 200
                    took.append(time.monotonic() - began)
            assert not begun.acquire(blocking=False), "each probe asked the engine by itself"
            assert not any(one.done() for one in late)
        assert sorted(took)[len(took) // 2] < 0.1

    def test_a_look_that_hangs_is_a_failure_after_its_deadline(self, world: World) -> None:
        """503 with Retry-After; the next probe waits for the same look and begins no other."""
        go, looks = threading.Event(), []

        def look() -> None:
            looks.append(1)
            go.wait(30)

        probes = readiness.Readiness(look, within=0.1)

        async def check() -> None:
            for _ in range(3):
                with pytest.raises(StoreUnavailable, match=r"did not end within 0\.1 s"):
                    await probes.check()
            go.set()

        asyncio.run(check())
        assert len(looks) == 1

    def test_a_look_that_fails_after_its_deadline_is_not_logged(self) -> None:
        """Once for each probe, with a traceback: a store that was away for a while filled the log."""
        go, logged = threading.Event(), list[object]()

        def look() -> None:
            go.wait(30)
            raise StoreUnavailable("the store is down")

        probes = readiness.Readiness(look, within=0.05)

        async def check() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _loop, context: logged.append(context))
            told = await asyncio.gather(*(probes.check() for _ in range(3)), return_exceptions=True)
            assert all("did not end" in str(one) for one in told)
            del told
            go.set()
            await asyncio.to_thread(lambda: [one.join() for one in threading.enumerate() if one.name == "ready"])
            gc.collect()

        asyncio.run(check())
        assert logged == []

    def test_a_probe_sees_what_is_now(self, world: World) -> None:
        """No earlier answer is given again."""
        api = Api(runtime_of(world))
        assert api.get("/readyz").json()["status"] == "ok"
        world.engine.fail("info", StoreUnavailable("gone"))

        assert api.get("/readyz").status_code == 503
        assert api.get("/readyz").status_code == 200


def test_a_reader_that_takes_nothing_is_let_go(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that keeps its connection and reads nothing of a long answer loses its place."""
    monkeypatch.setattr(routing.Streamed.__init__, "__kwdefaults__", {"stalled": 0.3})
    ended = threading.Event()

    def endless(*_: object, **__: object) -> Iterator[bytes]:
        try:
            while True:
                yield b"x" * (1 << 18)
        finally:
            ended.set()

    monkeypatch.setattr(world.repository.generations, "read", endless)
    with serving(world), socket.socket(socket.AF_UNIX) as one:
        one.connect(str(world.layout.api_socket))
        one.sendall(f"GET {ALICE}/files/a HTTP/1.1\r\nHost: claw\r\n\r\n".encode())

        assert ended.wait(10)


def test_a_reader_that_has_gone_ends_its_answer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of which a client has read the beginning is not read on once it has closed the connection."""
    ended = threading.Event()

    def endless(*_: object, **__: object) -> Iterator[bytes]:
        try:
            while True:
                yield b"x" * 1000
        finally:
            ended.set()

    monkeypatch.setattr(world.repository.generations, "read", endless)
    with serving(world):
        with socket.socket(socket.AF_UNIX) as one:
            one.connect(str(world.layout.api_socket))
            one.sendall(f"GET {ALICE}/files/a HTTP/1.1\r\nHost: claw\r\n\r\n".encode())
            assert one.recv(100)

        assert ended.wait(10)


def test_the_page_has_the_limits_of_the_code() -> None:
    """docs/API.md tells each lane's numbers as they are."""
    page = (Path(__file__).parents[3] / "docs/API.md").read_text()
    told = re.findall(r"^\| `([a-z]+)` \| [^|]+ \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|", page, re.MULTILINE)
    used = {lane.name: lane for lane in (*LANES.values(), lanes.FOLLOWERS) if lane}

    assert {name: tuple(map(int, numbers)) for name, *numbers in told} == {
        lane.name: (lane.slots, lane.tenant, lane.token, lane.reserve) for lane in used.values()
    }
    assert json.dumps(lanes.PATIENCE) in page
