"""The house has rooms and walls: a module imports its own room and the rooms of lower floors, never one above.

Rooms of one floor do not import each other, except the pairs in `DOORS`. A new room gets its place in `FLOORS` first;
one without a place fails here. `state` has floors of its own.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import claw_runtime
import pytest

ROOT = Path(claw_runtime.__file__).parent
FLOORS: tuple[tuple[str, frozenset[str]], ...] = (
    ("ground", frozenset({"errors", "fsutil", "clock", "logs", "units", "concurrency", "reserve", "unix_http"})),
    ("router", frozenset({"router"})),
    ("names", frozenset({"tenancy", "seccomp"})),
    ("seams", frozenset({"ports", "spec", "settings", "safefs"})),
    ("formats", frozenset({"formats", "telemetry"})),
    ("adapters", frozenset({"engine", "objects", "db", "secrets", "systemd"})),
    ("engines", frozenset({"pools", "state", "images", "access", "deploy"})),
    ("tenants", frozenset({"tenants", "workloads", "interchange"})),
    ("operations", frozenset({"upgrades", "operations", "ingress"})),
    ("daemon", frozenset({"daemon"})),
    ("faces", frozenset({"cli", "api"})),
)
STATE: tuple[tuple[str, frozenset[str]], ...] = (
    ("databases", frozenset({"sqlite"})),
    ("parts", frozenset({"lease", "keyring", "rules", "restore"})),
    ("history", frozenset({"history"})),
    ("commit", frozenset({"commit"})),
    ("restorer", frozenset({"restorer"})),
    ("repository", frozenset({"repository"})),
    ("views", frozenset({"snapshots", "verify", "plain_view"})),
)
DOORS = frozenset({("cli", "api")})
"""Rooms that know a room of their own floor: the command line is a client of the API."""

COMMAND = "claw_runtime.engine.command"
"""The one adapter that the command line may import: verbs that hand a terminal over become Podman themselves."""

INPUT_OUTPUT = frozenset({"os", "io", "shutil", "socket", "subprocess", "tempfile", "urllib", "http"})
"""Modules that read or write; `deploy` turns data into text and imports none of them."""
TOUCHES = frozenset(
    {"open", "read_text", "read_bytes", "write_text", "write_bytes", "mkdir", "unlink", "stat", "exists"}
)
"""Calls that read or write files, which `deploy` does not make either."""

LEVEL = {name: level for level, (_floor, names) in enumerate(FLOORS) for name in names}
STATE_LEVEL = {name: level for level, (_floor, names) in enumerate(STATE) for name in names}
ADAPTERS = dict(FLOORS)["adapters"]
ONLY_IN = {"podman": "engine/podman.py", "boto3": "objects/s3.py", "botocore": "objects/s3.py"}
PUBLIC_FACE = ("upgrades", "claw_runtime.tenants", "claw_runtime.tenants.tenants")
"""Upgrades see of the tenants' room its public face alone."""


