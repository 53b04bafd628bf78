"""The HTTP API over a runtime in memory: a plain client works, every bad input is a problem with its code."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from claw_runtime import __version__
from claw_runtime.api.problems import problem as as_problem
from claw_runtime.api.schemas import Problem
from claw_runtime.errors import EngineUnavailable, StoreUnavailable
from fakes.faces import Api, runtime_of
from fakes.world import World
from structlog.testing import capture_logs

CLAIM = "/api/v1/tenants/alice/claim"
RELEASE = "/api/v1/tenants/alice/release"
STATUS = "/api/v1/tenants/alice/status"
FILES = "/api/v1/tenants/alice/files"
pytestmark = pytest.mark.world(filled=True)


@pytest.fixture
def api(world: World) -> Api:
    return Api(runtime_of(world))


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """An API that must refuse whatever it is asked: nothing that a test does may change its world."""
    made = World(tmp_path_factory.mktemp("still"))
    yield Api(runtime_of(made))
    assert made.ledger.tenants() == []
    assert list(made.store.list("")) == []
    assert made.engine.calls == []
    made.close()


def problem(answer: httpx.Response, status: int, slug: str, exit_code: int) -> dict[str, Any]:
    """The problem, which must be of this status, slug and code, and complete."""
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body.keys() == {field.alias for field in Problem.model_fields.values()}
    assert (answer.status_code, body["status"], body["type"], body["exitCode"]) == (
        status,
        status,
        f"urn:claw:{slug}",
        exit_code,
    )
    assert body["title"]
    assert body["hint"]
    return body


class TestPlainClient:
    """What a client needs that knows nothing but containers, endpoints and three words for a status."""

    def test_claim_answers_container_and_endpoint(self, api: Api) -> None:
        """A claim has containerId, endpoints.http, endpoints.port; more fields do no harm."""
        answer = api.post(CLAIM, json={"poolId": "small"}).json()

        assert isinstance(answer["containerId"], str)
        assert isinstance(answer["endpoints"]["port"], int)
        assert answer["endpoints"]["http"] == f"http://127.0.0.1:{answer['endpoints']['port']}"

    def test_status_of_a_claimed_tenant_is_warm(self, api: Api) -> None:
        """Status of a running tenant names container, pool, port and endpoint."""
        claim = api.post(CLAIM, json={"poolId": "small"}).json()

        status = api.get(STATUS).json()

        assert status["status"] == "warm"
        assert status["containerId"] == claim["containerId"]
        assert (status["poolId"], status["port"]) == ("small", claim["endpoints"]["port"])
        assert status["endpoints"] == claim["endpoints"]
        assert status["syncStatus"]["state"] == "idle"

    def test_status_after_release_is_cold(self, api: Api) -> None:
        """A tenant that gave its container back is cold, and has no endpoint."""
        api.post(CLAIM, json={"poolId": "small"})
        api.post(RELEASE, json={"sync": True})

        status = api.get(STATUS).json()

        assert (status["status"], status["state"]) == ("cold", "cold")
        assert (status["containerId"], status["port"], status["endpoints"]) == (None, None, None)

    def test_status_of_a_stranger_is_cold(self, api: Api) -> None:
        """A tenant that was never claimed here is cold to a client that knows no other word; `state` says more."""
        status = api.get(STATUS).json()

        assert (status["status"], status["state"], status["tenantId"]) == ("cold", "unknown", "alice")
        assert (status["containerId"], status["since"], status["lastActivity"]) == (None, None, None)

    def test_a_stranger_itself_is_not_found(self, api: Api) -> None:
        """Who asks for the tenant and not for its status learns of a misspelt id."""
        body = problem(api.get("/api/v1/tenants/alice"), 404, "not-claimed", 10)

        assert body["hint"] == "claw-runtime claim alice"

    @pytest.mark.parametrize(("state", "word"), [("claiming", "provisioning"), ("releasing", "provisioning")])
    def test_status_in_between_is_provisioning(self, api: Api, world: World, state: str, word: str) -> None:
        """While a claim or a release is under way nobody is sent to the container."""
        api.post(CLAIM, json={})
        world.ledger.become("alice", state, 0.0)  # type: ignore[arg-type]

        status = api.get(STATUS).json()

        assert (status["status"], status["state"], status["endpoints"]) == (word, state, None)
        assert status["syncStatus"]["state"] == ("syncing" if state == "releasing" else "idle")

    def test_the_container_for_a_command_is_one_that_runs(self, api: Api, world: World) -> None:
        """While a commit pauses it the answer is 409, with the seconds to wait; a frozen tenant's is 404."""
        claim = api.post(CLAIM, json={}).json()
        path = "/api/v1/tenants/alice/container"
        assert api.get(path).json() == {"tenantId": "alice", "containerId": claim["containerId"]}

        world.ledger.note("alice", step="hold")  # type: ignore[arg-type]
        paused = api.get(path)
        problem(paused, 409, "conflict", 37)
        assert paused.headers["retry-after"] == "1"
        world.ledger.become("alice", "frozen", 0.0)  # type: ignore[arg-type]
        assert problem(api.get(path), 404, "not-claimed", 10)["detail"] == "its state is frozen"

    def test_release_syncs_by_default(self, api: Api, world: World) -> None:
        """`{"sync": true}` and `{}` commit the state, `{"sync": false}` drops what is new."""
        for body, expected in (({"sync": True}, "1"), ({}, "2"), ({"sync": False}, "2")):
            api.post(CLAIM, json={})
            world.write("alice", {"n": str(int(world.saved("alice")["n"]) + 1) if expected != "1" else "1"})
            assert api.post(RELEASE, json=body).status_code == 200
            assert world.saved("alice") == {"n": expected}


