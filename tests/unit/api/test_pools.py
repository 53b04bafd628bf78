"""Pools, workloads and activity over the API: true numbers, and an operator's hand that holds."""

import errno
from pathlib import Path
from typing import Any

import pytest
from claw_runtime.daemon.assembly import Runtime
from claw_runtime.workloads import registry
from fakes.faces import Api, runtime_of
from fakes.world import IMAGE, WORKLOAD, World

POOL = "/api/v1/pools/small"
pytestmark = pytest.mark.world(filled=True)


@pytest.fixture
def runtime(world: World) -> Runtime:
    return runtime_of(world)


@pytest.fixture
def api(runtime: Runtime) -> Api:
    return Api(runtime)


def large(**more: Any) -> dict[str, Any]:
    """A second workload."""
    known = {
        "ports": [{"container": 8080}],
        "healthcheck": {"path": "/ready"},
        "volumes": {"state": {"target": "/state"}},
    }
    return {"id": "large", "image": IMAGE, **known, **more}


class TestPools:
    def test_one_pool_is_as_in_the_list(self, api: Api) -> None:
        """`GET /pools/{id}` is the row of the list; another id is 404."""
        assert api.get(POOL).json() == api.get("/api/v1/pools").json()[0]
        assert api.get("/api/v1/pools/other").json()["type"] == "urn:claw:unknown-pool"

    def test_slots_are_counted_by_tier(self, api: Api) -> None:
        """Each tier says how many shall wait and how many do."""
        assert api.get(POOL).json()["tiers"]["created"] == {"wanted": 2, "ready": 2, "filling": 0}

    @pytest.mark.parametrize(
        ("method", "path", "field"),
        [("PUT", POOL, "minSize"), ("PATCH", POOL, "minSize"), ("POST", f"{POOL}/scale", "targetSize")],
    )
    def test_scaling(self, api: Api, world: World, runtime: Runtime, method: str, path: str, field: str) -> None:
        """A size that is set holds, wakes the reconciler, and outlives the daemon; what is left out stays."""
        answer = api.request(method, path, json={field: 1}).json()

        assert (answer["minSize"], answer["maxSize"]) == (1, 3)
        assert runtime.poked.is_set()
        world.restart()
        world.pools.keep()
        assert Api(runtime_of(world)).get(POOL).json()["minSize"] == 1

    @pytest.mark.parametrize(
        "body", [{"minSize": -1}, {"minSize": 1, "targetSize": 1}, {"size": 1}, {"minSize": 99}, {"warmth": {"hot": 1}}]
    )
    def test_impossible_sizes(self, api: Api, body: dict[str, Any]) -> None:
        """Counts that are none, two names for one thing, unknown tiers, and more than the maximum are refused."""
        assert api.post(f"{POOL}/scale", json=body).status_code == 422
        assert api.get(POOL).json()["minSize"] == 2

    def test_a_drained_pool_has_no_slots_and_takes_no_claims(self, api: Api, world: World) -> None:
        """Claims of it are refused with the reason until it is filled again; a tenant's container stays."""
        api.post("/api/v1/tenants/alice/claim", json={})

        assert api.post(f"{POOL}/drain").json()["drained"] is True
        world.pools.keep()
        drained = api.get(POOL).json()

        assert (drained["drained"], drained["ready"], drained["claimed"]) == (True, 0, 1)
        refusal = api.post("/api/v1/tenants/bob/claim", json={})
        assert (refusal.status_code, refusal.json()["type"]) == (503, "urn:claw:pool-exhausted")
        assert api.get("/api/v1/tenants/alice/status").json()["status"] == "warm"
        assert api.post(f"{POOL}/undrain").json()["drained"] is False
        world.pools.keep()
        assert api.post("/api/v1/tenants/bob/claim", json={}).status_code == 200

    def test_recycling_replaces_what_waits(self, api: Api, world: World) -> None:
        """Every waiting slot is replaced by a new one, and how many is told."""
        before = {slot.id for slot in world.ledger.slots()}

        assert api.post(f"{POOL}/recycle").json() == {"id": "small", "recycled": 2}

        world.pools.keep()
        after = {slot.id for slot in world.ledger.slots()}
        assert len(after) == 2
        assert not before & after

    def test_metrics_are_true(self, api: Api, world: World) -> None:
        """Numbers are counted, never constants: they follow what happens."""
        before = api.get(f"{POOL}/metrics").json()
        assert (before["total"], before["available"], before["borrowed"], before["claims"]) == (2, 2, 0, {})
        for name in ("alice", "bob", "carol"):
            api.post(f"/api/v1/tenants/{name}/claim", json={})
        api.post("/api/v1/tenants/dave/claim", json={})  # refused: the pool is full

        after = api.get(f"{POOL}/metrics").json()

        assert (after["total"], after["available"], after["borrowed"]) == (3, 0, 3)
        assert (after["minSize"], after["maxSize"]) == (2, 3)
        assert after["claims"] == {"created": 2, "cold": 1}
        assert after["claimSeconds"]["created"]["count"] == 2
        assert 0 <= after["claimSeconds"]["created"]["p50"] <= after["claimSeconds"]["created"]["p95"]


