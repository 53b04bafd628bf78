"""NanoClaw's start in its image, with a stand-in for NanoClaw itself: what it finds, and what the probes see of it."""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

IMAGE = Path(__file__).parents[2] / "images/nanoclaw"
NODE = shutil.which("node")
WAIT = 20

pytestmark = pytest.mark.skipif(NODE is None, reason="node is not installed")

# Tells that it was started as NanoClaw asks of its starter, and what it sees; then stays, as a daemon does.
PROGRAM = """
import fs from 'node:fs';
if (new URL(import.meta.url).pathname !== new URL(`file://${process.argv[1]}`).pathname) process.exit(3);
fs.writeFileSync('seen.json', JSON.stringify({ directory: process.cwd(), env: fs.readFileSync('.env', 'utf8') }));
process.on('SIGTERM', () => process.exit(0));
fs.mkdirSync('store', { recursive: true });
if (!process.env.NO_DATABASE) fs.writeFileSync('store/messages.db', '');
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An image's folder with read-only parts, a rendered configuration, and a tenant's empty state."""
    image = tmp_path / "image"
    for folder in ("dist", "groups/main", "container/skills"):
        (image / folder).mkdir(parents=True)
    shutil.copy(IMAGE / "start.mjs", image)
    (image / "package.json").write_text('{"type": "module"}')
    (image / "dist/index.js").write_text(PROGRAM)
    (image / "groups/main/CLAUDE.md").write_text("from the image")
    (image / "groups/main/CLAUDE.md").chmod(0o444)
    contract = json.loads((IMAGE / "contract.json").read_text())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        contract["ports"]["gateway"] = free.getsockname()[1]
    contract["template"]["target"] = str(tmp_path / "config/nanoclaw.json")
    (tmp_path / "contract.json").write_text(json.dumps(contract))
    (tmp_path / "config").mkdir()
    (tmp_path / "config/nanoclaw.json").write_text(
        json.dumps(
            {"directory": str(tmp_path / "state"), "environment": {"ANTHROPIC_API_KEY": "k", "ASSISTANT_NAME": "A"}}
        )
    )
    return tmp_path


@contextmanager
def started(root: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [str(NODE), str(root / "image/start.mjs"), str(root / "contract.json")]
    with subprocess.Popen(command, env={**os.environ, **environment}, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.terminate()


def status(root: Path, path: str) -> int:
    """HTTP status of a probe, waiting for the port."""
    port = json.loads((root / "contract.json").read_text())["ports"]["gateway"]
    until = time.monotonic() + WAIT
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code
        except OSError:
            assert time.monotonic() < until, "nothing listens"
            time.sleep(0.05)


def until_there(path: Path) -> Any:
    until = time.monotonic() + WAIT
    while not path.exists() or not path.read_text():
        assert time.monotonic() < until, f"{path} does not appear"
        time.sleep(0.02)
    return json.loads(path.read_text())


def test_it_runs_in_the_state_with_its_settings(root: Path) -> None:
    """NanoClaw is started as itself, in the tenant's directory, and reads its keys there."""
    with started(root):
        seen = until_there(root / "state/seen.json")
    assert seen["directory"] == str(root / "state")
    assert seen["env"].splitlines() == ["ANTHROPIC_API_KEY=k", "ASSISTANT_NAME=A"]


def test_no_key_is_stored_with_the_state(root: Path) -> None:
    """`.env` is a link out of the state; the file behind it is its owner's alone."""
    with started(root):
        until_there(root / "state/seen.json")
    assert (root / "state/.env").is_symlink()
    assert (root / "config/nanoclaw.env").stat().st_mode & 0o777 == 0o600


def test_what_a_tenant_changed_is_kept(root: Path) -> None:
    """The image's groups are copied once, writable, and never over the tenant's own."""
    with started(root):
        until_there(root / "state/seen.json")
    memory = root / "state/groups/main/CLAUDE.md"
    assert memory.read_text() == "from the image"
    memory.write_text("mine")
    (root / "state/seen.json").unlink()
    with started(root):
        until_there(root / "state/seen.json")
    assert memory.read_text() == "mine"


def test_it_is_ready_when_its_database_is_open(root: Path) -> None:
    """Alive at once; ready once NanoClaw got as far as its database; no other path is answered."""
    with started(root):
        until_there(root / "state/seen.json")
        assert [status(root, path) for path in ("/healthz", "/readyz", "/other")] == [200, 200, 404]


def test_it_is_not_ready_without_a_database(root: Path) -> None:
    """A NanoClaw that waits for its container socket is alive and not ready."""
    with started(root, NO_DATABASE="1"):
        until_there(root / "state/seen.json")
        assert [status(root, path) for path in ("/healthz", "/readyz")] == [200, 503]


def test_a_value_with_a_line_break_ends_the_start(root: Path) -> None:
    """A value cannot smuggle a second setting into `.env`."""
    document = json.loads((root / "config/nanoclaw.json").read_text())
    document["environment"]["ASSISTANT_NAME"] = "A\nANTHROPIC_BASE_URL=http://elsewhere"
    (root / "config/nanoclaw.json").write_text(json.dumps(document))
    with started(root) as process:
        assert process.wait(WAIT) != 0
        assert b"ASSISTANT_NAME has a line break" in (process.stderr.read() if process.stderr else b"")
    assert not (root / "state/seen.json").exists()
