"""Pins: what they say comes back, what is damaged still pins, and a tenant cannot have too many."""

import json

import pytest
from claw_runtime.errors import Conflict, InvalidSpec, StoreUnavailable
from claw_runtime.formats.manifest import Past
from claw_runtime.objects.memory import MemoryStore
from claw_runtime.state.history import pins as pinning
from claw_runtime.state.history.pins import Pins, tag_name
from claw_runtime.tenancy import Keys, tenant_id
from fakes.clock import FakeClock
from fakes.stores import Fault, FaultyStore

ALICE, BOB = tenant_id("alice"), tenant_id("bob")


def past(generation: int) -> Past:
    return Past(
        generation=generation, sha256=f"{generation:064x}", created="2026-11-27T10:00:00+00:00", files=3, size=9
    )


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def pins(store: MemoryStore) -> Pins:
    return Pins(store, FakeClock())


def test_a_pin_says_what_it_pins(pins: Pins) -> None:
    """Generation, digest, counts and tag come back; another tenant has none of it."""
    pins.put(ALICE, past(12), "before-upgrade")
    pins.put(ALICE, past(3))
    assert [(number, pin.past, pin.tag) for number, pin in pins.all(ALICE).items()] == [
        (3, past(3), ""),
        (12, past(12), "before-upgrade"),
    ]
    assert (pins.numbers(ALICE), pins.numbers(BOB), pins.all(BOB)) == ({3, 12}, frozenset(), {})


def test_a_pin_can_be_changed_and_dropped(pins: Pins) -> None:
    """The last tag counts; dropping twice is dropping once."""
    pins.put(ALICE, past(3), "a")
    pins.put(ALICE, past(3), "b")
    found = pins.find(ALICE, 3)
    assert found is not None
    assert found.tag == "b"
    pins.drop(ALICE, 3)
    pins.drop(ALICE, 3)
    assert (pins.find(ALICE, 3), pins.numbers(ALICE)) == (None, frozenset())


def body(**other: object) -> bytes:
    told = {"v": 1, "generation": 3, "tag": "", "at": "", "sha256": f"{3:064x}", "created": "", "files": 1, "size": 1}
    return json.dumps(told | other).encode()


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"[]", b"{}", b"null"),
        *(body(generation=4), body(files="1"), body(sha256="../bob"), body(tag="\x1b[2J"), body(created=None)),
    ],
)
def test_a_damaged_pin_still_pins(pins: Pins, store: MemoryStore, body: bytes) -> None:
    """Retention sees the number; nobody is led anywhere by the rest."""
    store.put(Keys(ALICE).pin(3), body)
    store.put(f"{Keys(ALICE).pins}stray", b"")
    assert (pins.numbers(ALICE), pins.all(ALICE)) == ({3}, {})


@pytest.mark.parametrize("text", ["", "5", "2h", "latest", "2026-11-27", "a b", "a/b", "-a", "@1h", "a\n", "x" * 64])
def test_what_names_something_else_is_no_tag(pins: Pins, text: str) -> None:
    """A number, a time, a word with a meaning, or what a path or terminal would obey."""
    with pytest.raises(InvalidSpec):
        tag_name(text)
    if text:
        with pytest.raises(InvalidSpec):
            pins.put(ALICE, past(1), text)


def test_a_tenant_has_so_many_pins_and_no_more(pins: Pins, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is pinned already may be pinned again."""
    monkeypatch.setattr(pinning, "MOST", 2)
    pins.put(ALICE, past(1))
    pins.put(ALICE, past(9), automatic=True)
    pins.put(ALICE, past(2))
    with pytest.raises(Conflict):
        pins.put(ALICE, past(3))
    pins.put(ALICE, past(2), "again")
    pins.put(BOB, past(3))


def test_automatic_pins_replace_each_other(pins: Pins) -> None:
    """The newest ten stay, beside any number of a person's; what a person pins again is a person's."""
    for number in range(5):
        pins.put(ALICE, past(number))
    for number in range(5, 25):
        pins.put(ALICE, past(number), "before", automatic=True)
        if number == 7:
            pins.put(ALICE, past(number), "mine")
    assert pins.numbers(ALICE) == {0, 1, 2, 3, 4, 7, *range(15, 25)}


def test_a_full_table_does_not_stop_an_automatic_pin(pins: Pins, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commit succeeds, and the pins made by persons stay."""
    monkeypatch.setattr(pinning, "MOST", 2)
    for number in (1, 2):
        pins.put(ALICE, past(number))
    pins.put(ALICE, past(3), automatic=True)
    assert pins.numbers(ALICE) == {1, 2, 3}


def test_automatic_pins_expire_after_a_week() -> None:
    """By the store's clock; a person's never do."""
    clock = FakeClock()
    pins = Pins(MemoryStore(clock.now), clock)
    pins.put(ALICE, past(1), automatic=True)
    pins.put(ALICE, past(2))
    clock.advance(pinning.WEEK - 1)
    pins.put(ALICE, past(3), automatic=True)
    assert pins.expired(ALICE, clock.now()) == frozenset()
    clock.advance(1)
    assert pins.expired(ALICE, clock.now()) == {1}
    pins.expire(ALICE, {1, 2})
    assert pins.numbers(ALICE) == {2, 3}


@pytest.mark.parametrize("conditional", [True, False])
def test_a_person_is_faster_than_an_expiry(conditional: bool) -> None:
    """A pin that a person makes between the read and the delete stays, if the store deletes on a condition."""

    class Racing(MemoryStore):
        def delete(self, key: str, *, if_match: str | None = None) -> None:
            if if_match and not conditional:
                raise StoreUnavailable("no such delete")
            if if_match:
                Pins(self, FakeClock()).put(ALICE, past(1), "mine")
            super().delete(key, if_match=if_match)

    pins = Pins(Racing(), FakeClock())
    pins.put(ALICE, past(1), automatic=True)
    pins.expire(ALICE, {1})
    assert pins.numbers(ALICE) == ({1} if conditional else frozenset())


def test_a_lost_answer_is_asked_for_again() -> None:
    """Whether the write happened or not, the pin is there once."""
    for action in ("applied, answer lost", "not applied, answer lost"):
        pins = Pins(FaultyStore(MemoryStore(), Fault(operation="put", action=action)), FakeClock())
        pins.put(ALICE, past(1))
        assert pins.numbers(ALICE) == {1}
