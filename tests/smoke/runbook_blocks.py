"""The runbook's commands, as a program sees them: its fenced blocks, and which of them are to be executed.

A block opens with ```` ```sh MARK… ````. The mark `run` means that the block, with all other such blocks in their
order, is one script that the smoke QA executes exactly as printed. `python3 -I runbook_blocks.py FILE MARK` prints that
script.
"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

_OPEN = re.compile(r"^```(\w+)(.*)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One fenced block. `line` is the number of its first line in the file, counted from 1."""

    language: str
    marks: frozenset[str]
    line: int
    text: str


def blocks(markdown: str) -> list[Block]:
    """All fenced blocks that name a language, in their order.

    Raises:
        ValueError: A block is not closed.
    """
    found: list[Block] = []
    lines = markdown.splitlines()
    at = 0
    while at < len(lines):
        opening = _OPEN.match(lines[at])
        if not opening:
            at += 1
            continue
        try:
            end = lines.index("```", at + 1)
        except ValueError:
            raise ValueError(f"line {at + 1}: the block is not closed") from None
        text = "\n".join(lines[at + 1 : end]) + "\n"
        found.append(Block(language=opening[1], marks=frozenset(opening[2].split()), line=at + 2, text=text))
        at = end + 1
    return found


def script(markdown: str, mark: str) -> str:
    """The shell blocks that carry `mark`, as one script."""
    chosen = [block for block in blocks(markdown) if block.language == "sh" and mark in block.marks]
    return "".join(f"# line {block.line}\n{block.text}" for block in chosen)


if __name__ == "__main__":
    sys.stdout.write(script(Path(sys.argv[1]).read_text(encoding="utf-8"), sys.argv[2]))
