"""Tenants' keys: one each, wrapped with the operator's, made once, moved to another operator's key, never mixed up."""

import json
import os

import pytest
from claw_runtime.errors import InvalidSpec, RestoreFailed, StoreUnavailable, VerifyMismatch
from claw_runtime.formats.envelope import PLAIN
from claw_runtime.objects.memory import MemoryStore
from claw_runtime.state.keyring import Keyring, Rewrapped
from claw_runtime.tenancy import Keys, tenant_id
from fakes.stores import Fault, FaultyStore

ALICE, BOB = tenant_id("alice"), tenant_id("bob")
OLD, NEW = b"o" * 32, b"n" * 32


@pytest.fixture
def store() -> FaultyStore:
    return FaultyStore(MemoryStore())


def test_without_an_operators_key_nothing_is_sealed(store: FaultyStore) -> None:
    """And the store is not asked."""
    assert Keyring(store).sealer(ALICE) is PLAIN
    assert store.calls == []


def test_a_key_is_made_at_the_first_seal_and_serves_every_host(store: FaultyStore) -> None:
    """Opening asks once; looking at a sealer costs nothing."""
    sealer = Keyring(store, [OLD]).sealer(ALICE)
    assert store.calls == []
    sealed = [sealer.seal(b"blue", "frame") for _ in range(2)]
    assert sealed[0] != sealed[1]
    store.calls.clear()

    there = Keyring(store, [OLD])
    for one in sealed:
        assert there.sealer(ALICE).open(one, "frame") == b"blue"
    assert store.calls == [("get", Keys(ALICE).key)]


def test_two_hosts_that_begin_at_once_agree(store: FaultyStore) -> None:
    """The first key that is stored counts for both."""
    here, there = (Keyring(store, [OLD]).sealer(ALICE) for _ in range(2))
    pieces: list[bytes] = []

    def meanwhile(operation: str, _key: str) -> None:
        if operation == "put":
            store.before = lambda _operation, _key: None
            pieces.append(there.seal(b"there", "frame"))

    store.before = meanwhile
    pieces.append(here.seal(b"here", "frame"))

    reader = Keyring(store, [OLD]).sealer(ALICE)
    assert [reader.open(piece, "frame") for piece in pieces] == [b"there", b"here"]


@pytest.mark.parametrize("action", ["applied, answer lost", "not applied, answer lost"])
def test_a_lost_answer_leaves_no_second_key(store: FaultyStore, action: str) -> None:
    """What the store has in the end is what seals, or nothing is sealed."""
    store.faults.append(Fault(operation="put", action=action, key="KEY"))  # type: ignore[arg-type]
    sealer = Keyring(store, [OLD]).sealer(ALICE)
    if action.startswith("not"):
        with pytest.raises(StoreUnavailable, match="could not be stored"):
            sealer.seal(b"blue", "frame")
    sealed = sealer.seal(b"blue", "frame")
    assert Keyring(store, [OLD]).sealer(ALICE).open(sealed, "frame") == b"blue"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (None, "not in the store"),
        (lambda d: {}, "damaged"),
        (lambda d: d | {"wrapped": "%"}, "damaged"),
        (lambda d: d | {"wrapped": ""}, "damaged, or another tenant's"),
        (lambda d: d | {"v": 2}, "version 2"),
        (lambda d: d | {"with": "0" * 16}, "wrapped with the operator's key 0000000000000000"),
    ],
)
def test_a_key_that_is_gone_or_wrong_is_told(store: FaultyStore, change: object, why: str) -> None:
    """Missing, not ours, of another time: a refusal that names the setting, and never a new key in its place."""
    sealed = Keyring(store, [OLD]).sealer(ALICE).seal(b"blue", "manifest")
    where = Keys(ALICE).key
    if callable(change):
        store.put(where, json.dumps(change(json.loads(store.get(where)[0]))).encode())
    else:
        store.delete(where)
    with pytest.raises(RestoreFailed, match=why) as caught:
        Keyring(store, [OLD]).sealer(ALICE).open(sealed, "manifest")
    assert "encryption_key_file" in caught.value.hint


def test_another_operators_key_opens_nothing(store: FaultyStore) -> None:
    """Both keys are told by their names, of which nothing can be learned."""
    sealed = Keyring(store, [OLD]).sealer(ALICE).seal(b"blue", "manifest")
    for act in (lambda s: s.open(sealed, "manifest"), lambda s: s.seal(b"x", "frame")):
        with pytest.raises(RestoreFailed, match=r"wrapped with the operator's key \w{16}, not with \w{16}"):
            act(Keyring(store, [NEW]).sealer(ALICE))


