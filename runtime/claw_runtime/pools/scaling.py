"""How many slots a pool shall have: what its file says, under what an operator set since.

The counts by tier are the truth, `min_size` is their sum. Where a sum is set and the counts are not, the difference is
made at the cold end, which costs least: more of tier `created`, or fewer of the coldest tiers.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace

from claw_runtime.errors import InvalidSpec
from claw_runtime.ports import TIERS, PoolRow, SlotRow, Tier
from claw_runtime.spec.dialect import FORMER_TIERS
from claw_runtime.spec.plan import Pool, Warmth


def effective(pool: Pool, row: PoolRow) -> Pool:
    """The sizes that hold. A file that was changed after the operator spoke cannot make them impossible: `max_size`
    wins."""
    most = pool.max_size if row.max_size is None else row.max_size
    counts = asdict(pool.warmth) | dict(row.warmth or {})
    least = row.min_size
    if least is None:
        least = sum(counts[tier] for tier in TIERS)
    counts |= _summed(counts, min(least, most))
    return replace(pool, min_size=min(least, most), max_size=most, warmth=Warmth(**counts))


def counts_by_tier(pool: Pool) -> dict[Tier, int]:
    """How many slots wait in each tier, coldest first."""
    return {tier: int(getattr(pool.warmth, tier)) for tier in TIERS}


def changed(
    pool: Pool, row: PoolRow, *, min_size: int | None, max_size: int | None, warmth: Mapping[str, int] | None
) -> dict[str, object]:
    """The columns of the pool's row that a change of sizes writes; what is None stays as it is.

    Raises:
        InvalidSpec: A count is no count, a tier is unknown, or more would wait than there may be.
    """
    _check_counts({"min_size": min_size, "max_size": max_size, **(warmth or {})})
    known = asdict(pool.warmth)
    if unknown := sorted(set(warmth or {}) - known.keys()):
        now = FORMER_TIERS.get(unknown[0])
        raise InvalidSpec(
            f"warmth has no {unknown[0][:40]!r}",
            why=f"that tier is called {now!r} now" if now else "it is not a tier",
            hint=f"the tiers are {', '.join(known)}",
        )
    columns: dict[str, object] = {}
    if max_size is not None:
        columns["max_size"] = max_size
    if warmth is not None:
        columns["warmth"] = {**(row.warmth or {}), **warmth}
        columns["min_size"] = None  # the sum of what was just said, unless the sum is given as well
    if min_size is not None:
        columns["min_size"] = min_size
    _check(pool, replace(row, **columns), warmth is not None and min_size is not None)  # type: ignore[arg-type]
    return columns


def _check(pool: Pool, row: PoolRow, both: bool) -> None:
    counts = asdict(pool.warmth) | dict(row.warmth or {})
    total = sum(counts[tier] for tier in TIERS)
    least = total if row.min_size is None else row.min_size
    most = pool.max_size if row.max_size is None else row.max_size
    if both and least != total:
        raise InvalidSpec(
            f"min_size {least} is not the sum of warmth",
            why=f"the tiers add up to {total}",
            hint="give only one of the two",
        )
    if least > most:
        raise InvalidSpec(
            f"{least} slots would wait, more than max_size {most}",
            why="waiting slots count towards max_size",
            hint=f"raise max_size to at least {least}, or lower min_size",
        )


def _check_counts(counts: Mapping[str, int | None]) -> None:
    for name, count in counts.items():
        lowest = 1 if name == "max_size" else 0
        if count is not None and not lowest <= count <= 10_000:
            raise InvalidSpec(f"{name[:40]} is {count}", why="it is out of range", hint=f"give {lowest} to 10000")


def _summed(counts: Mapping[str, int], total: int) -> dict[str, int]:
    """The tiers' counts, made to sum up to `total`."""
    wanted = {str(tier): counts[tier] for tier in TIERS}
    wanted["created"] += max(0, total - sum(wanted.values()))
    for tier in TIERS:
        wanted[tier] -= min(wanted[tier], max(0, sum(wanted.values()) - total))
    return wanted


def missing(rows: Sequence[SlotRow], template: str, pool: Pool, skip: Collection[Tier] = ()) -> list[Tier]:
    """The slots that are to be made, coldest first, as that is the order in which they are ready soonest.

    Where `max_size` leaves no room for all, the warmest go first: they are what the operator pays for.

    Args:
        rows: All slots of the pool, including those of tenants and those that are being made or removed.
        skip: Tiers that cannot be made now.
    """
    room = max(0, pool.max_size - len(rows))
    found: list[Tier] = []
    for tier, wanted in reversed(counts_by_tier(pool).items()):
        have = sum(row.tier == tier and row.template == template and row.state != "claimed" for row in rows)
        lacking = 0 if tier in skip else min(max(0, wanted - have), room)
        room -= lacking
        found = [tier] * lacking + found
    return found


def surplus(rows: Sequence[SlotRow], template: str, pool: Pool) -> list[SlotRow]:
    """Waiting slots that are to go, coldest first: of another template, more than their tier shall have, or more than
    `max_size`. Tenants' slots count, and never go."""
    ready = [row for row in rows if row.state == "ready"]
    gone = [row for row in ready if row.template != template]
    current = [row for row in ready if row.template == template]
    for tier, wanted in counts_by_tier(pool).items():
        of_tier = [row for row in current if row.tier == tier]
        gone += of_tier[: max(0, len(of_tier) - wanted)]
    left = [row for row in current if row not in gone]
    over = len(rows) - len(gone) - pool.max_size
    return gone + sorted(left, key=lambda row: TIERS.index(row.tier))[: max(0, over)]
