"""A tenant's log over the API: as it comes, whole, and without the tenant's secrets."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from claw_runtime import logs as own_logs
from fakes.faces import Api, client, runtime_of, serving
from fakes.world import World

CONTRACT = Path(__file__).parents[3] / "images/openclaw-nix/contract.json"
WORKLOAD = f"""
id: small
image: localhost/small:dev
contract: {CONTRACT}
environment: {{CLAW_MODEL_ID: model-of-alice}}
"""
LOGS = "/api/v1/tenants/alice/logs"
pytestmark = pytest.mark.world(workload=WORKLOAD)


@pytest.fixture
def api(world: World) -> Api:
    return Api(runtime_of(world))


@pytest.fixture
def container(api: Api, world: World) -> str:
    """The container of alice, who has said two lines."""
    name = str(api.post("/api/v1/tenants/alice/claim", json={}).json()["containerId"])
    world.engine.say(name, b"first\nsecond\n")
    return name


def token_of(world: World) -> str:
    """Alice's generated token."""
    return next(world.layout.secrets("alice").iterdir()).read_text()  # type: ignore[arg-type]


def test_lines_come_as_text(api: Api, container: str) -> None:
    """Every line, whole, as UTF-8 text that no browser runs."""
    answer = api.get(LOGS)

    assert answer.text.splitlines()[-2:] == ["first", "second"]
    assert answer.text.endswith("second\n")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_long_log_comes_whole(api: Api, world: World, container: str) -> None:
    """Thousands of lines, in their order."""
    world.engine.say(container, b"".join(b"line %d\n" % number for number in range(5000)))

    assert api.get(LOGS).text.splitlines()[-5000:] == [f"line {number}" for number in range(5000)]


@pytest.mark.parametrize(("query", "lines"), [("tail=1", ["second"]), ("tail=0", []), ("since=1s", ["second"])])
def test_less_can_be_asked_for(
    api: Api, world: World, container: str, query: str, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last lines, or what is newer than a time."""
    world.clock.jump(time.time() - world.clock.now())
    world.engine.age_log(container, 60, but=1)

    assert api.get(f"{LOGS}?{query}").text.splitlines() == lines


@pytest.mark.parametrize("query", ["tail=-1", "tail=x", f"tail={1 << 31}", "since=whenever", "follow=perhaps"])
def test_wrong_questions(api: Api, container: str, query: str) -> None:
    """What is no number, a number that Podman cannot read, or no time or truth, is 422."""
    assert api.get(f"{LOGS}?{query}").status_code == 422


def test_a_tenant_without_a_container_has_no_log(api: Api) -> None:
    """A stranger's and a released tenant's log is 404 with the way on."""
    assert api.get(LOGS).json()["type"] == "urn:claw:not-claimed"
    api.post("/api/v1/tenants/alice/claim", json={})
    api.post("/api/v1/tenants/alice/release", json={"affinity": False})
    assert api.get(LOGS).status_code == 404


def test_secrets_are_masked_also_after_a_restart(world: World, container: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever way the program writes its token, nobody reads it; values that are no secret stay readable."""
    token = token_of(world)
    forms = [f"token {token}", json.dumps({"t": token}), base64.b64encode(token.encode()).decode(), f"({token})"]
    world.engine.say(container, "".join(f"{form}\n" for form in [*forms, "model-of-alice"]).encode())
    world.restart()
    monkeypatch.setattr(own_logs, "_known", {})  # what an earlier daemon had learnt

    text = Api(runtime_of(world)).get(LOGS).text

    assert token not in text
    assert base64.b64encode(token.encode()).decode()[:-4] not in text
    assert "model-of-alice" in text


class TestFollowing:
    @pytest.fixture
    def follower(self, world: World, container: str) -> Iterator[Iterator[str]]:
        """Lines of a log that is being followed over the real socket."""
        with (
            serving(world),
            client(world) as one,
            one.stream("GET", f"{LOGS}?follow=true&tail=1") as answer,
        ):
            yield answer.iter_lines()

    def test_a_line_comes_when_it_is_said(self, world: World, container: str, follower: Iterator[str]) -> None:
        """Each line is there at once, masked, not when a buffer is full."""
        assert next(follower) == "second"
        for number in range(3):
            world.engine.say(container, f"news {number} {token_of(world)}\n".encode())
            assert next(follower) == f"news {number} {own_logs.MASK}"

    def test_it_ends_with_the_container(self, world: World, container: str, follower: Iterator[str]) -> None:
        """When the program ends, so does its log."""
        assert next(follower) == "second"
        world.engine.crash(container)

        assert list(follower) == []

    def test_it_ends_with_the_daemon(self, world: World, container: str) -> None:
        """A log that is followed does not keep a daemon from its end."""
        with client(world) as one:
            with serving(world):
                answer = one.send(one.build_request("GET", f"{LOGS}?follow=true"), stream=True)
                lines = answer.iter_lines()
                assert next(lines)
                reader = threading.Thread(target=lambda: list(lines))
                reader.start()
                began = time.monotonic()
            took = time.monotonic() - began
            reader.join(5)

        assert not reader.is_alive()
        assert took < 5

    def test_a_reader_that_goes_leaves_nothing(self, world: World, container: str) -> None:
        """When a reader hangs up, the lines are closed and their thread ends."""
        closed = threading.Event()
        real = world.engine.lines

        def watched(*arguments: object, **options: object) -> object:
            lines = real(*arguments, **options)  # type: ignore[arg-type]
            close = lines.close
            lines.close = lambda: (close(), closed.set())  # type: ignore[method-assign, func-returns-value]
            return lines

        world.engine.lines = watched  # type: ignore[method-assign, assignment]
        with serving(world):
            with (
                client(world) as one,
                one.stream("GET", f"{LOGS}?follow=true") as answer,
            ):
                assert next(answer.iter_lines())
            assert closed.wait(5)
