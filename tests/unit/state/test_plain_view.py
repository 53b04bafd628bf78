"""The plain view: what is in it, that it follows the state, and that nothing that goes wrong with it stays wrong."""

import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from claw_runtime.errors import UnknownPool
from claw_runtime.formats.envelope import KEY_SIZE
from claw_runtime.objects.memory import MemoryStore
from claw_runtime.spec.plan import Workload
from claw_runtime.state import plain_view
from claw_runtime.state.keyring import Keyring
from claw_runtime.state.plain_view import PlainViews, ViewStatus, escape
from claw_runtime.state.repository import Repository
from claw_runtime.tenancy import Keys, TenantId
from fakes.stores import Crashed, Fault, FaultyStore
from fakes.world import WORKLOAD, World
from hypothesis import given
from hypothesis import strategies as st

ALICE = TenantId("alice")
FILES = Keys(ALICE).files
VIEW = "{mappings: [{path: /state/out, plain_view: true}], rest: store}"


@pytest.fixture
def store() -> FaultyStore:
    """A store whose calls are counted, and fail when a test says so."""
    return FaultyStore(MemoryStore())


@pytest.fixture
def host(tmp_path: Path, store: FaultyStore) -> Iterator[Callable[[str], World]]:
    """Makes a host with this section `sync`."""
    made: list[World] = []

    def make(sync: str) -> World:
        made.append(World(tmp_path, store=store, workload=f"{WORKLOAD}sync: {sync}\n"))
        made[-1].pools.keep()
        return made[-1]

    yield make
    for world in made:
        world.close()


def life(world: World, files: dict[str, str], *removed: str) -> None:
    """A claim, some writes and deletions, and a release."""
    world.tenants.claim(ALICE, "small")
    for name in removed:
        path = world.state(ALICE) / name
        path.unlink()
        if not any(path.parent.iterdir()):
            path.parent.rmdir()
    world.write(ALICE, files)
    world.tenants.release(ALICE)
    world.pools.keep()


def view(store: FaultyStore) -> dict[str, str]:
    """Files of the view, with their content."""
    keys = [item.key for item in store.list(FILES)]
    return {key[len(FILES) :]: store.get(key)[0].decode() for key in keys if not key.endswith("/_VIEW")}


def test_a_commit_is_seen_in_the_view(host: Callable[[str], World], store: FaultyStore) -> None:
    """Of mappings that have one; changed files are written, and removed ones deleted."""
    world = host(VIEW)
    life(world, {"out/a": "1", "out/b/c": "1", "private": "1"})
    world.views.work_off()
    assert view(store) == {"out/a": "1", "out/b/c": "1"}
    life(world, {"out/a": "2", "out/d": "2"}, "out/b/c")
    world.views.work_off()
    assert view(store) == {"out/a": "2", "out/d": "2"}
    assert world.views.status(ALICE) == ViewStatus(generation=2, files=2)


def test_only_what_changed_is_written(host: Callable[[str], World], store: FaultyStore) -> None:
    """One object for one changed file, and the note before and after; none when nothing changed."""
    world = host(VIEW)
    life(world, {f"out/{number}": "1" for number in range(20)})
    world.views.work_off()
    life(world, {"out/7": "2"})
    store.calls.clear()
    world.views.work_off()
    assert [key[len(FILES) :] for call, key in store.calls if call == "put"] == ["_VIEW", "out/7", "_VIEW"]
    life(world, {})
    store.calls.clear()
    world.views.work_off()
    assert [call for call, _ in store.calls] == ["get", "get"]


def test_a_commit_neither_waits_for_the_view_nor_fails_with_it(
    host: Callable[[str], World], store: FaultyStore
) -> None:
    """No object of the view is touched on the way of a release."""
    store.faults.append(Fault(operation="put", action="unavailable", key="/files/", times=99))
    world = host(VIEW)
    life(world, {"out/a": "1"})
    assert not [key for _, key in store.calls if key.startswith(FILES)]
    world.views.work_off()
    status = world.views.status(ALICE)
    assert status is not None
    assert "the store does not answer" in status.error
    store.faults.clear()
    life(world, {"out/b": "1"})
    world.views.work_off()
    assert view(store) == {"out/a": "1", "out/b": "1"}
    assert world.views.status(ALICE) == ViewStatus(generation=2, files=2)


