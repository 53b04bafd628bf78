"""Pins: what they say comes back, what is damaged still pins, and a tenant cannot have too many."""

import json

import pytest
from claw_runtime.errors import Conflict, InvalidSpec
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
    pins.put(ALICE, past(2))
    with pytest.raises(Conflict):
        pins.put(ALICE, past(3))
    pins.put(ALICE, past(2), "again")
    pins.put(BOB, past(3))


def test_a_lost_answer_is_asked_for_again() -> None:
    """Whether the write happened or not, the pin is there once."""
    for action in ("applied, answer lost", "not applied, answer lost"):
        pins = Pins(FaultyStore(MemoryStore(), Fault(operation="put", action=action)), FakeClock())
        pins.put(ALICE, past(1))
        assert pins.numbers(ALICE) == {1}
