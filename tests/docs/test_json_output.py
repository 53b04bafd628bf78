"""docs/JSON_OUTPUT.md documents every field that is printed, and no other."""

import json
import re
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from claw_runtime.api import schemas, snapshots
from claw_runtime.api.schemas import _Wire
from claw_runtime.cli import image_verb, output, port_verb
from claw_runtime.cli import main as cli
from claw_runtime.errors import ClawError
from claw_runtime.operations.doctor import Finding

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "JSON_OUTPUT.md").read_text(encoding="utf-8")
KNOWN = {**vars(schemas), **vars(snapshots)}.values()
WIRE = [cls for cls in KNOWN if isinstance(cls, type) and issubclass(cls, _Wire)]
MODELS = [cls for cls in WIRE if cls not in (_Wire, schemas._Request)]


def documented(name: str) -> dict[str, str]:
    """Field → type, of the table behind `<!-- name -->`."""
    found = re.search(rf"<!-- {name} -->\n\|.*\n\|[-|]+\n((?:\|.*\n)+)", TEXT)
    assert found is not None, f"no table for {name}"
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in found[1].splitlines()]
    assert all(len(row) == 3 and row[2] for row in rows), "each field has a type and a meaning"
    return {row[0].strip("`"): row[1] for row in rows}


def json_of(property_: dict[str, object]) -> str:
    """A JSON Schema property in the words of the document."""
    words = {"string": "text", "integer": "number", "number": "number", "boolean": "boolean", "object": "object"}
    if "anyOf" in property_:
        return " or ".join(json_of(choice) for choice in property_["anyOf"])  # type: ignore[attr-defined]
    if property_.get("type") == "null":
        return "null"
    if property_.get("type") == "array":
        return f"list of {json_of(property_['items'])}s"  # type: ignore[arg-type]
    return "object" if "$ref" in property_ else words[str(property_["type"])]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_field_of_the_api_is_documented_with_its_type(model: type[_Wire]) -> None:
    """The table of each request and answer has exactly its fields, each with the type that it has."""
    properties = model.model_json_schema()["properties"]
    assert documented(model.__name__) == {name: json_of(told) for name, told in properties.items()}


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_word_of_the_api_is_documented(model: type[_Wire]) -> None:
    """Where a field takes a few words only, each one is named somewhere in its table."""
    for told in model.model_json_schema()["properties"].values():
        for word in [*told.get("enum", ()), *([told["const"]] if "const" in told else [])]:
            assert f"`{word}`" in TEXT


def test_findings_are_documented() -> None:
    """A finding of doctor is printed field by field."""
    assert list(documented("Finding")) == [field.name for field in fields(Finding)]


def test_images_are_documented(capsys: pytest.CaptureFixture[str]) -> None:
    """What build and load print is what the table has."""
    built = SimpleNamespace(reference="r", image=SimpleNamespace(digest="d", id="i", size=1), seconds={"build": 1.23})
    image_verb._show(output.Context(form="json"), [built])
    assert json.loads(capsys.readouterr().out).keys() == documented("image").keys()


def test_an_inspection_is_documented(capsys: pytest.CaptureFixture[str]) -> None:
    """What inspect prints is what the table has."""
    image = SimpleNamespace(digest="d", id="i", size=1)
    told = {"labels": {}, "application": "a 1", "revision": "r", "bill": None}
    found = SimpleNamespace(reference="r", image=image, **told)
    image_verb._tell(output.Context(form="json"), found)  # type: ignore[arg-type]
    assert json.loads(capsys.readouterr().out).keys() == documented("inspection").keys()


def test_checks_are_documented(capsys: pytest.CaptureFixture[str]) -> None:
    """What verify prints is what the table has."""
    checks = [SimpleNamespace(name="n", ok=True, detail="d")]
    image_verb._checks(output.Context(form="json"), checks)
    assert json.loads(capsys.readouterr().out)[0].keys() == documented("check").keys()


def test_published_ports_are_documented(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What port prints is what the table has."""
    monkeypatch.setattr(port_verb.running, "container_of", lambda *_: "c")
    monkeypatch.setattr(port_verb.running, "answer", lambda _: b"8080/tcp -> 127.0.0.1:40123\n")
    with pytest.raises(SystemExit):
        cli.main(["port", "alice", "-o", "json"])
    assert json.loads(capsys.readouterr().out)[0].keys() == documented("published").keys()


def test_version_is_documented(capsys: pytest.CaptureFixture[str]) -> None:
    """What version prints is what the table has."""
    with pytest.raises(SystemExit):
        cli.main(["version", "-o", "json"])
    assert json.loads(capsys.readouterr().out).keys() == documented("version").keys()


def test_errors_are_documented(capsys: pytest.CaptureFixture[str]) -> None:
    """An error as JSON has the fields of its table."""
    output.error(ClawError("it went wrong"), "json")
    told = json.loads(capsys.readouterr().err)
    assert told.keys() == documented("exit_error").keys()
    assert f"`{told['messageType']}`" in TEXT


def verbs(group: click.Group, path: str = "") -> dict[str, click.Command]:
    """Every verb that does something, by its words."""
    found: dict[str, click.Command] = {}
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        assert command is not None
        words = f"{path} {name}".strip()
        found |= verbs(command, words) if isinstance(command, click.Group) else {words: command}
    return found


WITH_JSON = [
    words for words, verb in verbs(cli.command).items() if any(option.name == "form" for option in verb.params)
]


@pytest.mark.parametrize("words", WITH_JSON)
def test_every_verb_with_json_has_its_place(words: str) -> None:
    """A verb that takes `-o json` is shown with it, below a heading of its own."""
    assert re.search(rf"`claw-runtime {words}( [A-Z]+)* -o json`", TEXT)
    assert re.search(rf"^## (.*, )?{words}(,.*)?$", TEXT, re.MULTILINE)