class TestClaim:
    def test_first_claim_says_where_it_came_from(self, api: Api) -> None:
        """A claim out of the pool is warm, of generation 0, with the milliseconds of each step in order."""
        answer = api.post(CLAIM, json={"poolId": "small"})

        body = answer.json()
        assert (answer.status_code, body["status"], body["tenantId"]) == (200, "claimed", "alice")
        assert (body["source"], body["generation"], body["tokenFile"]) == ("created", 0, None)
        assert list(body["phases"]) == ["slot", "lease", "restore", "values", "start", "ready"]

    def test_second_claim_is_the_first(self, api: Api) -> None:
        """Claiming a claimed tenant is no error: 200, the same container, `already_claimed`."""
        first = api.post(CLAIM, json={"poolId": "small"}).json()

        answer = api.post(CLAIM, json={"poolId": "small"})

        body = answer.json()
        assert (answer.status_code, body["status"], body["source"]) == (200, "already_claimed", "active")
        assert (body["containerId"], body["endpoints"]) == (first["containerId"], first["endpoints"])

    def test_only_pool_needs_no_name(self, api: Api) -> None:
        """With one pool, `poolId` may be left out or null."""
        assert api.post(CLAIM, json={}).json()["poolId"] == "small"
        assert api.post("/api/v1/tenants/bob/claim", json={"poolId": None}).json()["poolId"] == "small"

    def test_unknown_pool(self, api: Api) -> None:
        """A pool without a workload is 404, and the pools that there are are named."""
        assert "small" in problem(api.post(CLAIM, json={"poolId": "large"}), 404, "unknown-pool", 19)["detail"]

    def test_full_pool_asks_to_come_again(self, api: Api) -> None:
        """A pool at its maximum is 503 with Retry-After."""
        for name in ("a", "b", "c"):
            api.post(f"/api/v1/tenants/{name}/claim", json={})

        answer = api.post(CLAIM, json={})

        problem(answer, 503, "pool-exhausted", 12)
        assert int(answer.headers["retry-after"]) > 0

    @pytest.mark.parametrize(("known", "told"), [(7.4, "7"), (0.1, "1"), (None, "5")])
    def test_retry_after_has_the_seconds_of_the_error(self, known: float | None, told: str) -> None:
        """An error that knows how long it will last says so in Retry-After, in whole seconds; others say five."""
        facts = {"retry_after": known} if known else {}

        answer = as_problem(EngineUnavailable("no engine", hint="wait", **facts))

        assert answer.headers["retry-after"] == told

    def test_another_runtimes_tenant_can_be_taken_over(self, api: Api, world: World, tmp_path: Path) -> None:
        """A tenant that another host holds is 409; `takeOver` takes it."""
        other = World(tmp_path / "other", store=world.store, owner="host-b")
        other.tenants.claim("alice", "small")  # type: ignore[arg-type]
        try:
            assert "host-b" in problem(api.post(CLAIM, json={}), 409, "tenant-locked", 11)["detail"]
            assert api.post(CLAIM, json={"takeOver": True}).status_code == 200
        finally:
            other.close()

    def test_workload_that_is_never_ready(self, api: Api, world: World) -> None:
        """A workload that does not become ready in time is 504."""
        world.prober.always = None

        problem(api.post(CLAIM, json={}), 504, "not-ready", 17)


