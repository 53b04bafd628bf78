"""The main job with the real OpenClaw: remembered across two containers, closed to strangers, no secret in sight."""

import importlib.util
import json
import shutil
import subprocess
import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from claw_runtime.tenancy import LABEL_CONTRACT
from fakes import live_podman
from fakes.daemon import Daemon

pytestmark = [pytest.mark.podman, pytest.mark.s3, pytest.mark.image]

TOP = Path(__file__).parents[2]
EXAMPLE = TOP / "docs/examples/openclaw"
IMAGE = "localhost/openclaw-nix:dev"
CANARY = "canary-7f3a91c2-matrix-token"


def load_chat() -> ModuleType:
    """The example's own client, docs/examples/openclaw/chat.py."""
    spec = importlib.util.spec_from_file_location("chat", EXAMPLE / "chat.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


chat = load_chat().chat


@pytest.fixture(scope="module")
def daemon(session_home: Path) -> Iterator[Daemon]:
    """A daemon with the example's workload; the paid model is played by a stub in each tenant's own network."""
    if subprocess.run(["podman", "image", "exists", IMAGE], check=False).returncode != 0:
        pytest.skip(f"{IMAGE} is not built: make image")
    with live_podman.directory_in(session_home) as home:
        (home / "stub").mkdir()
        shutil.copy(TOP / "tests/fakes/model_stub.py", home / "stub")
        shared = home / "d/secrets"
        shared.mkdir(parents=True, mode=0o700)
        for name, text in {"CLAW_MODEL_API_KEY": "no-secret", "OPENCLAW_MATRIX_TOKEN": CANARY}.items():
            (shared / name).write_text(text)
            (shared / name).chmod(0o600)
        text = (EXAMPLE / "workload.yaml").read_text()
        values = (
            "  CLAW_MODEL_BASE_URL: http://127.0.0.1:18080/v1\n  CLAW_MODEL_ID: stub-1\n"
            "  OPENCLAW_MATRIX_HOMESERVER: https://matrix.example.org\n"
            '  OPENCLAW_MATRIX_USER_ID: "@${tenantId}:example.org"\n'
        )
        text = text.replace("environment:\n", f"environment:\n{values}", 1)
        text += f"volumes: {{stub: {{source: {home}/stub, target: /opt/stub}}}}\n"
        (home / "workload.yaml").write_text(text)
        daemon = Daemon(home / "d", [home / "workload.yaml"])
        daemon.start(ready=2, timeout=180)
        yield daemon
        daemon.close()


class Tenant:
    """A claimed tenant with its model at hand."""

    def __init__(self, daemon: Daemon, name: str) -> None:
        self.claim = daemon.ok("claim", name, "-o", "json", timeout=180).json
        self.endpoint = self.claim["endpoints"]["http"]
        self.token = Path(self.claim["tokenFile"]).read_text()
        daemon.ok("exec", "--detach", name, "--", "/usr/bin/python3", "-I", "/opt/stub/model_stub.py", "18080")

    def says(self, text: str) -> str:
        return str(chat(self.endpoint, self.token, text))


def test_a_tenant_is_remembered_and_a_stranger_is_not(daemon: Daemon) -> None:
    """Alice's assistant knows her colour in another container; bob's knows nothing of it, and takes no other token."""
    alice = Tenant(daemon, "alice")
    assert "blue" in alice.says("please remember blue")
    assert daemon.ok("release", "alice", "-o", "json").json["generation"] == 1
    assert list(daemon.home.glob("slots/*/state/.openclaw")) == []

    again = Tenant(daemon, "alice")
    assert again.claim["containerId"] != alice.claim["containerId"]
    assert again.claim["source"] in {"created", "cold"}
    assert "blue" in again.says("what is my colour?")

    bob = Tenant(daemon, "bob")
    assert "blue" not in bob.says("what is my colour?")
    for token in ("wrong", alice.token, ""):
        with pytest.raises(urllib.error.HTTPError) as refused:
            chat(bob.endpoint, token, "hello")
        assert refused.value.code == 401
        refused.value.close()
    transcripts = daemon.ok("exec", "bob", "--", "sh", "-c", "cat /state/.openclaw/agents/*/sessions/*.jsonl").out
    assert "remember" not in transcripts


SERVE = (
    '{ python3 -uc \'import http.server as h; s = h.ThreadingHTTPServer(("127.0.0.1", 0), '
    'h.SimpleHTTPRequestHandler); print(s.server_port); s.serve_forever()\' > port 2> served & trap "kill $!" EXIT; }; '
    "until [ -s port ]; do sleep 0.1; done; at=http://127.0.0.1:$(cat port);"
)
"""A web server for the directory, at `$at`, until the script ends."""

TOOLS = {
    "node": "node -e 'process.stdout.write(String(6*7))'",
    "worker": 'node -e \'new (require("worker_threads").Worker)("process.stdout.write(String(42))", {eval: true})\'',
    "npm": 'mkdir a b && echo \'{"name":"a","version":"1.0.0"}\' | tee a/package.json > b/package.json && cd b'
    " && sed -i s/a/b/ package.json && npm install --offline --no-audit --no-fund ../a > log && ls node_modules",
    "git": "git init -q r && git -C r -c user.name=a -c user.email=b commit -q --allow-empty -m first"
    " && git clone -q r s && git -C s log --format=%s",
    "git-http": "git init -q r && git -C r -c user.name=a -c user.email=b commit -q --allow-empty -m first"
    f" && git -C r update-server-info && {SERVE} git clone -q $at/r/.git s && git -C s log --format=%s",
    "python3": "python3 -c 'import multiprocessing as m, socket; p = m.Pool(2); print(sum(p.map(abs, [-20, 22])));"
    " p.terminate()'",
    "pip": "python3 -m pip --version | cut -c 1-3",
    "uv": "uv venv -q --offline v && v/bin/python -c 'print(42)'",
    "ffmpeg": "ffmpeg -loglevel error -f lavfi -i testsrc=duration=1:size=64x64 o.mp4 && ffprobe -v error"
    " -show_entries stream=width -of csv=p=0 o.mp4",
    "gh": "gh config set pager cat && gh config get pager",
    "curl": f"echo 42 > x; {SERVE} curl -sS $at/x",
    "requests": f"echo 42 > x; {SERVE} python3 -c 'import requests, sys; print(requests.get(sys.argv[1]).text)' $at/x",
    "jq": "echo '{\"a\": 42}' | jq .a",
    "rg": "echo 42 > x && rg --no-line-number 4 x",
    "gemini": "gemini --version > x && echo 42",
    "openclaw": "openclaw --version > x && echo 42",
}
TOOL = {"worker": "node", "pip": "python3", "git-http": "git", "requests": "python3"}
ANSWERS = {"npm": "a", "git": "first", "git-http": "first", "pip": "pip", "ffmpeg": "64", "gh": "cat"}


def contract_of_the_image() -> dict[str, Any]:
    """The contract that the image that is tested carries."""
    argv = ["podman", "image", "inspect", "--format", f'{{{{index .Config.Labels "{LABEL_CONTRACT}"}}}}', IMAGE]
    label = subprocess.run(argv, check=True, capture_output=True).stdout
    contract: dict[str, Any] = json.loads(label)
    return contract


def test_tools_work_under_strict(daemon: Daemon) -> None:
    """What an assistant calls does its work under the profile that every container has, and namespaces are refused."""
    Tenant(daemon, "strict")
    found = {}
    for name, line in TOOLS.items():
        script = f"cd $(mktemp -d) && export HOME=$PWD && {line}"
        done = daemon.cli(
            "exec", "strict", "--", "sh", "-c", f"command -v {TOOL.get(name, name)} >/dev/null || exit 99; {script}"
        )
        if done.code != 99:
            found[name] = done.out.strip() or done.err
    assert found == {name: ANSWERS.get(name, "42") for name in found}
    assert found.keys() >= {"worker", "git-http"} | set(contract_of_the_image()["tools"])

    refused = daemon.cli("exec", "strict", "--", "unshare", "--user", "--map-root-user", "true")
    assert (refused.code, "not implemented" in refused.err) == (1, True)
    daemon.ok("release", "strict", "--no-sync")


def test_every_lookup_of_the_user_finds_a_home(daemon: Daemon) -> None:
    """By HOME, by id and by name the same, and the tenant may write there."""
    Tenant(daemon, "lookup")
    script = (
        "import os, pwd; me = pwd.getpwuid(os.getuid()); home = os.environ['HOME']; open(home + '/x', 'w').close(); "
        "print(me.pw_dir == home == os.path.expanduser('~' + me.pw_name), me.pw_name)"
    )
    assert daemon.ok("exec", "lookup", "--", "python3", "-c", script).out.strip() == "True claw"
    daemon.ok("release", "lookup", "--no-sync")


def test_matrix_starts_and_stays_trusted(daemon: Daemon) -> None:
    """The matrix channel starts its provider and is not stopped for want of trust."""
    Tenant(daemon, "matty")
    deadline = time.monotonic() + 25
    while "starting provider" not in (log := daemon.ok("logs", "matty").out + daemon.ok("logs", "matty").err):
        assert time.monotonic() < deadline, log
        time.sleep(0.5)

    assert "@matty:example.org" in daemon.ok("exec", "matty", "--", "cat", "/config/openclaw.json").out
    assert "openKeyedStore" not in log
    daemon.ok("release", "matty")


def test_secrets_are_in_the_container_and_nowhere_else(daemon: Daemon) -> None:
    """A secret value reaches /config, and is in no inspect output, log, environment, ledger or stored state, but for
    the one file where OpenClaw's matrix channel keeps its own login."""
    tenant = Tenant(daemon, "trent")
    container = tenant.claim["containerId"]
    assert CANARY in daemon.ok("exec", "trent", "--", "cat", "/config/openclaw.json").out

    inspected = subprocess.run(["podman", "container", "inspect", container], check=True, capture_output=True).stdout
    logs = daemon.ok("logs", "trent")
    environment = daemon.ok("exec", "trent", "--", "sh", "-c", "cat /proc/[0-9]*/environ 2>/dev/null; env")
    places = {
        "inspect": inspected.decode(),
        "log": logs.out + logs.err + daemon.log,
        "environment": environment.out,
        "ledger": "".join(path.read_bytes().decode("latin-1") for path in daemon.home.glob("ledger.sqlite*")),
        "status": daemon.ok("status", "-o", "json").out,
    }
    daemon.ok("release", "trent")
    for entry in daemon.ok("sync", "list", "trent", "-o", "json").json["files"]:
        if entry["type"] == "file" and entry["kind"] == "plain":
            places[entry["path"]] = daemon.ok("sync", "cat", "trent", entry["path"]).out

    leaks = [place for place, text in places.items() if CANARY in text or tenant.token in text]
    assert leaks == [".openclaw/credentials/matrix/credentials.json"]


GREET = """\
import zipfile
with zipfile.ZipFile("greet-1-py3-none-any.whl", "w") as wheel:
    wheel.writestr("greet.py", "def main(): print(42)")
    wheel.writestr("greet-1.dist-info/METADATA", "Metadata-Version: 2.1\\nName: greet\\nVersion: 1\\n")
    wheel.writestr("greet-1.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
    wheel.writestr("greet-1.dist-info/entry_points.txt", "[console_scripts]\\ngreet = greet:main\\n")
    wheel.writestr("greet-1.dist-info/RECORD", "")
"""
"""Makes a Python package with one program."""

PACKAGE = '{"name": "a", "dist-tags": {"latest": "1.2.3"}, "versions": {"1.2.3": {"name": "a", "version": "1.2.3"}}}'
INSTALLS = f"""\
cd $(mktemp -d)
echo '{PACKAGE}' > a
{SERVE} npm view a version --registry $at/
python3 -c '{GREET}'
python3 -m pip install -q --user --no-index ./greet-1-py3-none-any.whl
command -v greet
greet
python3 -m pip uninstall -q -y greet
echo $PATH | cut -d: -f1-4
env | sort | grep -E '^(NPM|PIP|PYTHON|UV|XDG|SSL|NODE|REQUESTS|LANG|HOME|SHELL)[A-Z_]*='
"""
"""What a person who installs something sees: npm with a network, pip's program on PATH, the variables for both."""


def test_a_tool_call_runs_the_tenant_s_own_programs(daemon: Daemon) -> None:
    """A program that the tenant has put into /state/bin wins over the image's, in a shell and in the assistant's own
    tool calls alike."""
    tenant = Tenant(daemon, "walter")
    daemon.ok(
        "exec", "walter", "--", "sh", "-c", "printf '#!/bin/sh\\necho mine\\n' > /state/bin/jq; chmod 755 /state/bin/jq"
    )
    assert daemon.ok("exec", "walter", "--", "jq").out.strip() == "mine"
    assert "mine" in tenant.says("run: jq")


def test_a_tool_call_installs_as_a_person_does(daemon: Daemon) -> None:
    """npm reaches its registry, a program that pip installed is found, and the variables of both are the same, in a
    shell and in the assistant's own tool calls."""
    if "SHELL" not in contract_of_the_image()["exec"]["environment"]:
        pytest.skip(f"{IMAGE} is older than its contract: make image")
    tenant = Tenant(daemon, "xena")
    daemon.ok("exec", "-i", "xena", "--", "sh", "-c", "cat > /state/workspace/installs.sh", stdin=INSTALLS)
    person = daemon.ok("exec", "xena", "--", "sh", "/state/workspace/installs.sh").out.strip()
    assert person.splitlines()[:3] == ["1.2.3", "/state/bin/greet", "42"]
    assert "NPM_CONFIG_PREFIX=/state/npm" in person.splitlines()
    assert person in tenant.says("run: sh /state/workspace/installs.sh")
    daemon.ok("release", "xena", "--no-sync")
