"""docs/WORKLOAD.md and docs/workload.schema.json cannot drift: they are held against the models, key by key."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from claw_runtime.spec import ingress, lifecycle, loader, marks, plan, sync, workload
from claw_runtime.spec.schema import schema
from claw_runtime.spec.shapes import Closed

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "WORKLOAD.md").read_text(encoding="utf-8")
CONTRACT = (ROOT / "images/openclaw-nix/contract.json").read_text()
LEVELS = {"DeployFile", "ResourcesFile"}  # they only lead to the limits
MODELS = [
    found
    for module in (workload, lifecycle, ingress, sync)
    for found in vars(module).values()
    if isinstance(found, type) and issubclass(found, Closed) and found.__module__ == module.__name__
]
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
NEEDED: dict[str, dict[str, Any]] = {
    "WorkloadFile": {"id": "a", "image": "b", "variables": {"region": "eu"}},
    "VolumeFile": {"target": "/x"},
    "PortFile": {"container": 1},
    "HookFile": {"command": ["x"], "on_error": "retry"},
    "SinkFile": {"type": "s3", "bucket": "abc", "access_key_id": "x", "secret_access_key": "x"},
    "MappingFile": {"path": "x"},
    "WebhookFile": {"path": "/x"},
}


def rows(model: type[Closed]) -> dict[str, list[str]]:
    """Key → example and meaning, of the table behind the model's name."""
    found = re.search(rf"<!-- {model.__name__} -->\n\|.*\n\|[-|]+\n((?:\|.*\n)+)", TEXT)
    assert found is not None, f"no table for {model.__name__}"
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in found[1].splitlines()]
    return {row[0].strip("` |"): [row[1].strip("`"), row[2]] for row in cells}


@pytest.mark.parametrize("model", [m for m in MODELS if m.__name__ not in LEVELS], ids=lambda m: m.__name__)
def test_every_key_is_documented(model: type[Closed]) -> None:
    """Each table has exactly the keys of its model, with the meaning that editors show."""
    assert {key: row[1] for key, row in rows(model).items()} == {
        name: field.description for name, field in model.model_fields.items()
    }


@pytest.mark.parametrize("model", [m for m in MODELS if m.__name__ not in LEVELS], ids=lambda m: m.__name__)
def test_every_example_of_a_key_is_valid(model: type[Closed]) -> None:
    """What a table gives as an example can be written there."""
    for key, (example, _meaning) in rows(model).items():
        data = marks.read(f"{key}: {example}\n".encode()).data
        model.model_validate({**NEEDED.get(model.__name__, {}), **data})


@pytest.mark.parametrize("text", EXAMPLES, ids=lambda text: re.search(r"^id: (.*)$", text, re.MULTILINE)[1])
def test_every_whole_example_loads(text: str) -> None:
    """Each fenced file loads, without a hint that it is oddly written, and makes a plan."""
    document = loader.parse(text, Path("example.yaml"))
    assert [document.told(hint) for hint in document.hints if hint.kind == "deprecated"] == []
    made = plan.make(document, CONTRACT if document.workload.id == "openclaw" else None)
    assert made.tiers[0] == "created"


def test_the_sections_have_examples() -> None:
    """The page has a whole file for what is hard to guess."""
    assert len(EXAMPLES) >= 8


def test_the_committed_schema_is_what_the_models_say() -> None:
    """Editors check what the loader checks."""
    committed = json.loads((ROOT / "docs" / "workload.schema.json").read_text(encoding="utf-8"))
    assert committed == schema(), "run: claw-runtime config schema > docs/workload.schema.json"


def test_every_key_of_the_schema_is_described() -> None:
    """No key is without a word for whoever hovers over it."""
    whole = schema()
    for model in (whole, *whole["$defs"].values()):
        for name, value in model["properties"].items():
            assert value["description"], name


@pytest.mark.parametrize("example", sorted((ROOT / "docs/examples").glob("*/workload*.yaml")), ids=lambda p: p.stem)
def test_the_schema_takes_the_examples(example: Path) -> None:
    """Whoever opens an example in an editor sees no error, in either dialect."""
    jsonschema = pytest.importorskip("jsonschema")
    found = jsonschema.Draft202012Validator(schema()).iter_errors(marks.read(example.read_bytes()).data)
    assert [error.message for error in found] == []


def test_the_schema_refuses_what_is_unknown() -> None:
    """A misspelt key is underlined, at any depth."""
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(schema())
    for wrong in ({"imag": "b"}, {"pool": {"min_siz": 1}}, {"sync": {"policy": {"intervall": "1m"}}}):
        assert not validator.is_valid({"id": "a", "image": "b", **wrong})
