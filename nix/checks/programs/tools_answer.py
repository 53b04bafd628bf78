"""Every tool of the contract answers its version command, found through the search path of the image.

Usage: tools_answer.py ROOT CONTRACT   (ROOT: the image's root; its links lead into the store)
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from image_root import resolve
from verdict import refuse

TIMEOUT = 120
_BY_NAME = b"#!/usr/bin/env "


def check(root: Path, contract: dict[str, Any]) -> None:
    """Refuse the first tool that is missing, fails, or is the application in another version."""
    with tempfile.TemporaryDirectory() as scratch:
        programs, home = Path(scratch, "bin"), Path(scratch, "home")
        home.mkdir()
        gather(root, contract["environment"]["PATH"], programs)
        fixed = {name: value for name, value in contract["environment"].items() if "/" not in value}
        environment = {**fixed, "PATH": str(programs), "HOME": str(home), "NPM_CONFIG_CACHE": f"{home}/npm"}
        for tool, argv in contract["tools"].items():
            answer = _answer(tool, argv, programs, environment)
            application = contract["application"]
            if tool == application["name"] and application["version"] not in answer:
                refuse(f"{tool}: is {answer}, the contract says {application['version']}")


def gather(root: Path, search: str, programs: Path) -> None:
    """A directory with a link for each program that the image's PATH finds: its links are not this machine's."""
    programs.mkdir()
    for folder in search.split(":"):
        place = resolve(root, folder)
        for entry in sorted(place.iterdir()) if place and place.is_dir() else ():
            program = resolve(root, f"{folder}/{entry.name}")
            link = programs / entry.name
            if program and not link.is_symlink():
                link.symlink_to(program)


def command(argv: list[str], programs: Path) -> list[str] | None:
    """What to run for a tool's command; None when there is no such program."""
    program = programs / argv[0]
    if not os.access(program, os.X_OK):
        return None
    with program.open("rb") as file:
        first = file.readline()
    if not first.startswith(_BY_NAME):
        return [str(program), *argv[1:]]
    # The image has /usr/bin/env, the place of this build may not.
    interpreter = programs / first.removeprefix(_BY_NAME).decode().strip()
    return [str(interpreter), os.path.realpath(program), *argv[1:]]


def _answer(tool: str, argv: list[str], programs: Path, environment: dict[str, str]) -> str:
    words = command(argv, programs)
    if words is None:
        refuse(f"{tool}: there is no {argv[0]} on the image's PATH")
    try:
        done = subprocess.run(
            words, env=environment, cwd=environment["HOME"], stdin=subprocess.DEVNULL, capture_output=True,
            timeout=TIMEOUT, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        refuse(f"{tool}: {error}")
    lines = (done.stdout or done.stderr).decode(errors="replace").strip().splitlines()
    if done.returncode or not lines:
        refuse(f"{tool}: `{' '.join(argv)}` exits {done.returncode}: {lines[-1] if lines else 'no answer'}")
    return lines[0]


if __name__ == "__main__":
    check(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()))
