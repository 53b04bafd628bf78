"""A directory that stands for the `/` of a container, furnished from the real contract and template.

The entrypoint is given it as its prefix; link targets and argv stay absolute, so the gateway is a program of the host.
"""

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import claw_entrypoint

PROJECT = Path(__file__).parents[2]
IMAGE = PROJECT / "images/openclaw-nix"
PYTHON = "/usr/bin/python3"
MAIN = """import sys

sys.path.insert(0, __file__.rpartition("/")[0])

from claw_entrypoint.cli import main

sys.exit(main(sys.argv[1:], {prefix!r}))
"""


def contract_document() -> dict[str, Any]:
    """A fresh copy of the decoded contract, to be changed at will."""
    document: dict[str, Any] = json.loads((IMAGE / "contract.json").read_text())
    return document


def template_document() -> dict[str, Any]:
    """A fresh copy of the decoded template."""
    document: dict[str, Any] = json.loads((IMAGE / "openclaw.json").read_text())
    return document


def furnish(root: Path, gateway: Sequence[str] = ("/bin/true",), **changes: object) -> Path:
    """Make the volumes, the contract (members replaced by `changes`, the gateway by `gateway`) and the template."""
    for place in ("etc/claw", "run/claw", "config", "state", "logs"):
        (root / place).mkdir(parents=True)
    document = contract_document() | changes
    document["exec"]["argv"] = list(gateway)
    (root / "etc/claw/contract.json").write_text(json.dumps(document))
    shutil.copy(IMAGE / "openclaw.json", root / "etc/claw/openclaw.json")
    return root


def hand_over(root: Path, **values: object) -> None:
    """Leave values for the start, as the runtime does at a claim."""
    (root / "run/claw/values.json").write_text(json.dumps({"v": 1, "values": values}))


def install(directory: Path, root: Path) -> Path:
    """Copy the entrypoint as an image has it, byte-compiled, its `/` being `root`; the directory to run."""
    package = Path(claw_entrypoint.__file__).parent
    shutil.copytree(package, directory / "claw_entrypoint", ignore=shutil.ignore_patterns("__pycache__"))
    (directory / "__main__.py").write_text(MAIN.format(prefix=str(root)))
    subprocess.run([PYTHON, "-I", "-S", "-m", "compileall", "-q", str(directory)], check=True)
    return directory


def events(stderr: str) -> list[dict[str, Any]]:
    """The log lines of a start."""
    return [json.loads(line) for line in stderr.splitlines()]
