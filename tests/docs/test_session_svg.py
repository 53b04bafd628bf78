"""The README's picture cannot drift: it is what docs/generate_session_svg.py draws from the transcript today."""

import importlib.util
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree as ET

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "TRANSCRIPT.md").read_text(encoding="utf-8")
FIGURE = DOCS / "figures/session.svg"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_session_svg", DOCS / "generate_session_svg.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_picture_is_its_generators(generator: ModuleType) -> None:
    """The committed file is what the generator draws."""
    drawn = generator.picture(PAGE)
    assert FIGURE.read_text(encoding="utf-8") == drawn, "run: python docs/generate_session_svg.py"


def test_the_picture_shows_the_session(generator: ModuleType) -> None:
    """It is a small XML document with every line of the session, in order."""
    root = ET.parse(FIGURE).getroot()
    texts = ["".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts == generator.session(PAGE)
    assert FIGURE.stat().st_size < 40_000


def test_a_command_that_the_page_lacks_is_an_error(generator: ModuleType) -> None:
    """A page without the commands makes no picture."""
    with pytest.raises(ValueError, match="claim alice"):
        generator.picture("```console\n$ claw-runtime version\n```\n")
