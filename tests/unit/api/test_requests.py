"""What a hostile or unlucky client may send: it is refused in the API's own form, and breaks nothing for others."""

import json
import os
from typing import Any

import pytest
from fakes.faces import Api, runtime_of
from fakes.refusals import refuse
from fakes.world import World

ALICE = "/api/v1/tenants/alice"
pytestmark = pytest.mark.world(filled=True)


@pytest.fixture
def api(world: World) -> Api:
    return Api(runtime_of(world))


class TestNumbers:
    @pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
    def test_metadata_that_is_no_json_is_refused(self, api: Api, number: str) -> None:
        """A number that JSON does not have would make the list of all tenants unreadable for every client."""
        body = f'{{"metadata": {{"n": [{number}]}}}}'

        said = api.post(f"{ALICE}/claim", content=body, headers={"Content-Type": "application/json"})

        assert said.status_code in (400, 422)
        listed = api.get("/api/v1/tenants")
        json.loads(listed.text, parse_constant=refuse(AssertionError("no JSON")))

    @pytest.mark.parametrize("levels", [33, 300, 900])
    def test_metadata_that_is_nested_too_deep_is_refused(self, api: Api, levels: int) -> None:
        """Else each later look at the tenant would fail; what is nested a few levels deep is kept."""
        nested = '{"a":' * levels + "{}" + "}" * levels
        headers = {"Content-Type": "application/json"}
        said = api.post(f"{ALICE}/claim", content=f'{{"metadata": {nested}}}', headers=headers)
        assert (said.status_code in (400, 422), "nested" in said.text or levels > 300) == (True, True)
        nested = '{"a":' * 20 + "{}" + "}" * 20
        said = api.post(f"{ALICE}/claim", content=f'{{"metadata": {nested}}}', headers=headers)
        assert (said.status_code, api.get(f"{ALICE}/status").status_code) == (200, 200)

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


