"""The runbook's commands, as a program sees them: its fenced blocks, and which of them are to be executed.

A block opens with ```` ```sh MARK… ````. The mark `run` means that the block, with all other such blocks in their
order, is one script that the smoke QA executes exactly as printed. `python3 -I runbook_blocks.py FILE MARK` prints that
script. Blocks with the marks `operator` and `server` are executed one by one; an `expect` block after one of them lists
what is in its output.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A block to execute; `fails` are the exit codes of the commands in it that are to fail."""

    block: Block
    fails: list[int]
    expected: list[str]


def steps(markdown: str, mark: str) -> list[Step]:
    """The blocks of a page that carry `mark`, each with what the page says of it.

    Raises:
        ValueError: An `expect` block does not follow a shell block that is executed.
    """
    found: list[Step] = []
    before: Block | None = None
    for block in blocks(markdown):
        if "expect" in block.marks:
            if before is None or before.language != "sh" or not before.marks:
                raise ValueError(f"line {block.line}: nothing was executed whose output this could be")
            if mark in before.marks:
                found[-1].expected.extend(block.text.splitlines())
        elif mark in block.marks:
            codes = sorted(int(one.removeprefix("exit-")) for one in block.marks if one.startswith("exit-"))
            found.append(Step(block=block, fails=codes, expected=[]))
        before = block
    return found


def unmatched(output: str, expected: list[str]) -> str | None:
    """The first pattern that no line matches behind the line of the pattern before it; None when all are there."""
    lines = iter(output.splitlines())
    return next((pattern for pattern in expected if not any(re.search(pattern, line) for line in lines)), None)


def script(markdown: str, mark: str) -> str:
    """The shell blocks that carry `mark`, as one script."""
    chosen = [block for block in blocks(markdown) if block.language == "sh" and mark in block.marks]
    return "".join(f"# line {block.line}\n{block.text}" for block in chosen)


if __name__ == "__main__":
    sys.stdout.write(script(Path(sys.argv[1]).read_text(encoding="utf-8"), sys.argv[2]))
