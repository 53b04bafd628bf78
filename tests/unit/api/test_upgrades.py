"""Upgrades as programs and people see them: the API's answers, and the lines and codes of the command."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from claw_runtime.cli import upgrade_verb
from claw_runtime.daemon.assembly import Runtime
from claw_runtime.tenancy import TenantId
from fakes.faces import Api, runtime_of, serving
from fakes.terminal import Call
from fakes.world import IMAGE, World

pytest_plugins = ["fakes.terminal_fixtures"]

NEW = "localhost/small:new"
UPGRADE = "/api/v1/pools/small/upgrade"
DARK = (503, b'{"failing": ["all"]}')


@pytest.fixture
def world(world: World) -> World:
    """Two tenants run, and a new image is loaded."""
    world.engine.add_image(NEW)
    for tenant in ("alice", "bob"):
        world.clock.advance(60)
        world.tenants.claim(TenantId(tenant), "small")
        world.write(tenant, {"name": tenant})
    return world


@pytest.fixture
def broken(world: World) -> World:
    """The new image never gets ready."""
    bad = world.engine.image(NEW).id

    def started(spec: Any) -> None:
        world.prober.always = DARK if spec.image == bad else (200, b"{}")

    world.engine.started = started
    return world


def over(api: Api) -> dict[str, Any]:
    """The upgrade, once it is over."""
    for _ in range(1000):
        answer: dict[str, Any] = api.get(UPGRADE).json()
        if answer["state"] not in ("running", "aborting"):
            return answer
        time.sleep(0.01)
    raise AssertionError(answer)


class TestApi:
    @pytest.fixture
    def api(self, world: World) -> Api:
        return Api(runtime_of(world))

    def test_a_dry_run_is_a_plan(self, api: Api) -> None:
        """It answers 200 with who goes when, and there is no upgrade afterwards."""
        answer = api.post(UPGRADE, json={"image": NEW, "dryRun": True})
        assert answer.status_code == 200
        told = answer.json()
        assert (told["canary"], told["waves"], told["now"]) == ("bob", [["bob"], ["alice"]], IMAGE)
        assert api.get(UPGRADE).status_code == 404

    def test_an_upgrade_continues_by_itself(self, api: Api) -> None:
        """It answers 202 at once; a later look shows each tenant's way to its end, and the pool's new image."""
        assert api.post(UPGRADE, json={"image": NEW, "soak": 1}).status_code == 202
        answer = over(api)
        assert (answer["state"], answer["switched"], answer["error"]) == ("done", True, "")
        assert [(move["tenantId"], move["state"]) for move in answer["tenants"]] == [("bob", "done"), ("alice", "done")]
        assert api.get("/api/v1/pools/small").json()["image"] == NEW
        assert api.post(f"{UPGRADE}/abort").status_code == 409

    def test_a_failed_one_is_reported_resumed_and_aborted(self, api: Api, broken: World) -> None:
        """Its answer has the reason and what to do; so has the pool's."""
        api.post(UPGRADE, json={"image": NEW})
        answer = over(api)
        assert (answer["state"], answer["tenants"][0]["state"]) == ("failed", "returned")
        assert "'bob'" in answer["error"]
        assert any("failed" in note for note in api.get("/api/v1/pools/small").json()["notes"])
        assert api.post(f"{UPGRADE}/resume").status_code == 202
        assert over(api)["state"] == "failed"
        assert api.post(f"{UPGRADE}/abort").status_code == 202
        assert over(api)["state"] == "aborted"

    @pytest.mark.parametrize(
        ("body", "status", "slug"),
        [
            ({"image": "localhost/none:1"}, 409, "image-missing"),
            ({"image": NEW, "canary": "nobody"}, 409, "conflict"),
            ({"image": ""}, 422, "invalid-spec"),
            ({"image": NEW, "soak": -1}, 422, "invalid-spec"),
            ({"image": NEW, "bathc": 2}, 422, "invalid-spec"),
            ({}, 422, "invalid-spec"),
        ],
    )
    def test_bad_requests_begin_nothing(self, api: Api, body: dict[str, Any], status: int, slug: str) -> None:
        """Each is a problem with its own name, and there is no upgrade afterwards."""
        answer = api.post(UPGRADE, json=body)
        assert (answer.status_code, answer.json()["type"]) == (status, f"urn:claw:{slug}")
        assert api.get(UPGRADE).status_code == 404


class TestCommand:
    @pytest.fixture
    def served(self, world: World, claw: Call, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
        monkeypatch.setenv("CLAW_RUN", str(world.layout.run))
        monkeypatch.setattr(upgrade_verb, "POLL", 0.005)
        with serving(world) as runtime:
            yield runtime

    def test_a_plan_in_words(self, served: Runtime, claw: Call) -> None:
        """--dry-run tells canary, waves and images, and that is all that happens."""
        result = claw("upgrade", "small", "--image", NEW, "--dry-run")
        assert result.code == 0
        for words in ("canary", "bob", "wave 1", "alice", IMAGE, NEW):
            assert words in result.out
        assert claw("upgrade", "small").code == 34

    def test_progress_in_lines(self, served: Runtime, claw: Call) -> None:
        """Each tenant's end is a line; the last line says what the pool has now."""
        result = claw("upgrade", "small", "--image", NEW, "--soak", "1")
        assert (result.code, result.err) == (0, "")
        lines = result.out.splitlines()
        assert "canary: bob: runs the new image" in lines
        assert "wave 1: alice: runs the new image" in lines
        assert lines[-1].startswith(f"small: makes its slots from {NEW}; 2 of 2 tenants moved")
        assert "TENANT" in claw("upgrade", "small").out

    def test_progress_as_json(self, served: Runtime, claw: Call) -> None:
        """One object a line for each step, and the whole upgrade at the end."""
        result = claw("upgrade", "small", "--image", NEW, "-o", "json")
        told = [json.loads(line) for line in result.out.splitlines()]
        assert [one["tenantId"] for one in told[:-1] if one["state"] == "done"] == ["bob", "alice"]
        assert told[-1]["state"] == "done"
        assert claw("upgrade", "small", "-o", "name").out.split() == ["bob", "alice"]

    def test_a_failure_has_its_code(self, served: Runtime, broken: World, claw: Call) -> None:
        """A failed upgrade ends with 39, says who, why and what to do, and `--abort` ends it with 0."""
        result = claw("upgrade", "small", "--image", NEW)
        assert result.code == 39
        assert "stopped at tenant 'bob'" in result.err
        assert "--resume" in result.err
        assert "canary: bob: runs its previous image again" in result.out
        assert claw("upgrade", "small", "--resume", "-o", "json").error["slug"] == "upgrade-failed"
        assert claw("upgrade", "small", "--abort").code == 0

    @pytest.mark.parametrize(
        "options", [("--image", NEW, "--abort"), ("--resume", "--abort"), ("--dry-run",), ("--batch", "2", "--resume")]
    )
    def test_options_that_do_not_go_together(self, claw: Call, options: tuple[str, ...]) -> None:
        """Each is wrong usage, told before anybody is asked."""
        assert claw("upgrade", "small", *options).code == 2

    def test_it_need_not_be_waited_for(self, served: Runtime, claw: Call) -> None:
        """With --detach it answers at once; a look shows how far it has come."""
        assert claw("upgrade", "small", "--image", NEW, "--detach").code == 0
        for thread in list(served.upgrades._threads):
            thread.join(10)
        assert claw("upgrade", "small", "-o", "json").json["state"] == "done"