class TestBodies:
    """One place reads every body, and takes only what each parser of JSON reads alike."""

    @pytest.mark.parametrize(
        "body",
        [
            '{"poolId": "small", "poolId": "other"}',
            '{"metadata": {"a": 1, "b": {"c": 1, "c": 2}}}',
            '{"wait": 1e999}',
            '{"wait": -Infinity}',
            '{"metadata": {"n": %s}}' % ("9" * 31),
            '{"metadata": {"\\udc80": 1}}',
            '{"metadata": ' + "[" * 65 + "]" * 65 + "}",
            "[" * 100_000,
            '{"a":' * 100_000,
            "\ufeff{}",
            "{'wait': 1}",
            '{"wait": 1,}',
            "",
            " ",
            "nul",
            '"text"',
            "[]",
            "7",
        ],
    )
    def test_what_parsers_read_differently_is_refused(self, api: Api, body: str) -> None:
        """As a problem, before anything is begun; only an empty body is none at all."""
        said = api.post(f"{ALICE}/claim", content=body, headers={"Content-Type": "application/json"})

        assert said.status_code == (200 if body == "" else 422), said.text
        if body:
            assert said.json()["type"] == "urn:claw:invalid-spec"
            assert api.get(f"{ALICE}/status").json()["state"] == "unknown"

    def test_bytes_that_are_no_utf8_are_refused(self, api: Api) -> None:
        """JSON is UTF-8."""
        said = api.post(f"{ALICE}/claim", content=b'{"poolId": "\xff"}', headers={"Content-Type": "application/json"})

        assert said.status_code == 422

    @pytest.mark.parametrize(
        ("method", "path", "body"),
        [
            ("POST", f"{ALICE}/claim", {"wait": True}),
            ("POST", f"{ALICE}/claim", {"wait": "5"}),
            ("POST", f"{ALICE}/claim", {"takeOver": 1}),
            ("POST", f"{ALICE}/claim", {"takeOver": "yes"}),
            ("POST", f"{ALICE}/claim", {"poolId": 7}),
            ("POST", f"{ALICE}/claim", {"pool": "small"}),
            ("POST", f"{ALICE}/claim", {"metadata": [1]}),
            ("POST", f"{ALICE}/release", {"sync": 0}),
            ("POST", f"{ALICE}/release", {"affinity": "off"}),
            ("POST", f"{ALICE}/sync", {"direction": True}),
            ("POST", f"{ALICE}/collect", {"grace": True}),
            ("POST", f"{ALICE}/collect", {"dryRun": "true"}),
            ("POST", f"{ALICE}/import", {"source": "/x", "replace": 1}),
            ("POST", f"{ALICE}/snapshots/recover", {"acceptLoss": 1}),
            ("POST", f"{ALICE}/snapshots/latest/pin", {"tag": 1}),
            ("POST", f"{ALICE}/snapshots/latest/restore", {"paths": "a"}),
            ("POST", f"{ALICE}/snapshots/latest/restore", {"paths": [1]}),
            ("POST", f"{ALICE}/snapshots/latest/restore", {"dryRun": 1}),
            ("PUT", "/api/v1/pools/small", {"minSize": True}),
            ("PATCH", "/api/v1/pools/small", {"maxSize": 1.0}),
            ("POST", "/api/v1/pools/small/scale", {"targetSize": True}),
            ("POST", "/api/v1/pools/small/scale", {"warmth": {"created": True}}),
            ("POST", "/api/v1/pools/small/upgrade", {"image": "x", "batch": True}),
            ("POST", "/api/v1/pools/small/upgrade", {"image": "x", "soak": "1"}),
            ("POST", "/api/v1/pools", {"yaml": 1}),
            ("PUT", "/api/v1/workloads/small", {"document": "x"}),
            ("POST", "/api/v1/tokens", {"name": 1, "scope": "admin"}),
            ("POST", "/api/v1/keys/rewrap", {"tenants": "alice"}),
        ],
    )
    def test_a_value_of_another_type_is_refused(self, api: Api, method: str, path: str, body: dict[str, Any]) -> None:
        """Nothing is converted: `true` is not 1, and `"5"` is no number."""
        said = api.request(method, path, json=body)

        assert said.status_code == 422, said.text
        assert said.json()["title"].startswith("the request is not valid: body")

    def test_every_body_has_such_a_schema(self, api: Api) -> None:
        """In the description, no body takes a field that it does not know."""
        described = api.get("/openapi.json").json()
        schemas = described["components"]["schemas"]
        names = {name for name in schemas if name.endswith("Request")}

        assert len(names) >= 13
        for name in names:
            assert schemas[name]["additionalProperties"] is False, name


@pytest.mark.parametrize(
    "address",
    [
        f"{ALICE}/snapshots/@{'9' * 20}d",
        f"{ALICE}/snapshots/@{'9' * 400}d",
        f"{ALICE}/snapshots/@0001-01-01T00:00%2B23:59",
    ],
)
def test_times_beyond_all_dates_are_answered(api: Api, address: str) -> None:
    """A time that no date can tell finds nothing, or is refused; it is no defect."""
    api.post(f"{ALICE}/claim", json={})
    api.post(f"{ALICE}/sync", json={})

    assert api.get(address).status_code in (404, 422)


@pytest.mark.parametrize("generation", [-1, 1 << 63])
def test_a_generation_that_cannot_be_is_refused(api: Api, generation: int) -> None:
    """Before the store is asked: 422, where one that is not there is 404."""
    said = api.get(f"{ALICE}/files", params={"generation": generation})

    assert (said.status_code, said.json()["title"]) == (422, "the request is not valid: query.generation")


@pytest.mark.parametrize("at", [-(10**21), 10**21])
def test_a_file_with_a_time_beyond_all_dates_is_listed(api: Api, world: World, at: int) -> None:
    """A tenant may set any time that its file system takes; the list of its files stays readable."""
    api.post(f"{ALICE}/claim", json={})
    world.write("alice", {"a": "x"})
    os.utime(world.state("alice") / "a", ns=(at, at))
    api.post(f"{ALICE}/sync", json={})

    said = api.get(f"{ALICE}/files")

    assert said.status_code == 200, said.text
    assert said.json()["files"][0]["path"] == "a"
