"""The figures' ratios as bars, in an SVG that any browser shows, on light and dark pages."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from bench.figures import amount

WIDTH, LEFT, RIGHT, ROW, BAR = 860, 210, 250, 24, 13
TOP = 58
WIDEST = 1.6
"""The ratio at which a bar is cut; the number beside it tells the whole."""

_STYLE = """
text { font: 12px system-ui, sans-serif; fill: #24292f }
.soft { fill: #57606a }
.head { font-weight: 600 }
.ours { fill: #1a7f64 }
.missed { fill: #bc4c00 }
.page { fill: #ffffff; stroke: #d0d7de }
.goal { stroke: #24292f; stroke-width: 2 }
.peer { stroke: #57606a; stroke-dasharray: 3 3 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .soft { fill: #9da7b3 } .ours { fill: #3fb98f } .missed { fill: #f0883e }
.goal { stroke: #e6edf3 } .peer { stroke: #9da7b3 } .page { fill: #0d1117; stroke: #30363d }
}
""".strip()


_HEAD = """
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-labelledby="title about">
<title id="title">What claw costs beside its peers</title>
<desc id="about">One bar a figure: our cost through the peer's of the same run. The dashed line is the peer, the short
line the goal; a bar of the second colour misses its goal.</desc>
""".strip()


def draw(groups: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """A picture of the figures that have a peer.

    Args:
        groups: Heading → JSON lines of figures, in order; a group without a ratio is left out.
    """
    shown = {title: [one for one in some if one["ratio"] is not None] for title, some in groups.items()}
    shown = {title: some for title, some in shown.items() if some}
    height = TOP + sum(ROW * (len(some) + 1) + 8 for some in shown.values()) + 8
    parts = [
        _HEAD.format(width=WIDTH, height=height),
        f"<style>{_STYLE}</style>",
        f'<rect class="page" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="6"/>',
        _text(12, 22, "What claw costs beside its peers: ours ÷ theirs, in one run", "head"),
        _text(WIDTH - 12, 22, "| goal    orange: goal missed", "soft", "end"),
        _text(_x(1.0), 44, "the peer", "soft", "middle"),
        _text(_x(0.0), 44, "0", "soft", "middle"),
        f'<line class="peer" x1="{_x(1.0):g}" y1="50" x2="{_x(1.0):g}" y2="{height - 8}"/>',
    ]
    at = TOP
    for title, some in shown.items():
        parts.append(_text(12, at + 16, title, "head"))
        at += ROW
        for one in some:
            parts += _row(one, at)
            at += ROW
        at += 8
    return "\n".join([*parts, "</svg>"]) + "\n"


def _row(one: Mapping[str, Any], at: int) -> Iterable[str]:
    ratio, middle = float(one["ratio"]), at + ROW / 2
    kind = "missed" if one["met"] is False else "ours"
    wide = max(1.5, _x(min(ratio, WIDEST)) - LEFT)
    yield _text(24, middle + 4, one["name"], "")
    yield f'<rect class="{kind}" x="{LEFT}" y="{middle - BAR / 2:g}" width="{wide:.1f}" height="{BAR}" rx="2"/>'
    goal = _goal(one["goal"])
    if goal is not None and goal <= WIDEST:
        yield (
            f'<line class="goal" x1="{_x(goal):.1f}" y1="{middle - BAR / 2 - 2:g}" '
            f'x2="{_x(goal):.1f}" y2="{middle + BAR / 2 + 2:g}"/>'
        )
    unit = one["unit"]
    ours, theirs = (amount(one[key], unit) for key in ("value", "peer_value"))
    yield _text(WIDTH - RIGHT + 60, middle + 4, f"{ratio:.3g}", "", "end")
    yield _text(WIDTH - RIGHT + 72, middle + 4, f"{ours} ÷ {theirs}", "soft")


def _goal(text: str | None) -> float | None:
    """The goal of the ratio, out of `ratio <= 0.4, <= 1.00 s`."""
    head = (text or "").partition(",")[0]
    return float(head.removeprefix("ratio <= ")) if head.startswith("ratio <= ") else None


def _x(ratio: float) -> float:
    return LEFT + (WIDTH - RIGHT - LEFT) * ratio / WIDEST


def _text(x: float, y: float, text: str, kind: str, anchor: str = "") -> str:
    where = f' text-anchor="{anchor}"' if anchor else ""
    return f'<text class="{kind}" x="{x:g}" y="{y:g}"{where}>{escape(text)}</text>'
