"""A tenant's secrets: a release needs none, and its last words show none."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from claw_runtime import logs
from claw_runtime.errors import StoreUnavailable, UploadFailed
from claw_runtime.fsutil import write_new
from claw_runtime.tenancy import LABEL_CONTRACT, TenantId
from claw_runtime.tenants import trees
from fakes.waiters import contract
from fakes.world import FROZEN, IMAGE, World

ALICE = TenantId("alice")
CONTRACT = Path(__file__).parents[3] / "images" / "openclaw-nix" / "contract.json"
pytestmark = pytest.mark.world(workload=FROZEN)


def refuse(*_: object, **__: object) -> str:
    raise StoreUnavailable("down")


def claimed(world: World, *tenants: TenantId) -> None:
    for tenant in tenants:
        world.tenants.claim(tenant, "small")
        world.write(tenant, {"colour": "blue"})


def test_a_secret_that_cannot_be_read_keeps_nobody(world: World) -> None:
    """A release needs no secret: one that was spoilt since the claim does not keep the state from the store."""
    world.engine.add_image(IMAGE, labels={LABEL_CONTRACT: contract()})
    claimed(world, ALICE)
    spoilt = world.layout.secrets(ALICE) / "OPENROUTER_API_KEY"
    spoilt.mkdir(parents=True)

    world.tenants.release(ALICE, affinity=False)

    assert world.saved(ALICE) == {"colour": "blue"}


@pytest.mark.parametrize("restarted", [True, False])
def test_the_last_output_is_reported_without_secrets(
    world: World, monkeypatch: pytest.MonkeyPatch, restarted: bool
) -> None:
    """What a program printed before it ended is told in its status, but not the secrets in it: not after a restart
    either, when nobody has read them yet."""
    world.engine.add_image(IMAGE, labels={LABEL_CONTRACT: contract()})
    secret = world.layout.secrets(ALICE) / "OPENROUTER_API_KEY"
    secret.parent.mkdir(mode=0o700, parents=True)
    write_new(secret, b"plain-as-day-1234")
    claimed(world, ALICE)
    container = world.tenants.find(ALICE)[1].container  # type: ignore[union-attr]
    world.engine.say(container, b"I cannot use plain-as-day-1234 any more\n")  # type: ignore[arg-type]
    world.engine.crash(container)  # type: ignore[arg-type]
    monkeypatch.setattr(logs, "_known", {})

    if restarted:
        world.restart()
        world.recover()
    else:
        world.recovery.supervise()

    row, _ = world.tenants.find(ALICE)
    assert "I cannot use [redacted] any more" in row.error
    assert "plain-as-day" not in str(world.events.newest())


class TestAtRest:
    """A secret that a program writes into its state is told, and never shown."""

    KEY = "sk-canary-ONE-4711"

    @pytest.fixture
    def keyed(self, tmp_path: Path) -> Iterator[World]:
        """A pool of OpenClaw's contract, and a key for all of its tenants."""
        world = World(tmp_path, workload=f"id: small\nimage: localhost/small:dev\ncontract: {CONTRACT}\n")
        self.set(world, self.KEY)
        yield world
        world.close()

    def set(self, world: World, value: str) -> None:
        path = world.layout.home / "secrets" / "CLAW_MODEL_API_KEY"
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_text(value)
        path.chmod(0o600)

    def told(self, world: World) -> list[tuple[str, str]]:
        events = [event for event in world.events.newest() if event.kind == "secret-stored"]
        assert "canary" not in repr(events)
        return [(event.detail["file"], event.detail["name"]) for event in events]

    def test_a_commit_tells(self, keyed: World, capsys: pytest.CaptureFixture[str]) -> None:
        """Once as an event, however often the file is written, and at each commit that stores it in its answer."""
        keyed.tenants.claim(ALICE, "small")
        for number in range(3):
            keyed.write("alice", {"notes.md": f"{number}", "agent.json": f'{{"apiKey": "{self.KEY}", "n": {number}}}'})
            done = keyed.tenants.sync(ALICE)
            assert [(one.path, "CLAW_MODEL_API_KEY" in one.reason) for one in done.reported] == [("agent.json", True)]
        assert keyed.tenants.sync(ALICE).reported == ()

        assert self.told(keyed) == [("'agent.json'", "CLAW_MODEL_API_KEY")]
        assert "canary" not in "".join(capsys.readouterr())

    @pytest.mark.parametrize("size", [5 << 20, 9 << 20])
    def test_a_large_file_is_searched_to_its_end(self, keyed: World, size: int) -> None:
        """In chunks, and as a separate object: the value lies behind the first 4 MiB, across the border of two pieces,
        and once more in what an append changed."""
        keyed.tenants.claim(ALICE, "small")
        at = size - (size % (1 << 20)) - 7
        noise = random.Random(7).randbytes(size)
        keyed.state(ALICE).joinpath("big").write_bytes(noise[:at] + self.KEY.encode() + noise[at:])

        assert keyed.tenants.sync(ALICE).secrets == (("big", "CLAW_MODEL_API_KEY"),)

        with keyed.state(ALICE).joinpath("big").open("ab") as file:
            file.write(self.KEY.encode())
        assert keyed.tenants.sync(ALICE).secrets == (("big", "CLAW_MODEL_API_KEY"),)
        assert keyed.tenants.sync(ALICE).secrets == ()

    def test_a_name_a_target_and_an_attribute_are_searched(self, keyed: World) -> None:
        """Once each, and a path shows no value."""
        keyed.tenants.claim(ALICE, "small")
        tree = keyed.state(ALICE)
        (tree / f"{self.KEY}.txt").write_text("a")
        (tree / "link").symlink_to(f"/keys/{self.KEY}")
        (tree / "marked").mkdir()
        os.setxattr(tree / "marked", "user.key", self.KEY.encode())
        done = keyed.tenants.sync(ALICE)

        assert sorted(path for path, _ in done.secrets) == ["[redacted].txt", "link", "marked"]
        assert [event for event, _ in sorted(self.told(keyed))] == ["'[redacted].txt'", "'link'", "'marked'"]
        (tree / "other").write_text("b")
        assert keyed.tenants.sync(ALICE).secrets == ()

    def test_a_value_from_before_a_rotation_is_reported(self, keyed: World) -> None:
        """The program was given it, and still writes it."""
        keyed.tenants.claim(ALICE, "small")
        self.set(keyed, "sk-canary-TWO-4711")
        keyed.write("alice", {"old": self.KEY, "new": "sk-canary-TWO-4711"})

        keyed.tenants.release(ALICE)

        assert self.told(keyed) == [("'new'", "CLAW_MODEL_API_KEY"), ("'old'", "CLAW_MODEL_API_KEY")]

    def test_a_secret_that_cannot_be_read_stops_no_commit(self, keyed: World) -> None:
        """A file that others can read is refused at a claim; a release goes on."""
        keyed.tenants.claim(ALICE, "small")
        keyed.write("alice", {"a": "b"})
        (keyed.layout.home / "secrets" / "CLAW_MODEL_API_KEY").chmod(0o644)

        assert keyed.tenants.release(ALICE).generation is not None

    def test_a_parked_tree_holds_no_file_that_is_not_stored(self, tmp_path: Path) -> None:
        """A key in it would be a copy at rest, and outlive a rotation. The tree still equals its generation."""
        pool = "pool: {max_size: 3, affinity_timeout: 60s, warmth: {created: 1, tree: 2}}"
        text = f"id: small\nimage: localhost/small:dev\ncontract: {CONTRACT}\nsync: {{exclude: [/cache/]}}\n{pool}\n"
        world = World(tmp_path, workload=text)
        self.set(world, self.KEY)
        world.tenants.claim(ALICE, "small")
        models = ".openclaw/agents/main/agent/models.json"
        world.write("alice", {models: self.KEY, "cache/key": self.KEY, "a": "b", "cache.md": "c"})
        first = world.tenants.release(ALICE).generation

        assert first is not None
        assert (first.number, world.row_state("alice")) == (1, "parked")
        parked = world.layout.parked_tree(ALICE)
        assert {str(path.relative_to(parked)) for path in parked.rglob("*") if path.is_file()} == {"a", "cache.md"}
        self.set(world, "sk-canary-TWO-4711")
        assert world.tenants.claim(ALICE, "small").state == "tree"
        assert not (world.state("alice") / models).exists()
        assert (world.state("alice") / "a").read_text() == "b"
        again = world.tenants.release(ALICE).generation
        assert again is not None
        assert (again.number, again.created) == (1, False)
        world.close()

    def test_a_kept_tree_holds_no_file_that_is_not_stored(self, keyed: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """The next claim continues from it, perhaps after a rotation. One that cannot be cleaned is kept as it is."""
        models = ".openclaw/agents/main/agent/models.json"
        keyed.tenants.claim(ALICE, "small")
        keyed.write("alice", {models: self.KEY, "a": "b"})
        with monkeypatch.context() as patch:
            patch.setattr(keyed.store, "put", refuse)
            with pytest.raises(UploadFailed):
                keyed.tenants.release(ALICE)
        assert keyed.kept("alice") == {"a": "b"}

        self.set(keyed, "sk-canary-TWO-4711")
        assert keyed.tenants.claim(ALICE, "small").state == "kept"
        keyed.write("alice", {models: self.KEY})
        with monkeypatch.context() as patch:
            patch.setattr(keyed.store, "put", refuse)
            patch.setattr(trees, "prune", refuse)
            with pytest.raises(UploadFailed):
                keyed.tenants.release(ALICE)
        assert keyed.kept("alice") == {models: self.KEY, "a": "b"}

    def test_the_file_that_openclaw_writes_again_is_not_stored(self, keyed: World) -> None:
        """With the model's key in it."""
        keyed.tenants.claim(ALICE, "small")
        keyed.write("alice", {".openclaw/agents/main/agent/models.json": self.KEY, "a": "b"})
        keyed.tenants.release(ALICE)

        assert keyed.saved("alice") == {"a": "b"}
        assert self.told(keyed) == []
