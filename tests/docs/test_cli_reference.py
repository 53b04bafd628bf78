"""docs/CLI.md cannot drift: it is what docs/generate_cli.py writes today."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from claw_runtime import errors
from claw_runtime.cli.main import VERBS
from claw_runtime.settings import ENVIRONMENT

DOCS = Path(__file__).resolve().parents[2] / "docs"
TEXT = (DOCS / "CLI.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_cli", DOCS / "generate_cli.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("columns", ["40", "300"])
def test_the_reference_is_what_the_commands_say(
    generator: ModuleType, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    """The committed file is what the generator writes, on a terminal of any width."""
    monkeypatch.setenv("COLUMNS", columns)
    assert generator.reference() == TEXT, "run: python docs/generate_cli.py"


def test_every_exit_code_is_in_the_table() -> None:
    """Each class of errors.py has one line, with its own code, slug and HTTP status."""
    told = re.findall(r"^\| (\d+) \| `([a-z-]+)` \| (\d+) \| .+ \|$", TEXT, re.MULTILINE)
    assert told == [(str(code), cls.slug, str(cls.http_status)) for code, cls in errors.table().items()]


def test_every_verb_has_a_chapter() -> None:
    """No verb is left out."""
    assert set(VERBS) <= {line.split()[-1] for line in TEXT.splitlines() if line.startswith("### claw-runtime ")}


def test_every_setting_is_in_the_table() -> None:
    """Each setting has a line with its variable and a meaning."""
    told = dict(re.findall(r"^\| `([a-z_]+)` \| `(CLAW_[A-Z0-9_]+)` \| .*\| .+ \|$", TEXT, re.MULTILINE))
    assert told == dict(ENVIRONMENT)
