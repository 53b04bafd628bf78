"""What a hostile or unlucky client may send: it is refused in the API's own form, and breaks nothing for others."""

import asyncio
import json
import sqlite3
import threading
import time
from typing import Any

import httpx
import pytest
from claw_runtime.api import threads
from claw_runtime.api.app import create_app
from claw_runtime.daemon.assembly import Runtime
from claw_runtime.db.idempotency import SqliteAnswers
from claw_runtime.errors import DiskFull
from claw_runtime.tenancy import TenantId
from fakes.faces import Api, runtime_of, serving
from fakes.world import World

ALICE = "/api/v1/tenants/alice"
pytestmark = pytest.mark.world(filled=True)


@pytest.fixture
def api(world: World) -> Api:
    return Api(runtime_of(world))


def refuse(error: Exception) -> Any:
    def refusing(*_: object, **__: object) -> None:
        raise error

    return refusing


class TestNumbers:
    @pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
    def test_metadata_that_is_no_json_is_refused(self, api: Api, number: str) -> None:
        """A number that JSON does not have would make the list of all tenants unreadable for every client."""
        body = f'{{"metadata": {{"n": [{number}]}}}}'

        said = api.post(f"{ALICE}/claim", content=body, headers={"Content-Type": "application/json"})

        assert said.status_code in (400, 422)
        listed = api.get("/api/v1/tenants")
        json.loads(listed.text, parse_constant=refuse(AssertionError("no JSON")))

    def test_metadata_with_half_a_character_is_refused(self, api: Api) -> None:
        """A text that has no UTF-8 is refused before anything is begun."""
        body = '{"metadata": {"n": "\\ud800"}}'

        said = api.post(f"{ALICE}/claim", content=body, headers={"Content-Type": "application/json"})

        assert said.status_code < 500
        assert api.get(f"{ALICE}/status").json()["state"] == "unknown"

    @pytest.mark.parametrize(
        "address",
        [
            f"/api/v1/activity?after={10**30}",
            f"{ALICE}/logs?tail={10**30}",
            f"{ALICE}/files?generation={10**30}",
            f"/api/v1/activity?since={'9' * 400}d",
            f"{ALICE}/logs?since={'9' * 400}d",
            "/api/v1/activity?since=0001-01-01T00:00:00Z",
            "/api/v1/activity?since=9999-12-31T23:59:59-23:00",
            "/api/v1/activity?tenant=%00%ff",
            "/api/v1/pools/%00%ff",
            "/api/v1/pools/..%2f..%2fetc/metrics",
            "/api/v1/workloads/..%2fsmall",
            f"{ALICE}/files/%00",
            f"{ALICE}/files/{'a/' * 3000}",
        ],
    )
    def test_no_number_or_name_is_a_mistake_of_ours(self, api: Api, address: str) -> None:
        """Whatever stands in an address, the answer is one of the API's own and no defect."""
        api.post(f"{ALICE}/claim", json={})

        said = api.get(address)

        assert said.status_code < 500, said.text

    @pytest.mark.parametrize("lifetime", ["99999999d", f"{'9' * 400}d", "8000000000000s"])
    def test_no_token_lives_longer_than_there_are_dates(self, api: Api, lifetime: str) -> None:
        """A lifetime that no date can tell is refused, and the list of tokens can still be read."""
        body = {"name": "eternal", "scope": "admin", "expiresIn": lifetime}

        said = api.post("/api/v1/tokens", json=body)

        assert said.status_code in (400, 422), said.text
        assert api.get("/api/v1/tokens").json() == []


def test_a_workload_with_half_a_character_is_refused(api: Api) -> None:
    """A text that has no UTF-8 is no workload, and no file is written."""
    body = '{"yaml": "id: small\\nname: \\ud800\\nimage: x\\n"}'

    said = api.request("PUT", "/api/v1/workloads/small", content=body, headers={"Content-Type": "application/json"})

    assert said.status_code in (400, 422), said.text