class TestRelease:
    def test_release_names_the_generation(self, api: Api, world: World) -> None:
        """A release with changes says generation, files and bytes."""
        api.post(CLAIM, json={})
        world.write("alice", {"memory/colour.txt": "blue"})

        body = api.post(RELEASE, json={"sync": True}).json()

        assert (body["status"], body["tenantId"], body["generation"], body["changed"]) == ("released", "alice", 1, True)
        assert (body["files"], body["bytes"]) == (1, 4)
        assert body["uploadedBytes"] > 0

    def test_release_without_change(self, api: Api, world: World) -> None:
        """A release that finds nothing new names the generation that stays."""
        for _ in range(2):
            api.post(CLAIM, json={})
            if not world.repository.generations.head("alice").generation:  # type: ignore[arg-type, union-attr]
                world.write("alice", {"a": "1"})
            body = api.post(RELEASE, json={}).json()

        assert (body["generation"], body["changed"], body["uploadedBytes"]) == (1, False, 0)

    def test_names_that_are_no_text_are_shown_all_the_same(self, api: Api, world: World) -> None:
        """A socket, link or file whose name or target is not UTF-8 breaks neither release nor listing."""
        api.post(CLAIM, json={})
        state = os.fsencode(world.state("alice"))
        os.mkfifo(state + b"/fifo-\xff")
        os.symlink(b"target-\xff", state + b"/link")
        Path(os.fsdecode(state + b"/file-\xff")).touch()

        released = api.post(RELEASE, json={})
        listed = api.get(FILES)

        assert (released.status_code, listed.status_code) == (200, 200)
        assert released.json()["reported"][0].startswith("fifo-\ufffd")
        assert {entry["target"] for entry in listed.json()["files"]} == {None, "target-\ufffd"}

    def test_release_of_a_stranger(self, api: Api) -> None:
        """A tenant that was never claimed cannot be released."""
        problem(api.post(RELEASE, json={}), 404, "not-claimed", 10)

    def test_second_release(self, api: Api) -> None:
        """A tenant that was released already cannot be released again."""
        api.post(CLAIM, json={})
        api.post(RELEASE, json={})

        problem(api.post(RELEASE, json={}), 404, "not-claimed", 10)

    def test_failed_upload_keeps_the_tree_and_says_where(self, api: Api, world: World) -> None:
        """A release whose upload fails is 502; status then says `kept` and why."""
        api.post(CLAIM, json={})
        world.write("alice", {"a": "1"})
        real = world.store.put
        world.store.put = _refuse  # type: ignore[method-assign, assignment]

        body = problem(api.post(RELEASE, json={}), 502, "upload-failed", 28)
        world.store.put = real  # type: ignore[method-assign]

        assert str(world.layout.kept_tree("alice")) in body["hint"]  # type: ignore[arg-type]
        status = api.get(STATUS).json()
        assert (status["status"], status["state"], status["syncStatus"]["state"]) == ("cold", "kept", "error")
        assert "upload-failed" in status["syncStatus"]["error"]


def _refuse(*_: object, **__: object) -> str:
    raise StoreUnavailable("the store is down", why="test", hint="wait")


class TestBadTenants:
    WRONG = (
        "-x",
        "x-",
        "A",
        "Alice",
        "a_b",
        "a.b",
        "a" * 41,
        "a" * 300,
        "%C3%A9",
        "%00",
        "a%0Ab",
        "%20",
        "..",
        "%E2%80%AEa",
    )

    @pytest.mark.parametrize("name", WRONG)
    @pytest.mark.parametrize(
        ("method", "verb"), [("POST", "claim"), ("POST", "release"), ("GET", "status"), ("GET", "files")]
    )
    def test_every_wrong_form_is_refused(self, still: Api, name: str, method: str, verb: str) -> None:
        """No verb accepts an id of another form, and none is rewritten into a good one."""
        encoded = name.replace("..", "%2e%2e")
        answer = still.request(method, f"/api/v1/tenants/{encoded}/{verb}", json={} if method == "POST" else None)

        problem(answer, 422, "invalid-tenant-id", 18)

    @pytest.mark.parametrize("name", ["a%2Fb", "..%2Fx", "%2e%2e%2Fx", "%2Fetc", "", "x%2F"])
    def test_a_slash_is_refused_as_well(self, still: Api, name: str) -> None:
        """A slash, which no route can match, and no id at all are the same error with the same code."""
        answer = still.post(f"/api/v1/tenants/{name}/claim", json={})

        problem(answer, 422, "invalid-tenant-id", 18)

    def test_long_id_is_not_repeated_in_full(self, still: Api) -> None:
        """A message stays short, whatever was sent."""
        assert len(still.get(f"/api/v1/tenants/{'a' * 5000}/status").json()["title"]) < 100


