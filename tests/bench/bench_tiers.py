"""What a warmer slot is worth: the time from the claim to the real gateway's right answer, tier by tier.

A tenant told its assistant a colour in an earlier container. In each turn it returns, its state comes from the object
store, and it asks for the colour. Its slot is created for the claim (`cold`, the peer of the others), was created in
advance, holds a waiting Node process, or holds a Node process with the gateway's modules loaded. Then three tenants
ask at once. No container is used twice.
"""

import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from bench.conversation import ASK, TELL, ask, bring_model, model_in, token_of, workload
from bench.figures import FIGURES, Figure, load, now, take_turns
from bench.stage import opened, refill, staged
from claw_runtime.daemon.assembly import Runtime
from claw_runtime.tenancy import TenantId

TIERS = ("created", "interpreter", "prewarmed")
POOLS = ("cold", *TIERS)
NARROW = "narrow"
"""A pool of the tier `prewarmed` whose workload names the extensions that it uses."""

USED = "browser canvas device-pair file-transfer phone-control talk-voice"
"""Those that the gateway enables by itself, besides the one that is always there: nothing is missing."""

TENANTS = tuple(TenantId(f"tenant-{number}") for number in range(3))
REST = 1.0  # seconds
WHOLE, SHARE = 1.0, 0.4
"""Goals of a prewarmed slot: seconds to the answer, and the ratio to a cold one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Seconds from the claim to the gateway's readiness, and to its right answer."""

    ready: float
    answer: float


def measure(runs: int = 5) -> list[Figure]:
    """`answer_cold`, `answer_slot`, `answer_waiting`, `answer_prewarmed`, `answer_prewarmed_narrow`."""
    return _measure("", runs, 1)


def measure_three(runs: int = 3) -> list[Figure]:
    """The same of three tenants at once; a turn is as long as the last of the three waited."""
    return _measure("_3", runs, 3)


def _measure(suffix: str, runs: int, tenants: int) -> list[Figure]:
    before = load()
    narrow = [NARROW] if tenants == 1 else []
    files = [workload("cold", "{min_size: 0, max_size: 8, affinity_timeout: 0}")]
    files += [workload(tier, f"{{max_size: 8, affinity_timeout: 0, warmth: {{{tier}: {tenants}}}}}") for tier in TIERS]
    files += [
        workload(
            NARROW,
            "{max_size: 8, affinity_timeout: 0, warmth: {prewarmed: 1}}",
            values=f"CLAW_BUNDLED_EXTENSIONS: {USED}",
        )
        for _ in narrow
    ]
    pools = [*POOLS, *narrow]
    with staged(*files) as stage:
        bring_model(stage)
        with opened(stage) as current:
            for tenant in TENANTS[:tenants]:
                _tell(current, tenant)
            refill(current)
            works = [partial(_come_back, current, pool, TENANTS[:tenants]) for pool in pools]
            found = take_turns(f"answer{suffix}", runs, *works, warming=int(tenants == 1), rest=REST)
    after = load()
    cold = [times.answer for times in found[0]]
    return [
        Figure(
            name=f"answer_{'prewarmed_narrow' if pool == NARROW else FIGURES.get(pool, pool)}{suffix}",
            ours=[times.answer for times in turns],
            **_goals(pool, tenants, cold, f"answer_cold{suffix}"),
            load=(before, after),
            at=now(),
            parts=_parts(turns),
        )
        for pool, turns in zip(pools, found, strict=True)
    ]


def _goals(pool: str, tenants: int, cold: Sequence[float], name: str) -> dict[str, Any]:
    if pool == "cold":
        return {}
    goals: dict[str, Any] = {"peer": name, "theirs": cold}
    if tenants > 1:
        return goals | {"goal": 1.0}
    return goals | ({"goal": SHARE, "most": WHOLE} if pool in ("prewarmed", NARROW) else {})


def _parts(turns: Sequence[Times]) -> dict[str, float]:
    ready = statistics.median(times.ready for times in turns)
    return {"until ready": ready, "answer": statistics.median(times.answer for times in turns) - ready}


def _tell(current: Runtime, tenant: TenantId) -> None:
    """The earlier life: generation 1 in the store."""
    with model_in(current, pool="cold"):
        claim = current.tenants.claim(tenant, "cold")
        ask(claim.port, token_of(claim), TELL)
    current.tenants.release(tenant)


def _come_back(current: Runtime, pool: str, tenants: Sequence[TenantId]) -> Times:
    """All of them at once; the times of the last one, and the next turn begins with what this one began with."""
    with model_in(current, pool=pool), ThreadPoolExecutor(len(tenants)) as threads:
        begin = time.perf_counter()
        futures = [threads.submit(_claim, current, pool, tenant, begin) for tenant in tenants]
        answers = [future.result() for future in futures]
    for tenant in tenants:
        claimed = current.ledger.tenant(tenant)
        slot = current.ledger.slot(claimed.slot) if claimed and claimed.slot else None
        current.engine.remove(slot.container if slot and slot.container else "none")
        current.tenants.release(tenant, sync=False)
    refill(current)
    return Times(ready=max(times.ready for times in answers), answer=max(times.answer for times in answers))


def _claim(current: Runtime, pool: str, tenant: TenantId, begin: float) -> Times:
    claim = current.tenants.claim(tenant, pool)
    ready = time.perf_counter() - begin
    assert (claim.source, claim.state) == ("prewarmed" if pool == NARROW else pool, "restored"), claim
    ask(claim.port, token_of(claim), ASK)
    return Times(ready=ready, answer=time.perf_counter() - begin)