class TestAnswers:
    def test_an_answer_that_cannot_be_kept_is_given(
        self, api: Api, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A disk that is full when the answer is remembered costs the memory, not the answer."""
        runtime = runtime_of(world)
        api = Api(runtime)
        monkeypatch.setattr(runtime.answers, "finish", refuse(DiskFull("no room")))

        said = api.post(f"{ALICE}/claim", json={}, headers={"Idempotency-Key": "one"})

        assert (said.status_code, said.json()["status"]) == (200, "claimed")
        again = api.post(f"{ALICE}/claim", json={}, headers={"Idempotency-Key": "one"})
        assert again.json()["status"] == "already_claimed"

    @pytest.mark.parametrize("error", [DiskFull("no room"), sqlite3.OperationalError("disk I/O error")])
    def test_a_full_disk_locks_nobody_out(
        self, world: World, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        """A token opens the API although the time of its use cannot be written: a release may be what makes room."""
        runtime = runtime_of(world, listen="127.0.0.1:7070")
        _, text = runtime.tokens.create("ops", "admin")
        monkeypatch.setattr(runtime.tokens._store, "used", refuse(error))

        said = Api(runtime, local=False).get(
            "/api/v1/tenants", headers={"Authorization": f"Bearer {text.reveal()}", "Host": "127.0.0.1:7070"}
        )

        assert said.status_code == 200, said.text

    def test_a_key_does_not_cost_a_look_at_all_answers(self, world: World) -> None:
        """However many answers are kept, a request reads its own; those that are too old are gone all the same."""
        database = world.ledger.database
        answers, said = SqliteAnswers(database), list[str]()
        for number in range(3):
            answers.begin("ops", f"key-{number}", "claim", 1000.0 + number, lifetime=100.0)
            answers.finish("ops", f"key-{number}", 200, b"{}")
        database.connection.set_trace_callback(said.append)

        assert answers.begin("ops", "key-0", "another", 1101.0, lifetime=100.0) is None
        assert answers.begin("ops", "key-2", "claim", 1101.5, lifetime=100.0) is not None
        assert not [one for one in said if "answer WHERE at" in one]
        answers.begin("ops", "key-3", "claim", 9000.0, lifetime=100.0)

        left = database.rows("SELECT key FROM answer ORDER BY key")
        assert [row["key"] for row in left] == ["key-0", "key-3"]


class TestReach:
    @pytest.mark.parametrize(
        "path",
        [
            "/api/v1/tenants/bob",
            "/api/v1/tenants/alice/../bob",
            "/api/v1/tenants/alice%2f..%2fbob/status",
            "/api/v1/tenants/alice%2F../bob/status",
            "/api/v1/tenants//alice/status",
            "//api/v1/tenants/bob",
            "/api/v1/./tenants/bob",
            "/api/v1/tenants/alice/./../bob/status",
            "/api/v1/tenants/ALICE/status",
            "/api/v1/tenants/alic%C3%A9/status",
            "/api/v1/tenants/alice%00/status",
            "/api/v1/tenants/alice;/status",
            "/api/v1/tenants",
            "/api/v1/tenants/",
            "/api/v1/tenants?x=/api/v1/tenants/alice/",
            "/api/v1/activity?tenant=alice",
            "/api/v1/pools",
            "/api/v1/tokens",
            "/API/v1/tokens",
            "/readyz",
            "/openapi.json",
        ],
    )
    def test_a_tenants_token_reaches_nobody_else(self, world: World, path: str) -> None:
        """No way of writing an address lets the token of one tenant see another, or the host."""
        runtime = runtime_of(world, listen="127.0.0.1:7070")
        _, text = runtime.tokens.create("mine", "tenant", tenant="alice")
        Api(runtime).post("/api/v1/tenants/bob/claim", json={"metadata": {"word": "bobs-word"}})
        outside = Api(runtime, local=False)

        for prefix, headers in (("", {"Authorization": f"Bearer {text.reveal()}"}), (f"/t/{text.reveal()}", {})):
            said = outside.get(f"{prefix}{path}", headers={**headers, "Host": "127.0.0.1:7070"})

            assert said.status_code in (400, 403, 404, 422), (path, said.status_code, said.text)
            assert "bobs-word" not in said.text
            assert text.reveal() not in said.text + str(said.headers)


class TestGone:
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


def client(world: World, timeout: float = 30.0) -> httpx.Client:
    transport = httpx.HTTPTransport(uds=str(world.layout.api_socket))
    return httpx.Client(transport=transport, base_url="http://claw", timeout=timeout)


@pytest.mark.parametrize("verb", ["claim", "release", "sync"])
def test_no_tenant_takes_all_threads(world: World, verb: str) -> None:
    """One tenant's requests that wait for each other leave room for those of others."""
    runtime = runtime_of(world)
    for tenant in ("alice", "bob"):
        world.tenants.claim(TenantId(tenant), "small")
    lane = threads.CLAIMS if verb == "claim" else threads.ENDINGS

    async def asked() -> tuple[list[httpx.Response], httpx.Response]:
        transport = httpx.ASGITransport(create_app(runtime))
        async with httpx.AsyncClient(transport=_at_socket(transport, runtime), base_url="http://claw") as sends:
            with world.tenants._locks.held(TenantId("alice")):
                many = [asyncio.ensure_future(sends.post(f"{ALICE}/{verb}", json={})) for _ in range(lane.threads + 9)]
                other = await asyncio.wait_for(sends.post(f"/api/v1/tenants/bob/{verb}", json={}), 20)
            return list(await asyncio.gather(*many)), other

    many, other = asyncio.run(asked())

    assert other.status_code == 200
    refused = [said for said in many if said.status_code == 409]
    assert len(refused) == len(many) - lane.threads // 3
    assert refused[0].headers["retry-after"] == "1"
    assert not lane._busy


def _at_socket(transport: httpx.ASGITransport, runtime: Runtime) -> httpx.ASGITransport:
    application, place = transport.app, (str(runtime.settings.layout.api_socket), None)

    async def placed(scope: Any, receive: Any, send: Any) -> None:
        await application({**scope, "server": place}, receive, send)

    return httpx.ASGITransport(placed)
