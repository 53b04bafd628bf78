"""Two SIGKILLs at any two calls that change something, the second while the first is being recovered from."""

import itertools
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from claw_runtime.errors import ClawError, StoreUnavailable
from claw_runtime.objects.memory import MemoryStore
from claw_runtime.pools import slots as slots_module
from claw_runtime.tenancy import TenantId
from claw_runtime.tenants import trees as trees_module
from fakes.world import FROZEN, PARKED, WORKLOAD, World

ALICE = TenantId("alice")
UPLOADING = f"{WORKLOAD}sync: {{mappings: [{{path: /state/up, direction: upload}}], rest: store}}\n"
FILES = {"colour": "green", "memory/words": "newest", "other": "too"}
EFFECTS = [
    ("engine", "create initialize start stop remove pause unpause"),
    ("ledger", "begin_claim take_slot note become drop_slot add_slot slot_ready retire_slot begin_boot"),
    ("store", "put"),
]


class Killed(BaseException):
    """SIGKILL: nothing of ours may catch it."""


class Store(MemoryStore):
    """A store that can be away."""

    away = False

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        if self.away:
            raise StoreUnavailable("down")
        return super().put(key, data, if_absent=if_absent, if_match=if_match)


class Life:
    """Counts the calls that change something and kills the daemon before or after one of them."""

    def __init__(self, patch: pytest.MonkeyPatch, world: World) -> None:
        self._patch, self._world = patch, world
        self.calls, self.end, self.after = 0, -1, False
        self._watch(trees_module, "move_entries")
        for module in (trees_module, slots_module):
            self._watch(module, "remove_tree")
        for name in ("engine", "store"):
            self._watch_all(name)

    def begin(self, end: int, *, after: bool) -> None:
        """A new daemon that is killed at this call, counted from now; at none when `end` is negative."""
        if self.calls:
            self._world.restart()
        self._watch_all("ledger")
        self.calls, self.end, self.after = 0, end, after

    def _watch_all(self, part: str) -> None:
        for name in dict(EFFECTS)[part].split():
            self._watch(getattr(self._world, part), name)

    def _watch(self, where: object, name: str) -> None:
        real = getattr(where, name)

        def call(*args: object, **options: object) -> object:
            number = self.calls
            self.calls += 1
            if number == self.end and not self.after:
                raise Killed(name)
            result = real(*args, **options)
            if number == self.end:
                raise Killed(name)
            return result

        self._patch.setattr(where, name, call)


def words(world: World) -> dict[str, str]:
    """What the tenant's next claim would find."""
    world.tenants.claim(ALICE, "small")
    root = world.state("alice")
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}


def refused(world: World) -> None:
    """A release that the store refuses, a claim of the kept tree, and a release that goes well."""
    store = world.store
    assert isinstance(store, Store)
    store.away = True
    with pytest.raises(ClawError):
        world.tenants.release(ALICE)
    store.away = False
    world.tenants.claim(ALICE, "small")
    world.tenants.release(ALICE)


def synced(world: World) -> None:
    """Two commits of a running tenant, and a release."""
    world.tenants.sync(ALICE)
    (world.state("alice") / "other").write_text("too")
    world.tenants.sync(ALICE)
    world.tenants.release(ALICE)


def returned(world: World) -> None:
    """A release, a claim of what rests here, a release, and the end of the rest."""
    world.tenants.release(ALICE)
    world.tenants.claim(ALICE, "small")
    world.tenants.release(ALICE)
    world.clock.advance(61)
    world.recovery.expire()


def lost(world: World) -> None:
    """The container dies by itself, and somebody looks."""
    row = world.ledger.tenant(ALICE)
    assert row is not None
    slot = world.ledger.slot(row.slot or "")
    assert slot is not None
    world.engine.crash(slot.container or "")
    world.recovery.supervise()


