"""Building and loading images, over fakes: what the build is given, and what happens to the result."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from claw_runtime.errors import BuildFailed, InvalidSpec
from claw_runtime.images.build import BASE, Images, Recipe, arguments, render_end, write_context
from fakes.clock import FakeClock
from fakes.engine import FakeEngine
from fakes.imagetool import FakeImageTool

TOP = Path(__file__).parents[3]
FOLDER = TOP / "images/openclaw-nix"
REFERENCE = "localhost/openclaw-nix:dev"


def _silent(line: str) -> None:
    """Nobody listens."""


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """A copy of the real recipe, for a test to change."""
    for name in ("images/openclaw-nix", "entrypoint/claw_entrypoint"):
        shutil.copytree(TOP / name, tmp_path / name)
    shutil.copy(TOP / "entrypoint/__main__.py", tmp_path / "entrypoint")
    return Recipe(folder=tmp_path / "images/openclaw-nix", entrypoint=tmp_path / "entrypoint")


def test_a_build_makes_its_base_once(images: Images, tool: FakeImageTool, recipe: Recipe) -> None:
    """Without --base the base image is made from the host's mirrors, and the next build uses it again."""
    images.build(recipe, report=_silent)
    images.build(recipe, report=_silent)
    assert tool.bases == [BASE]
    assert tool.built[REFERENCE]["BASE"] == BASE


def test_a_given_base_is_used_and_none_is_made(images: Images, tool: FakeImageTool, recipe: Recipe) -> None:
    """--base debian:bookworm-slim is passed on as it is."""
    images.build(recipe, base="debian:bookworm-slim", report=_silent)
    assert tool.bases == []
    assert tool.built[REFERENCE]["BASE"] == "debian:bookworm-slim"


def test_a_built_image_is_mapped_before_anybody_needs_it(images: Images, tool: FakeImageTool, recipe: Recipe) -> None:
    """The slow first copy of the layers is done by the build, never by a claim."""
    built = images.build(recipe, report=_silent)
    assert tool._engine.mapped == [REFERENCE]
    assert set(built.seconds) == {"base", "build", "map"}


def test_the_version_is_one_value(images: Images, tool: FakeImageTool, recipe: Recipe) -> None:
    """Another version reaches the install steps, the label, and the contract that the image carries."""
    images.build(recipe, version="2026.9.6", reference="localhost/x:9", report=_silent)
    assert tool.built["localhost/x:9"]["VERSION"] == "2026.9.6"
    context = tool.contexts["localhost/x:9"]
    assert json.loads(context["contract.json"])["application"]["version"] == "2026.9.6"
    assert 'org.opencontainers.image.version="2026.9.6"' in context["Containerfile"]
    assert not [name for name, text in context.items() if "2026.6.11" in text]


def test_no_value_of_the_contract_is_typed_again_in_the_recipe(contract: dict[str, Any]) -> None:
    """Versions, the state's paths and the port are in contract.json only; Containerfile and steps get them passed."""
    values = {*contract["environment"].values(), contract["application"]["version"], contract["node"], "18789"}
    values -= {"0", "1", "C.UTF-8"}
    for path in [FOLDER / "Containerfile", *sorted((FOLDER / "steps").glob("*.sh"))]:
        text = path.read_text()
        assert not [value for value in values if re.search(rf"(?<![\w/]){re.escape(value)}(?![\w/])", text)], path


def test_the_build_sees_a_small_context(images: Images, tool: FakeImageTool, recipe: Recipe) -> None:
    """Only the recipe and the entrypoint's sources: no cache, no packaging, nothing of the repository."""
    (recipe.entrypoint / "claw_entrypoint/__pycache__").mkdir(exist_ok=True)
    (recipe.entrypoint / "claw_entrypoint/__pycache__/x.pyc").write_bytes(b"\0")
    (recipe.folder / "notes.txt").write_text("private")
    images.build(recipe, report=_silent)
    names = set(tool.contexts[REFERENCE])
    assert {"Containerfile", "contract.json", "openclaw.json", "tool-shell", "entrypoint/__main__.py"} < names
    others = names - {"Containerfile", "contract.json", "openclaw.json", "tool-shell"}
    assert all(name.endswith((".py", ".sh", ".mjs")) for name in others)


