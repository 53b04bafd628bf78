"""A figure: our cost and a peer's, both of the same run. Only arithmetic and text; nothing is measured here."""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from math import ceil
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


class NotHere(Exception):
    """A figure that this host cannot give, such as one that needs root; the text is the reason."""


COLUMNS = ("figure", "ours", "spread", "peer's", "ratio", "goal", "met", "n", "load", "peer")
QUIET = 0.25
"""Share of the processors that other work may use before a figure is measured without being told of."""

FIGURES = {"created": "slot", "entrypoint": "parked", "interpreter": "waiting"}
"""Tier → its word in a figure's id. Ids keep the former words: reports and history compare figures by id."""

LEAST = 3
"""Turns that are made of every figure, however little time is left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """Costs of ours and of the peer's, turn by turn.

    Attributes:
        ours, theirs: One cost in `unit` a turn; as many of one as of the other, or no `theirs` at all.
        goal: The ratio that must not be exceeded; None for a figure that only informs, or has another goal.
        most, least: The value that must not be exceeded, and the one that must be reached; None without such a goal.
        quantile: Which of the costs, in their order, is the value: 0.5 is the median.
        load: The host's 1-minute load average before and after.
        at: When it was finished, ISO 8601 in UTC.
        unit: `s`, or another word for what is not a time.
        parts: Medians in `unit` of what the value consists of, by name, in order.
        counts: How many there were of each kind of thing before and after, by name.
        note: What a reader must know of it, one line.
        busy: Share of the processors that other work used just before it was measured.
    """

    name: str
    ours: Sequence[float]
    load: tuple[float, float]
    at: str
    peer: str = ""
    theirs: Sequence[float] = ()
    goal: float | None = None
    most: float | None = None
    least: float | None = None
    quantile: float = 0.5
    unit: str = "s"
    parts: Mapping[str, float] = field(default_factory=dict)
    counts: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    note: str = ""
    busy: float = 0.0

    @property
    def value(self) -> float:
        return quantile(self.ours, self.quantile)

    @property
    def peer_value(self) -> float | None:
        return quantile(self.theirs, self.quantile) if self.theirs else None

    @property
    def ratio(self) -> float | None:
        """Ours through the peer's: under 1 ours costs less. None without a peer."""
        return self.value / self.peer_value if self.peer_value else None

    @property
    def met(self) -> bool | None:
        """Whether all goals are kept; None without any."""
        kept = []
        if self.goal is not None:
            kept.append(self.ratio is not None and self.ratio <= self.goal)
        if self.most is not None:
            kept.append(self.value <= self.most)
        if self.least is not None:
            kept.append(self.value >= self.least)
        return all(kept) if kept else None

    @property
    def goals(self) -> str:
        """The goals as text, empty without any."""
        told = [] if self.goal is None else [f"ratio <= {self.goal:g}"]
        told += [] if self.most is None else [f"<= {amount(self.most, self.unit)}"]
        told += [] if self.least is None else [f">= {amount(self.least, self.unit)}"]
        return ", ".join(told)

    def after(self, busy: float) -> "Figure":
        """The same figure, measured after other work used so much."""
        return replace(self, busy=busy)

    def line(self) -> str:
        """The JSON line of bench.jsonl, without its newline."""
        return json.dumps(
            {
                "name": self.name,
                "value": _round(self.value),
                "unit": self.unit,
                "spread": _spread(self.ours),
                "quantile": self.quantile,
                "peer": self.peer or None,
                "peer_value": _round(self.peer_value),
                "peer_spread": _spread(self.theirs),
                "ratio": _round(self.ratio),
                "goal": self.goals or None,
                "met": self.met,
                "n": len(self.ours),
                "load": [round(load, 2) for load in self.load],
                "busy": round(self.busy, 2),
                "parts": {name: _round(part) for name, part in self.parts.items()},
                "counts": {name: [_round(number) for number in pair] for name, pair in self.counts.items()},
                "note": self.note,
                "at": self.at,
            },
            ensure_ascii=False,
        )


def quantile(costs: Sequence[float], share: float) -> float:
    """The median; of another share, the smallest cost that this share of all does not exceed."""
    return statistics.median(costs) if share == 0.5 else sorted(costs)[ceil(len(costs) * share) - 1]


