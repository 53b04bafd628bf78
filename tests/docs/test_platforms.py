"""docs/PLATFORMS.md has a row for each test of the laboratory, and none that no test stands behind."""

import ast
import re
from pathlib import Path

from claw_runtime.engine import versions

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/PLATFORMS.md").read_text("utf-8")


def checks(file: Path) -> set[str]:
    """The tests of a file, without `test_`; one for each harm or stage where they have parameters."""
    tree = ast.parse(file.read_text("utf-8"))
    assigned = [one for one in tree.body if isinstance(one, ast.Assign) and isinstance(one.value, ast.Dict)]
    tables = {ast.unparse(one.targets[0]): one.value.keys for one in assigned if isinstance(one.value, ast.Dict)}
    found = set()
    for one in tree.body:
        if isinstance(one, ast.FunctionDef) and one.name.startswith("test_"):
            name = one.name.removeprefix("test_").replace("_", " ")
            keys = [key for argument in one.args.args for key in tables.get(f"{argument.arg.upper()}S", ())]
            words = [str(ast.literal_eval(key)) for key in keys if key]
            found |= {f"{name}: {word}" for word in words} or {name}
    return found


def plain(row: str) -> str:
    """A row as the name of a test can have it."""
    return row.replace("'", "").lower()


def test_the_versions_of_podman_are_the_codes() -> None:
    """Each difference of claw_runtime.engine.versions has its row, with its source, and the bounds are named."""
    for one in versions.DIFFERENCES:
        assert f"| {one.since[0]}.{one.since[1]} | {one.what} | {one.effect} | {one.source} |" in PAGE
    oldest, barred = (".".join(map(str, bound)) for bound in (versions.OLDEST, versions.BARRED))
    assert f"Podman {oldest} and newer, before {barred}." in PAGE


def test_the_rows_are_the_laboratorys_tests() -> None:
    """A new test needs a run on every platform before the page can be right again."""
    rows = set(re.findall(r"^\| ([^|`]+?) \| (?:yes|no|–) \|", PAGE, re.MULTILINE))
    tests = set().union(*map(checks, (ROOT / "tests/lab").glob("test_*.py")))
    assert set(map(plain, rows)) == set(map(plain, tests))
