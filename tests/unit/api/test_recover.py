"""`snapshot recover` as programs and people see it: the API's answer, the text, the question and the codes."""

import sys
from collections.abc import Iterator

import pytest
from claw_runtime.daemon.assembly import Runtime
from claw_runtime.tenancy import Keys, tenant_id
from fakes.faces import Api, runtime_of, serving
from fakes.terminal import Call
from fakes.world import World

pytest_plugins = ["fakes.terminal_fixtures"]

ALICE = tenant_id("alice")
RECOVER = "/api/v1/tenants/alice/snapshots/recover"


@pytest.fixture
def world(world: World) -> World:
    """Alice has two generations and no HEAD."""
    for word in ("blue", "red"):
        world.tenants.claim(ALICE, "small")
        world.write(ALICE, {"a.txt": word})
        world.tenants.release(ALICE)
    world.store.delete(Keys(ALICE).head)
    return world


def lose_newest(world: World) -> None:
    [key] = [item.key for item in world.store.list(Keys(ALICE).manifests) if "000000000002" in item.key]
    world.store.put(key, b"damaged\x1b[2J")


class TestApi:
    @pytest.fixture
    def runtime(self, world: World) -> Runtime:
        return runtime_of(world, listen="127.0.0.1:7070")

    @pytest.fixture
    def api(self, runtime: Runtime) -> Api:
        return Api(runtime)

    def test_a_claim_is_refused_until_it_is_done(self, api: Api) -> None:
        """The answer of a dry run is that of the recovery; then HEAD is healthy."""
        refused = api.post("/api/v1/tenants/alice/claim")
        assert (refused.status_code, refused.json()["exitCode"]) == (500, 27)
        plan = api.post(RECOVER, json={"dryRun": True}).json()
        done = api.post(RECOVER).json()
        assert {**plan, "dryRun": False} == done
        assert (done["condition"], done["generation"], done["known"], done["loses"]) == ("missing", 2, 2, False)
        assert done["faulty"] == []
        assert api.post(RECOVER).status_code == 409
        assert api.post("/api/v1/tenants/alice/claim").status_code == 200

    def test_a_tenants_token_is_refused(self, runtime: Runtime) -> None:
        """To give up state is the operator's."""
        _, token = runtime.tokens.create("mine", "tenant", tenant="alice", lifetime=None)
        told = Api(runtime, local=False).post(RECOVER, headers={"Authorization": f"Bearer {token.reveal()}"})
        assert told.status_code == 403


class TestPeople:
    @pytest.fixture(autouse=True)
    def served(self, world: World, claw: Call) -> Iterator[None]:
        with serving(world):
            yield

    def test_what_was_found_and_done_is_said(self, claw: Call) -> None:
        """Data on stdout, the rest on stderr."""
        plan = claw("snapshot", "recover", "alice", "--dry-run")
        assert plan.out.startswith("alice: HEAD would name generation 2 (1 file, 3 B, sealed ")
        assert plan.err == "HEAD is missing: this host knows its generation 2\n"
        done = claw("snapshot", "recover", "alice")
        assert done.out.startswith("alice: HEAD names generation 2 (1 file, 3 B, sealed ")
        again = claw("snapshot", "recover", "alice")
        assert again.code == 37
        assert "HEAD of tenant alice is there and healthy" in again.err
        assert "claw-runtime snapshot restore alice" in again.err

    def test_a_loss_must_be_accepted(self, claw: Call, world: World) -> None:
        """The newer generation and its fault are named."""
        lose_newest(world)
        refused = claw("snapshot", "recover", "alice")
        assert refused.code == 27
        assert "--accept-loss" in refused.err
        plan = claw("snapshot", "recover", "alice", "-n")
        assert "  generation 2: its manifest is damaged\n" in plan.err
        assert "  this loses state: bring objects back from a backup first, or add --accept-loss\n" in plan.err
        assert claw("snapshot", "recover", "alice", "--accept-loss", "-o", "name").out == "1\n"

    def test_a_state_that_is_gone_begins_anew(self, claw: Call, world: World) -> None:
        """Nothing of it is in the store."""
        for item in list(world.store.list(Keys(ALICE).prefix)):
            world.store.delete(item.key)
        done = claw("snapshot", "recover", "alice", "--accept-loss", "--yes")
        assert done.out.startswith("alice: HEAD says that there is no state, under epoch ")
        assert claw("claim", "alice").code == 0

    @pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 130)])
    def test_a_person_is_asked(self, claw: Call, monkeypatch: pytest.MonkeyPatch, answer: str, code: int) -> None:
        """After what was found; only yes is yes."""
        asked: list[str] = []
        for stream in (sys.stdin, sys.stderr):
            monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
        monkeypatch.setattr("click.termui.visible_prompt_func", lambda told="": asked.append(told) or answer)
        assert claw("snapshot", "recover", "alice").code == code
        assert len(asked) == 1
        assert (claw("snapshot", "list", "alice").code == 0) is (code == 0)
