"""`make torture`: a thousand deaths, seeded, and their report in evidence/torture.md and .json.

    python -m torture.report [--deaths 1000] [--seed 1]

The same seed kills at the same points again, as far as threads let it; a case of the report can be tried alone with
`--only "situation" --seed N --point K`.
"""

import json
import logging
import os
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import click
import structlog
from kill.forked import in_workers
from torture.case import Case, Outcome, tried
from torture.situations import SITUATIONS

POINTS = 15
"""Changes that a situation has at least, about: so many trees are made that the deaths are at points of their own."""


def sample(deaths: int, seed: int) -> list[Outcome]:
    """So many deaths, spread evenly over situations and trees, each at a point of its own where there are enough."""
    dice = random.Random(seed)
    trees = -(-deaths // (POINTS * len(SITUATIONS)))
    told = _all([Case(situation=one, seed=seed * 100 + n) for one in SITUATIONS for n in range(trees)])
    cases = list[Case]()
    share = next((n for n in range(1, deaths) if sum(min(n, one.points) for one in told) >= deaths), deaths)
    for whole in told:
        [situation] = [one for one in SITUATIONS if one.name == whole.situation]
        points = sorted(dice.sample(range(whole.points), min(share, whole.points)))
        cases += [Case(situation=situation, seed=whole.seed, point=point) for point in points]
    return told + _all(cases)


def _all(cases: Sequence[Case]) -> list[Outcome]:
    return in_workers(cases, lambda _, case: tried(case), workers=os.cpu_count() or 1)


@click.command()
@click.option("--deaths", default=1000, show_default=True)
@click.option("--seed", default=1, show_default=True)
@click.option("--only", help="One situation, by name.")
@click.option("--point", type=int, help="With --only: die before this change.")
def main(deaths: int, seed: int, only: str | None, point: int | None) -> None:
    """Kill the state engine again and again, and say whether anything was lost."""
    if only:
        [situation] = [one for one in SITUATIONS if one.name == only]
        print(json.dumps(asdict(tried(Case(situation=situation, seed=seed, point=point))), indent=1))
        return
    print(f"torture: about {deaths} deaths of the state engine, seed {seed}; some minutes", file=sys.stderr)
    # What the engine says of its doings is said a thousand times here.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    began = time.monotonic()
    outcomes = sample(deaths, seed)
    target = Path(os.environ.get("EVIDENCE_DIR") or Path(__file__).resolve().parents[2] / "evidence")
    target.mkdir(parents=True, exist_ok=True)
    (target / "torture.json").write_text(json.dumps([asdict(one) for one in outcomes], indent=1) + "\n")
    (target / "torture.md").write_text("\n".join(_page(outcomes, seed, time.monotonic() - began)) + "\n")
    print(f"{summary(outcomes)}; report: {target / 'torture.md'}", file=sys.stderr)
    sys.exit(any(one.broken for one in outcomes))


def summary(outcomes: Sequence[Outcome]) -> str:
    """The whole in a line."""
    deaths = sum(one.died for one in outcomes)
    broken = sum(bool(one.broken) for one in outcomes)
    return f"{deaths} deaths in {len({one.situation for one in outcomes})} situations, {broken} broke an invariant"


def _page(outcomes: Sequence[Outcome], seed: int, seconds: float) -> Iterator[str]:
    yield "# Torture"
    yield ""
    yield f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, seed {seed}, {seconds:.0f} s: {summary(outcomes)}."
    yield "docs/CRASHES.md describes what is killed and what must hold afterwards."
    yield ""
    yield "| situation | trees | changes a run | deaths | HEAD was still before | HEAD was already after | broken |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for situation in SITUATIONS:
        own = [one for one in outcomes if one.situation == situation.name]
        lived, died = [one for one in own if one.point is None], [one for one in own if one.died]
        after = sum(one.generation == situation.last for one in died)
        points = [one.points for one in lived] or [0]
        yield (
            f"| {situation.name} | {len(lived)} | {min(points)}–{max(points)} | {len(died)} | {len(died) - after} "
            f"| {after} | {sum(bool(one.broken) for one in own)} |"
        )
    yield ""
    yield from _faults(outcomes)
    yield "## Where they died"
    yield ""
    yield "| situation | after | deaths |"
    yield "|---|---|---:|"
    counts: dict[tuple[str, str], int] = {}
    for one in outcomes:
        if one.died:
            place = one.situation, one.where.rpartition(" #")[0] or "its beginning"
            counts[place] = counts.get(place, 0) + 1
    for (situation_name, where), count in sorted(counts.items()):
        yield f"| {situation_name} | {where.replace('|', '¦')} | {count} |"


def _faults(outcomes: Sequence[Outcome]) -> Iterator[str]:
    broken = [one for one in outcomes if one.broken]
    if not broken:
        return
    yield "## Broken"
    yield ""
    for one in broken:
        yield f"- {one.situation}, seed {one.seed}, point {one.point}, after {one.where}: {'; '.join(one.broken)}"
    yield ""


if __name__ == "__main__":
    main()
