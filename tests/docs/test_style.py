"""The pages keep the measurable rules of docs/STYLE.md: no foreign phrase, no sentence or cell that is too long."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OWN = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "host/README.md")
PAGES = (*OWN, *(page.relative_to(ROOT).as_posix() for page in sorted((ROOT / "docs").rglob("*.md"))))

PHRASES = re.compile(
    r"\b(?:of yours|of ours|(?:is|are) said (?:in|with|by)|(?:is|are) told|goes on|(?:the|an?) own|own one|comes? by|"
    r"wants to hear|takes? \w+ (?:\w+ )?along|made a mistake|came second|to its door)\b",
    re.IGNORECASE,
)
SENTENCE, CELL = 40, 30


def faults(text: str) -> Iterator[str]:
    """What in a page breaks a rule."""
    text = re.sub(r"^```.*?^```$|<!--.*?-->", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"\]\([^)\s]+\)", "]", text)
    yield from (f"phrase: {found[0]}" for found in PHRASES.finditer(re.sub(r"\s+", " ", text)))
    for row in re.findall(r"^\|.*\|$", text, re.MULTILINE):
        for cell in re.split(r"(?<!\\)\|", row):
            if len(cell.split()) > CELL:
                yield f"cell of {len(cell.split())} words: {cell.strip()[:60]}"
    prose = re.sub(r"^(?:\||#).*$", "\n", text, flags=re.MULTILINE)
    for paragraph in re.split(r"\n\s*\n|\n\s*(?:[-*]|\d+\.) ", prose):
        for sentence in re.split(r"(?<=[.!?:])[)*_\"]*\s+", paragraph):
            if len(sentence.split()) > SENTENCE:
                yield f"sentence of {len(sentence.split())} words: {' '.join(sentence.split())[:60]}"


def found(page: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return list(faults(text.partition("## Examples")[0] if page == "docs/STYLE.md" else text))


@pytest.mark.parametrize("page", PAGES)
def test_the_page_keeps_the_rules(page: str) -> None:
    """No phrase of the list, no sentence over 40 words, no cell over 30."""
    assert found(page) == []


def test_each_rule_finds_its_fault() -> None:
    """A bad phrase, sentence and cell are found in prose; code is left alone."""
    bad = f"This is\nsaid in a file.\n\n{'word ' * 41}.\n\n| {'word ' * 31}|\n\n```sh\n{'goes on ' * 50}\n```\n"
    assert [fault.split(":")[0] for fault in faults(bad)] == ["phrase", "cell of 31 words", "sentence of 42 words"]
