"""`tests/run` runs every test once: its parts are made by folders and marks."""

import itertools
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
SCRIPT = (TESTS / "run").read_text(encoding="utf-8")
HELPERS = r"live_podman|fakes\.daemon|waiting_gateway|PodmanEngine|PodmanImageTool"
ON_PODMAN = re.compile(rf"^(?:from|import) .*\b(?:{HELPERS})\b", re.MULTILINE)
MODULES = sorted(
    path.relative_to(TESTS).as_posix()
    for path in TESTS.rglob("test_*.py")
    if path.relative_to(TESTS).parts[0] not in ("unit", "docs") and ON_PODMAN.search(path.read_text(encoding="utf-8"))
)


def test_the_parts_are_all_of_the_tests() -> None:
    """Folders make three parts of those without Podman, and marks three of those on it; the laboratory is no part."""
    parts = dict(re.findall(r"^(\w+)\(\) { \"\$python\" -m pytest (.*); }$", SCRIPT, re.MULTILINE))
    [others] = re.findall(r"^others=\(tests (.*)\)$", SCRIPT, re.MULTILINE)
    folders = {name: re.findall(r"(?<!=)\btests/\w+", line) for name, line in parts.items()}
    ignored = {name: re.findall(r"--ignore=(\S+)", line) for name, line in parts.items()}

    assert folders["units"] == ["tests/unit", "tests/docs"]
    assert re.findall(r"--ignore=(\S+)", others) == [*folders["units"], "tests/lab"]
    assert folders["torture"] == ignored["servers"]
    assert [name for name, line in parts.items() if "others" not in line] == ["units", "torture"]
    assert not any(found for name, found in ignored.items() if name != "servers")
    marks = {name: found[0] for name, line in parts.items() if (found := re.findall(r"-m '(.*)'", line))}
    assert marks.pop("servers") == marks.pop("torture")
    for podman, image, timed in itertools.product((True, False), repeat=3):
        ran = [eval(one, {"podman": podman, "image": image, "timed": timed}) for one in (*marks.values(), "not podman")]
        assert sum(ran) == 1


def test_every_part_is_begun() -> None:
    """What the script can run alone, it also runs without an argument."""
    [choices] = re.findall(r"^ +case \$part in (.*)\) ;;", SCRIPT, re.MULTILINE)
    names = re.findall(r"^(\w+)\(\) { (?:\"\$python\" -m pytest|tests/smoke/run)", SCRIPT, re.MULTILINE)
    beside = " ".join(re.findall(r"^begin \w+ (.*)$", SCRIPT, re.MULTILINE)).split()
    alone = re.findall(r"^(\w+) \|\| status=1$", SCRIPT, re.MULTILINE)

    assert sorted([*beside, *alone]) == sorted(names) == sorted(choices.split(" | "))
    assert alone == ["timed", "ready"]
    assert len(names) == 9


@pytest.mark.parametrize("module", MODULES)
def test_a_module_on_podman_is_marked(module: str) -> None:
    """A test on Podman without its mark would run beside tests that share its names."""
    assert "pytest.mark.podman" in (TESTS / module).read_text(encoding="utf-8")


def test_there_are_modules_on_podman() -> None:
    """The search above finds them."""
    assert len(MODULES) >= 12
