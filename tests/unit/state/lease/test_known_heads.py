"""A HEAD that is missing, unreadable or older than this host remembers it is refused; others' progress is not."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from claw_runtime.db.database import Database
from claw_runtime.db.memory import SqliteMemory
from claw_runtime.errors import Fenced, RestoreFailed
from claw_runtime.formats.head import Head, HeadRefused, decode, encode
from claw_runtime.objects.memory import MemoryStore
from claw_runtime.ports import KnownHead, StoreMemory
from claw_runtime.state.lease.known_heads import ProcessMemory
from claw_runtime.state.repository import CommitRequest, CommitResult, Repository
from claw_runtime.state.rules.selection import EVERYTHING
from claw_runtime.tenancy import Keys, tenant_id
from fakes.clock import FakeClock
from fakes.stores import FaultyStore

ALICE, BOB = tenant_id("alice"), tenant_id("bob")
HEAD = Keys(ALICE).head


class Host:
    """A runtime that commits one file at a time."""

    def __init__(self, store: MemoryStore, top: Path, name: str) -> None:
        self.line = FaultyStore(store)
        self.repository = Repository(self.line, name, FakeClock(), top / f"scratch-{name}")
        self.tree, self.staging = top / f"tree-{name}", top / f"staging-{name}"
        self.tree.mkdir()

    def commit(self, word: str, *, release: bool = True) -> CommitResult:
        """Restore HEAD's generation, then commit one with this word."""
        lease = self.repository.leases.acquire(ALICE)
        right = self.repository.restorer.adopt(lease, lease.head.generation, lease.head.sha256 or "")
        (self.tree / "word").write_text(word)
        return self.repository.committer.commit(
            CommitRequest(
                right=right, tree=self.tree, selection=EVERYTHING, image_digest="", application="", release=release
            )
        )


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def here(store: MemoryStore, tmp_path: Path) -> Host:
    return Host(store, tmp_path, "here")


@pytest.fixture
def there(store: MemoryStore, tmp_path: Path) -> Host:
    return Host(store, tmp_path, "there")


def objects(store: MemoryStore) -> dict[str, bytes]:
    return {item.key: store.get(item.key)[0] for item in store.list("")}


def change(store: MemoryStore, edit: Callable[[Head], Head]) -> None:
    """Put another HEAD, valid in itself."""
    store.put(HEAD, encode(edit(decode(store.get(HEAD)[0], ALICE))))


def test_a_missing_head_of_a_known_tenant_is_refused(here: Host, store: MemoryStore) -> None:
    """Every reader is refused with exit code 27, and the store stays as it is."""
    here.commit("one")
    for item in list(store.list(Keys(ALICE).prefix)):
        store.delete(item.key)

    readers = (
        here.repository.leases.acquire,
        here.repository.leases.free,
        here.repository.bury,
        here.repository.collect_garbage,
        here.repository.generations.head,
        here.repository.generations.manifest,
    )
    for read in readers:
        with pytest.raises(
            HeadRefused, match="HEAD of tenant alice is missing: this host knows its generation 1"
        ) as no:
            read(ALICE)
        assert no.value.exit_code == RestoreFailed.exit_code == 27
        assert "claw-runtime snapshot recover alice" in no.value.hint
    assert objects(store) == {}


def test_a_missing_head_of_a_stored_tenant_is_refused(here: Host, there: Host, store: MemoryStore) -> None:
    """A host that never had the tenant does not begin it anew over its generations."""
    here.commit("one")
    store.delete(HEAD)
    before = objects(store)

    with pytest.raises(HeadRefused, match="the store has objects of it, such as tenants/alice/gen/"):
        there.repository.leases.acquire(ALICE)

    assert objects(store) == before


def test_a_new_tenant_begins_empty(here: Host) -> None:
    """Nothing is known, and nothing is stored; another tenant's objects do not count."""
    here.commit("one")
    assert here.repository.leases.acquire(BOB).head.generation == 0


def test_only_a_missing_head_costs_more_requests(here: Host) -> None:
    """A tenant with a HEAD is never listed, and the store's id is not read."""
    here.commit("one")
    here.line.calls.clear()
    lease = here.repository.leases.acquire(ALICE)
    here.repository.leases.give_back(ALICE)
    assert lease.head.generation == 1
    assert {(operation, key) for operation, key in here.line.calls} == {("get", HEAD), ("put", HEAD)}


def test_a_head_that_another_host_wrote_costs_one_listing(here: Host, there: Host) -> None:
    """It is compared with the generations in the store, once."""
    here.commit("one")
    for _ in range(2):
        there.repository.generations.head(ALICE)
    assert there.line.calls == [("get", HEAD), ("list", Keys(ALICE).manifests), ("get", HEAD)]


