"""What happens when an object of the bucket is lost, older or another tenant's: nothing is ever lost silently.

The table has a row for each kind of object in docs/STATE_FORMAT.md and each fault, and a column for each host. In each
cell the tenant gets its newest state, or a refusal that names the way out. Nothing that a generation needs is removed.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from unittest import mock

import pytest
from claw_runtime.errors import ClawError, RestoreFailed, UploadFailed, VerifyMismatch
from claw_runtime.state.commit import bases, chunker
from claw_runtime.state.verify import Verifier
from claw_runtime.tenancy import STORE_KEY, Keys, TenantId, beat_key
from fakes.stores import VersionedStore
from fakes.world import PARKED, World

ALICE, BOB = TenantId("alice"), TenantId("bob")
KEY, HOURS = b"k" * 32, 3600.0
GENERATIONS: Final = 5
HOSTS: Final = {"parked": -26 * HOURS, "behind": 26 * HOURS, "new": 0.0}
"""The host that wrote the newest generation, whose tree is parked there; one that is three generations behind; and one
that never saw the tenant. Their clocks are more than a day apart."""


def used(world: World, tenant: TenantId, word: str) -> None:
    """One claim, which makes a generation."""
    world.tenants.claim(tenant, "small")
    world.write(tenant, {"word": word, f"of-{word}": word * 9})
    if word == "1":
        world.write(tenant, {f"notes/{number}": f"{tenant} {number}" for number in range(100)})
        (world.state(tenant) / "photo").write_text(f"{tenant}\n" * 20_000)
    world.tenants.release(tenant)


@dataclass(frozen=True)
class Past:
    """What two hosts did: their homes, and the bucket."""

    home: Path
    store: VersionedStore
    operators: tuple[bytes, ...]

    def host(self, name: str, tmp: Path) -> World:
        """A daemon of this host after a reboot, over copies of what it left and of the bucket."""
        if name != "new":
            shutil.copytree(self.home / name, tmp / name, symlinks=True)
        world = World(
            tmp / name, store=self.store.copy(), workload=PARKED, owner=f"host-{name}", operators=self.operators
        )
        world.clock.jump(HOSTS[name])
        return world


def made(home: Path, operators: tuple[bytes, ...]) -> Past:
    """Alice's generations 1 to 5 and bob's first; 2 is of another host, and a person has pinned 1."""
    store, hosts = VersionedStore(), dict[str, World]()
    with (
        mock.patch.object(chunker, "BLOB", 64 * 1024),
        mock.patch.object(chunker, "_DENSE", 0.0),
        mock.patch.object(bases, "RELEASED", bases.SMALL),  # a release of so few names has a base, too
    ):
        for name in ("parked", "behind"):
            hosts[name] = World(home / name, store=store, workload=PARKED, owner=f"host-{name}", operators=operators)
            hosts[name].repository.store_id.open()
            hosts[name].repository.heartbeats.beat()
        for number in range(1, GENERATIONS + 1):
            used(hosts["behind" if number == 2 else "parked"], ALICE, str(number))
        used(hosts["parked"], BOB, "1")
        hosts["parked"].snapshots.pin(ALICE, "1")
    for world in hosts.values():
        world.close()
    return Past(home, store, operators)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Past:
    return made(tmp_path_factory.mktemp("plain"), ())


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Past:
    return made(tmp_path_factory.mktemp("sealed"), (KEY,))


# --- the objects, and what may happen to one ---


def key_of(past: Past, kind: str, tenant: TenantId) -> str:
    """The key of the tenant's newest object of a kind; bob's parts are those of another host."""
    keys, objects = Keys(tenant), sorted(past.store.versions)
    newest = json.loads(past.store.get(keys.head)[0])["manifest"]
    match kind:
        case "HEAD":
            return keys.head
        case "manifest":
            return str(newest)
        case "base":
            return next(key for key in objects if key.startswith(keys.manifests))
        case "pack" | "blob":
            place = keys.packs if kind == "pack" else keys.blobs
            return [key for key in past.store.versions if key.startswith(place)][-1]
        case "pin":
            return keys.pin(1)
        case "KEY":
            return f"{keys.prefix}KEY"
        case "view":
            return f"{keys.prefix}files/_VIEW"
        case "store id":
            return STORE_KEY
        case _:
            return beat_key("host-parked" if tenant == ALICE else "host-behind")


def harm(past: Past, store: VersionedStore, kind: str, fault: str) -> str:
    """Let an object be lost, older or another's; its key."""
    key = key_of(past, kind, ALICE)
    if fault == "lost":
        store.delete(key)  # in a versioned bucket, what it was is only hidden
        return key
    data = {"store id": b'{"v": 1, "id": "%s", "created": ""}' % (b"f" * 32), "view": b"of another"}.get(kind)
    if kind == "pin":
        data = json.dumps({**json.loads(store.get(key)[0]), "sha256": "e" * 64}).encode()
    if kind == "HEAD" and fault != "foreign":
        number = GENERATIONS - int(fault[-1])
        heads = [(version, json.loads(version)) for version in store.versions[key]]
        data = next(raw for raw, head in heads if (head["generation"], head["owner"]) == (number, None))
    elif fault == "older":
        data = next(store.get(other)[0] for other in sorted(store.versions) if other != key and _alike(other, key))
    elif data is None:
        data = store.get(key_of(past, kind, BOB))[0]
    store.put(key, data)
    return key


