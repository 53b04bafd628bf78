"""`Idempotency-Key`: who asks twice because an answer was lost gets the first answer, and nothing is done twice."""

import asyncio
import threading

import pytest
from claw_runtime.access.tokens import LOCAL
from claw_runtime.api.idempotency import Idempotent
from claw_runtime.api.turns import Lanes
from claw_runtime.db.idempotency import SqliteAnswers
from claw_runtime.errors import DiskFull
from fakes.faces import Api, runtime_of
from fakes.world import World

CLAIM = "/api/v1/tenants/alice/claim"
RELEASE = "/api/v1/tenants/alice/release"
KEY = {"Idempotency-Key": "0b1e7d3a-1"}
pytestmark = pytest.mark.world(filled=True)


@pytest.fixture
def api(world: World) -> Api:
    return Api(runtime_of(world))


def test_the_second_answer_is_the_first(api: Api, world: World) -> None:
    """A release that is asked for twice under one key is done once, and answered twice, byte for byte."""
    api.post(CLAIM, json={})
    world.write("alice", {"a": "1"})

    first = api.post(RELEASE, json={"sync": True}, headers=KEY)
    api.post(CLAIM, json={})
    second = api.post(RELEASE, json={"sync": True}, headers=KEY)

    assert (first.status_code, second.status_code) == (200, 200)
    assert second.content == first.content
    assert second.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    assert world.row_state("alice") == "active"


def test_without_a_key_everything_is_done_again(api: Api) -> None:
    """The header is an offer, not a duty."""
    api.post(CLAIM, json={})

    assert api.post(RELEASE, json={}).status_code == 200
    assert api.post(RELEASE, json={}).status_code == 404


@pytest.mark.parametrize(
    ("path", "body"), [(CLAIM, {"poolId": "small"}), (RELEASE, {}), ("/api/v1/tenants/bob/claim", {})]
)
def test_another_request_under_the_same_key_is_refused(api: Api, path: str, body: dict[str, str]) -> None:
    """Another body, address or tenant is 422, and nothing is done."""
    api.post(CLAIM, json={}, headers=KEY)

    answer = api.post(path, json=body, headers=KEY)

    assert (answer.status_code, answer.json()["type"]) == (422, "urn:claw:invalid-spec")
    assert api.get("/api/v1/tenants").json()[0]["state"] == "active"
    assert len(api.get("/api/v1/tenants").json()) == 1


def test_a_refusal_is_not_remembered(api: Api) -> None:
    """An error changed nothing: the same key asks anew, and may succeed."""
    refused = api.post(RELEASE, json={}, headers=KEY)
    api.post(CLAIM, json={})

    answer = api.post(RELEASE, json={}, headers=KEY)

    assert (refused.status_code, answer.status_code) == (404, 200)


def test_a_defect_frees_the_key(api: Api, world: World) -> None:
    """A mistake of ours is a 500 and no answer for a day."""
    world.engine.fail("start", ZeroDivisionError("oops"))

    assert api.post(CLAIM, json={}, headers=KEY).status_code == 500
    assert api.post(CLAIM, json={}, headers=KEY).status_code == 200


def test_a_key_is_kept_for_a_day(api: Api, world: World) -> None:
    """Within a day it is the first answer, after it a new request."""
    first = api.post(CLAIM, json={}, headers=KEY).json()
    world.clock.advance(24 * 3600 - 1)
    assert api.post(CLAIM, json={}, headers=KEY).json() == first

    world.clock.advance(2)

    assert api.post(CLAIM, json={}, headers=KEY).json()["status"] == "already_claimed"


def test_while_the_first_is_under_way_the_second_waits_its_turn(api: Api, world: World) -> None:
    """A second request with the key of one that runs is 409 with Retry-After; the container is claimed once."""
    inside, go = threading.Event(), threading.Event()
    real = world.engine.start

    def slow(container: str) -> None:
        inside.set()
        assert go.wait(10)
        real(container)

    world.engine.start = slow  # type: ignore[method-assign]
    answers = []
    first = threading.Thread(target=lambda: answers.append(api.post(CLAIM, json={}, headers=KEY)))
    first.start()
    assert inside.wait(10)

    second = api.post(CLAIM, json={}, headers=KEY)
    go.set()
    first.join(10)

    assert (second.status_code, second.json()["type"]) == (409, "urn:claw:conflict")
    assert int(second.headers["retry-after"]) > 0
    assert answers[0].json()["status"] == "claimed"
    assert api.post(CLAIM, json={}, headers=KEY).content == answers[0].content