@pytest.mark.parametrize("knows", [False, True])
def test_a_head_that_went_back_before_it_was_seen_is_refused(
    here: Host, there: Host, store: MemoryStore, *, knows: bool
) -> None:
    """A host that has seen none of the newer generations does not continue from an old one, at no attempt."""
    here.commit("one")
    if knows:
        there.repository.generations.head(ALICE)
    here.commit("two")
    old = store.get(HEAD)[0]
    here.commit("three")
    here.commit("four")
    store.put(HEAD, old)
    before = objects(store)

    for _ in range(2):
        with pytest.raises(HeadRefused, match="it names generation 2, but generation 4 is stored"):
            there.repository.leases.acquire(ALICE)

    assert objects(store) == before


def test_a_head_that_went_back_by_one_may_be_of_a_writer_that_died(here: Host, there: Host, store: MemoryStore) -> None:
    """It is not refused; a collection leaves the newer generation and its content alone."""
    here.commit("one")
    old = store.get(HEAD)[0]
    here.commit("two")
    store.put(HEAD, old)
    before = objects(store)

    assert there.repository.leases.acquire(ALICE).head.generation == 1
    there.repository.leases.give_back(ALICE)
    there.repository.collect_garbage(ALICE, grace=-1)

    assert set(objects(store)) == set(before)


def test_generations_that_were_given_up_do_not_count(here: Host, there: Host, store: MemoryStore) -> None:
    """Until a newer one was committed, HEAD says up to which number."""
    here.commit("one")
    old = store.get(HEAD)[0]
    here.commit("two")
    here.commit("three")
    store.put(HEAD, old)
    change(store, lambda head: replace(head, given_up=3))

    assert there.commit("again").number == 2
    assert json.loads(store.get(HEAD)[0])["given_up"] == 3
    assert there.commit("and again").number == 3
    assert "given_up" not in json.loads(store.get(HEAD)[0])


def test_a_first_claim_elsewhere_at_the_same_moment_is_no_loss(here: Host, there: Host) -> None:
    """HEAD is read again before it counts as missing: it may have been made between two requests."""

    def overtaken(operation: str, _key: str) -> None:
        if operation == "list":
            here.line.before = lambda *_: None
            there.commit("first")

    here.line.before = overtaken
    assert here.repository.leases.acquire(ALICE).head.generation == 1


def test_epochs_of_a_new_head_continue(here: Host, store: MemoryStore) -> None:
    """A HEAD without a generation may be lost without harm: the next one has a higher epoch all the same."""
    first = here.repository.leases.acquire(ALICE)
    store.delete(HEAD)
    assert here.repository.leases.acquire(ALICE).epoch > first.epoch


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (lambda head, old: old, "it names generation 1, but this host has seen generation 2"),
        (lambda head, old: replace(head, epoch=head.epoch - 1), "its epoch is 1, but this host has seen epoch 2"),
        (
            lambda head, old: replace(head, sha256="f" * 64, manifest=Keys(ALICE).manifest(2, "f" * 64)),
            "its generation 2 is not the one that this host has seen",
        ),
    ],
)
def test_a_head_that_went_back_is_refused(
    here: Host, store: MemoryStore, edit: Callable[[Head, Head], Head], why: str
) -> None:
    """A lower generation, a lower epoch, or another generation of the same number."""
    here.commit("one")
    old = decode(store.get(HEAD)[0], ALICE)
    here.commit("two")
    change(store, lambda head: edit(head, old))
    before = objects(store)

    for read in (here.repository.leases.acquire, here.repository.collect_garbage, here.repository.leases.give_back):
        with pytest.raises(HeadRefused, match="HEAD of tenant alice has gone back") as refused:
            read(ALICE)
        assert refused.value.why == why
    assert objects(store) == before


def _without_check(data: bytes) -> bytes:
    return json.dumps({**json.loads(data), "check": "0" * 16}).encode()


def _of_bob(data: bytes) -> bytes:
    head = decode(data, ALICE)
    return encode(replace(head, manifest=Keys(BOB).manifest(head.generation, head.sha256 or "")))


@pytest.mark.parametrize("damage", [lambda _: b"{", _without_check, _of_bob, lambda data: data[:-20]])
def test_a_damaged_head_is_refused(here: Host, store: MemoryStore, damage: Callable[[bytes], bytes]) -> None:
    """Damaged JSON, a wrong check, a manifest of another tenant."""
    here.commit("one")
    store.put(HEAD, damage(store.get(HEAD)[0]))
    before = objects(store)

    for read in (here.repository.leases.acquire, here.repository.collect_garbage, here.repository.bury):
        with pytest.raises(HeadRefused, match="HEAD of tenant alice is not valid"):
            read(ALICE)
    assert objects(store) == before


