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

from verdict import refuse

TIMEOUT = 120


def check(root: Path, contract: dict[str, Any]) -> None:
    """Refuse the first tool that is missing, fails, or is the application in another version."""
    search = [f"{root}{folder}" for folder in contract["environment"]["PATH"].split(":")]
    with tempfile.TemporaryDirectory() as home:
        fixed = {name: value for name, value in contract["environment"].items() if "/" not in value}
        environment = {**fixed, "PATH": os.pathsep.join(search), "HOME": home, "NPM_CONFIG_CACHE": f"{home}/npm"}
        for tool, argv in contract["tools"].items():
            _check_tool(tool, argv, environment, contract["application"])


def _check_tool(tool: str, argv: list[str], environment: dict[str, str], application: dict[str, str]) -> None:
    folders = environment["PATH"].split(os.pathsep)
    program = next((found for folder in folders if os.access(found := f"{folder}/{argv[0]}", os.X_OK)), None)
    if program is None:
        refuse(f"{tool}: {argv[0]} is not on the image's PATH")
    try:
        done = subprocess.run(
            [program, *argv[1:]],
            env=environment,
            cwd=environment["HOME"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        refuse(f"{tool}: {error}")
    lines = (done.stdout or done.stderr).decode(errors="replace").strip().splitlines()
    if done.returncode or not lines:
        refuse(f"{tool}: `{' '.join(argv)}` exits {done.returncode}: {lines[-1] if lines else 'no answer'}")
    if tool == application["name"] and application["version"] not in lines[0]:
        refuse(f"{tool}: is {lines[0]}, the contract says {application['version']}")


if __name__ == "__main__":
    check(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()))
