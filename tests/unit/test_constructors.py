"""A class takes at most eight parameters: one that needs more does several things, or its parameters belong together.

Dataclasses do not count: their fields are named where they are set.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import claw_runtime
import pytest

ROOT = Path(claw_runtime.__file__).parent
MOST = 8


def wide(path: str, source: str) -> Iterator[str]:
    """The classes of a module whose constructor takes more parameters besides `self`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef):
            for made in node.body:
                if isinstance(made, ast.FunctionDef) and made.name == "__init__" and parameters(made) > MOST:
                    yield f"{path}: {node.name}"


def parameters(function: ast.FunctionDef) -> int:
    """How many values a caller can give, `self` excepted; `*more` and `**more` are one each."""
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return len(named) - 1 + (arguments.vararg is not None) + (arguments.kwarg is not None)


def test_no_constructor_takes_more_than_eight_parameters() -> None:
    """Every class of the package is looked at, nested ones too."""
    found = [
        name
        for path in sorted(ROOT.rglob("*.py"))
        for name in wide(path.relative_to(ROOT).as_posix(), path.read_text())
    ]

    assert found == []


@pytest.mark.parametrize(
    ("signature", "count"),
    [
        ("self", 0),
        ("self, a, b=1", 2),
        ("self, a, /, b, *, c, d=None", 4),
        ("self, *a, b, **c", 3),
        ("self, a, b, c, d, e, f, g, h", 8),
        ("self, a, b, c, d, e, f, g, *, h, i=0", 9),
    ],
)
def test_every_kind_of_parameter_counts(signature: str, count: int) -> None:
    """Positional, keyword-only, optional and collected parameters are all counted, and more than eight are found."""
    source = f"class C:\n    class D:\n        def __init__({signature}) -> None: ..."
    module = ast.parse(source)
    function = next(node for node in ast.walk(module) if isinstance(node, ast.FunctionDef))

    assert parameters(function) == count
    assert list(wide("m.py", source)) == (["m.py: D"] if count > MOST else [])
