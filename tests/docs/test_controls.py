"""The page of controls names files and tests that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/CONTROLS.md").read_text(encoding="utf-8")
ROWS = re.findall(
    r"^\| ([^|]+) \| ([^|]+) \| \[[^]]+\]\(\.\./([^)]+)\) \| \[(\w+)\]\(\.\./([^)]+)\) \|$", PAGE, re.MULTILINE
)


def test_every_row_was_read() -> None:
    """No row has another form: it would be checked by nothing."""
    assert len(ROWS) == sum(line.startswith("| ") for line in PAGE.splitlines()) - 1 > 10


def test_no_control_is_named_twice() -> None:
    """Rows are sorted by what they protect, and each control has one."""
    named = [(subject, control) for subject, control, *_ in ROWS]
    assert len(set(named)) == len(named)
    assert [subject for subject, _ in named] == sorted(subject for subject, _ in named)


@pytest.mark.parametrize(("where", "test", "file"), [row[2:] for row in ROWS])
def test_the_control_and_its_test_exist(where: str, test: str, file: str) -> None:
    """A renamed file or test must not leave a control without one."""
    assert (ROOT / where).is_file()
    assert re.search(rf"^ *(?:async )?def {test}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
