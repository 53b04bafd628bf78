"""docs/generate_transcript.py as a module, and the commands of a page with what they printed."""

import importlib.util
import re
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

DOCS = Path(__file__).resolve().parents[2] / "docs"


@cache
def generator() -> ModuleType:
    """The generator, loaded from its file: docs/ is no package."""
    spec = importlib.util.spec_from_file_location("generate_transcript", DOCS / "generate_transcript.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pairs(page: str) -> list[tuple[str, str]]:
    """Each command of the page's `console` blocks with its output."""
    found: list[tuple[str, str]] = []
    for block in re.findall(r"^```console\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], ""))
            else:
                command, printed = found[-1]
                found[-1] = (command, f"{printed}{line}\n")
    return found


def without_outputs(page: str) -> str:
    """The page with nothing but commands in its `console` blocks."""
    return re.sub(
        r"^```console\n(.*?)^```$",
        lambda block: "".join(line for line in block[0].splitlines(keepends=True) if line[:2] in ("$ ", "``")),
        page,
        flags=re.MULTILINE | re.DOTALL,
    )