def _alike(other: str, key: str) -> bool:
    """Whether two objects are of the same kind and tenant."""
    return other.rpartition("/")[0] == key.rpartition("/")[0]


RIGHT, REFUSED, AT_REST = ("right",) * 3, ("refused",) * 3, ("right", "refused", "refused")
TABLE: Final = {
    ("HEAD", "lost"): REFUSED,
    ("HEAD", "older by 1"): ("refused", "named", "named"),
    ("HEAD", "older by 2"): REFUSED,
    ("HEAD", "foreign"): REFUSED,
    ("manifest", "lost"): AT_REST,
    ("manifest", "older"): AT_REST,
    ("manifest", "foreign"): AT_REST,
    ("base", "lost"): AT_REST,
    ("base", "older"): AT_REST,
    ("base", "foreign"): AT_REST,
    ("pack", "lost"): AT_REST,
    ("pack", "older"): AT_REST,
    ("pack", "foreign"): AT_REST,
    ("blob", "lost"): ("right", "right", "refused"),
    ("blob", "foreign"): ("right", "right", "refused"),
    ("pin", "lost"): RIGHT,
    ("pin", "foreign"): RIGHT,
    ("KEY", "lost"): AT_REST,
    ("KEY", "foreign"): AT_REST,
    ("view", "foreign"): RIGHT,
    ("store id", "lost"): ("refused", "refused", "right"),
    ("store id", "foreign"): ("refused", "refused", "right"),
    ("beat", "lost"): RIGHT,
    ("beat", "foreign"): RIGHT,
}
"""What the next claim gets, for each host of `HOSTS`.

* right: the newest generation.
* refused: an error with exit code 27, and nothing starts; with the object back, or HEAD made anew, it gets the newest.
* named: the generation that HEAD names. On a host that never saw the next one, that one may be of a writer that died.
"""

NEEDED: Final = {"manifest", "base", "pack", "blob", "KEY"}
"""Without these, a generation cannot be restored."""

AT_REST_STATES: Final = {"unknown", "cold", "parked", "kept"}
CELLS = [(kind, fault, host) for kind, fault in TABLE for host in HOSTS]


@pytest.fixture
def world(request: pytest.FixtureRequest, plain: Past, sealed: Past, tmp_path: Path) -> Iterator[World]:
    kind, fault, host = request.param
    past = sealed if kind == "KEY" else plain
    made = past.host(host, tmp_path)
    made.harmed = harm(past, made.store, kind, fault)  # type: ignore[attr-defined, arg-type]
    yield made
    made.close()


def _is_named(error: ClawError) -> bool:
    return error.exit_code == 27 and bool(error.why) and bool(error.hint)


def outcome(world: World) -> str:
    """Start the daemon and claim, as an operator would; a refusal names what to do."""
    try:
        world.repository.store_id.open()
        world.recover()
        claim = world.tenants.claim(ALICE, "small")
    except RestoreFailed as error:
        return "refused" if _is_named(error) and world.row_state(ALICE) in AT_REST_STATES else f"{error!r}"
    word = (world.state(ALICE) / "word").read_text()
    assert len(list((world.state(ALICE) / "notes").iterdir())) == 100
    assert word == str(claim.generation)
    return "right" if word == str(GENERATIONS) else "named"


