"""The cost of waiting: the memory of a slot of each tier, and what fifty slots cost an idle daemon."""

import statistics
import time

from bench.bench_slot import IMAGE
from bench.figures import FIGURES, Figure, load, now, progress
from bench.footprint import below, memory, pids_of, seconds_of
from bench.stage import daemon, opened, refill, staged, until_full
from claw_runtime.daemon.assembly import Runtime

TIERS = ("created", "entrypoint", "interpreter", "prewarmed")
EACH = 3
TIER = """
id: {tier}
image: {image}
pool: {{max_size: 4, affinity_timeout: 0, warmth: {{{tier}: {each}}}}}
"""
SLOTS = 50
IDLE = """
id: idle
image: {image}
pool: {{min_size: {slots}, max_size: {slots}, fill_concurrency: 4, affinity_timeout: 0}}
"""
SETTLING, WATCHED = 5.0, 30.0  # seconds


def measure_tiers(_runs: int = 1) -> list[Figure]:
    """`memory_slot_mb`, `memory_parked_mb`, `memory_waiting_mb`, `memory_prewarmed_mb`: medians of three slots."""
    before = load()
    with staged(*(TIER.format(tier=tier, image=IMAGE, each=EACH) for tier in TIERS)) as stage, opened(stage) as current:
        refill(current)
        time.sleep(SETTLING)
        found = {tier: _slots(current, tier) for tier in TIERS}
    after = load()
    return [
        Figure(
            name=f"memory_{FIGURES.get(tier, tier)}_mb",
            unit="MB",
            ours=[own + helpers for own, helpers in slots],
            load=(before, after),
            at=now(),
            parts={
                "its processes": statistics.median(own for own, _ in slots),
                "Podman's for it": statistics.median(helpers for _, helpers in slots),
            },
        )
        for tier, slots in found.items()
    ]


def measure_idle(_runs: int = 1) -> list[Figure]:
    """`idle_50_cpu`, `idle_50_mb`: a daemon with its Podman service, and nobody who claims."""
    before = load()
    with staged(IDLE.format(image=IMAGE, slots=SLOTS)) as stage, daemon(stage) as api:
        until_full(stage, api, SLOTS)
        time.sleep(SETTLING)
        pids = below(stage.daemon_pid())
        progress("idle_50: watching")
        begin, spent = time.monotonic(), seconds_of(pids)
        time.sleep(WATCHED)
        used = (seconds_of(pids) - spent) / (time.monotonic() - begin) * 60
        held = {"daemon": memory(pids[:1]), "its Podman service": memory(pids[1:])}
        progress("")
    after = load()
    note = f"{SLOTS} slots of the tier `created`, watched for {WATCHED:g} s"
    return [
        Figure(name="idle_50_cpu", unit="s/min", ours=[used], load=(before, after), at=now(), note=note),
        Figure(
            name="idle_50_mb",
            unit="MB",
            ours=[sum(held.values())],
            parts=held,
            load=(before, after),
            at=now(),
            note=note,
        ),
    ]


def _slots(current: Runtime, tier: str) -> list[tuple[float, float]]:
    """MB of each slot's own processes, and of those that Podman keeps for it."""
    found = []
    for slot in current.ledger.slots(tier):
        container = current.engine.inspect(slot.container or "")
        assert container is not None
        own, helpers = pids_of(container, slot.port)
        found.append((memory(own), memory(helpers)))
    return found
