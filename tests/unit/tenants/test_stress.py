"""Everything at once: claims, releases and all that goes on beside them, in many threads, while engine and store fail
now and then. Nobody waits for ever, and no word of any tenant is lost or seen by another."""

import random
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from claw_runtime.errors import ClawError, EngineFailed, StoreUnavailable
from claw_runtime.objects.memory import MemoryStore
from claw_runtime.ports import ContainerSpec
from claw_runtime.tenancy import LABEL_SLOT, TenantId
from fakes.world import WORKLOAD, World

TENANTS = tuple(TenantId(name) for name in ("ann", "bob", "cyd", "dan", "eve", "fay"))
POOL = "pool: {min_size: 2, max_size: 3, affinity_timeout: 0}"
BUSY = WORKLOAD.replace(POOL, "pool: {max_size: 3, affinity_timeout: 60s, warmth: {created: 1, frozen: 1, tree: 2}}")
THREADS = 32
SECONDS = 4.0
STUCK = 60.0
"""Seconds after which a thread is taken to wait for ever."""


class Flaky(MemoryStore):
    """A store that sometimes does not answer, as long as `odds` are not 0."""

    def __init__(self, dice: random.Random) -> None:
        super().__init__()
        self.dice, self.odds = dice, 0.0

    def _falter(self) -> None:
        if self.dice.random() < self.odds:
            raise StoreUnavailable("the store does not answer", why="a test said so")

    def get(self, key: str) -> tuple[bytes, str]:
        self._falter()
        return super().get(key)

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        self._falter()
        return super().put(key, data, if_absent=if_absent, if_match=if_match)


class Programs:
    """What runs in the containers: at its start and at its end a program counts one up, in its tenant's state.

    It finds at each start what it counted last: a smaller number is a lost word, another name another's state.
    """

    def __init__(self, world: World, counted: dict[TenantId, int] | None = None) -> None:
        self.world = world
        self.counted = dict.fromkeys(TENANTS, 0) if counted is None else counted
        self.complaints: list[str] = []
        self._owners: dict[str, TenantId] = {}
        self._killed = threading.local()
        self._remove = world.engine.remove
        world.engine.started, world.engine.ended = self.begin, self.end
        world.engine.remove = self.remove  # type: ignore[method-assign]

    def begin(self, spec: ContainerSpec) -> None:
        slot = spec.labels[LABEL_SLOT]
        mine = [row.id for row in self.world.ledger.tenants() if row.slot == slot]
        if len(mine) != 1:
            self.complaints.append(f"slot {slot} began for {mine}")
            return
        if slot in self._owners:
            self.complaints.append(f"slot {slot} of {self._owners[slot]} began again for {mine[0]}")
        self._owners[slot] = mine[0]
        found = self._read(slot)
        if found != (self.counted[mine[0]] and f"{mine[0]} {self.counted[mine[0]]}"):
            self.complaints.append(f"{mine[0]} counted to {self.counted[mine[0]]} and found {found!r}")
        self._count(slot)

    def remove(self, container: str) -> None:
        """A program that is removed says nothing more."""
        self._killed.now = True
        try:
            self._remove(container)
        finally:
            self._killed.now = False

    def end(self, spec: ContainerSpec) -> None:
        if spec.labels[LABEL_SLOT] in self._owners and not getattr(self._killed, "now", False):
            self._count(spec.labels[LABEL_SLOT])

    def _count(self, slot: str) -> None:
        tenant = self._owners[slot]
        self.counted[tenant] += 1
        (self.world.layout.slot(slot).state / "count").write_text(f"{tenant} {self.counted[tenant]}")

    def _read(self, slot: str) -> str | int:
        file = self.world.layout.slot(slot).state / "count"
        return file.read_text() if file.exists() else 0


HOST = pytest.mark.world(workload=BUSY, store=lambda: Flaky(random.Random(4)))


