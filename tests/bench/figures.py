"""A figure: what ours cost beside what a peer cost, both in the same run. Arithmetic and text only, no measuring."""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")
V = TypeVar("V")

COLUMNS = ("figure", "ours", "peer's", "ratio", "goal", "met", "runs", "load", "peer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """Costs of ours and of the peer's, turn by turn.

    Attributes:
        ours, theirs: One cost in `unit` a turn; as many of one as of the other, at least one.
        goal: The ratio that must not be exceeded, or None for a figure that only informs.
        load: The host's 1-minute load average before and after.
        at: When it was finished, ISO 8601 in UTC.
        unit: `s`, or another word for what is not a time.
    """

    name: str
    peer: str
    goal: float | None
    ours: Sequence[float]
    theirs: Sequence[float]
    load: tuple[float, float]
    at: str
    unit: str = "s"

    @property
    def value(self) -> float:
        return statistics.median(self.ours)

    @property
    def peer_value(self) -> float:
        return statistics.median(self.theirs)

    @property
    def ratio(self) -> float:
        """Ours through the peer's: under 1 ours costs less."""
        return self.value / self.peer_value

    @property
    def met(self) -> bool | None:
        """Whether the ratio keeps the goal; None without a goal."""
        return None if self.goal is None else self.ratio <= self.goal

    def line(self) -> str:
        """The JSON line of bench.jsonl, without its newline."""
        return json.dumps(
            {
                "name": self.name,
                "value": round(self.value, 6),
                "unit": self.unit,
                "peer": self.peer,
                "ratio": round(self.ratio, 4),
                "goal": _goal(self.goal) or None,
                "runs": len(self.ours),
                "load": [round(load, 2) for load in self.load],
                "at": self.at,
            },
            ensure_ascii=False,
        )

    def cells(self) -> tuple[str, ...]:
        """The figure's row, in the order of `COLUMNS`."""
        met = {None: "", True: "yes", False: "NO"}[self.met]
        before, after = self.load
        return (
            self.name,
            self._amount(self.value),
            self._amount(self.peer_value),
            f"{self.ratio:.3g}",
            _goal(self.goal),
            met,
            str(len(self.ours)),
            f"{before:.1f}–{after:.1f}",
            self.peer,
        )

    def _amount(self, cost: float) -> str:
        return duration(cost) if self.unit == "s" else f"{cost:.4g} {self.unit}"


def duration(seconds: float) -> str:
    """Seconds for people: three digits, in ms below one second."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def table(figures: Iterable[Figure]) -> str:
    """The figures as a Markdown table with aligned columns."""
    rows = [COLUMNS, *(figure.cells() for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = [f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))} |" for row in rows]
    lines.insert(1, f"|{'|'.join('-' * (width + 2) for width in widths)}|")
    return "\n".join(lines)


def append(path: Path, figures: Iterable[Figure]) -> None:
    """Add one line a figure to the file, which is made if missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.writelines(f"{figure.line()}\n" for figure in figures)


def take_turns(
    name: str, runs: int, ours: Callable[[], T], peer: Callable[[], U], *, warming: int = 1, rest: float = 0.0
) -> tuple[list[T], list[U]]:
    """Let ours and the peer work back to back, `runs` times each; who goes first changes with every turn.

    Args:
        warming: Turns before those, which are thrown away: caches and lazy imports count for nobody.
        rest: Seconds before each work, in which what the one before left to the background comes to its end.
    """

    def rested(work: Callable[[], V]) -> V:
        time.sleep(rest)
        return work()

    mine: list[T] = []
    theirs: list[U] = []
    for turn in range(runs + warming):
        _progress(f"{name}: {f'turn {turn - warming + 1} of {runs}' if turn >= warming else 'warming up'}")
        if turn % 2:
            theirs.append(rested(peer))
            mine.append(rested(ours))
        else:
            mine.append(rested(ours))
            theirs.append(rested(peer))
    _progress("")
    return mine[warming:], theirs[warming:]


def load() -> float:
    """The host's 1-minute load average."""
    return os.getloadavg()[0]


def now() -> str:
    """The time for `Figure.at`."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _goal(goal: float | None) -> str:
    return "" if goal is None else f"<= {goal:g}"


def _progress(text: str) -> None:
    """What is being measured, on one line of a terminal."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
