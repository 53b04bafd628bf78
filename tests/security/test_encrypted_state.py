"""State that is encrypted before it leaves the host: nothing of it shows in the bucket, or stands in for another."""

import base64
import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest
from claw_runtime.errors import ClawError, RestoreFailed
from claw_runtime.formats.head import encode
from claw_runtime.objects.memory import MemoryStore
from claw_runtime.state.commit.chunker import BLOB
from claw_runtime.state.keyring import Keyring
from claw_runtime.state.repository import Repository
from claw_runtime.tenancy import Keys, tenant_id
from fakes.clock import FakeClock
from fakes.faces import Api, runtime_of, serving
from fakes.stores import FaultyStore
from fakes.terminal import Call
from fakes.world import World

pytest_plugins = ["fakes.terminal_fixtures"]

ALICE, BOB = tenant_id("alice"), tenant_id("bob")
OPERATOR = b"o" * 32
NAME, WORDS = "holiday-in-rome.md", "remember that I like blue"
NOISE = base64.b64encode(os.urandom(300)).decode()
pytestmark = pytest.mark.world(operators=[OPERATOR])


@pytest.fixture
def world(world: World) -> World:
    """A host with an operator's key, on which alice and bob were."""
    for tenant in (ALICE, BOB):
        world.tenants.claim(tenant, "small")
        world.write(tenant, {NAME: WORDS, "noise": NOISE, "owner": tenant})
        world.tenants.release(tenant)
    return world


@pytest.fixture
def store(world: World) -> MemoryStore:
    assert isinstance(world.store, MemoryStore)
    return world.store


def host(store: MemoryStore, home: Path, *operators: bytes) -> World:
    return World(home, store=store, owner="host-b", operators=operators)


def objects(store: MemoryStore) -> dict[str, bytes]:
    return {item.key: store.get(item.key)[0] for item in store.list("")}


def pack(store: MemoryStore, tenant: str) -> str:
    (key,) = [item.key for item in store.list(Keys(tenant_id(tenant)).packs)]
    return key


def test_nothing_of_a_state_shows_in_the_bucket(world: World, store: MemoryStore) -> None:
    """No name, no content, no digest of content, not even that something is compressed."""
    found = objects(store)
    assert {key.split("/")[2] for key in found} == {"HEAD", "KEY", "gen", "packs"}
    secrets = [NAME.encode(), WORDS.encode(), NOISE.encode(), b"small", b"\x28\xb5\x2f\xfd"]
    secrets += [hashlib.sha256(text.encode()).hexdigest().encode() for text in (WORDS, NOISE)]
    for key, data in found.items():
        for secret in secrets:
            assert secret not in data, key
            assert secret not in key.encode()
    assert OPERATOR not in b"".join(found.values())


def test_another_host_with_the_key_has_all_of_it(world: World, store: MemoryStore, tmp_path: Path) -> None:
    """And what it commits is sealed too; equal content of two tenants has nothing in common."""
    there = host(store, tmp_path / "b", OPERATOR)
    there.tenants.claim(ALICE, "small")
    assert (there.state(ALICE) / NAME).read_text() == WORDS
    there.write(ALICE, {NAME: "red"})
    there.tenants.release(ALICE)
    assert world.saved(ALICE) == {NAME: "red", "noise": NOISE, "owner": "alice"}
    assert not {item.etag for item in store.list(Keys(ALICE).packs)} & {
        item.etag for item in store.list(Keys(BOB).packs)
    }
    there.close()


def test_a_key_is_asked_for_once_a_commit_and_once_a_restore(world: World, store: MemoryStore, tmp_path: Path) -> None:
    """However many pieces there are."""
    watched = FaultyStore(store)
    there = World(tmp_path / "b", store=watched, owner="host-b", operators=[OPERATOR])
    there.tenants.claim(ALICE, "small")
    assert watched.calls.count(("get", Keys(ALICE).key)) == 1
    there.write(ALICE, {f"{number}": f"{number}" for number in range(50)})
    watched.calls.clear()
    there.tenants.release(ALICE)
    assert [call for call in watched.calls if call[1] == Keys(ALICE).key] == [("get", Keys(ALICE).key)]
    there.close()


@pytest.mark.parametrize("operators", [(), (b"w" * 32,)], ids=["no key", "another key"])
def test_without_the_key_nothing_is_started(
    world: World, store: MemoryStore, tmp_path: Path, operators: tuple[bytes, ...]
) -> None:
    """The claim ends with a reason and a way out, the lease is given back, and the state is as it was."""
    state = {key: data for key, data in objects(store).items() if not key.endswith("HEAD")}
    there = host(store, tmp_path / "b", *operators)
    with pytest.raises(RestoreFailed, match=r"is encrypted|cannot be opened") as caught:
        there.tenants.claim(ALICE, "small")
    assert "encryption_key_file" in caught.value.hint
    assert not [row for row in there.ledger.tenants() if row.slot]
    assert {key: data for key, data in objects(store).items() if not key.endswith("HEAD")} == state
    there.close()
    world.tenants.claim(ALICE, "small")
    assert (world.state(ALICE) / NAME).read_text() == WORDS


def test_a_state_from_before_is_read_and_then_sealed_whole(tmp_path: Path) -> None:
    """The first commit with a key sends everything anew, changed or not; from then on only what is new."""
    store = MemoryStore()
    before = host(store, tmp_path / "a")
    before.tenants.claim(ALICE, "small")
    before.write(ALICE, {NAME: WORDS, "noise": NOISE})
    before.tenants.release(ALICE)
    before.close()

    after = host(store, tmp_path / "b", OPERATOR)
    for number in (2, 2):
        after.tenants.claim(ALICE, "small")
        assert (after.state(ALICE) / NAME).read_text() == WORDS
        after.tenants.release(ALICE)
        document = after.repository.generations.manifest(ALICE)
        assert (document.generation, [one.sealed for one in document.packs]) == (number, [True])
    after.tenants.claim(ALICE, "small")
    after.write(ALICE, {"new": "x"})
    after.tenants.release(ALICE)
    assert [one.sealed for one in after.repository.generations.manifest(ALICE).packs] == [True, True]
    assert after.saved(ALICE) == {NAME: WORDS, "noise": NOISE, "new": "x"}
    assert b"".join(after.repository.generations.read(ALICE, NAME, 1)).decode() == WORDS
    after.close()


