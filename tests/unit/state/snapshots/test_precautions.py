"""A restore warns before it replaces a login, and a copy for another tenant leaves logins and secrets out."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from claw_runtime.errors import Conflict
from claw_runtime.state.snapshots.precautions import Along
from claw_runtime.tenancy import tenant_id
from fakes.world import WORKLOAD, World

ALICE, BOB = tenant_id("alice"), tenant_id("bob")
CREDS = ".app/credentials/whatsapp/default/creds.json"
KEY = "sk-canary-ONE-4711"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Alice has two generations; between them her channel's login has changed."""
    made = World(tmp_path, workload=WORKLOAD + "sync: {logins: [/.app/credentials/]}\n")
    for number in (1, 2):
        made.tenants.claim(ALICE, "small")
        made.write("alice", {CREDS: f"ratchet {number}", "notes.md": f"{number}"})
        made.tenants.release(ALICE)
    yield made
    made.close()


def secret(world: World, tenant: str | None, value: str) -> None:
    """Give a value to one tenant, or to all."""
    home = world.layout.secrets(tenant_id(tenant)) if tenant else world.layout.home / "secrets"
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    (home / "MODEL_KEY").write_text(value)
    (home / "MODEL_KEY").chmod(0o600)


class TestGoingBack:
    def test_an_earlier_login_is_told(self, world: World) -> None:
        """In the plan and afterwards; not where the login stays as it is."""
        plan = world.snapshots.restore(ALICE, "1", dry_run=True)
        assert ["earlier login" in one and CREDS in one for one in plan.warnings] == [True]
        assert world.snapshots.restore(ALICE, "1", paths=["notes.md"]).warnings == ()
        assert len(world.snapshots.restore(ALICE, "1").warnings) == 1


class TestCopy:
    def test_logins_are_left_out(self, world: World) -> None:
        """With their directories; a dry run tells the same."""
        plan = world.snapshots.copy_into(ALICE, "2", BOB, dry_run=True)
        done = world.snapshots.copy_into(ALICE, "2", BOB)

        assert ["left out" in one and CREDS in one for one in done.warnings] == [True]
        assert (plan.warnings, plan.changes) == (done.warnings, done.changes)
        assert world.saved("bob") == {"notes.md": "2"}

    def test_logins_when_asked(self, world: World) -> None:
        """They come along, with what that means."""
        done = world.snapshots.copy_into(ALICE, "2", BOB, along=Along(logins=True))

        assert ["same login" in one for one in done.warnings] == [True]
        assert world.saved("bob") == {"notes.md": "2", CREDS: "ratchet 2"}

    def test_logins_of_a_tenant_that_never_ran_here(self, world: World, tmp_path: Path) -> None:
        """Another host copies: the workloads that it knows tell what a login is."""
        other = World(tmp_path / "other", workload=world.text, store=world.store, owner="host-b")
        other.snapshots.copy_into(ALICE, "2", BOB)
        assert other.saved("bob") == {"notes.md": "2"}
        other.close()

    def test_a_secret_refuses_it(self, world: World) -> None:
        """With file and name, never the value; the other tenant has no generation of it. When asked, it is copied."""
        secret(world, "alice", KEY)
        world.tenants.claim(ALICE, "small")
        world.write("alice", {"agent.json": f'{{"apiKey": "{KEY}"}}'})
        world.tenants.release(ALICE)

        with pytest.raises(Conflict, match=r"agent\.json holds its MODEL_KEY") as refused:
            world.snapshots.copy_into(ALICE, "latest", BOB)
        assert KEY not in repr(refused.value) + refused.value.why + refused.value.hint
        head = world.repository.generations.head(BOB)
        assert head is None or (head.generation, head.manifest) == (0, None)
        assert world.snapshots.copy_into(ALICE, "2", BOB).generation == 1
        done = world.snapshots.copy_into(ALICE, "latest", BOB, replace_state=True, along=Along(secrets=True))
        assert done.generation == 2

    def test_a_secret_across_two_packs_refuses_it(self, world: World) -> None:
        """One half was stored by an earlier commit, so that the chunks that meet are in different packs."""
        secret(world, "alice", KEY)
        chunk, half = 64 * 1024, len(KEY) // 2
        noise = os.urandom(16 * chunk)
        for second in (b"?" * (len(KEY) - half), KEY[half:].encode()):
            content = bytearray(noise)
            content[8 * chunk - half : 8 * chunk + len(second)] = KEY[:half].encode() + second
            world.tenants.claim(ALICE, "small")
            (world.state("alice") / "data.bin").write_bytes(content)
            world.tenants.release(ALICE)
        packs = {extent.pack for extent in world.repository.generations.manifest(ALICE).find("data.bin").extents}
        assert len(packs) == 2

        with pytest.raises(Conflict, match=r"data\.bin holds its MODEL_KEY"):
            world.snapshots.copy_into(ALICE, "latest", BOB)

    def test_a_secret_of_both_is_none(self, world: World) -> None:
        """A value that all tenants get, or that the other one has too, tells it nothing new."""
        secret(world, None, KEY)
        world.tenants.claim(ALICE, "small")
        world.write("alice", {"agent.json": KEY})
        world.tenants.release(ALICE)

        assert world.snapshots.copy_into(ALICE, "latest", BOB).generation == 1


class TestExcluded:
    """A generation from before `models.json` was excluded has an old key in it."""

    @pytest.fixture
    def excluding(self, world: World) -> World:
        """Generation 3 holds what generation 4 and the present workload file exclude."""
        secret(world, "alice", KEY)
        for text in (world.text, world.text.replace("sync: {", "sync: {exclude: [models.json], ")):
            world.text = text
            world.restart()
            world.recover()
            world.tenants.claim(ALICE, "small")
            world.write("alice", {"agent/models.json": KEY, "notes.md": text[-40:]})
            world.tenants.release(ALICE)
        assert "agent/models.json" not in world.saved("alice")
        return world

    def test_going_back_leaves_it_out(self, excluding: World) -> None:
        """The next claim would restore it, and the program would use the old key. The plan tells the same."""
        plan = excluding.snapshots.restore(ALICE, "3", dry_run=True)
        done = excluding.snapshots.restore(ALICE, "3")

        assert done.warnings == plan.warnings == ("what the workload excludes is left out (agent/models.json)",)
        assert sorted(excluding.saved("alice")) == [CREDS, "notes.md"]

    def test_a_path_that_was_named_comes_back(self, excluding: World) -> None:
        """A person asked for it. With a path above it, it is left out."""
        plan = excluding.snapshots.restore(ALICE, "3", paths=["agent/"], dry_run=True)
        assert plan.warnings == ("what the workload excludes is left out (agent/models.json)",)
        assert excluding.snapshots.restore(ALICE, "3", paths=["notes.md"], dry_run=True).warnings == ()

        done = excluding.snapshots.restore(ALICE, "3", paths=["agent", "agent/models.json"])
        assert done.warnings == ()
        assert "agent/models.json" in excluding.saved("alice")

    def test_a_copy_leaves_it_out(self, excluding: World) -> None:
        """So its secret does not refuse the copy."""
        done = excluding.snapshots.copy_into(ALICE, "3", BOB)

        assert "what the workload excludes is left out (agent/models.json)" in done.warnings
        assert sorted(excluding.saved("bob")) == ["notes.md"]