def test_a_crash_frees_the_keys_of_what_was_under_way(world: World) -> None:
    """After SIGKILL the next daemon has finished or undone the request; the same key makes it again."""
    answers = SqliteAnswers(world.ledger.database)
    assert answers.begin("", "k", "digest", 0.0, lifetime=1e9) is None
    answers.begin("", "done", "digest", 0.0, lifetime=1e9)
    answers.finish("", "done", 200, b"{}")
    world.restart()

    again = SqliteAnswers(world.ledger.database)

    assert again.begin("", "k", "digest", 0.0, lifetime=1e9) is None
    kept = again.begin("", "done", "digest", 0.0, lifetime=1e9)
    assert kept is not None
    assert (kept.status, kept.body) == (200, b"{}")


def test_it_outlives_the_daemon(world: World) -> None:
    """A client whose answer was lost with the daemon gets it from the next one."""
    first = Api(runtime_of(world)).post(CLAIM, json={}, headers=KEY)
    world.restart()

    assert Api(runtime_of(world)).post(CLAIM, json={}, headers=KEY).content == first.content


def test_keys_are_each_tokens_own(world: World) -> None:
    """Nobody reads another's answer by guessing a key."""
    runtime = runtime_of(world, listen="127.0.0.1:7070")
    over_tcp, near = Api(runtime, local=False), Api(runtime)
    near.post(CLAIM, json={}, headers=KEY)
    told = []
    for name in ("one", "other"):
        token = runtime.tokens.create(name, "tenant", tenant="alice")[1].reveal()
        told.append(over_tcp.post(CLAIM, json={}, headers={**KEY, "Authorization": f"Bearer {token}"}))

    assert [answer.json()["status"] for answer in told] == ["already_claimed", "already_claimed"]
    assert not any("idempotent-replayed" in answer.headers for answer in told)


def test_no_token_is_kept_with_an_answer(api: Api, world: World) -> None:
    """The text of a new token is in one answer only: its key is not remembered, its name cannot be taken twice."""
    body = {"name": "dashboard", "scope": "admin"}
    token = api.post("/api/v1/tokens", json=body, headers=KEY).json()["token"]

    again = api.post("/api/v1/tokens", json=body, headers=KEY)

    assert again.status_code == 409
    assert token.encode() not in b"".join(path.read_bytes() for path in world.layout.home.glob("ledger.sqlite*"))


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "a\tb"])
def test_a_key_has_a_form(api: Api, key: str) -> None:
    """What could not be a key is refused, and nothing is done."""
    assert api.post(CLAIM, json={}, headers={"Idempotency-Key": key}).status_code == 422
    assert api.get("/api/v1/tenants").json() == []


def test_a_look_needs_no_key(api: Api) -> None:
    """GET changes nothing and is never remembered."""
    assert api.get("/api/v1/tenants", headers=KEY).json() == []
    api.post(CLAIM, json={})
    assert len(api.get("/api/v1/tenants", headers=KEY).json()) == 1


def test_a_request_that_is_cut_off_frees_its_key(world: World) -> None:
    """When the daemon's end cancels a request, its key does not stay taken."""
    runtime = runtime_of(world)

    async def cancelled(_scope: object, _receive: object, _send: object) -> None:
        raise asyncio.CancelledError

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(_message: object) -> None:
        raise AssertionError("nothing was to be sent")

    scope = {
        "type": "http",
        "method": "POST",
        "path": CLAIM,
        "query_string": b"",
        "headers": [(b"idempotency-key", b"k")],
        "claw.grant": LOCAL,
    }

    async def ask() -> None:
        with pytest.raises(asyncio.CancelledError):
            async with Lanes().turn(None, LOCAL, None):
                await Idempotent(cancelled, runtime.answers, runtime.clock)(scope, receive, send)  # type: ignore[arg-type]

    asyncio.run(ask())

    assert runtime.answers.begin("", "k", "another", 0.0, lifetime=1.0) is None


def test_an_answer_that_cannot_be_kept_is_given(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full when the answer is remembered costs the memory, not the answer."""
    runtime = runtime_of(world)
    api = Api(runtime)

    def full(*_: object, **__: object) -> None:
        raise DiskFull("no room")

    monkeypatch.setattr(runtime.answers, "finish", full)

    said = api.post(CLAIM, json={}, headers=KEY)

    assert (said.status_code, said.json()["status"]) == (200, "claimed")
    again = api.post(CLAIM, json={}, headers=KEY)
    assert again.json()["status"] == "already_claimed"


def test_a_key_does_not_cost_a_look_at_all_answers(world: World) -> None:
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
