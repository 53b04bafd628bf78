"""The cost of the control plane alone: a thousand claims on an engine and an object store in memory.

Everything else is real: the services, a ledger of 10,000 tenants, the directories and files of each slot. A claim
writes the ledger six times, once durably, and creates and moves files. The figure is therefore measured twice: with
the data directory in memory, and on the disk of the user's home.
"""

import tempfile
import time
from pathlib import Path

from bench.figures import Figure, load, now, progress, quantile, time_is_up
from bench.stage import memory
from claw_runtime.tenancy import TenantId
from fakes.world import WORKLOAD, World

CLAIMS, TENANTS = 1000, 10_000
GOAL = 1000.0  # claims a second
EDGE = 100
"""Claims at the beginning and at the end whose slowest hundredths are compared."""

FLAT = 1.5
"""How much longer the slowest of the last ones may take than that of the first: what grows would take ten times."""

FILLING = 120.0  # seconds until all slots must be there


def measure(runs: int = 3) -> list[Figure]:
    """`claims_fake_per_s`, `claims_fake_flat`; of one run, the same on disk."""
    figures = _measure("", place, runs) if (place := memory()) else []
    return figures + _measure("_disk", Path.home(), 1)


def _measure(suffix: str, place: Path, runs: int) -> list[Figure]:
    before = load()
    rounds = []
    for number in range(runs):
        progress(f"claims_fake_per_s{suffix}: run {number + 1} of {runs}")
        rounds.append(_round(place))
        if time_is_up():
            break
    progress("")
    after = load()
    every = [seconds for one in rounds for seconds in one]
    note = f"{CLAIMS} claims of {TENANTS} tenants; p50 {quantile(every, 0.5) * 1e3:.2g} ms, "
    in_memory = not suffix
    return [
        Figure(
            name=f"claims_fake_per_s{suffix}",
            unit="/s",
            ours=[CLAIMS / sum(one) for one in rounds],
            least=GOAL if in_memory else None,
            load=(before, after),
            at=now(),
            note=f"{note}p99 {quantile(every, 0.99) * 1e3:.2g} ms",
        ),
        Figure(
            name=f"claims_fake_flat{suffix}",
            peer=f"p99 of the first {EDGE}",
            ours=[quantile(one[-EDGE:], 0.99) for one in rounds],
            theirs=[quantile(one[:EDGE], 0.99) for one in rounds],
            goal=FLAT if in_memory else None,
            load=(before, after),
            at=now(),
            note=f"p99 of the last {EDGE} of {CLAIMS} claims",
        ),
    ]


def _round(place: Path) -> list[float]:
    """Seconds of each claim, in order."""
    with tempfile.TemporaryDirectory(prefix="claw-bench-", dir=place) as home:
        world = World(Path(home), workload=_workload())
        try:
            _fill(world)
            return [_claim(world, number) for number in range(CLAIMS)]
        finally:
            world.close()


def _workload() -> str:
    sizes = f"min_size: {CLAIMS}, max_size: {2 * CLAIMS}, fill_concurrency: 4"
    return WORKLOAD.replace("min_size: 2, max_size: 3", sizes)


def _fill(world: World) -> None:
    with world.ledger.database.change() as db:
        rows = [(_tenant(number),) for number in range(TENANTS)]
        db.executemany("INSERT INTO tenant (id, state, pool, since) VALUES (?, 'cold', 'small', 0)", rows)
    deadline = time.monotonic() + FILLING
    while sum(slot.state == "ready" for slot in world.ledger.slots("small")) < CLAIMS:
        if time.monotonic() > deadline:
            raise TimeoutError(f"no {CLAIMS} slots in {FILLING:g} s")
        world.pools.keep()


def _claim(world: World, number: int) -> float:
    tenant = _tenant(number * (TENANTS // CLAIMS))
    begin = time.perf_counter()
    world.tenants.claim(tenant, "small")
    return time.perf_counter() - begin


def _tenant(number: int) -> TenantId:
    return TenantId(f"tenant-{number:05d}")
