"""Requests that wait keep no other from its answer, and a thousand tenants are listed in one breath."""

import asyncio
import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from claw_runtime.api import lanes
from claw_runtime.api.app import create_app
from claw_runtime.api.schemas import StatusAnswer
from claw_runtime.api.turns import Lanes
from claw_runtime.daemon.assembly import Runtime
from claw_runtime.tenancy import TenantId
from fakes.faces import Api, client, listening, runtime_of, serving
from fakes.world import WORKLOAD, World

ALICE = "/api/v1/tenants/alice"
FRAMEWORK = 40
"""Threads that the framework has for everything that has no lane of its own."""
pytestmark = pytest.mark.world(workload=WORKLOAD.replace("max_size: 3", "max_size: 200"))


def test_status_and_release_answer_while_claims_wait(world: World) -> None:
    """With more claims waiting than the framework has threads, a status, a list, a sync and a release go through."""
    waiting, go = threading.Semaphore(0), threading.Event()
    real = world.tenants.claim

    def slow(tenant: str, pool: str, **options: object) -> object:
        if tenant.startswith("late"):
            waiting.release()
            assert go.wait(300)
        return real(tenant, pool, **options)  # type: ignore[arg-type]

    world.tenants.claim = slow  # type: ignore[method-assign, assignment]
    count = FRAMEWORK + 5

    def claim(number: int) -> int:
        with client(world) as one:
            return one.post(f"/api/v1/tenants/late-{number}/claim", json={}).status_code

    with serving(world), client(world) as quick, ThreadPoolExecutor(count) as pool:
        quick.post("/api/v1/tenants/alice/claim", json={})
        late = [pool.submit(claim, number) for number in range(count)]
        for _ in range(count):
            assert waiting.acquire(timeout=100)

        began = time.monotonic()
        codes = [
            quick.get("/api/v1/tenants/alice/status").status_code,
            quick.get("/api/v1/tenants").status_code,
            quick.post("/api/v1/tenants/alice/sync", json={}).status_code,
            quick.post("/api/v1/tenants/alice/release", json={}).status_code,
        ]
        took = time.monotonic() - began
        still = [one.done() for one in late]
        go.set()
        done = [one.result(30) for one in late]

    assert codes == [200, 200, 200, 200]
    assert took < 5
    assert not any(still)
    assert set(done) == {200}


def test_a_store_that_does_not_answer_keeps_no_status_waiting(world: World) -> None:
    """With more listings waiting for the store than the framework has threads, a status is there at once."""
    go = threading.Event()
    real = world.repository.generations.manifest

    def slow(*arguments: object) -> object:
        assert go.wait(300)
        return real(*arguments)  # type: ignore[arg-type]

    world.repository.generations.manifest = slow  # type: ignore[method-assign, assignment]

    def look(_number: int) -> int:
        with client(world) as one:
            return one.get("/api/v1/tenants/alice/files").status_code

    with serving(world), client(world) as quick, ThreadPoolExecutor(FRAMEWORK + 5) as pool:
        late = [pool.submit(look, number) for number in range(FRAMEWORK + 5)]
        try:
            time.sleep(0.3)
            assert quick.get("/api/v1/tenants/alice/status", timeout=100).status_code == 200
        finally:
            go.set()
        assert {one.result(100) for one in late} == {404}