STORIES: list[tuple[Callable[[World], None], str]] = [
    (refused, WORKLOAD),
    (synced, WORKLOAD),
    (returned, FROZEN),
    (returned, PARKED),
    (lost, FROZEN),
]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("story", "workload"), STORIES, ids=["refused", "synced", "frozen", "parked", "lost"])
def test_the_newest_words_are_never_lost(
    tmp_path: Path, story: Callable[[World], None], workload: str, after: bool
) -> None:
    """Wherever the daemon dies, and dies again while it recovers, the next claim finds what was written last.

    And whenever the tenant is not held here any more, another host may have it at once.
    """
    for first in itertools.count():
        ended = False
        for second in (0, 2, 5, 9, -1) if story is refused else (0, 3, -1):
            with pytest.MonkeyPatch.context() as patch:
                world = World(tmp_path / f"{first}-{second}", store=Store(), workload=workload)
                world.pools.keep()
                world.tenants.claim(ALICE, "small")
                world.write("alice", {"colour": "old"})
                world.tenants.release(ALICE)
                world.tenants.claim(ALICE, "small")
                world.write("alice", FILES)
                life = Life(patch, world)
                life.begin(first, after=after)
                with suppress(Killed):
                    story(world)
                    ended = True
                world.store.away = False  # type: ignore[attr-defined]
                life.begin(second, after=after)
                with suppress(Killed):
                    world.recover()
                life.begin(-1, after=False)
                world.recover()
                head = world.repository.generations.head(ALICE)
                free = head is None or head.owner is None
                assert free or world.row_state("alice") in ("active", "kept"), (first, second)
                assert words(world) == FILES, (first, second)
                assert world.leftovers() == [], (first, second)
                world.close()
            if ended:
                return


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("refuse", [False, True], ids=["released", "kept"])
def test_what_a_claim_withheld_is_never_deleted(tmp_path: Path, after: bool, refuse: bool) -> None:
    """Wherever the daemon dies, and whatever the next one's workload file says: absence in the tree is no deletion."""
    for first in itertools.count():
        ended = False
        with pytest.MonkeyPatch.context() as patch:
            world = World(tmp_path / str(first), store=Store(), workload=UPLOADING)
            world.pools.keep()
            world.tenants.claim(ALICE, "small")
            world.write("alice", {"colour": "old", "up/first": "1"})
            world.tenants.release(ALICE)
            life = Life(patch, world)
            life.begin(first, after=after)
            with suppress(Killed):
                world.tenants.claim(ALICE, "small")
                world.write("alice", {"colour": "green", "up/second": "2"})
                if refuse:
                    world.store.away = True  # type: ignore[attr-defined]
                    with suppress(ClawError):
                        world.tenants.release(ALICE)
                    world.store.away = False  # type: ignore[attr-defined]
                else:
                    world.tenants.release(ALICE)
                ended = True
            world.store.away = False  # type: ignore[attr-defined]
            world.text = WORKLOAD
            life.begin(-1, after=False)
            world.recover()
            for _ in range(2):
                world.tenants.claim(ALICE, "small")
                world.tenants.release(ALICE)
                assert world.saved("alice")["up/first"] == "1", first
            assert words(world)["up/first"] == "1", first
            assert not ended or words(world) == {"colour": "green", "up/first": "1", "up/second": "2"}
            world.close()
        if ended:
            return


def rebooted(world: World) -> None:
    """The machine starts again, and its daemon finds no container."""
    world.boot = "second"
    world.engine.lose()
    world.restarts.note_boot()
    world.recover()
    world.restarts.look()


def failed(world: World) -> None:
    """The program fails, and the daemon claims its tenant again."""
    lost(world)
    world.clock.advance(2)
    world.restarts.look()


def unreachable(world: World) -> None:
    """Nothing listens on the tenant's port any more."""
    slot = world.tenants.find(ALICE)[1]
    assert slot is not None
    assert slot.port is not None
    world.prober.lost.add(slot.port)
    for _ in range(2):
        world.port_watch.look()
    world.restarts.look()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("story", [rebooted, failed, unreachable])
def test_what_the_daemon_claims_by_itself_runs_in_the_end(
    tmp_path: Path, story: Callable[[World], None], after: bool
) -> None:
    """Wherever the daemon dies, and dies again while it recovers, the tenant runs again with what was written last."""
    for first in itertools.count():
        ended = False
        for second in (2, -1):
            with pytest.MonkeyPatch.context() as patch:
                text = f"{WORKLOAD}policy: {{restart: on_failure}}\n"
                world = World(tmp_path / f"{first}-{second}", store=Store(), workload=text)
                world.restarts.note_boot()
                world.pools.keep()
                world.tenants.claim(ALICE, "small")
                world.write("alice", FILES)
                life = Life(patch, world)
                life.begin(first, after=after)
                with suppress(Killed):
                    story(world)
                    ended = True
                life.begin(second, after=after)
                with suppress(Killed):
                    world.recover()
                    world.restarts.look()
                life.begin(-1, after=False)
                world.recover()
                for _ in range(3):  # a port that is still lost is found again
                    world.port_watch.look()
                    world.clock.advance(3)
                    world.restarts.look()
                assert world.row_state("alice") == "active", (first, second)
                assert world.tenants.claim(ALICE, "small").already
                assert words(world) == FILES, (first, second)
                slot = world.tenants.find(ALICE)[1]
                assert slot is not None
                assert slot.port not in world.prober.lost, (first, second)
                assert world.leftovers() == [], (first, second)
                world.close()
        if ended:
            return
