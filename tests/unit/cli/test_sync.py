"""A stored state on the command line: how it is, whether it is sound, out and in, and away."""

import io
import json
import os
import tarfile
from pathlib import Path

import pytest
from claw_runtime.errors import StoreUnavailable
from claw_runtime.objects.memory import MemoryStore
from claw_runtime.tenancy import Keys, TenantId
from fakes.terminal import Call
from fakes.world import World

pytest_plugins = ["fakes.terminal_fixtures"]

ALICE = TenantId("alice")
pytestmark = pytest.mark.world(filled=True, served=True)


@pytest.fixture
def two(claw: Call, world: World) -> World:
    """Alice and bob with a state each, released."""
    for tenant, word in (("alice", "blue"), ("bob", "red")):
        claw("claim", tenant)
        world.write(tenant, {"notes/word.md": word, "same.txt": "the same", "with\x1b[31m": "x"})
        claw("release", tenant)
    return world


def damage(world: World, part: str) -> str:
    """Change a byte of the first of alice's objects of a kind."""
    assert isinstance(world.store, MemoryStore)
    key = next(item.key for item in world.store.list(f"{Keys(ALICE).prefix}{part}/"))
    data = bytearray(world.store.get(key)[0])
    data[len(data) // 2] ^= 1
    world.store.put(key, bytes(data))
    return key


def refuse() -> str:
    raise StoreUnavailable("the store is down", why="test", hint="wait")


class TestStatus:
    def test_what_is_stored(self, claw: Call, two: World) -> None:
        """Generation, size, who may write, and what this host knows."""
        told = claw("sync", "status", "alice")
        found = claw("sync", "status", "alice", "-o", "json").json

        assert "generation 1, sealed" in told.out
        assert "nobody's" in told.out
        assert (found["state"], found["generation"], found["lease"], found["local"]) == ("stored", 1, None, "cold")
        claw("claim", "alice")
        assert claw("sync", "status", "alice", "-o", "json").json["lease"]["ours"]

    def test_nothing(self, claw: Call, world: World) -> None:
        """Somebody who was never here is no error."""
        found = claw("sync", "status", "nobody", "-o", "json")
        assert found.err == ""
        assert found.json["state"] == "none"
        assert "nothing" in claw("sync", "status", "nobody").out

    def test_history_is_that_of_snapshots(self, claw: Call, two: World) -> None:
        """One list, two names."""
        assert claw("sync", "history", "alice").out == claw("snapshot", "list", "alice").out


class TestVerify:
    def test_a_sound_state(self, claw: Call, two: World) -> None:
        """Every object and file is counted."""
        result = claw("sync", "verify", "alice")

        assert result.code == 0
        assert result.out.startswith("alice: 1 generation, 2 objects, ")
        assert result.out.endswith("3 files: all intact\n")

    @pytest.mark.parametrize("part", ["packs", "gen"])
    def test_a_damaged_one(self, claw: Call, two: World, part: str) -> None:
        """Exit code 13, or 27 where the newest manifest itself is gone, and which object it is."""
        damage(two, part)

        result = claw("sync", "verify", "alice")

        assert result.code == 13
        assert "damaged" in result.out + result.err

    def test_the_newest_manifest_is_lost(self, claw: Call, two: World, tmp_path: Path) -> None:
        """The generations before are read all the same, can be taken out by their number, and put in again."""
        for number in (2, 3):
            claw("claim", "alice")
            two.write("alice", {"notes/word.md": f"blue {number}"})
            claw("release", "alice")
        newest = max(item.key for item in two.store.list(Keys(ALICE).manifests))
        two.store.put(newest, b"rotten")

        found = claw("sync", "verify", "alice", "-o", "json")
        assert (found.code, found.json["generations"]) == (13, [1, 2])
        assert [text.partition(":")[0] for text in found.json["damaged"]] == ["generation 3, the newest"]
        assert claw("sync", "cat", "alice", "notes/word.md").code == 13
        assert claw("sync", "cat", "alice", "notes/word.md", "-g", "3").code == 13

        assert claw("sync", "pull", "alice", "-g", "2", "--to", str(tmp_path / "out")).code == 0
        assert claw("sync", "clean", "alice", "--force").code == 0
        assert claw("sync", "import", "alice", str(tmp_path / "out")).code == 0
        assert claw("sync", "cat", "alice", "notes/word.md").out == "blue 2"

    def test_a_missing_one(self, claw: Call, two: World) -> None:
        """An object that is gone is told, and the others are read all the same."""
        two.store.delete(next(item.key for item in two.store.list(Keys(ALICE).packs)))

        result = claw("sync", "verify", "alice", "-o", "json")

        assert result.code == 13
        assert "missing" in result.out

    def test_two_tenants_with_equal_files_share_nothing(self, claw: Call, two: World) -> None:
        """Equal names and contents are no finding; a canary in both is."""
        assert claw("sync", "verify", "alice", "bob").out == (
            "alice and bob: 2 objects and 2 objects: nothing is shared\n"
        ).replace("2 objects", "3 objects")
        assert claw("sync", "verify", "alice", "bob", "--canary", "blue", "--canary", "red").code == 0
        found = claw("sync", "verify", "alice", "bob", "--canary", "the same")
        assert found.code == 13
        assert "both hold 'the same'" in found.out

    def test_a_canary_is_found_wherever_it_is(self, claw: Call, two: World) -> None:
        """In a name, a link's target, an attribute, across pieces of a file, and in an earlier generation alone."""
        for tenant in ("alice", "bob"):
            claw("claim", tenant)
            tree = two.state(tenant)
            (tree / "link").symlink_to("to-the-target")
            os.setxattr(tree / "same.txt", "user.name-of-it", b"value-of-it")
            (tree / "name-of-a-file").write_bytes(os.urandom(64 * 1024 - 4) + b"across two pieces" + bytes(9))
            claw("release", tenant)
        for canary in ("the-target", "name-of-it", "value-of-it", "name-of-a", "across two pieces"):
            found = claw("sync", "verify", "alice", "bob", "--canary", canary)
            assert (found.code, f"both hold {canary!r}: alice in" in found.out) == (13, True)
        for tenant in ("alice", "bob"):
            claw("claim", tenant)
            (two.state(tenant) / "same.txt").unlink()
            claw("release", tenant)
        told = claw("sync", "verify", "alice", "bob", "--canary", "the same").out
        assert "alice in 'same.txt' of generation 2, bob in 'same.txt' of generation 2" in told

    def test_an_object_of_another_is_found(self, claw: Call, two: World) -> None:
        """A generation that names what is not among the tenant's objects."""
        two.store.delete(next(item.key for item in two.store.list(Keys(ALICE).packs)))

        result = claw("sync", "verify", "alice", "bob")

        assert result.code == 13
        assert "which is not among its objects" in result.out


class TestMoving:
    def test_out_and_in_again(self, claw: Call, two: World, tmp_path: Path) -> None:
        """A tar, a directory, and a directory again: names, modes and contents are the same."""
        tar, out = tmp_path / "alice.tar", tmp_path / "out"
        assert claw("sync", "export", "alice", str(tar)).code == 0
        with tarfile.open(tar) as opened:
            assert sorted(opened.getnames()) == ["notes", "notes/word.md", "same.txt", "with\x1b[31m"]
        assert claw("sync", "pull", "alice", "--to", str(out)).code == 0
        assert (out / "notes/word.md").read_text() == "blue"

        assert claw("sync", "import", "carol", str(tar)).out.startswith("carol: generation 1, 3 files")
        assert claw("sync", "import", "dora", str(out)).code == 0

        for tenant in ("carol", "dora"):
            assert claw("sync", "cat", tenant, "notes/word.md").out == "blue"
        names = [claw("sync", "list", tenant, "-o", "name").out for tenant in ("alice", "carol", "dora")]
        assert len(set(names)) == 1

    def test_an_export_that_breaks_off_leaves_the_one_before(self, claw: Call, two: World, tmp_path: Path) -> None:
        """And no part of a new one."""
        tar = tmp_path / "alice.tar"
        tar.write_bytes(b"yesterday's")
        two.store.delete(next(item.key for item in two.store.list(Keys(ALICE).packs)))

        assert claw("sync", "export", "alice", str(tar)).code != 0

        assert [(path.name, path.read_bytes()) for path in tmp_path.glob("*alice*")] == [("alice.tar", b"yesterday's")]

    def test_pull_takes_no_full_directory(self, claw: Call, two: World, tmp_path: Path) -> None:
        """Nothing of the operator's is written over, and a tenant without a state makes no directory."""
        (tmp_path / "mine").touch()
        assert claw("sync", "pull", "alice", "--to", str(tmp_path)).code == 2
        assert claw("sync", "pull", "nobody", "--to", str(tmp_path / "new")).code == 34
        assert not (tmp_path / "new").exists()

    def test_import_replaces_on_request(self, claw: Call, two: World, tmp_path: Path) -> None:
        """Else it is refused; what was there stays as a generation."""
        (tmp_path / "new").mkdir()
        (tmp_path / "new/word").write_text("green")
        refused = claw("sync", "import", "alice", str(tmp_path / "new"))
        assert refused.code == 37
        assert "--replace" in refused.err

        assert claw("sync", "import", "alice", str(tmp_path / "new"), "--replace").code == 0

        assert claw("sync", "cat", "alice", "word").out == "green"
        assert claw("sync", "cat", "alice", "notes/word.md", "-g", "1").out == "blue"

    def test_what_is_no_tar_changes_nothing(self, claw: Call, world: World, tmp_path: Path) -> None:
        """One error, and the tenant still has none."""
        (tmp_path / "x").write_text("no tar")
        assert claw("sync", "import", "alice", str(tmp_path / "x")).code == 16
        assert claw("sync", "status", "alice", "-o", "json").json["generation"] is None
        assert not world.layout.staging(ALICE).exists()

    def test_a_running_tenant_is_let_alone(self, claw: Call, two: World, tmp_path: Path) -> None:
        """Neither replaced nor removed."""
        claw("claim", "alice")
        assert claw("sync", "import", "alice", str(tmp_path), "--replace").code == 37
        assert claw("sync", "clean", "alice", "--force").code == 37

    def test_push(self, claw: Call, two: World) -> None:
        """A commit of a running tenant; one that does not run is told so."""
        claw("claim", "alice")
        two.write("alice", {"new": "word"})
        assert claw("sync", "push", "alice").out.startswith("alice: generation 2: ")
        assert "has changed" in claw("sync", "push", "alice").out
        assert "is not running" in claw("sync", "push", "bob").out


class TestAway:
    def test_push_of_a_kept_tree_tries_again(self, claw: Call, two: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """What a release could not store is stored when the store is back, and until then the error is told."""
        claw("claim", "alice")
        two.write("alice", {"new": "word"})
        with monkeypatch.context() as away:
            away.setattr(two.store, "put", lambda *_, **__: refuse())
            assert claw("release", "alice").code == 28
            assert claw("sync", "push", "alice").code == 1

        assert (
            claw("sync", "push", "alice").out
            == "alice: generation 2: the tenant is not running: everything that it wrote is stored\n"
        )

        assert claw("sync", "cat", "alice", "new").out == "word"

    def test_push_of_a_tree_that_must_stay_says_why(
        self, claw: Call, two: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whatever refused it, the answer is that of a tree that is still kept."""
        claw("claim", "alice")
        two.write("alice", {"new": "word"})
        with monkeypatch.context() as away:
            away.setattr(two.store, "put", lambda *_, **__: refuse())
            assert claw("release", "alice").code == 28
        monkeypatch.setattr(two.tenants, "release", lambda _: refuse())

        pushed = claw("sync", "push", "alice")

        assert (pushed.code, "the store is down" in pushed.err) == (1, True)

    def test_clean_leaves_a_tombstone_alone(self, claw: Call, two: World) -> None:
        """All objects go but HEAD; the next claim begins anew, and bob has everything."""
        told = claw("sync", "clean", "alice", "--dry-run")
        assert "would be removed" in told.out
        assert claw("sync", "cat", "alice", "notes/word.md").out == "blue"

        assert claw("sync", "clean", "alice", "--force").code == 0

        assert [item.key for item in two.store.list(Keys(ALICE).prefix)] == [Keys(ALICE).head]
        assert claw("sync", "status", "alice", "-o", "json").json["state"] == "removed"
        assert claw("sync", "list", "alice").code == 34
        assert claw("sync", "cat", "bob", "notes/word.md").out == "red"
        assert "no state yet" in claw("claim", "alice").out
        assert list(two.state("alice").iterdir()) == []
        two.write("alice", {"new": "word"})
        assert claw("release", "alice").code == 0
        assert claw("sync", "cat", "alice", "new").out == "word"

    def test_an_interrupted_clean_continues(self, claw: Call, two: World) -> None:
        """A removal that was cut short is ended by the next."""
        two.repository.bury(ALICE)
        assert claw("sync", "clean", "alice", "--force").code == 0
        assert [item.key for item in two.store.list(Keys(ALICE).prefix)] == [Keys(ALICE).head]

    def test_clean_asks(self, claw: Call, two: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without a yes, or somebody to say it, nothing is removed."""
        monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
        assert claw("sync", "clean", "alice").code != 0
        assert claw("sync", "cat", "alice", "notes/word.md").out == "blue"
        assert claw("sync", "clean", "nobody", "--force").code == 34

    def test_gc(self, claw: Call, two: World) -> None:
        """What nobody needs is counted, and removed when it is old enough."""
        two.store.put(Keys(ALICE).pack("0" * 64), b"stray")
        assert "0 objects" in claw("sync", "gc", "alice", "--dry-run").out
        assert claw("sync", "gc", "alice", "--grace", "0s").out.startswith("alice: 1 object, 5 B removed")
        assert claw("sync", "gc", "alice", "--grace", "soon").code == 2
        assert "nothing to do" in claw("sync", "gc", "nobody").out


class TestAliases:
    def test_old_names_go_on_working(self, claw: Call, two: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """With their options, which have no effect, and a hint on stderr."""
        monkeypatch.setenv("MINIO_BUCKET", "openclaw")
        listed = claw("sync:list", "alice", "-b", "openclaw", "--minio-endpoint", "http://localhost:9000")

        assert listed.out == claw("sync", "list", "alice").out
        assert "--bucket, --minio-endpoint, MINIO_BUCKET had no effect" in listed.err
        assert claw("sync:cat", "alice", "notes/word.md").out == "blue"
        assert claw("sync:verify", "alice", "bob").code == 0
        assert claw("sync:clean", "alice", "--force").code == 0
        assert claw("sync:push", "alice").code == 2

    def test_they_are_in_no_help(self, claw: Call) -> None:
        """Nobody new learns them."""
        assert "sync:" not in claw("--help").out


def test_json_of_all(claw: Call, two: World) -> None:
    """Every answer is one document on stdout."""
    for words in (
        ("status", "alice"),
        ("verify", "alice"),
        ("verify", "alice", "bob"),
        ("gc", "alice", "--dry-run"),
        ("clean", "alice", "--dry-run"),
        ("push", "alice"),
    ):
        assert isinstance(json.loads(claw("sync", *words, "-o", "json").out), dict)


class TestOddNames:
    """What `sync list` prints is what `sync cat` takes."""

    NAMES = ("plain.md", "line\nbreak", "back\\slash", r"\x41", "\x1b[31m", " space ", "%2e", "a?b#c", "ü", "-> x")

    @pytest.fixture
    def odd(self, claw: Call, world: World) -> World:
        """A state of such names, each file with its own name in it; and one that is not UTF-8."""
        claw("claim", "alice")
        world.write("alice", {f"d/{name}": name for name in self.NAMES})
        world.write("alice", {os.fsdecode(b"d/\xff\xfe"): "no text"})
        claw("release", "alice")
        return world

    def test_each_printed_name_is_read(self, claw: Call, odd: World) -> None:
        """In the table, with `-o name` and in JSON."""
        listed = claw("sync", "list", "alice", "-o", "name").out.splitlines()
        shown = claw("sync", "list", "alice", "-o", "json").json["files"]
        table = claw("sync", "list", "alice").out

        assert listed == [one["quoted"] for one in shown]
        files = [one["quoted"] for one in shown if one["type"] == "file"]
        assert {claw("sync", "cat", "alice", name).out for name in files} == {*self.NAMES, "no text"}
        assert all(f" {name}\n" in table for name in files)
        assert claw("sync", "cat", "alice", os.fsdecode(b"d/\xff\xfe")).out == "no text"

    def test_each_printed_name_is_restored(self, claw: Call, odd: World) -> None:
        """`snapshot diff` prints what `snapshot restore --path` takes."""
        claw("claim", "alice")
        odd.write("alice", {os.fsdecode(b"d/\xff\xfe"): "another", "d/line\nbreak": "another"})
        claw("release", "alice")
        names = claw("snapshot", "diff", "alice", "1", "-o", "name").out.splitlines()

        assert names == [r"d/line\nbreak", r"d/\xff\xfe"]
        for name in names:
            assert claw("snapshot", "restore", "alice", "1", "--path", name, "--yes").code == 0
        assert claw("snapshot", "diff", "alice", "1").out == ""

    def test_a_backslash_alone(self, claw: Call, odd: World) -> None:
        """It is refused with how to write it."""
        told = claw("sync", "cat", "alice", r"d/back\slash")
        assert told.code != 0
        assert r"a backslash in a name is written \\" in told.err


class TestSecrets:
    def test_an_import_tells(self, claw: Call, world: World, tmp_path: Path) -> None:
        """As a commit does: a note with file and name, and an event. The value is not shown."""
        home = world.layout.home / "secrets"
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        (home / "MODEL_KEY").write_text("sk-canary-ONE-4711")
        (home / "MODEL_KEY").chmod(0o600)
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "agent.json").write_text('{"apiKey": "sk-canary-ONE-4711"}')

        done = claw("sync", "import", "alice", str(tmp_path / "in"))

        assert done.code == 0
        assert "agent.json: it holds the secret MODEL_KEY in plain text" in done.err
        assert "sk-canary" not in done.out + done.err
        events = [one for one in world.events.newest() if one.kind == "secret-stored"]
        assert [(one.tenant, one.detail) for one in events] == [
            ("alice", {"file": "'agent.json'", "name": "MODEL_KEY"})
        ]

    def test_an_export_tells(self, claw: Call, world: World) -> None:
        """A file that holds a secret of the tenant is exported, and an event names the file and the secret."""
        home = world.layout.home / "secrets"
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        (home / "MODEL_KEY").write_text("sk-canary-ONE-4711")
        (home / "MODEL_KEY").chmod(0o600)
        claw("claim", "alice")
        world.write("alice", {"agent.json": '{"apiKey": "sk-canary-ONE-4711"}', "notes.md": "x"})
        claw("release", "alice")

        assert claw("sync", "export", "alice").code == 0

        events = [one for one in world.events.newest() if one.kind == "secret-exported"]
        assert [(one.tenant, one.detail) for one in events] == [
            ("alice", {"file": "'agent.json'", "name": "MODEL_KEY"})
        ]