class TestBadRequests:
    @pytest.mark.parametrize("verb", ["claim", "release"])
    @pytest.mark.parametrize(
        "body", [b"{", b"[]", b'"x"', b"7", b"\xff", b'{"poolId": 7, "sync": 7}', b'{"surprise": 1}']
    )
    def test_malformed_bodies(self, still: Api, verb: str, body: bytes) -> None:
        """Broken JSON, another type and an unknown field are 422 with a place, and nothing is done."""
        answer = still.post(f"/api/v1/tenants/alice/{verb}", content=body, headers={"content-type": "application/json"})

        assert "body" in problem(answer, 422, "invalid-spec", 16)["title"]

    def test_misspelt_field_is_named(self, still: Api) -> None:
        """An unknown field is refused by its name, since `takeover` for `takeOver` must not pass silently."""
        assert "takeover" in problem(still.post(CLAIM, json={"takeover": True}), 422, "invalid-spec", 16)["title"]

    @pytest.mark.parametrize("generation", ["x", "1.5"])
    def test_generation_is_a_number(self, still: Api, generation: str) -> None:
        """A generation that is no number is 422."""
        assert (
            "generation"
            in problem(still.get(FILES, params={"generation": generation}), 422, "invalid-spec", 16)["title"]
        )

    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [("GET", "/", 404), ("GET", "/api/v2/tenants", 404), ("GET", CLAIM, 405), ("DELETE", STATUS, 405)],
    )
    def test_unknown_addresses_are_problems_too(self, still: Api, method: str, path: str, status: int) -> None:
        """A wrong address or method answers in the same form as every other error."""
        problem(still.request(method, path), status, "error", 1)

    def test_a_defect_is_reported_without_its_traceback(self, api: Api, world: World) -> None:
        """A mistake of ours is a 500 that names its kind, and the daemon lives on."""
        world.engine.fail("start", ZeroDivisionError("division by zero"))

        with capture_logs() as logged:
            body = problem(api.post(CLAIM, json={}), 500, "error", 1)

        assert logged[-1]["event"] == "defect"
        assert body["detail"] == "ZeroDivisionError: division by zero"
        assert "Traceback" not in json.dumps(body)
        assert api.post(CLAIM, json={}).status_code == 200


class TestLooking:
    def test_tenants_are_listed_by_id(self, api: Api) -> None:
        """All tenants that were ever claimed are there, each as its own status says."""
        for name in ("bob", "alice"):
            api.post(f"/api/v1/tenants/{name}/claim", json={})
        api.post("/api/v1/tenants/bob/release", json={})

        tenants = api.get("/api/v1/tenants").json()

        assert [(one["tenantId"], one["state"]) for one in tenants] == [("alice", "active"), ("bob", "cold")]
        assert tenants[0] == api.get(STATUS).json()

    def test_pools_are_counted(self, api: Api, world: World) -> None:
        """Slots are counted by what they do, beside the pool's limits."""
        api.post(CLAIM, json={})

        (pool,) = api.get("/api/v1/pools").json()

        assert {name: pool[name] for name in ("id", "minSize", "maxSize", "ready", "filling", "claimed", "error")} == {
            "id": "small",
            "minSize": 2,
            "maxSize": 3,
            "ready": 1,
            "filling": 0,
            "claimed": 1,
            "error": "",
        }

    def test_liveness_asks_nobody(self, api: Api, world: World) -> None:
        """The process answers although the engine does not."""
        world.engine.fail("info", EngineUnavailable("no engine", hint="wait"))

        assert api.get("/livez").json() == {"status": "ok", "version": __version__}

    def test_readiness_asks_engine_and_store(self, api: Api, world: World) -> None:
        """Readiness is 503 while the engine or the store does not answer, with the reason."""
        assert api.get("/readyz").json() == {
            "status": "ok",
            "store": "memory:",
            "pools": 1,
            "recovery": {
                "tenants": 0,
                "recovered": 0,
                "poolsReady": False,
                "toRestart": 0,
                "restarted": 0,
                "restartsFailing": 0,
            },
        }
        world.engine.fail("info", EngineUnavailable("no engine", hint="wait"))
        problem(api.get("/readyz"), 503, "engine-unavailable", 14)
        world.store.list = _refuse  # type: ignore[method-assign, assignment]
        problem(api.get("/readyz"), 503, "store-unavailable", 15)

    def test_openapi_is_served_and_no_foreign_script(self, api: Api) -> None:
        """The description is there; the pages that would load scripts from elsewhere are not."""
        assert CLAIM.replace("alice", "{tenant}") in api.get("/openapi.json").json()["paths"]
        assert api.get("/docs").status_code == api.get("/redoc").status_code == 404


