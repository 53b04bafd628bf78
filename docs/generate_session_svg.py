"""Draws docs/figures/session.svg, the README's picture of a terminal: `python docs/generate_session_svg.py`.

The commands and their outputs are those of docs/TRANSCRIPT.md, a real run; `SHOWN` selects a few of them.
tests/docs/test_session_svg.py fails if the file differs from what this script would write.
"""

import re
from pathlib import Path

from jinja2 import Environment

DOCS = Path(__file__).resolve().parent
TARGET = DOCS / "figures/session.svg"
LINE, COLUMN, MARGIN, BAR = 20, 8.43, 20, 36
"""Pixels: height of a line, width of a character, space around the text, height of the title bar."""

SHOWN = (
    'claw-runtime claim alice --metadata \'{"plan": "gold"}\'',
    "echo 'likes blue' | claw-runtime exec alice -- tee /state/note.md",
    "claw-runtime release alice",
    "claw-runtime claim alice",
    "echo 'and green' | claw-runtime exec alice -- tee -a /state/note.md",
    "claw-runtime release alice --no-affinity",
    "claw-runtime claim alice",
    "claw-runtime exec alice -- cat /state/note.md",
)
"""Commands of the page, in its order."""

TEMPLATE = """\
<svg xmlns="http://www.w3.org/2000/svg" width="{{ width }}" height="{{ height }}"
 viewBox="0 0 {{ width }} {{ height }}" role="img" aria-labelledby="title">
<title id="title">A tenant is claimed, released and claimed again, and its state is there each time</title>
<style>
text { font: 14px "DejaVu Sans Mono", Menlo, Consolas, "Liberation Mono", monospace; fill: #a9b1bd; white-space: pre }
.command { fill: #f0f3f6; font-weight: bold }
.prompt { fill: #56d364 }
</style>
<rect width="{{ width }}" height="{{ height }}" rx="8" fill="#0d1117"/>
{% for colour in ("#ff5f56", "#ffbd2e", "#27c93f") %}
<circle cx="{{ 22 + 20 * loop.index0 }}" cy="20" r="6" fill="{{ colour }}"/>
{% endfor %}
{% for line in lines %}
{% set y = bar + step * loop.index %}
{% if line.startswith("$ ") %}
<text x="{{ margin }}" y="{{ y }}" xml:space="preserve" class="command">{#-
#}<tspan class="prompt">$</tspan>{{ line[1:] }}</text>
{% else %}
<text x="{{ margin }}" y="{{ y }}" xml:space="preserve">{{ line }}</text>
{% endif %}
{% endfor %}
</svg>
"""


def picture(page: str) -> str:
    """The SVG of the commands in `SHOWN`, with the outputs that `page` has for them."""
    lines = session(page)
    drawing = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    return drawing.from_string(TEMPLATE).render(
        lines=lines,
        width=round(2 * MARGIN + COLUMN * max(map(len, lines))),
        height=BAR + LINE * len(lines) + MARGIN,
        step=LINE,
        bar=BAR,
        margin=MARGIN,
    )


def session(page: str) -> list[str]:
    """The lines of the commands in `SHOWN`, each found behind the one before it.

    Raises:
        ValueError: The page has no such command there.
    """
    blocks = re.findall(r"^```console\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    printed = "".join(blocks).splitlines()
    lines: list[str] = []
    at = 0
    for command in SHOWN:
        at = printed.index(f"$ {command}", at) + 1
        lines.append(f"$ {command}")
        while at < len(printed) and not printed[at].startswith("$ "):
            lines.append(printed[at])
            at += 1
    return lines


if __name__ == "__main__":
    TARGET.write_text(picture((DOCS / "TRANSCRIPT.md").read_text(encoding="utf-8")), encoding="utf-8")
