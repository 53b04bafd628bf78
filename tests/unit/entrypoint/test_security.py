"""What a tenant leaves in its state, and what stands in the environment, cannot get hold of the next start."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes.image_root import PYTHON, events, furnish, hand_over, install

pytestmark = pytest.mark.spawns

Start = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A furnished root whose gateway prints a word."""
    return furnish(tmp_path / "root", ["/usr/bin/printf", "genuine"])


@pytest.fixture
def start(tmp_path: Path, root: Path) -> Start:
    """Start the entrypoint in the tenant's workspace."""
    library = install(tmp_path / "lib", root)
    (root / "state/workspace").mkdir(exist_ok=True)

    def run(*argv: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [PYTHON, "-I", "-S", str(library), *argv],
            env={"PATH": "/usr/bin:/bin"} | environment,
            cwd=root / "state/workspace",
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_no_python_file_of_the_tenant_is_imported(root: Path, start: Start, tmp_path: Path) -> None:
    """usercustomize, sitecustomize, shadows of our modules in HOME, the working directory and PYTHON* run nothing."""
    evil = f"open({str(tmp_path / 'owned')!r}, 'w').close()\n"
    home, workspace = root / "state/home", root / "state/workspace"
    packages = home / ".local/lib/python3.11/site-packages"
    for folder in (packages, workspace, workspace / "claw_entrypoint"):
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("usercustomize", "sitecustomize", "os", "json", "_json", "errno", "__init__", "cli", "__main__"):
            (folder / f"{name}.py").write_text(evil)
    (packages / "evil.pth").write_text(f"import os; {evil}")

    done = start(
        HOME=str(home),
        PYTHONPATH=str(workspace),
        PYTHONSTARTUP=str(workspace / "os.py"),
        PYTHONUSERBASE=str(home / ".local"),
        PYTHONHOME="/nowhere",
        PYTHONINSPECT="1",
    )

    assert (done.returncode, done.stdout) == (0, "genuine")
    assert not (tmp_path / "owned").exists()


def test_path_does_not_choose_the_gateway(root: Path, start: Start, tmp_path: Path) -> None:
    """Programs planted first in PATH are never run by a start."""
    planted = root / "state/bin"
    planted.mkdir()
    for name in ("printf", "node", "python3", "openclaw", "sh", "env"):
        (planted / name).write_text(f"#!/bin/sh\n: > {tmp_path}/owned\n")
        (planted / name).chmod(0o755)

    done = start(PATH=f"{planted}:/usr/bin:/bin")

    assert (done.returncode, done.stdout) == (0, "genuine")
    assert not (tmp_path / "owned").exists()


def test_a_secret_is_in_the_configuration_and_nowhere_else(root: Path, start: Start, tmp_path: Path) -> None:
    """From any source: not in the log, the gateway's environment, or a second file; and that file is 0600."""
    secret = tmp_path / "secret"
    secret.write_text("canary-file\n")
    hand_over(root, OPENCLAW_GATEWAY_TOKEN="canary-runtime")
    contract = json.loads((root / "etc/claw/contract.json").read_text())
    contract["exec"]["argv"] = ["/usr/bin/env"]
    (root / "etc/claw/contract.json").write_text(json.dumps(contract))

    done = start(
        OPENCLAW_MATRIX_TOKEN="canary-environment",
        OPENROUTER_API_KEY_FILE=str(secret),
        OPENCLAW_GATEWAY_TOKEN="canary-overruled",
    )

    assert done.returncode == 0
    assert "canary" not in done.stdout + done.stderr
    assert str(secret) not in done.stdout
    found = {
        path.relative_to(root).as_posix(): path.read_text().count("canary")
        for path in root.rglob("*")
        if path.is_file() and not path.is_symlink() and b"canary" in path.read_bytes()
    }
    assert found == {"config/openclaw.json": 3, "run/claw/values.json": 1}
    assert (root / "config/openclaw.json").stat().st_mode & 0o777 == 0o600


def test_a_value_cannot_add_to_the_configuration(root: Path, start: Start) -> None:
    """Quotes, newlines, other placeholders and OpenClaw's own stay inside the one text they were given for."""
    evil = '"}, "evil": {"a": "\n${OPENCLAW_GATEWAY_TOKEN}${HOME}$${HOME}'

    assert start(OPENROUTER_API_KEY=evil).returncode == 0

    document = json.loads((root / "config/openclaw.json").read_text())
    assert "evil" not in document
    expected = (
        evil.replace("${OPEN", "$${OPEN").replace("}${HOME}", "}$${HOME}").replace("}$${HOME}$${", "}$${HOME}$$${")
    )
    assert document["env"]["vars"] == {"OPENROUTER_API_KEY": expected}


def test_a_state_full_of_traps_harms_nobody_else(root: Path, start: Start, tmp_path: Path) -> None:
    """Links out of the state in every place that a start uses: the gateway starts, and outside nothing changes."""
    outside = tmp_path / "outside"
    for name in ("tmp", "npm/projects", "projects"):
        (outside / name).mkdir(parents=True)
        (outside / name / "precious").write_text("precious")
    before = sorted(str(path) for path in outside.rglob("*"))
    contract = json.loads((root / "etc/claw/contract.json").read_text())
    for place in contract["skeleton"]:
        if place not in ("/logs", "/state/workspace"):
            (root / place[1:]).symlink_to(outside)
    (root / "config/link").symlink_to(outside)
    (root / "config/openclaw.json").symlink_to(outside / "tmp/precious")

    done = start()

    assert (done.returncode, done.stdout) == (0, "genuine")
    assert before == sorted(str(path) for path in outside.rglob("*"))
    assert all(path.read_text() == "precious" for path in outside.rglob("precious"))
    assert os.listdir(root / "config") == ["openclaw.json"]
    assert {"warning"} == {event["level"] for event in events(done.stderr)} - {"info"}


def test_a_fifo_in_any_place_does_not_hold_the_start(root: Path, start: Start) -> None:
    """Nothing waits for a writer that never comes."""
    (root / "state/.openclaw").mkdir()
    for place in ("state/.openclaw/npm", "state/.openclaw/tmp", "state/home", "config/openclaw.json"):
        os.mkfifo(root / place)

    assert start().returncode == 0


def test_odd_names_cannot_forge_a_log_line(root: Path, start: Start) -> None:
    """A path with line breaks and escapes is one line of ASCII JSON."""
    done = start(OPENROUTER_API_KEY_FILE='/nowhere\n{"level": "info"}\x1b[2J\u202e')

    assert done.returncode == 78
    assert all(event["level"] != "info" for event in events(done.stderr) if event["event"] != "value.generated")
    assert done.stderr.isascii()
    assert "\x1b" not in done.stderr