class TestFiles:
    @pytest.fixture(autouse=True)
    def saved(self, api: Api, world: World) -> None:
        """Two generations of alice."""
        for text in ("red", "blue"):
            api.post(CLAIM, json={})
            world.write("alice", {"memory/colour.txt": text, "a/files/b/status": "odd"})
            api.post(RELEASE, json={})

    def test_listing_has_every_entry_of_the_newest(self, api: Api) -> None:
        """Entries come in the order of their paths, with mode, time, size and digest."""
        body = api.get(FILES).json()

        assert (body["tenantId"], body["generation"]) == ("alice", 2)
        assert [entry["path"] for entry in body["files"]] == [
            "a",
            "a/files",
            "a/files/b",
            "a/files/b/status",
            "memory",
            "memory/colour.txt",
        ]
        entry = body["files"][-1]
        assert (entry["type"], entry["size"], entry["kind"], entry["target"]) == ("file", 4, "plain", None)
        assert len(entry["sha256"]) == 64
        assert entry["mode"].startswith("06")
        assert entry["modified"].endswith("+00:00")
        assert body["files"][0]["type"] == "directory"

    def test_older_generation_can_be_read(self, api: Api) -> None:
        """A generation by its number is what it was."""
        assert api.get(FILES, params={"generation": 1}).json()["generation"] == 1
        assert api.get(f"{FILES}/memory/colour.txt", params={"generation": 1}).content == b"red"

    def test_content_is_byte_for_byte(self, api: Api) -> None:
        """A file is answered as bytes, not as a page of whatever it might be."""
        answer = api.get(f"{FILES}/memory/colour.txt")

        assert (answer.content, answer.headers["content-type"]) == (b"blue", "application/octet-stream")

    def test_names_like_routes_are_files(self, api: Api) -> None:
        """A file whose path holds `files` and `status` is found."""
        assert api.get(f"{FILES}/a/files/b/status").content == b"odd"

    def test_missing_file(self, api: Api) -> None:
        """A file that is not there is an error, never an empty answer."""
        answer = api.get(f"{FILES}/memory/shape.txt")

        assert "shape.txt" in problem(answer, 404, "state-missing", 34)["title"]

    @pytest.mark.parametrize("path", ["%2e%2e%2f%2e%2e%2fbob%2ffiles%2fx", "%2Fetc%2Fpasswd", "memory"])
    def test_nothing_but_entries_of_the_generation(self, api: Api, path: str) -> None:
        """A path out of the state, an absolute one and a directory are no files of the generation."""
        problem(api.get(f"{FILES}/{path}"), 404, "state-missing", 34)

    def test_damaged_state_is_an_error_and_not_half_a_file(self, api: Api, world: World) -> None:
        """Bytes that are not what the manifest says never look like a good answer."""
        for found in list(world.store.list("tenants/alice/packs/")):
            data, _ = world.store.get(found.key)
            world.store.put(found.key, bytes(byte ^ 1 for byte in data))

        answer = api.get(f"{FILES}/memory/colour.txt")

        assert answer.is_error
        assert b"blue" not in answer.content

    @pytest.mark.parametrize("generation", [0, 3])
    def test_generation_that_is_not_there(self, api: Api, generation: int) -> None:
        """A generation that was never sealed is an error that names the newest."""
        answer = api.get(FILES, params={"generation": generation})

        assert "generation 2" in problem(answer, 404, "state-missing", 34)["detail"]