@pytest.mark.parametrize(
    ("world", "cell"), [(cell, cell) for cell in CELLS], ids=["-".join(cell) for cell in CELLS], indirect=["world"]
)
def test_nothing_is_lost_silently(world: World, cell: tuple[str, str, str], plain: Past, sealed: Past) -> None:
    """The claim, then a collection that finds everything old, then a release or the way out."""
    kind, fault, host = cell
    past, key = sealed if kind == "KEY" else plain, str(world.harmed)  # type: ignore[attr-defined]
    before = {item.key for item in world.store.list("")}

    got = outcome(world)

    assert got == TABLE[kind, fault][list(HOSTS).index(host)]
    collected = _collected(world)
    assert before - {item.key for item in world.store.list("")} == set()
    if kind in NEEDED:
        assert not collected or fault != "lost"
        assert _damaged(world)
    if got == "right":
        _go_on(world, damaged=kind in NEEDED)
    elif got == "refused":
        _way_out(world, past, kind, key)


def _collected(world: World) -> bool:
    """A collection for which every object is old; whether it was not refused."""
    try:
        world.tenants.collect(ALICE, grace=-1)
    except (RestoreFailed, VerifyMismatch):
        return False
    return True


def _damaged(world: World) -> bool:
    """Whether a verification tells that something is damaged."""
    try:
        return bool(Verifier(world.store, world.repository).verify(ALICE).damaged)
    except (RestoreFailed, VerifyMismatch):
        return True


def _go_on(world: World, *, damaged: bool) -> None:
    """The next release is stored, or its tree is kept."""
    world.write(ALICE, {"word": "next"})
    try:
        world.tenants.release(ALICE)
        left = b"".join(world.repository.generations.read(ALICE, "word")).decode()
    except UploadFailed:
        left = world.kept(ALICE)["word"] if damaged else ""
    assert left == "next"


def _way_out(world: World, past: Past, kind: str, key: str) -> None:
    """What the refusal names: HEAD is made anew, or the object is brought back."""
    if kind == "HEAD":
        plan = world.head_recovery.recover(ALICE)
        assert (plan.chosen and plan.chosen.generation, plan.loses) == (GENERATIONS, False)
    else:
        world.store.put(key, past.store.get(key)[0])
    assert outcome(world) == "right"


def test_an_earlier_version_of_head_is_no_way_back(plain: Past, tmp_path: Path) -> None:
    """In a versioned bucket, HEAD is deleted, and an operator restores the wrong version of it. No host continues from
    it, and `snapshot recover` finds the newest state."""
    for host in HOSTS:
        world = plain.host(host, tmp_path / host)
        for fault in ("lost", "older by 2", "lost", "older by 2"):
            harm(plain, world.store, "HEAD", fault)  # type: ignore[arg-type]
            assert outcome(world) == "refused"
        assert world.head_recovery.recover(ALICE).condition == "older"
        assert outcome(world) == "right"
        world.close()


def test_a_head_that_went_back_to_what_this_host_wrote_last(plain: Past, tmp_path: Path) -> None:
    """The claim cannot tell it from its own HEAD, but its first commit can: the tree is kept; nothing is removed."""
    world = plain.host("behind", tmp_path)
    harm(plain, world.store, "HEAD", "older by 3")  # type: ignore[arg-type]
    before = {item.key for item in world.store.list("")}
    assert outcome(world) == "named"
    world.write(ALICE, {"word": "next"})

    with pytest.raises(RestoreFailed, match="generation 5 is stored"):
        world.tenants.sync(ALICE)
    with pytest.raises(RestoreFailed, match="generation 5 is stored"):
        world.tenants.release(ALICE)

    assert world.kept(ALICE)["word"] == "next"
    _collected(world)
    assert before - {item.key for item in world.store.list("")} == set()
    assert world.head_recovery.recover(ALICE).condition == "older"
    assert b"".join(world.repository.generations.read(ALICE, "word")) == b"5"
    world.close()


def test_another_store_is_accepted_by_a_person(plain: Past, tmp_path: Path) -> None:
    """`up --accept-store` is the way out of a store with another id; its tenants have their newest states."""
    world = plain.host("behind", tmp_path)
    harm(plain, world.store, "store id", "foreign")  # type: ignore[arg-type]
    assert outcome(world) == "refused"
    world.repository.store_id.open(accept=True)
    assert outcome(world) == "right"
    world.close()
