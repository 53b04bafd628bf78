"""The kill matrix, whole, and its report: `make kill-matrix` writes evidence/kill-matrix.md and .json.

On a fake Podman every story is killed at every point and at every single change of a file, and every recovery is killed
as well; on real Podman it is killed before and after every call at a seam.
"""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from fakes import live_podman
from kill import image, matrix
from kill.forked import in_workers
from kill.lives import Outcome
from kill.on_podman import Bench
from kill.points import Shot, When
from kill.stories import STORIES, Story

WHEN: tuple[When, When] = ("before", "after")


def main() -> int:
    """Run both matrices and write the report; 1 when a promise was broken."""
    target = Path(os.environ.get("EVIDENCE_DIR") or Path(__file__).resolve().parents[2] / "evidence")
    target.mkdir(parents=True, exist_ok=True)
    image.made()
    began = time.monotonic()
    _say("on a fake Podman: every point, every change of a file, every recovery")
    fake = matrix.run(again_every=1)
    _say(f"  {_summary(fake)}, {time.monotonic() - began:.0f} s")
    began = time.monotonic()
    _say("on real Podman: before and after every call")
    real = on_podman(STORIES)
    _say(f"  {_summary(real)}, {time.monotonic() - began:.0f} s")
    (target / "kill-matrix.json").write_text(
        json.dumps({"fake": _plain(fake), "podman": _plain(real)}, indent=1) + "\n"
    )
    (target / "kill-matrix.md").write_text("\n".join(_page(fake, real)) + "\n")
    _say(f"report: {target / 'kill-matrix.md'}")
    return 1 if any(_broken(fake) or _broken(real)) else 0


def on_podman(stories: Sequence[Story], *, workers: int = 2) -> list[Outcome]:
    """All outcomes of all stories on real Podman; the stories with most points first, a few side by side."""
    with live_podman.directory_in() as top:
        done = in_workers(stories, lambda _, story: _told(top, story), workers=workers)
    return [outcome for outcomes in done for outcome in outcomes]


def _told(top: Path, story: Story) -> list[Outcome]:
    """All outcomes of a story; one of an upgrade leaves a pool behind that is another, and has a place of its own."""
    began = time.monotonic()
    [whole] = _in_one_place(top, story, [None])
    shots = [Shot(name=name, nth=nth, when=when) for name, nth in whole.points for when in WHEN]
    places = [[shot] for shot in shots] if story.upgrade else [shots]
    outcomes = [whole, *(outcome for some in places for outcome in _in_one_place(top, story, some))]
    _say(f"  {story.name}: {_summary(outcomes)}, {time.monotonic() - began:.0f} s")
    return outcomes


def _in_one_place(top: Path, story: Story, shots: Sequence[Shot | None]) -> list[Outcome]:
    """Outcomes of one data directory; where something does not even end, the rest goes on in another."""
    outcomes: list[Outcome] = []
    while len(outcomes) < len(shots):
        with live_podman.directory_in(top) as place:
            bench = Bench(place, story)
            bench.open()
            try:
                for shot in shots[len(outcomes) :]:
                    outcomes.append(bench.tell(shot))
            except Exception as error:  # noqa: BLE001 - one case's, and told in the report
                outcomes.append(_unended(story, shots[len(outcomes)], f"{type(error).__name__}: {error}"[:500]))
            finally:
                left = bench.close()
        outcomes[-1] = replace(outcomes[-1], broken=(*outcomes[-1].broken, *left))
    return outcomes


def _unended(story: Story, shot: Shot | None, why: str) -> Outcome:
    return Outcome(
        story=story.name,
        shot=shot,
        again=None,
        reached=False,
        points=(),
        found="",
        state="",
        seconds=0.0,
        broken=(why,),
    )


# --- report ---


def _page(fake: Sequence[Outcome], real: Sequence[Outcome]) -> Iterator[str]:
    podman = subprocess.run(["podman", "--version"], check=True, capture_output=True, text=True).stdout.strip()
    yield "# Kill matrix"
    yield ""
    yield f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {podman}, Linux {platform.release()}, {os.cpu_count()} cores."
    yield "docs/CRASHES.md describes what is killed, where, and what must hold afterwards."
    yield ""
    yield f"- Real Podman: {_summary(real)}."
    yield f"- Fake Podman, with every single change of a file and every recovery killed too: {_summary(fake)}."
    yield ""
    yield from _by_story("Real Podman", real)
    yield from _by_story("Fake Podman", fake)
    yield "## Each point on real Podman"
    yield ""
    yield "| story | killed | the dead daemon left | its successor made it | claimable after | invariants |"
    yield "|---|---|---|---|---:|---|"
    for one in real:
        if one.shot:
            verdict = "; ".join(one.broken) or ("hold" if one.reached else "hold (not reached; killed at the end)")
            yield f"| {one.story} | {one.shot} | {one.found} | {one.state} | {one.seconds:.2f} s | {verdict} |"


def _by_story(title: str, outcomes: Sequence[Outcome]) -> Iterator[str]:
    yield f"## {title}"
    yield ""
    yield "| story | points | kills | claimable after, p50 | max | invariants |"
    yield "|---|---:|---:|---:|---:|---|"
    for name in dict.fromkeys(one.story for one in outcomes):
        own = [one for one in outcomes if one.story == name]
        shots = [one for one in own if one.shot]
        seconds = [one.seconds for one in shots] or [0.0]
        points = len({(one.shot.name, one.shot.nth) for one in shots if one.shot})
        wrong = len(_broken(own))
        yield (
            f"| {name} | {points} | {len(shots)} | {median(seconds):.2f} s | {max(seconds):.2f} s "
            f"| {f'{wrong} broken' if wrong else 'hold'} |"
        )
    yield ""


def _summary(outcomes: Sequence[Outcome]) -> str:
    shots = [one for one in outcomes if one.shot]
    seconds = [one.seconds for one in shots] or [0.0]
    points = len({(one.story, one.shot.name, one.shot.nth) for one in shots if one.shot})
    missed = sum(not one.reached for one in shots)
    return (
        f"{points} points, {len(shots)} kills{f' ({missed} not reached)' if missed else ''}, {len(_broken(outcomes))} "
        f"with a broken promise, claimable again after {median(seconds):.2f} s (p50), {max(seconds):.2f} s (max)"
    )


def _broken(outcomes: Sequence[Outcome]) -> list[Outcome]:
    return [one for one in outcomes if one.broken]


def _plain(outcomes: Sequence[Outcome]) -> list[dict[str, object]]:
    return [
        {
            **asdict(one),
            "points": len(one.points),
            "follows": len(one.follows),
            "seconds": round(one.seconds, 3),
        }
        for one in outcomes
    ]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
