"""The lives of one daemon on a fake Podman: told a story and killed in it, killed again as it recovers, and judged.

The daemon is what `up` composes (`runtime.opened`) but for the engine, which outlives it, the prober, a store in a
directory that can be away, and a clock that does not make anybody wait. The story is told to its services directly, in
one thread, so that its points come in the same order each time.
"""

import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from claw_runtime.clock import SystemClock
from claw_runtime.daemon import assembly, home, stores
from claw_runtime.daemon.assembly import Runtime
from claw_runtime.errors import ClawError
from claw_runtime.ports import TenantRow
from claw_runtime.settings import Settings
from claw_runtime.tenancy import Layout, TenantId
from kill import invariants
from kill.engine_host import UNHEARD, RemoteEngine, RemoteProber
from kill.forked import in_child, memory_directory
from kill.image import MARKER
from kill.places import Store, go_on, remember, remembered, set_away, unremember
from kill.points import Fuse, Shot, die, install
from kill.stories import ALICE, BOB, POOL, Story

_PATIENCE = 10.0
"""Seconds for the claims after a boot, of which one that failed waits for a second."""

Sabotage = Callable[[], None]
"""Breaks the program before it begins: only the test of the tests does that."""


class Clock(SystemClock):
    """Time that can be let pass, and that nobody waits for."""

    ahead = 0.0

    def now(self) -> float:
        return time.time() + self.ahead

    def sleep(self, seconds: float) -> None:
        time.sleep(min(seconds, 0.001))


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A story, where its daemon dies, and after how many points of its recovery the next one dies too."""

    story: Story
    shot: Shot | None = None
    again: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a case.

    Attributes:
        reached: Whether the daemon died where it should.
        points: Those that were passed by a daemon that lived.
        follows: As in `points.Fuse`.
        found: State and step of the tenant as the dead daemon left it.
        state: Its state after the recovery.
        seconds: From the start of the next daemon until the tenant's claim was answered.
        broken: Promises that did not hold; empty is well.
    """

    story: str
    shot: Shot | None
    again: int | None
    reached: bool
    points: tuple[tuple[str, int], ...]
    found: str
    state: str
    seconds: float
    broken: tuple[str, ...]
    follows: Mapping[tuple[str, int], tuple[str, int]] = field(default_factory=dict)


class Inside:
    """A `stories.Host` that is the daemon itself."""

    def __init__(self, current: Runtime, fuse: Fuse, place: Path) -> None:
        self._current, self._fuse, self._place = current, fuse, place
        self._tenants = current.tenants

    def claim(self, tenant: str) -> None:
        self._tenants.claim(TenantId(tenant), POOL)

    def release(self, tenant: str, *, affinity: bool = True) -> None:
        self._tenants.release(TenantId(tenant), affinity=affinity)

    def drop(self, tenant: str) -> None:
        with self._fuse.quiet():
            unremember(self._place, tenant)
        self._tenants.release(TenantId(tenant), sync=False)

    def sync(self, tenant: str) -> None:
        self._tenants.sync(TenantId(tenant))

    def write(self, tenant: str, files: Mapping[str, str]) -> None:
        with self._fuse.quiet():
            row = self._current.ledger.tenant(TenantId(tenant))
            assert row is not None
            state = self._current.settings.layout.slot(row.slot or "").state
            for name, text in files.items():
                (state / name).parent.mkdir(exist_ok=True)
                (state / name).write_text(text)
            remember(self._place, tenant, files)

    def keep(self) -> None:
        self._current.pools.keep()

    def expire(self) -> None:
        Clock.ahead += 100
        self._current.recovery.expire()
        self._current.recovery.workers.wait()

    def retry(self) -> None:
        self._current.recovery.retry()
        self._current.recovery.workers.wait()

    def crash(self, tenant: str) -> None:
        row = self._current.ledger.tenant(TenantId(tenant))
        slot = self._current.ledger.slot(row.slot or "") if row else None
        assert slot is not None
        self._current.engine.ask("crash", slot.container)  # type: ignore[attr-defined]
        self._current.recovery.supervise()
        self._current.recovery.workers.wait()

    def store(self, *, away: bool) -> None:
        with self._fuse.quiet():
            set_away(self._place, away=away)

    def go_on_elsewhere(self, tenant: str, files: Mapping[str, str]) -> None:
        with self._fuse.quiet():
            go_on(self._place, tenant, files)

    def come_up(self) -> None:
        self._current.recover()
        self._current.pools.keep()
        deadline = time.monotonic() + _PATIENCE
        while self._current.ledger.restarting() and time.monotonic() < deadline:
            self._current.restarts.look()
            self._current.restarts.workers.wait()

    def scale(self, least: int) -> None:
        self._current.pools.scale(POOL, min_size=least)

    def recycle(self) -> None:
        self._current.pools.recycle(POOL)

    def upgrade(self, image: str) -> None:
        self._current.upgrades.begin(POOL, image, soak=0.0)
        self._current.upgrades.run(POOL)


