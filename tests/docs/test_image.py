"""docs/IMAGE.md says what the contract says."""

import json
import re
from pathlib import Path

TOP = Path(__file__).parents[2]
TEXT = (TOP / "docs/IMAGE.md").read_text()
CONTRACT = json.loads((TOP / "images/openclaw-nix/contract.json").read_text())


def test_the_environment_table_is_the_contracts() -> None:
    """Every variable that the image sets is explained, with its value, and no other."""
    section = TEXT.split("## Environment", 1)[1].split("\n## ", 1)[0]
    table = dict(re.findall(r"^\| `([A-Z_]+)` \| `([^`]+)` \| [^|]+ \|$", section, re.MULTILINE))
    assert table == CONTRACT["environment"]


def test_what_only_the_gateway_gets_is_named() -> None:
    """It is not in the image's environment, so that a tenant's own npm works."""
    assert all(f"`{name}={value}`" in TEXT for name, value in CONTRACT["exec"]["environment"].items())


def test_every_step_is_described() -> None:
    """A reader finds each named step of the build."""
    steps = {path.name for path in (TOP / "images/openclaw-nix/steps").glob("*.sh")}
    assert set(re.findall(r"`steps/([a-z-]+\.sh)`", TEXT)) == steps


def test_figures_are_of_the_pinned_versions() -> None:
    """A new pin needs new figures."""
    assert CONTRACT["application"]["version"] in TEXT
    assert CONTRACT["node"] in TEXT
