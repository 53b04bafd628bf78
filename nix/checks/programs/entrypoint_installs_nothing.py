"""The entrypoint opens no connection and starts no installer: what a start needs is in the image.

It is read as code, not as text: imports and calls, and the words of the contract's command.
Usage: entrypoint_installs_nothing.py ENTRYPOINT CONTRACT
"""

import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from verdict import refuse

MODULES = {
    "socket",
    "ssl",
    "urllib",
    "http",
    "ftplib",
    "smtplib",
    "xmlrpc",
    "asyncio",
    "subprocess",
    "ensurepip",
    "pip",
}
CALLS = {"system", "popen", "posix_spawn", "posix_spawnp", "spawnv", "spawnve", "spawnvp", "fork", "forkpty"}
INSTALLERS = {"apt", "apt-get", "npm", "npx", "pnpm", "yarn", "bun", "pip", "pip3", "uv", "uvx", "curl", "wget", "git"}


def faults(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of each import or call that an entrypoint has no use for."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            names = []
        yield from ((node.lineno, f"import of {name}") for name in names if name.partition(".")[0] in MODULES)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CALLS:
            yield node.lineno, f"call of {node.func.attr}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "__import__":
            yield node.lineno, "call of __import__"


def check(folder: Path, argv: list[str]) -> None:
    """Refuse the first fault in the sources, or a command that is an installer."""
    sources = sorted(folder.rglob("*.py"))
    if not sources:
        refuse(f"{folder.name} has no Python sources")
    for path in sources:
        for line, what in faults(ast.parse(path.read_text())):
            refuse(f"{path.relative_to(folder)}:{line}: {what}")
    for word in argv:
        if word.rpartition("/")[2] in INSTALLERS:
            refuse(f"/exec/argv runs {word}")


if __name__ == "__main__":
    check(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text())["exec"]["argv"])
