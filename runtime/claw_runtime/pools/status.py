"""The status of a pool, as people and programs see it, without asking the engine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from claw_runtime.pools import scaling
from claw_runtime.pools.timings import Durations
from claw_runtime.ports import TIERS, SlotRow, Tier
from claw_runtime.spec.plan import Pool


@dataclass(frozen=True, slots=True, kw_only=True)
class TierStatus:
    """Slots of one tier: how many shall wait, how many do, and how many are being made or removed."""

    wanted: int
    ready: int
    filling: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStatus:
    """One pool now.

    Attributes:
        image: Reference that slots are made from; `image_digest` is its digest, empty before it was found.
        min_size, max_size: As they hold, whatever the file says.
        ready, filling, claimed: Slots of all tiers.
        tiers: By tier.
        drained: An operator took it out of use.
        error, hint: Why it is not full, and what to do; empty when it is.
        notes: What is not as it was asked for, though nothing fails.
        dropped: Limits that this host cannot enforce and that were left out.
        seccomp: Name or path of the profile of system calls.
        queue: Claims that wait for a slot.
    """

    id: str
    image: str
    image_digest: str = ""
    min_size: int
    max_size: int
    ready: int
    filling: int
    claimed: int
    tiers: Mapping[Tier, TierStatus] = field(default_factory=dict)
    drained: bool = False
    error: str = ""
    hint: str = ""
    notes: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    seccomp: str = ""
    queue: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolMetrics:
    """What was measured since the daemon began.

    Attributes:
        slots: Waiting slots by tier.
        claimed: Slots that are tenants'.
        claims: Claims by source; `claim_seconds` likewise.
        fill_seconds: By tier.
        failures: By tier, and `pool` for those of all of it.
        memory: Bytes that the processes of waiting slots use now, by tier.
        queue: Claims that wait for a slot.
    """

    slots: Mapping[Tier, int]
    claimed: int
    claims: Mapping[str, int]
    claim_seconds: Mapping[str, Durations]
    fill_seconds: Mapping[str, Durations]
    failures: Mapping[str, int]
    memory: Mapping[Tier, int]
    queue: int


def by_tier(rows: Sequence[SlotRow], pool: Pool | None) -> dict[Tier, TierStatus]:
    """Slots counted by tier; `pool` is None while its sizes are unknown."""
    wanted = scaling.counts_by_tier(pool) if pool else {}
    return {
        tier: TierStatus(
            wanted=wanted.get(tier, 0),
            ready=sum(row.tier == tier and row.state == "ready" for row in rows),
            filling=sum(row.tier == tier and row.state == "filling" for row in rows),
        )
        for tier in TIERS
    }
