"""The house stands on its floors: a module imports its own floor and those below, never one above.

A new module at the top of `claw_runtime` gets its place in `FLOORS` first; one without a place fails here.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import claw_runtime
import pytest

ROOT = Path(claw_runtime.__file__).parent
FLOORS: tuple[tuple[str, frozenset[str]], ...] = (
    ("ground", frozenset({"errors", "fsutil", "clock", "logs", "units"})),
    ("models", frozenset({"spec", "settings", "tenancy"})),
    ("ports", frozenset({"ports", "manifest", "treewalk", "treeopen", "packs", "sealing", "sqlite_snapshot"})),
    ("adapters", frozenset({"engine", "objects", "db", "secrets", "hooks"})),
    ("renderers", frozenset({"deploy"})),
    ("services", frozenset({"services"})),
    ("root", frozenset({"runtime"})),
    ("faces", frozenset({"cli", "api", "router"})),
)
LEVEL = {name: level for level, (_floor, names) in enumerate(FLOORS) for name in names}
ONLY_IN = {"podman": "engine/podman.py", "boto3": "objects/s3.py", "botocore": "objects/s3.py"}
# Services are pure logic over ports: composing them with an engine and a store is runtime.py's work.
NOT_FOR_SERVICES = frozenset({"engine", "objects"})


def modules() -> list[str]:
    """Every module below the package, as a path relative to it; the package's own `__init__` has no floor."""
    paths = (path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py"))
    return sorted(path for path in paths if path not in ("__init__.py", "__main__.py"))


def top(path: str) -> str:
    """`services/claims.py` → `services`, `errors.py` → `errors`."""
    return path.split("/", 1)[0].removesuffix(".py")


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every import, also of late ones; `from a import b` gives both `a` and `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.lineno, node.module
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
            yield from ((node.lineno, str(name.value)) for name in node.args[:1] if isinstance(name, ast.Constant))


def crossings(path: str, source: str) -> list[str]:
    """What the imports of one module break."""
    found = []
    for line, name in imported(ast.parse(source)):
        parts = name.split(".")
        if parts[0] in ONLY_IN and path != ONLY_IN[parts[0]]:
            found.append(f"{path}:{line}: only {ONLY_IN[parts[0]]} imports {parts[0]}")
        if parts[0] != "claw_runtime" or len(parts) < 2 or parts[1] not in LEVEL:
            continue
        if LEVEL[parts[1]] > LEVEL[top(path)]:
            found.append(f"{path}:{line}: {FLOORS[LEVEL[top(path)]][0]} imports {name} of {FLOORS[LEVEL[parts[1]]][0]}")
        if top(path) == "services" and parts[1] in NOT_FOR_SERVICES:
            found.append(f"{path}:{line}: a service imports the adapter {name}")
    return found


def tenant_literals(path: str, source: str) -> list[str]:
    """Lines that build a tenant's key or path; `/tenants/…` in a face is a URL, docstrings are prose."""
    tree = ast.parse(source)
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    key = re.compile(r"^tenants/" if top(path) in ("cli", "api", "router") else r"(?:^|[^\w])tenants/")
    found = []
    for node in ast.walk(tree):
        match node:
            case ast.BinOp(op=ast.Div(), right=ast.Constant(value="tenants")):
                found.append(f"{path}:{node.lineno}")
            case ast.Constant(value=str(text)) if id(node) not in prose and key.search(text):
                found.append(f"{path}:{node.lineno}")
            case _:
                pass
    return found


def test_every_module_has_a_floor() -> None:
    """A module that the floor table does not name is refused."""
    assert [path for path in modules() if top(path) not in LEVEL] == []


def test_no_module_stands_on_two_floors() -> None:
    """The table is a table: every name is in it once."""
    assert len(LEVEL) == sum(len(names) for _floor, names in FLOORS)


@pytest.mark.parametrize("path", modules())
def test_no_floor_is_crossed(path: str) -> None:
    """A module imports its own floor and below, and foreign engines and stores only where they are adapted."""
    assert crossings(path, (ROOT / path).read_text()) == []


@pytest.mark.parametrize("path", [path for path in modules() if path != "tenancy.py"])
def test_only_tenancy_builds_a_tenants_place(path: str) -> None:
    """No other module holds a `tenants/` key or path."""
    assert tenant_literals(path, (ROOT / path).read_text()) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("errors.py", "import claw_runtime.settings"),
        ("tenancy.py", "from claw_runtime import ports"),
        ("ports.py", "def f():\n    from claw_runtime.objects.s3 import S3"),
        ("services/claims.py", "from claw_runtime.daemon.assembly import Runtime"),
        ("services/claims.py", "from claw_runtime.engine import podman"),
        ("services/claims.py", "import boto3"),
        ("engine/other.py", "from podman import PodmanClient"),
        ("objects/directory.py", "import botocore.exceptions"),
        ("db/ledger.py", "importlib.import_module('claw_runtime.cli.main')"),
    ],
)
def test_a_crossing_is_found(path: str, source: str) -> None:
    """The walk sees plain, late, partial and computed imports."""
    assert crossings(path, source) != []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("packs.py", "KEY = f'tenants/{tenant}/packs'"),
        ("services/claims.py", "place = home / 'tenants' / tenant"),
        ("services/claims.py", "url = f'{base}/tenants/{tenant}'"),
        ("cli/sync.py", "key = 'tenants/alice/HEAD'"),
    ],
)
def test_a_tenant_literal_is_found(path: str, source: str) -> None:
    """The walk sees keys and paths, in plain and formatted texts."""
    assert tenant_literals(path, source) != []


@pytest.mark.parametrize(
    ("path", "source"),
    [("api/app.py", "@app.get('/tenants/{tenant}')\ndef f(): ..."), ("packs.py", '"""Lies at tenants/{id}/packs."""')],
)
def test_urls_and_prose_are_no_tenant_literals(path: str, source: str) -> None:
    """An API route and a docstring may speak of tenants."""
    assert tenant_literals(path, source) == []