@pytest.mark.parametrize("call", ["put", "delete"])
@pytest.mark.parametrize("number", range(1, 5))
@pytest.mark.parametrize("action", ["crash", "applied, answer lost"])
def test_the_view_catches_up_after_a_crash(
    host: Callable[[str], World], store: FaultyStore, call: str, number: int, action: str
) -> None:
    """At any request of a pass; also when what was half written is gone from the state by then."""
    world = host(VIEW)
    life(world, {"out/a": "1", "out/b": "1", "out/c": "1"})
    world.views.work_off()
    life(world, {"out/a": "2", "out/d": "2", "out/e": "2"}, "out/b", "out/c")
    store.faults.append(Fault(operation=call, action=action, key="/files/", first=number))  # type: ignore[arg-type]
    with suppress(Crashed):
        world.views.work_off()
    store.faults.clear()
    life(world, {}, "out/d")
    world.restart()
    world.views.work_off()
    assert view(store).get("out/a") in ("1", "2")  # nothing was committed since the start
    world.views.catch_up({ALICE: "small"}, world.pools.workload)
    world.views.work_off()
    assert view(store) == {"out/a": "2", "out/e": "2"}


def test_a_start_asks_nothing_for_tenants_without_a_view(host: Callable[[str], World], store: FaultyStore) -> None:
    """And a pool that is gone keeps nobody else's from being made."""
    world = host("{}")
    life(world, {"a": "1"})
    world.restart()
    store.calls.clear()

    def workload_of(pool: str) -> Workload:
        if pool == "gone":
            raise UnknownPool("gone")
        return world.pools.workload(pool)

    world.views.catch_up({ALICE: "small", TenantId("bob"): "gone"}, workload_of)
    world.views.work_off()
    assert store.calls == []
    assert world.views.status(ALICE) is None


@pytest.mark.spawns
def test_databases_are_in_the_view_only_when_asked_for(host: Callable[[str], World], store: FaultyStore) -> None:
    """A copy of one that a tool opens beside the program's is not what a person expects of a plain file."""
    world = host("{mappings: [{path: /state/out, plain_view: true}, {path: /state/all, plain_view: all}], rest: store}")
    world.tenants.claim(ALICE, "small")
    world.write(ALICE, {"out/x": "1", "all/x": "1"})
    for name in ("out/a.db", "all/a.db"):
        with sqlite3.connect(world.state(ALICE) / name) as database:
            database.execute("CREATE TABLE t (x)")
        database.close()
    world.tenants.release(ALICE)
    world.views.work_off()
    names = [item.key[len(FILES) :] for item in store.list(FILES)]
    assert names == ["_VIEW", "all/a.db", "all/x", "out/x"]
    assert store.get(f"{FILES}all/a.db")[0].startswith(b"SQLite format 3\0")


def test_a_sink_path_says_where(host: Callable[[str], World], store: FaultyStore) -> None:
    """For a directory, and for one file."""
    world = host(
        "{mappings: [{path: /state/a.txt, plain_view: true, sink_path: b/c},"
        " {path: /state, pattern: '*.md', plain_view: true, sink_path: pages}], rest: store}"
    )
    life(world, {"a.txt": "1", "d/e.md": "1", "x": "1"})
    world.views.work_off()
    assert view(store) == {"b/c": "1", "pages/d/e.md": "1"}


def test_the_view_follows_the_rules(host: Callable[[str], World], store: FaultyStore) -> None:
    """Another place, and another selection, at the next commit, also of a state that did not change."""
    world = host(VIEW)
    life(world, {"out/a": "1", "out/b": "1", "c": "1"})
    world.views.work_off()
    world.text = f"{WORKLOAD}sync: {{mappings: [{{path: /state/c, plain_view: true, sink_path: d}}], rest: store}}\n"
    world.restart()
    life(world, {})
    world.views.work_off()
    assert view(store) == {"d": "1"}


def test_a_view_that_nobody_asks_for_any_more_goes(host: Callable[[str], World], store: FaultyStore) -> None:
    """With the first commit after its last mapping went; then the store is not asked about it again."""
    first = host(VIEW)
    life(first, {"out/a": "1"})
    first.views.work_off()
    first.close()

    world = host("{}")
    life(world, {"out/a": "2"})
    world.views.work_off()

    assert list(store.list(FILES)) == []
    assert world.views.status(ALICE) is None
    life(world, {"out/a": "3"})
    store.calls.clear()
    world.views.work_off()
    assert store.calls == []