def test_a_thousand_tenants_cost_two_queries(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many tenants there are, the list asks the database twice."""
    fill(world, 1000)
    asked = []
    real = world.ledger.database.rows
    monkeypatch.setattr(world.ledger.database, "rows", lambda sql, *v: (asked.append(sql), real(sql, *v))[1])
    api = Api(runtime_of(world))
    asked.clear()

    answer = api.get("/api/v1/tenants")

    assert len(answer.json()) == 1000
    assert len(asked) == 2


def test_every_row_of_the_list_is_whole(world: World) -> None:
    """Rows are built without a model, and are what the model says all the same; equal to each tenant's own answer."""
    fill(world, 30)
    api = Api(runtime_of(world))
    rows = api.get("/api/v1/tenants").json()

    for row in rows:
        assert StatusAnswer.model_validate(row).model_dump(by_alias=True) == row
        assert api.get(f"/api/v1/tenants/{row['tenantId']}").json() == row
    assert {row["state"] for row in rows} == {"cold", "active", "kept"}


def test_a_small_answer_over_tcp_is_not_held_back(world: World) -> None:
    """A status over TCP never waits for a delayed acknowledgement (40 ms): the quickest of nine shows it."""
    with listening(world) as (runtime, url):
        token = runtime.tokens.create("x", "admin")[1].reveal()
        with httpx.Client(headers={"Authorization": f"Bearer {token}"}, timeout=120) as one:
            took = []
            for _ in range(9):
                began = time.perf_counter()
                assert one.get(f"{url}/api/v1/tenants/alice/status").status_code == 200
                took.append(time.perf_counter() - began)

    assert min(took) < 0.03, f"{min(took):.3f} s"


def fill(world: World, count: int) -> None:
    """So many tenants, a third of them claimed, a third cold, a third with a kept tree."""
    with world.ledger.database.change() as db:
        for n in range(count):
            state = ("active", "cold", "kept")[n % 3]
            slot = f"s{n}" if state == "active" else None
            if slot:
                db.execute(
                    "INSERT INTO slot (id, pool, state, template, container, port, made_at) "
                    "VALUES (?, 'small', 'claimed', 'r', ?, ?, 0)",
                    (slot, "c" * 64, 40000 + n),
                )
            db.execute(
                "INSERT INTO tenant (id, state, pool, slot, error, since, seen, synced, metadata) "
                "VALUES (?, ?, 'small', ?, ?, 1790000000, 1790000001, 1790000002, ?)",
                (f"t{n:04}", state, slot, "why" if state == "kept" else "", json.dumps({"n": n}) if n % 2 else ""),
            )


@pytest.mark.world(filled=True)
@pytest.mark.parametrize("verb", ["claim", "release", "sync"])
def test_no_tenant_takes_all_threads(world: World, verb: str) -> None:
    """One tenant's requests that wait for each other leave room for those of others."""
    runtime = runtime_of(world)
    for tenant in ("alice", "bob"):
        world.tenants.claim(TenantId(tenant), "small")
    lane = lanes.CLAIMS if verb == "claim" else lanes.ENDINGS
    here = Lanes(patience_local=0.2)

    async def asked() -> tuple[list[httpx.Response], httpx.Response]:
        transport = httpx.ASGITransport(create_app(runtime, here))
        async with httpx.AsyncClient(transport=_at_socket(transport, runtime), base_url="http://claw") as sends:
            with world.tenants._locks.held(TenantId("alice")):
                many = [asyncio.ensure_future(sends.post(f"{ALICE}/{verb}", json={})) for _ in range(lane.tenant + 9)]
                other = await asyncio.wait_for(sends.post(f"/api/v1/tenants/bob/{verb}", json={}), 20)
                await asyncio.sleep(0.5)
            return list(await asyncio.gather(*many)), other

    many, other = asyncio.run(asked())

    assert other.status_code == 200
    refused = [said for said in many if said.status_code == 429]
    assert len(refused) == 9
    assert refused[0].headers["retry-after"] == "1"
    assert here.queue(lane).running == 0


def _at_socket(transport: httpx.ASGITransport, runtime: Runtime) -> httpx.ASGITransport:
    application, place = transport.app, (str(runtime.settings.layout.api_socket), None)

    async def placed(scope: Any, receive: Any, send: Any) -> None:
        await application({**scope, "server": place}, receive, send)

    return httpx.ASGITransport(placed)


@pytest.mark.world(filled=True)
class TestInLine:
    def test_nobody_waits_in_line_for_a_client_that_left(self, world: World) -> None:
        """A claim whose client closes the connection leaves the line; the next slot goes to one that is there."""
        with serving(world), client(world) as patient, client(world, timeout=0.5) as impatient:
            for tenant in ("a", "b", "c"):
                world.tenants.claim(TenantId(tenant), "small")
            with pytest.raises(httpx.ReadTimeout):
                impatient.post("/api/v1/tenants/late/claim", json={"wait": 600})
            deadline = time.monotonic() + 10
            while world.pools.show("small").queue and time.monotonic() < deadline:
                time.sleep(0.02)

            assert world.pools.show("small").queue == 0
            world.tenants.release(TenantId("a"))
            assert patient.post("/api/v1/tenants/next/claim", json={}).status_code == 200
            assert world.row_state("late") == "cold"

    def test_a_client_that_stays_gets_its_slot(self, world: World) -> None:
        """Watching for the end of the connection takes no answer from anybody."""
        with serving(world), client(world) as patient:
            for tenant in ("a", "b", "c"):
                world.tenants.claim(TenantId(tenant), "small")
            threading.Timer(0.7, world.tenants.release, [TenantId("a")]).start()

            said = patient.post("/api/v1/tenants/late/claim", json={"wait": 30})

            assert (said.status_code, said.json()["status"]) == (200, "claimed")

    def test_a_hundred_and_fifty_claims_wait_without_a_thread_each(self, world: World) -> None:
        """All that wait get a slot in the end, and meanwhile hold no threads, so that others are answered."""
        count, held = 150, list[str]()

        async def go() -> list[int]:
            transport = httpx.AsyncHTTPTransport(uds=str(world.layout.api_socket), limits=httpx.Limits())
            async with httpx.AsyncClient(transport=transport, base_url="http://claw", timeout=120) as one:

                async def stay(number: int) -> int:
                    said = await one.post(f"/api/v1/tenants/t{number}/claim", json={"wait": 110})
                    if said.status_code == 200:
                        await all_wait.wait()
                        await one.post(f"/api/v1/tenants/t{number}/release", json={"affinity": False})
                    return said.status_code

                all_wait = asyncio.Event()
                tasks = [asyncio.ensure_future(stay(number)) for number in range(count)]
                while world.pools.show("small").queue < count - 3:
                    await asyncio.sleep(0.05)
                await asyncio.sleep(0.5)
                held.extend(frame.f_code.co_name for frame in sys._current_frames().values())
                assert (await one.get("/api/v1/tenants")).status_code == 200
                all_wait.set()
                return list(await asyncio.gather(*tasks))

        with serving(world):
            codes = asyncio.run(go())

        assert set(codes) == {200}
        assert "_wait_turn" not in held
        assert world.pools.show("small").queue == 0

    def test_a_claim_that_waits_leaves_when_its_time_is_over(self, world: World) -> None:
        """It is refused with the reason of its last attempt, and its place in line is free."""
        with serving(world), client(world) as patient:
            for tenant in ("a", "b", "c"):
                world.tenants.claim(TenantId(tenant), "small")
            began = time.monotonic()

            said = patient.post("/api/v1/tenants/late/claim", json={"wait": 0.3})

            assert said.status_code == 503
            assert said.json()["detail"] == "all 3 slots are in use (pool.max_size)"
            assert time.monotonic() - began >= 0.3
            assert world.pools.show("small").queue == 0

    def test_a_full_line_tells_so(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """A claim that could not wait any more is not told to wait."""
        monkeypatch.setattr("claw_runtime.pools.wait_queue.LONGEST", 0)
        with serving(world), client(world) as patient:
            for tenant in ("a", "b", "c"):
                world.tenants.claim(TenantId(tenant), "small")

            said = patient.post("/api/v1/tenants/late/claim", json={"wait": 30}).json()

        assert "claims already wait" in said["detail"]
        assert "let the claim wait" not in said["hint"]
