"""docs/API.md and docs/openapi.json cannot drift: the examples are run, and both name what the API has."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from claw_runtime.api.guard import BODY_MOST
from claw_runtime.api.idempotency import LIFETIME
from fakes.faces import listening
from fakes.world import World

DOCS = Path(__file__).resolve().parents[2] / "docs"
TEXT = (DOCS / "API.md").read_text(encoding="utf-8")
OPENAPI = (DOCS / "openapi.json").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```sh\n(.+?)^```\n\n```json\n(.+?)^```", TEXT, re.MULTILINE | re.DOTALL)
pytestmark = pytest.mark.world(filled=True)


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_openapi", DOCS / "generate_openapi.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_description_is_what_the_api_says(generator: ModuleType) -> None:
    """The committed file is what the generator writes."""
    assert generator.description() == OPENAPI, "run: python docs/generate_openapi.py"


def test_every_error_is_described_as_a_problem() -> None:
    """No operation promises another form of error than it gives."""
    for operations in json.loads(OPENAPI)["paths"].values():
        for operation in operations.values():
            assert list(operation["responses"]["default"]["content"]) == ["application/problem+json"]
            assert "422" not in operation["responses"]
            assert operation["description"]


def test_every_address_is_in_the_table_and_no_other() -> None:
    """What the API has is listed, method by method."""
    has = {
        f"{method.upper()} {path}" for path, operations in json.loads(OPENAPI)["paths"].items() for method in operations
    }
    assert set(re.findall(r"^\| `((?:GET|POST|PUT|PATCH|DELETE) [^`]+)` \|", TEXT, re.MULTILINE)) == has


def test_numbers_of_the_text_are_those_of_the_code() -> None:
    """Hours and bytes are as the text has them; the lanes are checked in tests/unit/api/test_lanes.py."""
    assert (LIFETIME, BODY_MOST) == (24 * 3600, 1 << 20)


def fits(told: Any, found: Any) -> bool:
    """Whether an answer is as an example has it: more fields do no harm, `…` is any text, numbers are any number."""
    if isinstance(told, dict):
        return isinstance(found, dict) and all(name in found and fits(told[name], found[name]) for name in told)
    if isinstance(told, list):
        return isinstance(found, list) and len(told) == len(found) and all(map(fits, told, found))
    if isinstance(told, str) and "…" in told:
        return isinstance(found, str) and found.startswith(told.split("…")[0])
    if isinstance(told, int) and not isinstance(told, bool) and told > 10_000:
        return isinstance(found, int)
    return bool(told == found)


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on this host")
def test_the_examples_do_what_they_say(world: World, tmp_path: Path) -> None:
    """Every example, one after the other in one shell, answers what stands below it."""
    assert len(EXAMPLES) >= 10
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "claw-runtime").symlink_to(Path(sys.executable).with_name("claw-runtime"))
    script = "".join(f"{{\n{command}}} > out-{n}\n" for n, (command, _) in enumerate(EXAMPLES))
    with listening(world) as (_, url):
        done = subprocess.run(
            ["bash", "-euc", script.replace("http://127.0.0.1:7070", url)],
            cwd=tmp_path,
            env={
                **{name: text for name, text in os.environ.items() if name == "PYTHONPATH"},
                "PATH": f"{programs}:{os.environ['PATH']}",
                "CLAW_HOME": str(world.layout.home),
                "CLAW_RUN": str(world.layout.run),
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    for number, (command, told) in enumerate(EXAMPLES):
        answer = json.loads((tmp_path / f"out-{number}").read_text())
        assert fits(json.loads(told), answer), f"{command}\n{answer}"


@pytest.mark.parametrize(
    ("told", "found"),
    [({"a": 1}, {"a": 2}), ({"a": 1}, {}), ([1], [1, 2]), ("claw_…", "x"), (40_000, "40000"), (True, 1.5)],
)
def test_an_answer_that_differs_is_seen(told: Any, found: Any) -> None:
    """The comparison of examples is not a nod."""
    assert not fits(told, found)
