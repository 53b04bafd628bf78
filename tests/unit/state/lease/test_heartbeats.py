"""A lease is over when its owner gave no sign of life for long enough, by the waiter's own clock and no other."""

from pathlib import Path

import pytest
from claw_runtime.errors import Fenced, StateMissing, TenantLocked
from claw_runtime.objects.memory import MemoryStore
from claw_runtime.state.lease.heartbeats import Heartbeats
from claw_runtime.state.lease.leases import UploadRight
from claw_runtime.state.repository import CommitRequest, CommitResult, Repository
from claw_runtime.state.rules.selection import EVERYTHING
from claw_runtime.tenancy import TenantId
from fakes.clock import FakeClock
from fakes.stores import Fault, FaultyStore

ALICE = TenantId("alice")
TTL = 60.0


class Host:
    """One runtime with a clock of its own, which may be wrong."""

    def __init__(self, store: MemoryStore, name: str, top: Path) -> None:
        self.clock, self.line = FakeClock(), FaultyStore(store)
        self.heartbeats = Heartbeats(self.line, name, self.clock, TTL)
        self.repository = Repository(self.line, name, self.clock, top / f"scratch-{name}", heartbeats=self.heartbeats)
        self.tree = top / name
        self.heartbeats.beat()

    def commit(self, right: UploadRight, word: str) -> CommitResult:
        self.tree.mkdir(exist_ok=True)
        (self.tree / "word").write_text(word)
        return self.repository.committer.commit(
            CommitRequest(
                right=right, tree=self.tree, selection=EVERYTHING, image_digest="", application="", release=False
            )
        )

    def lives(self, seconds: float) -> None:
        """Time goes by, with a beat each third of the time."""
        for _ in range(int(seconds / (TTL / 3))):
            self.clock.advance(TTL / 3)
            self.heartbeats.beat()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def here(store: MemoryStore, tmp_path: Path) -> Host:
    return Host(store, "here", tmp_path)


@pytest.fixture
def there(store: MemoryStore, tmp_path: Path) -> Host:
    return Host(store, "there", tmp_path)


def test_the_lease_of_a_living_owner_never_ends(here: Host, there: Host) -> None:
    """However often somebody asks, and however long."""
    here.repository.leases.acquire(ALICE)
    for _ in range(50):
        here.lives(TTL)
        there.clock.advance(TTL)
        with pytest.raises(TenantLocked) as raised:
            there.repository.leases.acquire(ALICE)
        assert raised.value.facts["owner"] == "here"
        assert raised.value.facts["retry_after"] == TTL


def test_the_lease_of_a_silent_owner_is_over_after_its_time(here: Host, there: Host) -> None:
    """Counted from when the waiter first saw the last sign; the owner, awake again, is refused at its commit."""
    right = here.repository.restorer.adopt(here.repository.leases.acquire(ALICE), 0)
    right = here.commit(right, "one").right or right
    with pytest.raises(TenantLocked):
        there.repository.leases.acquire(ALICE)
    there.clock.advance(TTL - 1)
    with pytest.raises(TenantLocked) as raised:
        there.repository.leases.acquire(ALICE)
    assert raised.value.facts["retry_after"] == 1
    there.clock.advance(1)

    lease = there.repository.leases.acquire(ALICE)

    assert (lease.head.generation, lease.head.owner) == (1, "there")
    here.heartbeats.beat()
    with pytest.raises(Fenced):
        here.commit(right, "two")
    assert b"".join(there.repository.generations.read(ALICE, "word")) == b"one"


@pytest.mark.parametrize("jump", [3600.0, -3600.0, 10.0**9])
def test_wall_clocks_do_not_matter(here: Host, there: Host, jump: float) -> None:
    """An hour forward or back, on either host, ends no lease and saves none."""
    here.repository.leases.acquire(ALICE)
    with pytest.raises(TenantLocked):
        there.repository.leases.acquire(ALICE)
    here.clock.jump(jump)
    there.clock.jump(-jump)
    with pytest.raises(TenantLocked):
        there.repository.leases.acquire(ALICE)
    there.clock.advance(TTL)
    assert there.repository.leases.acquire(ALICE).epoch == 2


def test_a_daemon_that_was_restarted_is_alive(here: Host, there: Host, store: MemoryStore, tmp_path: Path) -> None:
    """Its numbers begin again, and yet its sign is a new one."""
    here.repository.leases.acquire(ALICE)
    with pytest.raises(TenantLocked):
        there.repository.leases.acquire(ALICE)
    there.clock.advance(TTL - 1)
    again = Host(store, "here", tmp_path)
    again.clock.advance(1)
    again.heartbeats.beat()
    with pytest.raises(TenantLocked):
        there.repository.leases.acquire(ALICE)
    there.clock.advance(TTL - 1)
    with pytest.raises(TenantLocked):
        there.repository.leases.acquire(ALICE)


def test_an_owner_without_signs_is_waited_for_as_long(here: Host, there: Host, store: MemoryStore) -> None:
    """One of an older version, or whose sign was removed."""
    here.repository.leases.acquire(ALICE)
    store.delete("runtimes/here")
    with pytest.raises(TenantLocked):
        there.repository.leases.acquire(ALICE)
    there.clock.advance(TTL)
    assert there.repository.leases.acquire(ALICE).head.owner == "there"


def test_a_claim_of_a_free_tenant_asks_for_no_sign(here: Host) -> None:
    """The way of a claim has no request more."""
    here.repository.leases.acquire(ALICE)
    here.repository.leases.give_back(ALICE)
    here.line.calls.clear()

    here.repository.leases.acquire(ALICE)

    assert here.line.calls == [("put", "tenants/alice/HEAD")]


def test_a_store_that_is_away_is_no_end(here: Host) -> None:
    """The next beat asks again."""
    here.line.faults = [Fault(operation="put", action="unavailable", times=9)]
    here.heartbeats.beat()
    here.line.faults = []
    here.heartbeats.beat()
    assert here.heartbeats.left("here") == TTL


def test_a_buried_tenant_begins_anew(here: Host, there: Host, tmp_path: Path) -> None:
    """Whoever held the state is fenced, nobody reads it, and a tree of before fits nothing of after."""
    right = here.commit(here.repository.restorer.adopt(here.repository.leases.acquire(ALICE), 0), "old").right
    assert right is not None

    head = here.repository.bury(ALICE)

    assert head is not None
    assert (head.generation, head.manifest, head.owner, head.deleted) == (2, None, None, True)
    with pytest.raises(Fenced):
        here.commit(right, "late")
    with pytest.raises(StateMissing, match="no generation"):
        there.repository.generations.manifest(ALICE)
    lease = there.repository.leases.acquire(ALICE)
    begun = there.commit(there.repository.restorer.restore(lease, tmp_path / "there"), "new")
    assert begun.number == 3
    assert there.repository.generations.manifest(ALICE).history == ()
    assert b"".join(there.repository.generations.read(ALICE, "word")) == b"new"
    assert here.repository.bury(TenantId("nobody")) is None


def test_a_tenant_of_others_is_not_buried(here: Host, there: Host) -> None:
    """Not while its owner lives."""
    here.repository.leases.acquire(ALICE)
    with pytest.raises(TenantLocked):
        there.repository.bury(ALICE)