def tried(case: Case, host: str, sabotage: Sabotage | None = None) -> Outcome:
    """Tell the story to a daemon that dies in it, let its successors recover, and judge the last one.

    Args:
        host: Address of an `engine_host` for this process alone.
    """
    RemoteEngine.host = host
    with tempfile.TemporaryDirectory(prefix="claw-k-", dir=memory_directory()) as directory:
        place = Path(directory)
        (place / "bucket").mkdir()
        (place / "boot").write_text("first")
        case.story.put(place)
        if case.story.reboots:
            in_child(lambda: _until_the_end(place, case.story, sabotage))
            _reboot(place)
        lived = in_child(lambda: _life(place, case, sabotage))
        set_away(place, away=False)
        if case.again is not None:
            in_child(lambda: _recovery(place, case.again, sabotage))
        found, state, seconds, broken = in_child(lambda: _judged(place, case.story, sabotage)) or (
            "",
            "",
            0.0,
            ("nobody judged",),
        )
        RemoteEngine(place / "run" / "podman.sock").ask("forget")
    return Outcome(
        story=case.story.name,
        shot=case.shot,
        again=case.again,
        reached=lived is None,
        points=tuple(lived[0]) if lived else (),
        follows=lived[1] if lived else {},
        found=found,
        state=state,
        seconds=seconds,
        broken=tuple(broken),
    )


def _life(
    place: Path, case: Case, sabotage: Sabotage | None
) -> tuple[list[tuple[str, int]], dict[tuple[str, int], tuple[str, int]]]:
    with _daemon(place, sabotage) as (current, fuse):
        host = Inside(current, fuse, place)
        if not case.story.reboots:
            _prepare(host, current, case.story)
        fuse.arm(case.shot)
        case.story.told(host)
        fuse.disarm()
        return list(fuse.passed), dict(fuse.follows)


def _prepare(host: Inside, current: Runtime, story: Story) -> None:
    current.recover()
    current.pools.keep()
    host.claim(BOB)
    host.write(BOB, {MARKER: BOB, "colour": "blue"})
    story.before(host)


def _until_the_end(place: Path, story: Story, sabotage: Sabotage | None) -> None:
    """The life of the daemon before a boot, which ends without a word."""
    with _daemon(place, sabotage) as (current, fuse):
        _prepare(Inside(current, fuse, place), current, story)
        die()


def _reboot(place: Path) -> None:
    """What a boot leaves: no container, nothing in the run directory, and another boot."""
    RemoteEngine(place / "run" / "podman.sock").ask("lose")
    shutil.rmtree(place / "run")
    (place / "boot").write_text("second")


def _recovery(place: Path, points: int | None, sabotage: Sabotage | None) -> None:
    with _daemon(place, sabotage) as (current, fuse):
        fuse.arm(after_points=points)
        Inside(current, fuse, place).come_up()