def test_a_tenant_without_a_view_has_no_errors_of_it(host: Callable[[str], World], store: FaultyStore) -> None:
    """Also when the store is away while somebody looks whether there is one; the next commit looks again."""
    world = host("{}")
    life(world, {"out/a": "1"})
    store.faults.append(Fault(operation="get", action="unavailable", key="/files/", times=99))

    world.views.work_off()

    assert world.views.status(ALICE) is None
    store.faults.clear()
    life(world, {"out/a": "2"})
    store.calls.clear()
    world.views.work_off()
    assert store.calls == [("get", f"{FILES}{plain_view.NOTE}")]


def test_a_file_may_become_a_directory(host: Callable[[str], World], store: FaultyStore) -> None:
    """And back: what is gone is deleted before anything is written."""
    world = host(VIEW)
    life(world, {"out/x": "1", "out/y/z": "1"})
    world.views.work_off()
    store.calls.clear()
    life(world, {"out/x/z": "2", "out/y": "2"}, "out/x", "out/y/z")
    world.views.work_off()
    changes = [call for call, key in store.calls if key.startswith(f"{FILES}out")]
    assert view(store) == {"out/x/z": "2", "out/y": "2"}
    assert changes == ["delete", "delete", "put", "put"]


def test_a_large_file_is_sent_in_parts(
    host: Callable[[str], World], store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that no more than a few parts of it are in memory."""
    monkeypatch.setattr(plain_view, "LARGE", 10)
    world = host(VIEW)
    text = "0123456789" * 30_000
    life(world, {"out/large": text, "out/small": "1"})
    store.calls.clear()
    world.views.work_off()
    assert [key[len(FILES) :] for call, key in store.calls if call == "send"] == ["out/large"]
    assert view(store) == {"out/large": text, "out/small": "1"}


def test_a_name_that_is_too_long_is_left_out_and_counted(host: Callable[[str], World], store: FaultyStore) -> None:
    """The state has it all the same."""
    world = host(VIEW)
    life(world, {f"out/{'ä' * 60}": "1", "out/a": "1", f"out/{'/'.join(['b' * 100] * 9)}": "1"})
    world.views.work_off()
    assert view(store) == {"out/a": "1"}
    assert world.views.status(ALICE) == ViewStatus(generation=1, files=1, left_out=2)
    assert len(world.saved(ALICE)) == 3


def test_encrypted_states_have_no_view(host: Callable[[str], World], store: FaultyStore) -> None:
    """It would show beside them what they hide; one that was made before goes."""
    world = host(VIEW)
    life(world, {"out/a": "1"})
    world.views.work_off()
    assert view(store) == {"out/a": "1"}
    keyring = Keyring(store, [bytes(KEY_SIZE)])
    repository = Repository(store, "host-a", world.clock, world.layout.scratch, keyring)
    views = PlainViews(store, repository)
    views.reflect(ALICE, world.pools.workload("small"))
    views.work_off()
    assert list(store.list(FILES)) == []
    status = views.status(ALICE)
    assert status is not None
    assert status.error == "states are encrypted, but a plain view would not be"


def test_another_runtime_at_the_same_view_wins(host: Callable[[str], World], store: FaultyStore) -> None:
    """The note is swapped, never overwritten: one of two passes ends, and says why."""
    world = host(VIEW)
    life(world, {"out/a": "1"})
    other = PlainViews(store, world.repository)
    other.reflect(ALICE, world.pools.workload("small"))
    done = threading.Event()

    def first(operation: str, key: str) -> None:
        if operation == "put" and key.endswith("_VIEW") and not done.is_set():
            done.set()
            other.work_off()

    store.before = first
    world.views.work_off()
    status = world.views.status(ALICE)
    assert status is not None
    assert status.error == "another runtime changed it at the same time"
    assert other.status(ALICE) == ViewStatus(generation=1, files=1)
    assert view(store) == {"out/a": "1"}


def test_a_damaged_note_is_made_again(host: Callable[[str], World], store: FaultyStore) -> None:
    """From what is there: nothing stale stays."""
    world = host(VIEW)
    life(world, {"out/a": "1", "out/b": "1"})
    world.views.work_off()
    store.put(f"{FILES}_VIEW", b"damaged")
    life(world, {}, "out/b")
    world.views.work_off()
    assert view(store) == {"out/a": "1"}


def test_one_file_that_cannot_be_read_keeps_no_other_from_the_view(
    host: Callable[[str], World], store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is reported, and tried again."""
    world = host(VIEW)
    life(world, {"out/a": "1", "out/b": "1"})
    whole = world.repository.generations.content

    def damaged(document: object, entry: object, **_: object) -> Iterator[bytes]:
        if entry.path == "out/a":  # type: ignore[attr-defined]
            raise plain_view.VerifyMismatch("a file does not match its digest")
        return whole(document, entry)  # type: ignore[arg-type]

    monkeypatch.setattr(world.repository.generations, "content", damaged)
    world.views.work_off()
    assert view(store) == {"out/b": "1"}
    assert world.views.status(ALICE) == ViewStatus(generation=1, files=1, error="a file does not match its digest")
    monkeypatch.undo()
    life(world, {})
    world.views.work_off()
    assert view(store) == {"out/a": "1", "out/b": "1"}


def test_a_file_of_a_long_hole_is_left_out_of_the_view(host: Callable[[str], World], store: FaultyStore) -> None:
    """A view would store its zeros: it is reported, and the other files are shown."""
    world = host(VIEW)
    world.tenants.claim(ALICE, "small")
    world.write(ALICE, {"out/a": "1"})
    with (world.state(ALICE) / "out" / "huge").open("wb") as file:
        file.truncate(2**31)
    world.tenants.release(ALICE)
    world.views.work_off()
    assert view(store) == {"out/a": "1"}
    status = world.views.status(ALICE)
    assert status is not None
    assert "'out/huge' has holes of 2147483648 bytes" in status.error


def test_a_tenant_that_is_removed_meanwhile_leaves_nothing(host: Callable[[str], World], store: FaultyStore) -> None:
    """A pass that was under way cleans up behind itself."""
    world = host(VIEW)
    life(world, {"out/a": "1"})
    removed = threading.Event()

    def remove(operation: str, key: str) -> None:
        if operation == "put" and key.endswith("out/a") and not removed.is_set():
            removed.set()
            world.repository.bury(ALICE)

    store.before = remove
    world.views.work_off()
    assert list(store.list(FILES)) == []


def test_a_daemon_that_ends_leaves_the_rest_to_the_next(host: Callable[[str], World], store: FaultyStore) -> None:
    """It does not wait for thousands of files."""
    world = host(VIEW)
    life(world, {f"out/{number:03}": "1" for number in range(200)})
    stopping = threading.Event()
    views = PlainViews(store, world.repository, stopping=stopping)
    views.reflect(ALICE, world.pools.workload("small"))
    store.before = lambda operation, key: stopping.set() if operation == "put" and "/out/" in key else None
    views.work_off()
    assert len(view(store)) <= plain_view.THREADS
    store.before = lambda _operation, _key: None
    world.views.work_off()
    assert len(view(store)) == 200


def unescaped(key: str) -> str:
    """The path that a key stands for, by the rule that the docstring of `escape` gives."""

    def meant(found: re.Match[bytes]) -> bytes:
        return b"_" if found[1] == b"_" else bytes.fromhex(found[1].decode())

    names = (re.sub(rb"_(_|[0-9A-F]{2})", meant, name.encode()) for name in key.split("/"))
    return "/".join(name.decode("utf-8", "surrogateescape") for name in names)


@given(st.lists(st.binary(min_size=1, max_size=9).filter(lambda name: not {0, 47} & set(name)), min_size=1, max_size=4))
def test_an_escaped_path_comes_back(names: list[bytes]) -> None:
    """Any name, byte by byte; what is escaped is a key in every store."""
    path = "/".join(name.decode("utf-8", "surrogateescape") for name in names)
    escaped = escape(path)
    assert set(escaped) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-/")
    assert unescaped(escaped) == path
    assert "_VIEW" not in escaped.split("/")


def test_ordinary_names_are_as_they_are() -> None:
    """So that a person finds a file."""
    assert escape("reports/2026-01/Summary.v2.md") == "reports/2026-01/Summary.v2.md"
    assert escape("daily_report 1.md") == "daily__report_201.md"
    assert escape("_VIEW") == "__VIEW"
