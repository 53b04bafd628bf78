"""A page that the runtime names exists: in messages, hints, help and docstrings, with its anchor if one is given."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAMED = re.compile(r"\b(docs/[\w/-]+\.md)(?:#([\w-]+))?")
FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)


def named() -> Iterator[tuple[str, str, str]]:
    """Module, page and anchor, which may be empty."""
    for path in sorted((ROOT / "runtime").rglob("*.py")):
        for page, anchor in NAMED.findall(path.read_text(encoding="utf-8")):
            yield path.name, page, anchor


def anchors(page: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ +(.+)$", FENCED.sub("", page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def lacks(page: str, anchor: str) -> str:
    """What is missing, or an empty text."""
    place = ROOT / page
    if not place.is_file():
        return f"there is no {page}"
    if anchor and anchor not in anchors(place.read_text(encoding="utf-8")):
        return f"{page} has no heading #{anchor}"
    return ""


@pytest.mark.parametrize(("module", "page", "anchor"), sorted(set(named())))
def test_a_named_page_exists(module: str, page: str, anchor: str) -> None:
    """The page is a file of the repository, and its heading is there."""
    assert lacks(page, anchor) == "", module


def test_the_hint_about_the_operators_key_names_its_section() -> None:
    """Without an operator's key the hint leads to the section that sets one."""
    assert ("docs/RUNBOOK.md", "encrypt-states") in {(page, anchor) for _, page, anchor in named()}
    section = (ROOT / "docs/RUNBOOK.md").read_text(encoding="utf-8").partition("\n## Encrypt states\n")[2]
    assert "encryption_key_file" in section.partition("\n## ")[0]


@pytest.mark.parametrize(("page", "anchor"), [("docs/NOWHERE.md", ""), ("docs/RUNBOOK.md", "no-such-heading")])
def test_a_missing_page_is_found(page: str, anchor: str) -> None:
    """A wrong file and a wrong anchor are both refused."""
    assert lacks(page, anchor) != ""