def test_the_progress_of_other_runtimes_is_none_of_it(here: Host, there: Host) -> None:
    """Two hosts take turns, and a removal counts as progress."""
    for word in ("one", "two", "three"):
        here.commit(word)
        there.commit(word + "!")
    there.repository.bury(ALICE)
    assert here.repository.leases.acquire(ALICE).head.deleted
    here.repository.leases.give_back(ALICE)
    assert there.commit("anew").number == 8
    head = here.repository.generations.head(ALICE)
    assert head is not None
    assert head.generation == 8


def test_a_commit_is_refused_where_head_is_lost(here: Host, store: MemoryStore) -> None:
    """Nothing is uploaded; the error is that of the missing HEAD, not of another runtime."""
    right = here.commit("one", release=False).right
    assert right is not None
    store.delete(HEAD)
    before = objects(store)
    (here.tree / "word").write_text("two")
    request = CommitRequest(
        right=right, tree=here.tree, selection=EVERYTHING, image_digest="", application="", release=True
    )

    with pytest.raises(HeadRefused, match="is missing"):
        here.repository.committer.commit(request)
    assert objects(store) == before


def test_a_commit_on_another_lineage_is_fenced(here: Host, there: Host, store: MemoryStore, tmp_path: Path) -> None:
    """The epoch and the number are the right's, but HEAD's generation is another one."""
    right = there.commit("of another lineage", release=False).right
    assert right is not None
    for item in list(store.list("")):
        store.delete(item.key)
    late = Host(store, tmp_path, "late")
    late.commit("one", release=False)
    forgetful = Repository(there.line, "there", FakeClock(), tmp_path / "scratch-forgetful")
    request = CommitRequest(
        right=right, tree=there.tree, selection=EVERYTHING, image_digest="", application="", release=True
    )

    with pytest.raises(Fenced):
        forgetful.committer.commit(request)


def test_a_tree_of_another_lineage_is_not_adopted(here: Host) -> None:
    """Two lineages may have a generation of the same number."""
    done = here.commit("one")
    lease = here.repository.leases.acquire(ALICE)
    with pytest.raises(RestoreFailed, match="is of another lineage than its HEAD"):
        here.repository.restorer.adopt(lease, 1, "f" * 64)
    assert here.repository.restorer.adopt(lease, 1, done.sha256).base_generation == 1


class Late(MemoryStore):
    """Answers a read of HEAD late: `meanwhile` happens after the object was read."""

    meanwhile: Callable[[], None] | None = None

    def get(self, key: str) -> tuple[bytes, str]:
        found = super().get(key)
        if key == HEAD and (meanwhile := self.meanwhile):
            self.meanwhile = None
            meanwhile()
        return found


def test_a_read_that_another_thread_overtakes_is_not_refused(tmp_path: Path) -> None:
    """What counts is what was known before the read began."""
    store = Late()
    here = Host(store, tmp_path, "here")
    here.commit("one")
    store.meanwhile = lambda: here.commit("two") and None
    head = here.repository.generations.head(ALICE)
    assert head is not None
    assert head.generation == 1
    head = here.repository.generations.head(ALICE)
    assert head is not None
    assert head.generation == 2


@pytest.fixture(params=["process", "ledger"])
def memory(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreMemory]:
    database = Database(tmp_path / "ledger.sqlite")
    yield ProcessMemory() if request.param == "process" else SqliteMemory(database)
    database.close()


def test_memories_keep_the_newest_head(memory: StoreMemory) -> None:
    """An older HEAD never replaces a newer one, unless a person accepts it or another store."""
    newer, older = (
        KnownHead(generation=5, sha256="a" * 64, epoch=7),
        KnownHead(generation=4, sha256="b" * 64, epoch=8),
    )
    assert memory.is_empty()
    assert memory.head(ALICE) is None
    memory.remember(ALICE, newer)
    memory.remember(ALICE, older)
    assert memory.head(ALICE) == newer
    assert not memory.is_empty()
    memory.replace(ALICE, older)
    assert memory.head(ALICE) == older

    memory.set_store("1", "file:///a")
    assert memory.head(ALICE) == older
    memory.set_store("2", "file:///b", forget=True)
    assert (memory.store(), memory.head(ALICE)) == ("2", None)


def test_memories_name_the_leases_that_this_host_may_hold(memory: StoreMemory) -> None:
    """Each once, until it has ended; those of another store are forgotten with it."""
    for tenant in (BOB, ALICE, ALICE):
        memory.hold(tenant)
    assert list(memory.held()) == [ALICE, BOB]
    memory.let_go(BOB)
    memory.let_go(BOB)
    assert list(memory.held()) == [ALICE]
    memory.set_store("2", "file:///b", forget=True)
    assert not memory.held()