def _judged(place: Path, story: Story, sabotage: Sabotage | None) -> tuple[str, str, float, list[str]]:
    start = time.monotonic()
    with _daemon(place, sabotage) as (current, fuse):
        inside, alice = Inside(current, fuse, place), TenantId(ALICE)
        found = _stands(current)
        inside.come_up()
        current.upgrades.bring_home()
        seconds = time.monotonic() - start
        state = current.ledger.tenant(alice)
        current.pools.keep()
        host = invariants.Host(
            current.settings.layout, current.ledger, current.engine, current.store, home.runtime_id(_layout(place))
        )
        broken = [*host.broken(), *host.refilled(current.pools.show(POOL)), *host.elsewhere(ALICE)]
        if story.reboots and (state is None or state.state != "active"):
            broken.append(f"{ALICE} is {state.state if state else 'gone'} after the boot")
        if story.upgrade:
            broken += _after_upgrade(current, story, state)
        start = time.monotonic()
        broken += _claimed(inside, ALICE)
        seconds += time.monotonic() - start
        broken += _words(current, host, inside, place, programs=not story.drops)
        broken += host.broken()
        for tenant in current.ledger.tenants("active", "frozen", "parked"):
            inside.release(tenant.id, affinity=False)
        current.pools.drain()
        broken += host.left()
        faults: list[str] = current.engine.ask("faults")  # type: ignore[attr-defined]
        broken += [fault for fault in faults if not (story.drops and fault.endswith(UNHEARD))]
    return found, state.state if state else "unknown", seconds, broken


def _stands(current: Runtime) -> str:
    row = current.ledger.tenant(TenantId(ALICE))
    return f"{row.state} {row.step}".strip() if row else "unknown"


def _claimed(inside: Inside, tenant: str) -> list[str]:
    try:
        inside.claim(tenant)
    except ClawError as error:
        return [f"{tenant} cannot be claimed: {error}"]
    return []


def _after_upgrade(current: Runtime, story: Story, alice: TenantRow | None) -> list[str]:
    """Whoever was up is up; an upgrade that had begun can be resumed, and ends as it would have."""
    wrong = [] if alice and alice.state == "active" else [f"{ALICE} is not up again"]
    if any("upgrade to" in note for note in current.pools.show(POOL).notes):
        current.upgrades.reopen(POOL)
        current.upgrades.run(POOL)
        ended = current.upgrades.progress(POOL).upgrade
        if ended.state != story.upgrade:
            wrong.append(f"the upgrade was resumed and is {ended.state}: {ended.error}")
    return wrong


def _words(current: Runtime, host: invariants.Host, inside: Inside, place: Path, *, programs: bool) -> list[str]:
    """Claim everybody who ever wrote, and look for the words: those of the test, and those of the programs."""
    wrong: list[str] = []
    bob = current.ledger.tenant(TenantId(BOB))
    if bob is None or bob.state != "active":
        wrong.append(f"the neighbour is {bob.state if bob else 'gone'}")
    words = remembered(place)
    for tenant in sorted(words, key=lambda one: one != ALICE):
        if failed := _claimed(inside, tenant):
            wrong += failed
            continue
        said: Mapping[str, Mapping[str, str]] = current.engine.ask("words") if programs else {}  # type: ignore[attr-defined]
        wrong += host.lost(tenant, {**words[tenant], **said.get(tenant, {})})
        inside.release(tenant, affinity=False)
    return wrong


@contextmanager
def _daemon(place: Path, sabotage: Sabotage | None) -> Iterator[tuple[Runtime, Fuse]]:
    """A runtime as `up` opens it, in this process, which is a child."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    layout = _layout(place)
    engines: list[RemoteEngine] = []

    def engine(socket: Path, *, cgroup_parent: str | None = None, restart: object = None) -> RemoteEngine:
        del restart  # of a systemd unit, which it does not have
        engines.append(RemoteEngine(socket, cgroup_parent=cgroup_parent))
        return engines[-1]

    assembly.PodmanEngine = engine  # type: ignore[assignment,misc]
    assembly.HttpProber = lambda: RemoteProber(engines[-1])  # type: ignore[assignment,misc]
    assembly.SystemClock = Clock  # type: ignore[misc]
    assembly.machine.boot = (place / "boot").read_text
    assembly.RESTARTS = 1  # so that points come in the same order each time
    stores.open_store = lambda *_, **__: Store(place / "bucket")
    fuse = Fuse()
    install(fuse, RemoteEngine, Store, files=True)
    if sabotage:
        sabotage()
    settings = Settings(home=layout.home, run=layout.run, workloads=place, bucket=(place / "bucket").as_uri())
    with assembly.opened(settings) as current:
        yield current, fuse


def _layout(place: Path) -> Layout:
    return Layout(home=place / "home", run=place / "run")