def test_a_large_file_from_before_is_sealed_too(tmp_path: Path) -> None:
    """What was an object of its own becomes frames, once; with a key there are no such objects."""
    store = MemoryStore()
    noise = os.urandom(BLOB + 1)
    before = host(store, tmp_path / "a")
    before.tenants.claim(ALICE, "small")
    (before.state(ALICE) / "large").write_bytes(noise)
    before.tenants.release(ALICE)
    assert [entry.blob is not None for entry in before.repository.generations.manifest(ALICE).entries] == [True]
    before.close()

    after = host(store, tmp_path / "b", OPERATOR)
    for _ in range(2):
        after.tenants.claim(ALICE, "small")
        assert (after.state(ALICE) / "large").read_bytes() == noise
        after.tenants.release(ALICE)
        document = after.repository.generations.manifest(ALICE)
        assert (document.generation, [entry.blob for entry in document.entries]) == (2, [None])
        assert all(one.sealed for one in document.packs)
    after.close()


def test_a_tenant_that_is_removed_leaves_no_key(world: World, store: MemoryStore) -> None:
    """It is verified and read like any other; afterwards nothing could be opened, and a new state gets a new key."""
    runtime, key = runtime_of(world), world.keyring.key(ALICE)
    assert runtime.verifier.verify(ALICE).damaged == ()
    runtime.purge.clean(ALICE)
    assert {item.key for item in store.list(Keys(ALICE).prefix)} == {Keys(ALICE).head}
    world.tenants.claim(ALICE, "small")
    world.write(ALICE, {NAME: WORDS})
    world.tenants.release(ALICE)
    assert world.keyring.key(ALICE) != key
    assert world.saved(ALICE) == {NAME: WORDS}


def exchanged(store: MemoryStore) -> None:
    """Bob's pack in the place of alice's."""
    store.put(pack(store, "alice"), store.get(pack(store, "bob"))[0])


def turned(store: MemoryStore) -> None:
    """Two frames of one pack, each in the place of the other."""
    key = pack(store, "alice")
    data = store.get(key)[0]
    repository = Repository(store, "x", FakeClock(), Path("/nonexistent"), Keyring(store, [OPERATOR]))
    places = {entry.path: entry.extents[0] for entry in repository.generations.manifest(ALICE).entries}
    words, owner = places[NAME], places["owner"]
    first, second = (data[one.offset : one.offset + one.stored] for one in (words, owner))
    padded = second + first[len(second) :]
    store.put(key, data.replace(first, padded))


def passed_off(store: MemoryStore) -> None:
    """Bob's manifest named by alice's HEAD, under a key of hers."""
    keyring = Keyring(store, [OPERATOR])
    repository = Repository(store, "x", FakeClock(), Path("/nonexistent"), keyring)
    mine, his = repository.generations.head(ALICE), repository.generations.head(BOB)
    assert mine is not None
    assert his is not None
    key = Keys(ALICE).manifest(1, his.sha256 or "")
    store.put(key, store.get(his.manifest or "")[0])
    store.put(Keys(ALICE).head, encode(replace(mine, manifest=key, sha256=his.sha256)))


def unlocked(store: MemoryStore) -> None:
    """Bob's key in the place of alice's."""
    store.put(Keys(ALICE).key, store.get(Keys(BOB).key)[0])


@pytest.mark.parametrize("change", [exchanged, turned, passed_off, unlocked], ids=lambda one: one.__name__)
def test_nothing_stands_in_for_something_else(world: World, store: MemoryStore, tmp_path: Path, change: object) -> None:
    """Whoever can write to the bucket cannot make one tenant's bytes another's, nor one file's another file's."""
    assert callable(change)
    change(store)
    there = host(store, tmp_path / "b", OPERATOR)
    with pytest.raises(RestoreFailed):
        there.tenants.claim(ALICE, "small")
    with pytest.raises(ClawError):  # asks for a range of the pack, whose digest it cannot know
        b"".join(there.repository.generations.read(ALICE, NAME))
    there.tenants.claim(BOB, "small")
    assert (there.state(BOB) / "owner").read_text() == "bob"
    there.close()


def test_the_operators_key_is_changed_over_the_api(world: World, store: MemoryStore, claw: Call) -> None:
    """Two lines in the file, one call, and the old one opens nothing any more."""
    old, world.operators = world.operators, (b"n" * 32, OPERATOR)
    world.restart()
    assert Api(runtime_of(world)).post("/api/v1/keys/rewrap", json={}).json() == {
        "wrapped": 2,
        "current": 0,
        "failed": [],
    }
    with serving(world):
        assert claw("sync", "rekey", "alice").out.split() == ["WRAPPED", "CURRENT", "FAILED", "0", "1", "0"]
        failed = claw("sync", "rekey", "carol", "-o", "json")
    assert (failed.code, failed.json["failed"]) == (27, [{"tenantId": "carol", "why": "it has no key"}])
    world.operators = world.operators[:1]
    world.restart()
    assert world.saved(ALICE)[NAME] == WORDS
    world.operators = old
    world.restart()
    with pytest.raises(RestoreFailed, match="wrapped with the operator's key"):
        world.saved(ALICE)