def test_a_context_is_the_same_bytes_each_time(tmp_path: Path, recipe: Recipe, contract: dict[str, Any]) -> None:
    """Same files, modes and times, so that layers are found again and two hosts build the same revision."""
    stats = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_context(tmp_path / name, recipe, contract, BASE)
        files = sorted((tmp_path / name).rglob("*"))
        stats.append([(p.relative_to(tmp_path / name), p.stat().st_mode, p.stat().st_mtime) for p in files])
    assert stats[0] == stats[1]
    assert {mtime for _, _, mtime in stats[0]} == {0}
    assert (tmp_path / "a/Containerfile").read_bytes() == (tmp_path / "b/Containerfile").read_bytes()


def test_only_heavy_arguments_reach_heavy_steps(contract: dict[str, Any]) -> None:
    """Environment, ports and values are no build arguments: changing one must not install everything again."""
    before = arguments(contract)
    changed = contract | {"environment": {"A": "b"}, "ports": {"gateway": 1}, "values": {}, "limits": {}}
    assert arguments(changed) == before


@pytest.mark.parametrize("value", ['a"b', "a$HOME", "a\\", "a b", "${X}"])
def test_values_reach_the_image_as_they_are(contract: dict[str, Any], value: str) -> None:
    """A quote, a dollar or a backslash in a value is escaped for the Containerfile."""
    end = render_end(contract | {"environment": {"NAME": value}}, "r", BASE)
    line = end.splitlines()[0].removeprefix('ENV NAME="').removesuffix('"')
    plain, index = "", 0
    while index < len(line):
        index += line[index] == "\\"
        assert line[index - 1] == "\\" or line[index] not in '"$'
        plain += line[index]
        index += 1
    assert plain == value


def test_a_line_break_in_a_value_is_refused(contract: dict[str, Any]) -> None:
    """It could begin an instruction of its own."""
    with pytest.raises(InvalidSpec, match="line break"):
        render_end(contract | {"environment": {"A": "b\nUSER root"}}, "r", BASE)


@pytest.mark.parametrize(
    ("change", "options", "builds"),
    [("", {}, 1), ("", {"rebuild": True}, 2), ("", {"base": "other"}, 2), ("entrypoint/__main__.py", {}, 2)],
    ids=["nothing", "told to", "another base", "another entrypoint"],
)
def test_an_image_is_built_again_only_when_something_changed(
    recipe: Recipe, change: str, options: dict[str, Any], builds: int
) -> None:
    """The second build of the same bytes on the same base does nothing; any other builds."""
    engine = FakeEngine()
    tool = FakeImageTool(engine)
    images = Images(engine, tool, FakeClock())
    images.build(recipe, report=_silent)
    if change:
        with (recipe.folder.parents[1] / change).open("a") as file:
            file.write("# changed\n")

    images.build(recipe, report=_silent, **options)

    assert tool.builds == builds


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"image": 1}'])
def test_a_broken_contract_is_reported(recipe: Recipe, images: Images, text: str) -> None:
    """Not a traceback: the file is named."""
    (recipe.folder / "contract.json").write_text(text)
    with pytest.raises(InvalidSpec, match=r"contract\.json"):
        images.build(recipe, report=_silent)


def test_a_folder_without_a_contract_is_no_recipe(images: Images, tmp_path: Path) -> None:
    """The hint names where recipes are."""
    with pytest.raises(InvalidSpec) as caught:
        images.build(Recipe(folder=tmp_path, entrypoint=tmp_path), report=_silent)
    assert "images/" in caught.value.hint


def test_a_failed_build_maps_nothing(images: Images, tool: FakeImageTool, recipe: Recipe) -> None:
    """An older image of that name stays as it was."""
    tool.failure = BuildFailed("building failed")
    with pytest.raises(BuildFailed):
        images.build(recipe, report=_silent)
    assert tool._engine.mapped == []


def test_loaded_images_are_mapped(images: Images, tool: FakeImageTool, tmp_path: Path) -> None:
    """Every name of the archive is ready for its first container."""
    (tmp_path / "archive").write_text("localhost/a:1 localhost/b:1")
    loaded = images.load(tmp_path / "archive", report=_silent)
    assert [built.reference for built in loaded] == ["localhost/a:1", "localhost/b:1"] == tool._engine.mapped
