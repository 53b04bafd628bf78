"""docs/JSON_OUTPUT.md and docs/UPGRADE.md know every field and word of an upgrade, and no other."""

import re
from pathlib import Path
from typing import get_args

import pytest
from claw_runtime.api import upgrades
from claw_runtime.ports import MoveState, UpgradeState
from pydantic import BaseModel

DOCS = Path(__file__).resolve().parents[2] / "docs"
FIELDS = (DOCS / "JSON_OUTPUT.md").read_text(encoding="utf-8")
PAGE = (DOCS / "UPGRADE.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "model", [upgrades.UpgradeRequest, upgrades.UpgradeAnswer, upgrades.MoveAnswer, upgrades.PlanAnswer]
)
def test_every_field_has_its_row(model: type[BaseModel]) -> None:
    """The table of each request and answer has exactly its fields."""
    found = re.search(rf"<!-- {model.__name__} -->\n\|.*\n\|[-|]+\n((?:\|.*\n)+)", FIELDS)
    assert found is not None
    assert re.findall(r"^\| `(\w+)` \|", found[1], re.MULTILINE) == list(model.model_json_schema()["properties"])


@pytest.mark.parametrize("word", [*get_args(MoveState), *get_args(UpgradeState)])
def test_every_word_is_documented(word: str) -> None:
    """Each state of an upgrade and of a tenant's way is named."""
    assert f"`{word}`" in FIELDS


def test_every_step_is_explained() -> None:
    """The table of a tenant's way has each state that it can be in."""
    steps = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))
    assert steps == set(get_args(MoveState)) - {"waiting"}
