"""A host knows the store of its tenants again, and refuses an empty or another one until a person accepts it."""

from pathlib import Path

import pytest
from claw_runtime.formats.head import HeadRefused
from claw_runtime.objects.directory import DirectoryStore
from claw_runtime.objects.memory import MemoryStore
from claw_runtime.ports import KnownHead, ObjectStore
from claw_runtime.state.lease.known_heads import ProcessMemory
from claw_runtime.state.lease.store_id import StoreId
from claw_runtime.state.repository import Repository
from claw_runtime.tenancy import STORE_KEY, Keys, tenant_id
from fakes.clock import FakeClock

ALICE = tenant_id("alice")
SOME = KnownHead(generation=3, sha256="", epoch=5)


@pytest.fixture
def memory() -> ProcessMemory:
    return ProcessMemory()


def opened(store: ObjectStore, memory: ProcessMemory, *, accept: bool = False) -> str:
    return StoreId(store, memory, FakeClock()).open(accept=accept)


def keys(store: ObjectStore) -> list[str]:
    return [item.key for item in store.list("")]


def test_a_new_store_gets_an_id_once(memory: ProcessMemory) -> None:
    """A second start, and a second host, find the id of the first."""
    store = MemoryStore()
    first = opened(store, memory)
    assert len(first) == 32
    assert opened(store, memory) == first
    assert opened(store, ProcessMemory()) == first
    assert keys(store) == [STORE_KEY]


def test_an_empty_store_in_the_place_of_the_known_one_is_refused(memory: ProcessMemory) -> None:
    """Nothing is written to it."""
    opened(MemoryStore(), memory)
    empty = MemoryStore()
    with pytest.raises(HeadRefused, match="is not the store that the tenants' states are in") as refused:
        opened(empty, memory)
    assert refused.value.exit_code == 27
    assert "claw-runtime up --accept-store" in refused.value.hint
    assert keys(empty) == []


def test_a_disk_that_is_not_mounted_is_refused(memory: ProcessMemory, tmp_path: Path) -> None:
    """The directory is there, and empty."""
    (mount := tmp_path / "mount").mkdir()
    opened(DirectoryStore(mount), memory)
    mount.rename(tmp_path / "unmounted")
    mount.mkdir()
    with pytest.raises(HeadRefused, match=f"file://{mount} is not the store"):
        opened(DirectoryStore(mount), memory)
    mount.rename(tmp_path / "bare")
    (tmp_path / "unmounted").rename(mount)
    opened(DirectoryStore(mount), memory)


def test_another_store_is_refused_until_it_is_accepted(memory: ProcessMemory) -> None:
    """Then the other id is remembered, and no HEAD of the first store."""
    opened(MemoryStore(), memory)
    memory.remember(ALICE, SOME)
    other = MemoryStore()
    theirs = opened(other, ProcessMemory())
    with pytest.raises(HeadRefused, match="it has the id"):
        opened(other, memory)
    assert memory.head(ALICE) == SOME

    assert opened(other, memory, accept=True) == theirs == memory.store()
    assert memory.head(ALICE) is None
    assert opened(other, memory) == theirs


def test_an_old_store_is_adopted_where_there_is_something_of_it(memory: ProcessMemory) -> None:
    """A ledger from before there were ids knows tenants: their store has keys of tenants, an empty one is another."""
    memory.remember(ALICE, SOME)
    with pytest.raises(HeadRefused, match="this host knows tenants' generations, and none is there"):
        opened(MemoryStore(), memory)

    old = MemoryStore()
    old.put(Keys(ALICE).head, b"{}")
    assert opened(old, memory) == memory.store()
    assert memory.head(ALICE) == SOME


def test_an_accepted_empty_store_begins_anew(memory: ProcessMemory) -> None:
    """What an old ledger knows of another store does not refuse its tenants there."""
    memory.remember(ALICE, SOME)
    opened(MemoryStore(), memory, accept=True)
    assert memory.head(ALICE) is None


@pytest.mark.parametrize("damage", [None, b"", b"[]", b'{"id": 7}'])
def test_a_lost_id_is_restored_on_demand(memory: ProcessMemory, damage: bytes | None) -> None:
    """A store of tenants that lacks only its id gets the known one again, and its HEADs stay known."""
    store = MemoryStore()
    first = opened(store, memory)
    store.put(Keys(ALICE).head, b"{}")
    memory.remember(ALICE, SOME)
    store.put(STORE_KEY, damage) if damage is not None else store.delete(STORE_KEY)
    with pytest.raises(HeadRefused, match=r"its object claw-store\.json is missing or damaged"):
        opened(store, memory)

    assert opened(store, memory, accept=True) == first
    assert opened(store, ProcessMemory()) == first
    assert memory.head(ALICE) == SOME


def test_a_store_that_is_replaced_while_it_is_used_is_told_as_such(memory: ProcessMemory, tmp_path: Path) -> None:
    """For a tenant without a HEAD, a new one too: the message is about the store, and nothing is written."""
    store = MemoryStore()
    repository = Repository(store, "here", FakeClock(), tmp_path / "scratch", memory=memory)
    repository.store_id.open()
    repository.leases.acquire(ALICE)
    for key in keys(store):
        store.delete(key)

    for tenant in (ALICE, tenant_id("new")):
        for read in (repository.leases.give_back, repository.leases.acquire, repository.collect_garbage):
            with pytest.raises(HeadRefused, match="is not the store that the tenants' states are in"):
                read(tenant)
    assert keys(store) == []


def test_two_hosts_that_start_at_once_agree() -> None:
    """The second write is refused by its condition, and the first id counts for both."""

    class Raced(MemoryStore):
        def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
            if key == STORE_KEY and not rivals:
                rivals.append(ProcessMemory())
                opened(self, rivals[0])
            return super().put(key, data, if_absent=if_absent, if_match=if_match)

    rivals: list[ProcessMemory] = []
    mine = ProcessMemory()
    assert opened(Raced(), mine) == rivals[0].store() == mine.store()