def deeds(world: World, dice: random.Random) -> list[Callable[[], object]]:
    """What may happen at any moment."""
    tenants, pools = world.tenants, world.pools

    def someone() -> TenantId:
        return dice.choice(TENANTS)

    def crash() -> None:
        with tenants._locks.tried(tenant := someone()) as free:
            row = tenants._ledger.tenant(tenant) if free else None
            found = world.host.look(row).container if row and row.state == "active" else None
            if found and found.state == "running":
                world.engine.crash(found.id)

    return [
        *[lambda: tenants.claim(someone(), "small", wait=dice.choice((0.0, 0.1)))] * 8,
        *[lambda: tenants.release(someone(), affinity=dice.random() < 0.8)] * 6,
        lambda: tenants.sync(someone()),
        lambda: world.clock.jump(dice.choice((-20.0, 5.0, 70.0))),
        world.recovery.expire,
        world.recovery.supervise,
        world.recovery.retry,
        lambda: world.standby.evict("small"),
        world.liveness.look,
        crash,
        lambda: world.engine.fail(dice.choice(("stop", "pause", "remove", "create", "inspect")), EngineFailed("no")),
        pools.keep,
        lambda: pools.recycle("small"),
        lambda: pools.scale("small", max_size=dice.choice((2, 3, 3))),
        lambda: pools.drain_pool("small") if dice.random() < 0.3 else pools.undrain("small"),
        lambda: pools.undrain("small"),
    ]


def rampage(world: World, seconds: float, count: int = THREADS) -> list[str]:
    """So many threads at once; what they met that is no refusal."""
    until, wrong = time.monotonic() + seconds, list[str]()

    def go(seed: int) -> None:
        dice = random.Random(seed)
        choices = deeds(world, dice)
        while time.monotonic() < until and not wrong:
            try:
                dice.choice(choices)()
            except ClawError:
                pass
            except BaseException as error:  # noqa: BLE001 - told by the test
                wrong.append("".join(traceback.format_exception(error)))
            if len(world.ledger.slots()) > 3:
                wrong.append("more slots than max_size")

    threads = [threading.Thread(target=go, args=(seed,), daemon=True) for seed in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until + STUCK - time.monotonic()))
    return [*wrong, *(f"{thread.name} waits for ever" for thread in threads if thread.is_alive())]


def quiet(world: World) -> None:
    """Nothing fails any more, and everybody is released."""
    world.engine.heal()
    world.pools.undrain("small")
    world.pools.scale("small", max_size=3)
    for _ in range(2):
        world.recovery.supervise()
        world.recovery.retry()
    for row in world.ledger.tenants("active", "kept", "frozen", "parked"):
        with suppress(ClawError):  # held by the other host for a moment more
            world.tenants.release(row.id, affinity=False)
    world.pools.keep()


@HOST
def test_nothing_is_lost_or_stuck(world: World) -> None:
    """After thousands of deeds in no order each tenant has every word that it wrote, and nothing is left behind."""
    programs, store = Programs(world), world.store
    assert isinstance(store, Flaky)
    store.odds = 0.15

    wrong = rampage(world, SECONDS)
    store.odds = 0.0
    quiet(world)

    assert [*wrong, *programs.complaints] == []
    assert {row.state for row in world.ledger.tenants()} == {"cold"}
    assert any(programs.counted.values())
    for tenant, counted in programs.counted.items():
        if not counted:
            continue
        assert world.saved(tenant)["count"] == f"{tenant} {counted}"
    assert world.leftovers() == []
    assert world.releaser.rights() == ()
    assert world.pools.show("small").queue == 0
    assert [slot.state for slot in world.ledger.slots()] == ["ready"]


@HOST
def test_two_hosts_lose_nothing_to_each_other(world: World, tmp_path: Path) -> None:
    """Two hosts on one store hand six tenants to and fro: what rests on one is never woken when the other went on."""
    other = World(tmp_path / "other", workload=BUSY, store=world.store, owner="host-b")
    counted = dict.fromkeys(TENANTS, 0)
    programs = [Programs(host, counted) for host in (world, other)]
    wrong: list[str] = []
    hosts = [
        threading.Thread(target=lambda host=host: wrong.extend(rampage(host, SECONDS, THREADS // 3)))
        for host in (world, other)
    ]
    for host in hosts:
        host.start()
    for host in hosts:
        host.join()
    for _ in range(2):
        quiet(world)
        quiet(other)

    assert [*wrong, *programs[0].complaints, *programs[1].complaints] == []
    assert {row.state for host in (world, other) for row in host.ledger.tenants()} == {"cold"}
    for tenant in filter(counted.__getitem__, TENANTS):
        assert world.saved(tenant)["count"] == f"{tenant} {counted[tenant]}"
    assert world.leftovers() + other.leftovers() == []
    other.close()