def duration(seconds: float) -> str:
    """Seconds for people: three digits, in ms below one second."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def amount(cost: float, unit: str) -> str:
    """A cost for people, in its unit."""
    return duration(cost) if unit == "s" else f"{cost:.4g} {unit}"


def cells(recorded: Mapping[str, Any]) -> tuple[str, ...]:
    """The row of a figure out of its JSON line, in the order of `COLUMNS`."""
    unit, peer = str(recorded["unit"]), recorded["peer_value"]
    value = amount(recorded["value"], unit)
    before, after = recorded["load"]
    return (
        recorded["name"],
        value if recorded["quantile"] == 0.5 else f"{value} (p{recorded['quantile'] * 100:g})",
        _range(recorded["spread"], unit) if recorded["n"] > 1 else "",
        "" if peer is None else amount(peer, unit),
        "" if recorded["ratio"] is None else f"{recorded['ratio']:.3g}",
        recorded["goal"] or "",
        {None: "", True: "yes", False: "NO"}[recorded["met"]],
        str(recorded["n"]),
        f"{before:.1f}–{after:.1f}",
        recorded["peer"] or "",
    )


def table(recorded: Iterable[Mapping[str, Any]]) -> str:
    """Figures, out of their JSON lines, as a Markdown table with aligned columns."""
    return columns([COLUMNS, *map(cells, recorded)])


def columns(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned columns; the first row is its head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))} |" for row in rows]
    lines.insert(1, f"|{'|'.join('-' * (width + 2) for width in widths)}|")
    return "\n".join(lines)


def append(path: Path, figures: Iterable[Figure]) -> list[str]:
    """Add one line a figure to the file, which is made if missing; the lines."""
    lines = [figure.line() for figure in figures]
    if lines:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
    return lines


def newest(path: Path) -> list[dict[str, Any]]:
    """The last line of each figure in the file, in the order in which they were first measured."""
    lines: dict[str, dict[str, Any]] = {}
    for line in path.read_text("utf-8").splitlines():
        recorded = json.loads(line)
        lines[recorded["name"]] = recorded
    return list(lines.values())


# --- turns ---

_until: list[float] = []


@contextmanager
def allowed(seconds: float) -> Iterator[None]:
    """In the body, turns take about so long in all: the last ones are not made when the time is over."""
    _until.append(time.monotonic() + seconds)
    try:
        yield
    finally:
        _until.pop()


def time_is_up() -> bool:
    """Whether what was allowed is over."""
    return bool(_until) and time.monotonic() > _until[-1]


def take_turns(
    name: str, runs: int, *works: Callable[[], T], warming: int = 1, rest: float = 0.0
) -> tuple[list[T], ...]:
    """Let ours and the peers work back to back, `runs` times each; who goes first changes with every turn.

    Args:
        warming: Turns before those, which are thrown away: caches and lazy imports count for nobody.
        rest: Seconds before each work, in which what the one before left to the background comes to its end.

    Returns:
        The answers of each work; fewer than `runs`, but at least three, when the time that is `allowed` is over.
    """
    answers: tuple[list[T], ...] = tuple([] for _ in works)
    for turn in range(runs + warming):
        if turn >= warming + min(LEAST, runs) and time_is_up():
            break
        progress(f"{name}: {f'turn {turn - warming + 1} of {runs}' if turn >= warming else 'warming up'}")
        for place in range(len(works)):
            one = (turn + place) % len(works)
            time.sleep(rest)
            answers[one].append(works[one]())
    progress("")
    return tuple(given[warming:] for given in answers)


def load() -> float:
    """The host's 1-minute load average."""
    return os.getloadavg()[0]


def busy(seconds: float = 0.5) -> float:
    """Share of the processors that is used in the next so many seconds, in which this process does nothing."""
    (used, spent), _ = _ticks(), time.sleep(seconds)
    later, all_spent = _ticks()
    return (later - used) / max(1, all_spent - spent)


def _ticks() -> tuple[int, int]:
    """Ticks that all processors worked, and those that there were, since the start."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return sum(fields) - fields[3] - fields[4], sum(fields)


def now() -> str:
    """The time for `Figure.at`."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def progress(text: str) -> None:
    """What is being measured, on one line of a terminal."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def _range(ends: Sequence[float], unit: str) -> str:
    low, high = (amount(end, unit) for end in ends)
    number, _, word = low.rpartition(" ")
    return f"{number}–{high}" if high.endswith(f" {word}") else f"{low}–{high}"


def _round(number: float | None) -> float | None:
    return None if number is None else float(f"{number:.5g}")


def _spread(costs: Sequence[float]) -> list[float | None] | None:
    return [_round(min(costs)), _round(max(costs))] if costs else None