def test_a_wrapped_key_of_another_tenant_is_refused(store: FaultyStore) -> None:
    """Whoever may write to the bucket cannot give alice the key that bob's state is sealed with."""
    keyring = Keyring(store, [OLD])
    sealed = {tenant: keyring.sealer(tenant).seal(b"blue", "frame") for tenant in (ALICE, BOB)}
    with pytest.raises(VerifyMismatch):
        keyring.sealer(ALICE).open(sealed[BOB], "frame")
    store.put(Keys(ALICE).key, store.get(Keys(BOB).key)[0])
    with pytest.raises(RestoreFailed, match="another tenant's"):
        Keyring(store, [OLD]).sealer(ALICE).open(sealed[BOB], "frame")


def test_a_key_that_was_lost_is_put_back_by_who_knows_it(store: FaultyStore) -> None:
    """What was sealed before stays readable; after `forget` the next key is another."""
    keyring = Keyring(store, [OLD])
    first = keyring.sealer(ALICE).seal(b"blue", "frame")
    store.delete(Keys(ALICE).key)
    keyring.sealer(ALICE).seal(b"green", "frame")
    assert Keyring(store, [OLD]).sealer(ALICE).open(first, "frame") == b"blue"

    store.delete(Keys(ALICE).key)
    keyring.forget(ALICE)
    keyring.sealer(ALICE).seal(b"green", "frame")
    with pytest.raises(VerifyMismatch):
        Keyring(store, [OLD]).sealer(ALICE).open(first, "frame")


def test_a_tenant_that_came_again_through_another_host_is_opened(store: FaultyStore) -> None:
    """A key in memory that does not fit is asked for again."""
    here, there = Keyring(store, [OLD]), Keyring(store, [OLD])
    here.sealer(ALICE).seal(b"blue", "frame")
    store.delete(Keys(ALICE).key)
    again = there.sealer(ALICE).seal(b"green", "frame")
    assert here.sealer(ALICE).open(again, "frame") == b"green"


def test_keys_move_to_another_operators_key(store: FaultyStore) -> None:
    """Both keys in the file, rewrap, the old one out: state stays readable, and nothing else was written."""
    sealed = {tenant: Keyring(store, [OLD]).sealer(tenant).seal(b"blue", "frame") for tenant in (ALICE, BOB)}
    store.put(Keys(ALICE).pack("a" * 64), b"x")
    both = Keyring(store, [NEW, OLD])
    assert both.sealer(ALICE).open(sealed[ALICE], "frame") == b"blue"
    store.calls.clear()

    assert [one.outcome for one in both.rewrap()] == ["wrapped", "wrapped"]
    assert {key for operation, key in store.calls if operation == "put"} == {Keys(ALICE).key, Keys(BOB).key}
    assert [one.outcome for one in both.rewrap([BOB])] == ["current"]
    for tenant, piece in sealed.items():
        assert Keyring(store, [NEW]).sealer(tenant).open(piece, "frame") == b"blue"
        with pytest.raises(RestoreFailed):
            Keyring(store, [OLD]).sealer(tenant).open(piece, "frame")


def test_a_key_that_cannot_be_wrapped_anew_stops_no_other(store: FaultyStore) -> None:
    """Each failure is told with its tenant."""
    for tenant in (ALICE, BOB):
        Keyring(store, [OLD]).sealer(tenant).seal(b"blue", "frame")
    store.put(Keys(ALICE).key, b"{}")
    found = list(Keyring(store, [NEW, OLD]).rewrap([ALICE, BOB, tenant_id("carol")]))
    assert [one.outcome for one in found] == ["failed", "wrapped", "failed"]
    assert "damaged" in found[0].why
    assert found[2] == Rewrapped(tenant=tenant_id("carol"), outcome="failed", why="it has no key")


def test_only_who_has_a_key_can_wrap(store: FaultyStore) -> None:
    """The refusal names the setting."""
    with pytest.raises(InvalidSpec, match="encryption_key_file"):
        list(Keyring(store).rewrap())


def test_keys_are_random() -> None:
    """Two tenants of the same operator have nothing in common."""
    store = MemoryStore()
    keyring = Keyring(store, [os.urandom(32)])
    for tenant in (ALICE, BOB):
        keyring.sealer(tenant).seal(b"", "frame")
    assert keyring.key(ALICE) != keyring.key(BOB)
    assert store.get(Keys(ALICE).key)[0] != store.get(Keys(BOB).key)[0]
