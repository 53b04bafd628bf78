"""The application itself accepts the configuration that the entrypoint makes of the template: full, and without values.

Usage: template_is_valid.py ROOT CONTRACT TEMPLATE ENTRYPOINT
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from image_root import resolve
from tools_answer import gather
from verdict import refuse

SAMPLE = {"OPENCLAW_MATRIX_HOMESERVER": "https://matrix.example.org", "CLAW_MODEL_BASE_URL": "http://127.0.0.1:9/v1"}


def real(root: Path, node: Any) -> Any:
    """The document with every path of the image that exists replaced by its real place."""
    if isinstance(node, dict):
        return {key: real(root, item) for key, item in node.items()}
    if isinstance(node, list):
        return [real(root, item) for item in node]
    if isinstance(node, str) and node.startswith("/opt/"):
        place = resolve(root, node)
        return str(place) if place else node
    return node


def check(root: Path, document: dict[str, Any], contract: Any, what: str) -> None:
    """Refuse what the application's own `config validate` refuses.

    Everything is written below the working directory, which Nix makes for the build. The application refuses a
    temporary directory that another user owns, and without a sandbox the host's /tmp may have one.
    """
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as scratch:
        configuration, state, temporary = (Path(scratch, name) for name in ("openclaw.json", "state", "tmp"))
        configuration.write_text(json.dumps(real(root, document)))
        state.mkdir()
        temporary.mkdir(mode=0o700)
        gather(root, contract.environment["PATH"], Path(scratch, "bin"))
        fixed = {name: value for name, value in contract.environment.items() if "/" not in value}
        places = {"OPENCLAW_CONFIG_PATH": str(configuration), "OPENCLAW_STATE_DIR": str(state), "HOME": scratch}
        places["TMPDIR"] = str(temporary)
        words = [word for word in contract.exec.argv if word.startswith("/")]
        command = [str(resolve(root, word)) for word in words]
        done = subprocess.run(
            [*command, "config", "validate", "--json"],
            env={**fixed, **places, "PATH": str(Path(scratch, "bin"))},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=120,
            check=False,
        )
    text = (done.stdout + done.stderr).decode(errors="replace")
    if done.returncode:
        refuse(f"{what}: {_reason(text)}")


def _reason(text: str) -> str:
    """The issues of `--json`, or else the whole answer."""
    start = text.find("{")
    try:
        issues = json.JSONDecoder().raw_decode(text[start:])[0]["issues"]
        told = "; ".join(f"{issue.get('path', '?')}: {issue.get('message', '?')}" for issue in issues)
    except (ValueError, KeyError, TypeError, AttributeError):
        told = ""
    return told or text.strip() or "no answer"


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[4])
    from claw_entrypoint.contract import load
    from claw_entrypoint.log import Log
    from claw_entrypoint.render import render

    promised, log = load(sys.argv[2]), Log(strict=True)
    template = json.loads(Path(sys.argv[3]).read_text())
    every = {name: SAMPLE.get(name, "sample") for name in promised.values}
    least = {name: "sample" for name, value in promised.values.items() if value.need != "optional"}
    os.environ.clear()
    for what, given in (("with every value", every), ("with the least", least)):
        check(Path(sys.argv[1]), render(template, promised, given, log), promised, what)
