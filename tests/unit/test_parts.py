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
    """Two folders are a part; of all others the marks make four parts, which together are everything."""
    [folders] = re.findall(r"--dist worksteal (.*); }$", SCRIPT, re.MULTILINE)
    [others] = re.findall(r"^others=\((.*)\)$", SCRIPT, re.MULTILINE)
    marks = re.findall(r"-m '(.*)'; }$", SCRIPT, re.MULTILINE)

    assert others.split() == ["tests", *(f"--ignore={folder}" for folder in folders.split())]
    for podman, image, timed in itertools.product((True, False), repeat=3):
        assert sum(eval(one, {"podman": podman, "image": image, "timed": timed}) for one in marks) == 1


def test_every_part_is_begun() -> None:
    """What the script can run alone, it also runs without an argument."""
    names = re.findall(r"^(\w+)\(\) { \"\$python\"", SCRIPT, re.MULTILINE)
    beside = " ".join(re.findall(r"^begin \w+ (.*)$", SCRIPT, re.MULTILINE)).split()
    [afterwards] = re.findall(r"^for part in (.*); do$", SCRIPT, re.MULTILINE)

    assert sorted([*beside, *afterwards.split()]) == sorted([*names, "tests/smoke/run"])
    assert len(names) == 5


@pytest.mark.parametrize("module", MODULES)
def test_a_module_on_podman_is_marked(module: str) -> None:
    """A test on Podman without its mark would run beside tests that share its names."""
    assert "pytest.mark.podman" in (TESTS / module).read_text(encoding="utf-8")


def test_there_are_modules_on_podman() -> None:
    """The search above finds them."""
    assert len(MODULES) >= 12
