"""`make hostile`: every attack beside twenty neighbours; the report is in evidence/hostile.md and .json.

    python -m hostile.report [--neighbours 20] [--seconds 15] [--only NAME]

Each attack is measured against a quiet time just before it, so that the host's other load counts on both sides.
"""

import json
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

import click
from fakes import live_podman
from hostile.attacks import ATTACKS, Attack
from hostile.neighbours import KINDS, Seen
from hostile.scene import Result, said, scene

MOST: Final = 2.0
"""What the neighbours' times may be multiplied by."""
LEAST: Final = {"claim": 0.1, "release": 0.1, "answer": 0.01, "status": 0.1, "unsaved": 4.0}
"""Seconds that are good enough for nine in ten, whatever a quiet host needs. What is committed every 2 s is at most 2 s
and one turn old."""

Pair = tuple[Seen, Result]


@click.command()
@click.option("--neighbours", default=20, show_default=True)
@click.option("--seconds", default=15.0, show_default=True, help="Of each attack, and of the quiet before it.")
@click.option("--only", multiple=True, help="This attack; repeatable.")
def main(neighbours: int, seconds: float, only: tuple[str, ...]) -> None:
    """Let one tenant do its worst, and say what the others noticed."""
    attacks = [attack for attack in ATTACKS if not only or attack.name in only]
    about = (2 * seconds + 10) * len(attacks) / 60 + 1
    said(f"hostile: {len(attacks)} attacks beside {neighbours} neighbours; about {about:.0f} minutes")
    pairs = list[Pair]()
    with live_podman.directory_in() as home, scene(home, live_podman.small_image(), neighbours) as ours:
        for attack in attacks:
            quiet = ours.quiet(seconds)
            result = ours.attacked(attack, seconds)
            pairs.append((quiet, result))
            said(_line(attack, quiet, result))
    _write(pairs, neighbours, seconds)
    broken = sum(bool(result.broken) for _, result in pairs)
    slow = sum(not _in_time(quiet, result.seen) for quiet, result in pairs)
    said(f"{len(pairs)} attacks: {broken} broke a promise, {slow} slowed the neighbours by more than {MOST:g} times")
    sys.exit(bool(broken or slow))


def ratio(quiet: Seen, attacked: Seen, kind: str) -> float:
    """Nine in ten of the neighbours' times, during the attack through before it; under `LEAST` it counts as 1."""
    before, during = quiet.quantile(kind, 0.9), attacked.quantile(kind, 0.9)
    if math.isnan(during):
        return math.inf
    return 1.0 if during <= LEAST[kind] else during / max(before, LEAST[kind])


def _in_time(quiet: Seen, attacked: Seen) -> bool:
    return all(ratio(quiet, attacked, kind) <= MOST for kind in KINDS)


def _line(attack: Attack, quiet: Seen, result: Result) -> str:
    told = " ".join(
        f"{kind} {result.seen.quantile(kind, 0.9):.3f} s ({ratio(quiet, result.seen, kind):.1f})" for kind in KINDS
    )
    verdict = "BROKEN" if result.broken else "ok" if _in_time(quiet, result.seen) else "SLOW"
    return "\n  ".join([f"{verdict:7} {attack.name:14} {told}", *result.broken])


def _write(pairs: Sequence[Pair], neighbours: int, seconds: float) -> None:
    target = Path(os.environ.get("EVIDENCE_DIR") or Path(__file__).resolve().parents[2] / "evidence")
    target.mkdir(parents=True, exist_ok=True)
    rows = [{"quiet": asdict(quiet), **asdict(result)} for quiet, result in pairs]
    (target / "hostile.json").write_text(json.dumps(rows) + "\n")
    (target / "hostile.md").write_text("\n".join(_page(pairs, neighbours, seconds)) + "\n")


def _page(pairs: Sequence[Pair], neighbours: int, seconds: float) -> Iterator[str]:
    yield "# One hostile tenant"
    yield ""
    yield (
        f"{time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC: {neighbours} neighbours, {seconds:g} s for each attack "
        "and the quiet before it. Each cell is the 90th percentile in seconds: quiet → attacked."
    )
    yield ""
    yield f"| attack | {' | '.join(KINDS)} | attacker | verdict |"
    yield f"|---|{'---|' * len(KINDS)}---|---|"
    for quiet, result in pairs:
        cells = [f"{quiet.quantile(kind, 0.9):.3f} → {result.seen.quantile(kind, 0.9):.3f}" for kind in KINDS]
        verdict = "; ".join(result.broken) or ("holds" if _in_time(quiet, result.seen) else "slower")
        ended = "; ".join(filter(None, (result.requests, result.ended)))
        yield f"| {result.attack} | {' | '.join(cells)} | {ended} | {verdict} |"


if __name__ == "__main__":
    main()
