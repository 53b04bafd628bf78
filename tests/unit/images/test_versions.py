"""The versions that a recipe supports: one file each, and one default."""

import json
from pathlib import Path
from typing import Any

import pytest
from claw_entrypoint.contract import parse
from claw_runtime.errors import InvalidSpec
from claw_runtime.images.build import Images, Recipe
from claw_runtime.images.versions import merged, read_contract, supported
from claw_runtime.spec.contract import promise
from fakes.imagetool import FakeImageTool

FOLDER = Path(__file__).parents[3] / "images/openclaw-nix"
VERSIONS = supported(FOLDER)


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """A recipe of two files: its contract and one other version."""
    (tmp_path / "versions").mkdir()
    document = {
        "image": "localhost:5000/app:dev", "name": "app", "node": "24", "build": {"npm": "11"},
        "environment": {"A": "1", "B": "2"}, "application": {"name": "app", "version": "1.0"},
    }  # fmt: skip
    (tmp_path / "contract.json").write_text(json.dumps(document))
    (tmp_path / "versions/2.0.json").write_text('{"environment": {"A": null, "C": "3"}}')
    return Recipe(folder=tmp_path, entrypoint=tmp_path)


def test_both_known_versions_are_supported_and_one_is_the_default() -> None:
    """The default is what contract.json states; a file beside it supports each other version."""
    assert list(VERSIONS) == ["2026.6.11", "2026.9.6"]
    assert read_contract(FOLDER)["application"]["version"] == VERSIONS[0]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_contract_of_each_version_is_valid(version: str) -> None:
    """The entrypoint and the runtime accept it, and it states its own version and tag."""
    contract = read_contract(FOLDER, version=version)
    tag = "dev" if version == VERSIONS[0] else version

    assert parse(contract).version == version
    assert promise(json.dumps(contract), "contract.json") is not None
    assert contract["image"] == f"localhost/openclaw-nix:{tag}"


@pytest.mark.parametrize("version", VERSIONS[1:])
def test_a_version_states_only_what_differs(version: str) -> None:
    """Each value of a version's file is another one than the default's, so nothing is written twice."""

    def repeated(patch: dict[str, Any], base: dict[str, Any], where: str = "") -> list[str]:
        found = []
        for name, value in patch.items():
            if isinstance(value, dict) and isinstance(base.get(name), dict):
                found += repeated(value, base[name], f"{where}/{name}")
            elif base.get(name) == value:
                found.append(f"{where}/{name}")
        return found

    patch = json.loads((FOLDER / "versions" / f"{version}.json").read_text())
    assert repeated(patch, read_contract(FOLDER)) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_versions_agree_on_what_a_tenant_s_state_and_values_mean(version: str) -> None:
    """Volumes, values, features, ports and the places of plugins are the same, or an upgrade would lose something."""
    contract, default = read_contract(FOLDER, version=version), read_contract(FOLDER)
    for member in ("name", "volumes", "values", "features", "ports", "plugins", "template", "writable", "tools"):
        assert contract[member] == default[member], member
    for name in ("HOME", "PATH", "OPENCLAW_STATE_DIR", "OPENCLAW_CONFIG_PATH"):
        assert contract["environment"][name] == default["environment"][name]


def test_a_version_is_merged_into_the_contract(recipe: Recipe) -> None:
    """Objects are merged, null removes; the number and the tag follow from the file's name."""
    contract = read_contract(recipe.folder, version="2.0")

    assert contract["environment"] == {"B": "2", "C": "3"}
    assert contract["application"] == {"name": "app", "version": "2.0"}
    assert contract["image"] == "localhost:5000/app:2.0"
    assert list(supported(recipe.folder)) == ["1.0", "2.0"]


def test_the_default_may_be_named(recipe: Recipe) -> None:
    """Its number asks for the same contract as no number."""
    assert read_contract(recipe.folder, version="1.0") == read_contract(recipe.folder)


@pytest.mark.parametrize("version", ["3.0", "../versions/2.0", "/etc"])
def test_an_unsupported_version_gets_the_default_s_contract(recipe: Recipe, version: str) -> None:
    """Its own number and tag apart; no file outside versions/ is read."""
    contract, default = read_contract(recipe.folder, version=version), read_contract(recipe.folder)
    assert contract["application"]["version"] == version
    assert contract["environment"] == default["environment"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "Expecting"),
        ("[]", "not a JSON object"),
        ('{"application": {"version": "2.1"}}', "application.version follows from the file's name"),
        ('{"image": "x:1"}', "image follows from the file's name"),
    ],
)
def test_a_broken_version_is_reported(recipe: Recipe, text: str, why: str) -> None:
    """The file is named, with the reason."""
    (recipe.folder / "versions/2.0.json").write_text(text)
    with pytest.raises(InvalidSpec, match=r"versions/2\.0\.json") as caught:
        read_contract(recipe.folder, version="2.0")
    assert why in caught.value.why


@pytest.mark.parametrize(
    ("document", "patch", "result"),
    [
        ({"a": 1}, {"a": 2, "b": {"c": None, "d": 1}}, {"a": 2, "b": {"d": 1}}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": None}}, {"a": {"c": 2}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": "text"}, {"a": {"b": 1}}, {"a": {"b": 1}}),
        ({"a": 1}, {}, {"a": 1}),
    ],
)
def test_merge_patch(document: Any, patch: Any, result: Any) -> None:
    """As in RFC 7396, and the document stays as it was."""
    before = json.dumps(document)
    assert merged(document, patch) == result
    assert json.dumps(document) == before


def test_a_version_has_a_tag_of_its_own(images: Images, tool: FakeImageTool) -> None:
    """Another version never takes the name of the default image, and no part of the default's version is in it."""
    top = FOLDER.parents[1]
    lines: list[str] = []
    recipe = Recipe(folder=FOLDER, entrypoint=top / "entrypoint")
    images.build(recipe, version="2026.9.6", report=lines.append)

    assert list(tool.built) == ["localhost/openclaw-nix:2026.9.6"]
    assert not [line for line in lines if "unsupported" in line]
    images.build(recipe, version="2026.7.1", report=lines.append)
    assert "localhost/openclaw-nix:2026.7.1" in tool.built
    assert [line for line in lines if line.startswith("building an unsupported version, 2026.7.1, by the contract of")]