class TestWorkloads:
    def test_a_pool_is_made_of_a_workload(self, api: Api, world: World, runtime: Runtime) -> None:
        """`POST /pools` writes the file that the next daemon reads, and the pool fills and can be claimed from."""
        answer = api.post("/api/v1/pools", json={"document": large(pool={"min_size": 1, "max_size": 2})})

        assert (answer.status_code, answer.json()["id"], answer.json()["minSize"]) == (201, "large", 1)
        assert (runtime.settings.workloads / "large.yaml").is_file()
        world.pools.keep()
        assert api.post("/api/v1/tenants/alice/claim", json={"poolId": "large"}).json()["source"] == "created"
        assert api.post("/api/v1/pools", json={"document": large()}).status_code == 409

    def test_yaml_is_kept_as_it_is(self, api: Api, runtime: Runtime) -> None:
        """A file that is given as text keeps its comments."""
        text = "# ours" + WORKLOAD.replace("id: small", "id: large")

        assert api.request("PUT", "/api/v1/workloads/large", json={"yaml": text}).status_code == 200

        assert (runtime.settings.workloads / "large.yaml").read_text() == text

    def test_changing_one(self, api: Api, world: World) -> None:
        """What is put over a workload holds for its pool."""
        api.request("PUT", "/api/v1/workloads/large", json={"document": large(pool={"min_size": 0, "max_size": 2})})

        api.request("PUT", "/api/v1/workloads/large", json={"document": large(pool={"min_size": 0, "max_size": 7})})

        assert api.get("/api/v1/pools/large").json()["maxSize"] == 7
        assert [one["id"] for one in api.get("/api/v1/workloads").json()] == ["small", "large"]

    def test_secrets_in_it_are_not_shown(self, api: Api) -> None:
        """What looks secret in a workload is masked where it is read."""
        body = {"document": large(environment={"API_TOKEN": "canary-of-the-operator"})}
        put = api.request("PUT", "/api/v1/workloads/large", json=body)

        assert (put.status_code, "canary" in put.text) == (200, False), put.text
        assert "canary" not in api.get("/api/v1/workloads/large").text

    @pytest.mark.parametrize(
        "body",
        [
            {},
            {"yaml": "id: large", "document": {}},
            {"yaml": "id: [large"},
            {"document": {"id": "large"}},
            {"document": large(id="other")},
            {"document": large(colour="blue")},
            {"document": large(ports=[])},
        ],
        ids=["nothing", "both", "no YAML", "no image", "another id", "unknown key", "not for its image"],
    )
    def test_what_is_no_workload_is_refused(self, api: Api, runtime: Runtime, body: dict[str, Any]) -> None:
        """Nothing is written and no pool is made."""
        assert api.request("PUT", "/api/v1/workloads/large", json=body).status_code == 422
        assert list(runtime.settings.workloads.iterdir()) == []
        assert len(api.get("/api/v1/pools").json()) == 1

    def test_a_store_cannot_be_changed_on_the_way(self, api: Api, runtime: Runtime) -> None:
        """A workload that names another store would leave every tenant without its state at the next start."""
        sink = {"type": "s3", "bucket": "elsewhere", "region": "eu"}

        answer = api.request("PUT", "/api/v1/workloads/large", json={"document": large(sync={"sink": sink})})

        assert (answer.status_code, "state is stored" in answer.json()["title"]) == (409, True)
        assert list(runtime.settings.workloads.iterdir()) == []

    @pytest.mark.parametrize("name", ["..%2Fevil", "%2Fetc%2Fcron", "Large", "a" * 80])
    def test_a_file_is_nowhere_but_in_the_directory(self, api: Api, runtime: Runtime, name: str) -> None:
        """An id that would be a path, or is no id, writes no file."""
        answer = api.request("PUT", f"/api/v1/workloads/{name}", json={"document": large(id="large")})

        assert answer.status_code in (404, 405, 422)
        assert list(runtime.settings.workloads.iterdir()) == []

    def test_removing_one(self, api: Api, world: World, runtime: Runtime) -> None:
        """Its file and its slots go; while a tenant holds something of it, it stays."""
        api.post("/api/v1/pools", json={"document": large(pool={"min_size": 1, "max_size": 2})})
        world.pools.keep()
        api.post("/api/v1/tenants/alice/claim", json={"poolId": "large"})
        assert "alice" in api.request("DELETE", "/api/v1/pools/large").json()["detail"]
        api.post("/api/v1/tenants/alice/release", json={"affinity": False})

        assert api.request("DELETE", "/api/v1/workloads/large").json()["id"] == "large"

        assert list(runtime.settings.workloads.iterdir()) == []
        world.pools.keep()
        assert {slot.pool for slot in world.ledger.slots()} == {"small"}
        assert api.request("DELETE", "/api/v1/pools/large").status_code == 404

    def test_without_room_nothing_changes(self, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
        """When the file cannot be written the pool is as it was: what is served is what the next daemon finds."""
        api.post("/api/v1/pools", json={"document": large(pool={"min_size": 0, "max_size": 2})})

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(registry, "write_atomic", full)

        changed = api.request("PUT", "/api/v1/workloads/large", json={"document": large(pool={"max_size": 9})})
        added = api.post("/api/v1/pools", json={"document": large(id="third")})

        assert (changed.status_code, added.status_code) == (507, 507)
        assert api.get("/api/v1/pools/large").json()["maxSize"] == 2
        assert api.get("/api/v1/pools/third").status_code == 404

    def test_a_file_of_the_operators_stays_theirs(self, api: Api) -> None:
        """A workload that came from a file elsewhere is neither overwritten nor removed through the API."""
        document = {"yaml": WORKLOAD}

        assert api.request("PUT", "/api/v1/workloads/small", json=document).status_code == 409
        assert api.request("DELETE", "/api/v1/pools/small").status_code == 409


class TestActivity:
    def test_events_are_recorded(self, api: Api) -> None:
        """A claim and a release are events with tenant, pool, time and facts, oldest first."""
        api.post("/api/v1/tenants/alice/claim", json={})
        api.post("/api/v1/tenants/alice/release", json={})
        api.post(f"{POOL}/scale", json={"minSize": 1})

        events = api.get("/api/v1/activity").json()

        assert [event["kind"] for event in events] == ["claimed", "released", "pool-scaled"]
        assert (events[0]["tenantId"], events[0]["poolId"], events[0]["detail"]["source"]) == (
            "alice",
            "small",
            "created",
        )
        assert events[0]["at"].endswith("+00:00")

    def test_it_can_be_narrowed(self, api: Api, world: World) -> None:
        """By tenant, pool, number, time, and to what is new."""
        for name in ("alice", "bob"):
            api.post(f"/api/v1/tenants/{name}/claim", json={})
            world.clock.advance(60)

        def kinds(**query: object) -> list[str | None]:
            return [event["tenantId"] for event in api.get("/api/v1/activity", params=query).json()]

        first = api.get("/api/v1/activity").json()[0]
        assert kinds(tenant="alice") == ["alice"]
        assert kinds(limit=1) == ["bob"]
        assert kinds(since="90s") == ["bob"]
        assert kinds(since=first["at"]) == ["alice", "bob"]
        assert kinds(after=first["id"]) == ["bob"]
        assert kinds(pool="other") == []

    @pytest.mark.parametrize("query", ["since=yesterday", "since=-1s", "limit=0", "limit=1001", "after=-1", "limit=x"])
    def test_wrong_questions(self, api: Api, query: str) -> None:
        """A time that is none and a number out of range are 422."""
        assert api.get(f"/api/v1/activity?{query}").status_code == 422

    def test_it_is_bounded(self, world: World) -> None:
        """Ten thousand events stay, whatever happens; the oldest go."""
        for number in range(10_500):
            world.events.record("tick", number=number)

        kept = world.ledger.database.row("SELECT count(*), max(id) FROM event")
        assert kept is not None
        assert 10_000 <= kept[0] <= 10_200
        assert world.events.newest(1)[0].detail == {"number": 10_499}

    def test_it_keeps_no_secret_and_breaks_nothing(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """Fields that look secret are masked; an event that cannot be kept is a line of the log, not an error."""
        world.events.record("x", token="canary-token", note=object(), path=Path("/p"))
        assert "canary" not in str(world.events.newest(1)[0].detail)

        monkeypatch.setattr(world.ledger.database, "change", lambda **_: 1 / 0)

        world.events.record("y")
