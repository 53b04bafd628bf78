"""docs/CONFORMANCE.md cannot drift: the rows of the stores that are at hand are measured again."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from fakes import servers

DOCS = Path(__file__).resolve().parents[2] / "docs"
TEXT = (DOCS / "CONFORMANCE.md").read_text(encoding="utf-8")


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_conformance", DOCS / "generate_conformance.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generator = load()


def test_the_page_is_what_the_generator_writes() -> None:
    """But for the rows, which need the servers: one for each store, in its order."""
    rows = TEXT.partition(generator.header())[2].partition("\n\n")[0].splitlines()
    assert generator.page(rows) == TEXT
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows] == list(generator.STORES)


@pytest.mark.s3
@pytest.mark.parametrize("name", generator.STORES)
def test_a_row_is_what_the_store_does(name: str) -> None:
    """Measured anew."""
    try:
        assert generator.row(name) in TEXT.splitlines()
    except servers.Missing as missing:
        pytest.skip(str(missing))