def modules() -> list[str]:
    """Every module below the package, as a path relative to it; the package's own `__init__` has no floor."""
    paths = (path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py"))
    return sorted(path for path in paths if path not in ("__init__.py", "__main__.py"))


def top(path: str) -> str:
    """`tenants/claim.py` → `tenants`, `errors.py` → `errors`."""
    return path.split("/", 1)[0].removesuffix(".py")


def state_room(parts: list[str]) -> str | None:
    """The room inside `state` of a path's or a dotted name's parts; None outside."""
    return parts[1].removesuffix(".py") if parts[0] == "state" and len(parts) > 1 else None


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
    """What the imports of one module break: the two files, and the import."""
    found = []
    room = top(path)
    for line, name in imported(ast.parse(source)):
        parts = name.split(".")
        if parts[0] in ONLY_IN and path != ONLY_IN[parts[0]]:
            found.append(f"{path}:{line}: only {ONLY_IN[parts[0]]} imports {parts[0]}")
        if parts[0] != "claw_runtime" or len(parts) < 2 or parts[1] not in LEVEL:
            continue
        other, where = parts[1], "/".join(parts[1:])
        if other != room and LEVEL[other] >= LEVEL[room] and (room, other) not in DOORS:
            found.append(f"{path}:{line}: the room {room} imports {where}")
        if other in ADAPTERS and room not in (other, "daemon") and not (room == "cli" and is_command(name)):
            found.append(f"{path}:{line}: only daemon imports the adapter {where}")
        if room == PUBLIC_FACE[0] and name.startswith(PUBLIC_FACE[1]) and not name.startswith(PUBLIC_FACE[2]):
            found.append(f"{path}:{line}: upgrades import {where} past {PUBLIC_FACE[2]}")
        inner, target = state_room(path.split("/")), state_room(parts[1:])
        inside = inner in STATE_LEVEL and target in STATE_LEVEL and inner != target
        if inside and STATE_LEVEL[target or ""] >= STATE_LEVEL[inner or ""]:
            found.append(f"{path}:{line}: the room state/{inner} imports {where}")
    return found


def is_command(name: str) -> bool:
    """Whether an import names engine/command.py, or the package on the way to it."""
    return name in ("claw_runtime.engine", COMMAND) or name.startswith(f"{COMMAND}.")


def touches(source: str) -> list[str]:
    """What in a module reads or writes: its imports, and calls of `open` and of methods of a path."""
    tree = ast.parse(source)
    imports = [name for _line, name in imported(tree) if name.split(".")[0] in INPUT_OUTPUT]
    functions = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    names = [getattr(function, "attr", getattr(function, "id", "")) for function in functions]
    return imports + [name for name in names if name in TOUCHES]


def tenant_literals(path: str, source: str) -> list[str]:
    """Lines that build a tenant's key or path; `/tenants/…` in a face is a URL, docstrings are prose."""
    tree = ast.parse(source)
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    key = re.compile(r"^tenants/" if top(path) in ("cli", "api") else r"(?:^|[^\w])tenants/")
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


def test_every_module_of_state_has_a_room() -> None:
    """A module of `state` that its own table does not name is refused."""
    inside = [path for path in modules() if top(path) == "state" and path != "state/__init__.py"]
    assert len(inside) > 20
    assert [path for path in inside if state_room(path.split("/")) not in STATE_LEVEL] == []


def test_no_room_stands_on_two_floors() -> None:
    """The tables are tables: every name is in its table once."""
    assert len(LEVEL) == sum(len(names) for _floor, names in FLOORS)
    assert len(STATE_LEVEL) == sum(len(names) for _floor, names in STATE)


def test_no_room_is_a_pile() -> None:
    """No folder has more than 36 modules."""
    folders = [path.rpartition("/")[0] for path in modules()]
    assert {folder: folders.count(folder) for folder in folders if folders.count(folder) > 36} == {}


@pytest.mark.parametrize("path", modules())
def test_no_wall_is_broken(path: str) -> None:
    """A module imports its own room and lower floors, and foreign engines and stores only where they are adapted."""
    assert crossings(path, (ROOT / path).read_text()) == []


@pytest.mark.parametrize("path", [path for path in modules() if top(path) == "deploy"])
def test_deploy_does_no_input_or_output(path: str) -> None:
    """It turns data into text; the callers read and write."""
    assert touches((ROOT / path).read_text()) == []


@pytest.mark.parametrize("source", ["import os", "from shutil import copy", "Path('x').write_text('y')", "open('x')"])
def test_input_and_output_are_found(source: str) -> None:
    """Imports, the function and the methods of a path."""
    assert touches(source) != []


@pytest.mark.parametrize("path", [path for path in modules() if path != "tenancy.py"])
def test_only_tenancy_builds_a_tenants_place(path: str) -> None:
    """No other module holds a `tenants/` key or path."""
    assert tenant_literals(path, (ROOT / path).read_text()) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("errors.py", "import claw_runtime.settings"),
        ("tenancy.py", "from claw_runtime import ports"),
        ("ports/engine.py", "def f():\n    from claw_runtime.objects.s3 import S3"),
        ("tenants/claim.py", "from claw_runtime.daemon.assembly import Runtime"),
        ("tenants/claim.py", "from claw_runtime.engine import podman"),
        ("tenants/claim.py", "import boto3"),
        ("tenants/claim.py", "from claw_runtime.interchange import tar_in"),
        ("pools/slots.py", "from claw_runtime.state.repository import Repository"),
        ("pools/slots.py", "from claw_runtime.tenants import locks"),
        ("state/repository.py", "from claw_runtime.pools import pools"),
        ("state/repository.py", "from claw_runtime.tenants.tenants import Tenants"),
        ("state/history/pins.py", "from claw_runtime.state.commit import commit"),
        ("state/lease/heads.py", "from claw_runtime.state.rules import selection"),
        ("state/commit/commit.py", "from claw_runtime.state.repository import Repository"),
        ("state/restorer.py", "from claw_runtime.state.repository import Repository"),
        ("upgrades/plan.py", "from claw_runtime.tenants import release"),
        ("cli/claim_verb.py", "from claw_runtime.engine.podman import PodmanEngine"),
        ("api/app.py", "from claw_runtime.objects import memory"),
        ("api/app.py", "from claw_runtime.cli import main"),
        ("engine/other.py", "from podman import PodmanClient"),
        ("objects/directory.py", "import botocore.exceptions"),
        ("router/door.py", "from claw_runtime.tenancy import TenantId"),
        ("db/ledger.py", "importlib.import_module('claw_runtime.cli.main')"),
    ],
)
def test_a_crossing_is_found(path: str, source: str) -> None:
    """The walk sees plain, late, partial and computed imports."""
    assert crossings(path, source) != []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("formats/pack.py", "KEY = f'tenants/{tenant}/packs'"),
        ("tenants/claim.py", "place = home / 'tenants' / tenant"),
        ("tenants/claim.py", "url = f'{base}/tenants/{tenant}'"),
        ("cli/sync.py", "key = 'tenants/alice/HEAD'"),
    ],
)
def test_a_tenant_literal_is_found(path: str, source: str) -> None:
    """The walk sees keys and paths, in plain and formatted texts."""
    assert tenant_literals(path, source) != []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("api/app.py", "@app.get('/tenants/{tenant}')\ndef f(): ..."),
        ("formats/pack.py", '"""Lies at tenants/{id}/packs."""'),
    ],
)
def test_urls_and_prose_are_no_tenant_literals(path: str, source: str) -> None:
    """An API route and a docstring may speak of tenants."""
    assert tenant_literals(path, source) == []
