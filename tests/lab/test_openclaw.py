"""The real OpenClaw on an ordinary host: a chat completes although the daemon restarts meanwhile."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import claw, hosts
from lab.hosts import Host, booted

TOP = Path(__file__).parents[2]
IMAGE = "localhost/openclaw-nix:dev"
MODEL_URL = "http://127.0.0.1:18080/v1"
WORKLOAD = f"""\
id: openclaw
image: {IMAGE}
environment: {{CLAW_MODEL_BASE_URL: "{MODEL_URL}", CLAW_MODEL_ID: stub-1, CLAW_MODEL_API_KEY: no-secret}}
volumes: {{model: {{source: /home/claw/model, target: /opt/model}}}}
network: private
healthcheck: {{ready_timeout: 8m}}
pool: {{min_size: 1, max_size: 2}}
"""
MODEL = "/usr/bin/python3 -I /opt/model/model_stub.py 18080"
CHAT = """
chat() {
  python3 /opt/claw/tree/docs/examples/openclaw/chat.py "$1" \\
    ~/.local/share/claw/tenants/alice/secrets/OPENCLAW_GATEWAY_TOKEN "$2"
}
"""
DURING = """
unit() { systemctl --user show --property=MainPID --value claw; }
before=$(unit)
chat "$1" 'run: sleep 7; echo survived' > ~/answer & asking=$!
sleep 2
kill -0 $asking
systemctl --user restart claw
[ "$(unit)" != "$before" ]
wait $asking
cat ~/answer
"""
"""The model asks for a tool call that takes seconds; meanwhile the daemon restarts."""


@pytest.fixture(scope="module")
def archive(laboratory: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image out of the store of the user that builds it (`CLAW_USER`), as `make image` leaves it."""
    user = os.environ.get("CLAW_USER", "claw")
    podman = [str(TOP / "host/run"), "podman"]
    if subprocess.run([*podman, "image", "exists", IMAGE], check=False, capture_output=True).returncode != 0:
        pytest.skip(f"lab: not run on this host: the user {user} has no image {IMAGE} (make image)")
    path = tmp_path_factory.mktemp("image") / "openclaw.tar"
    with path.open("wb") as file:
        subprocess.run([*podman, "save", IMAGE], check=True, stdout=file)
    return path


@pytest.fixture(scope="module", params=["trixie"])
def gateway(request: pytest.FixtureRequest, archive: Path) -> Iterator[tuple[Host, str]]:
    """A host with an installed claw, and the address of alice's gateway, which has a model."""
    with booted("nspawn", request.param) as host:
        (host.share / "model_stub.py").write_text((TOP / "tests/fakes/model_stub.py").read_text("utf-8"))
        host.ok("mkdir ~/model; cp /lab/model_stub.py ~/model/")
        shutil.move(archive, host.share / "openclaw.tar")
        host.ok("podman load --quiet --input /lab/openclaw.tar", seconds=900)
        (host.share / "openclaw.tar").unlink()
        claw.install(host, WORKLOAD)
        url = json.loads(host.ok("claw-runtime claim alice -o json", seconds=600))["endpoints"]["http"]
        host.ok(f"claw-runtime exec --detach alice -- {MODEL}")
        answers = f"claw-runtime exec alice -- curl --silent --fail {MODEL_URL}/models"
        hosts.eventually(lambda: host.run(answers).code == 0)
        yield host, url


@pytest.mark.long
def test_a_chat_completes_across_a_restart_of_the_daemon(gateway: tuple[Host, str]) -> None:
    """OpenClaw answers a question during which the daemon restarted, and remembers what was said before."""
    host, url = gateway
    assert "blue" in host.ok(f"{CHAT}chat '{url}' 'please remember blue'")
    assert "survived" in host.ok(f"{CHAT}{DURING}", url)
    assert "blue" in host.ok(f"{CHAT}chat '{url}' 'what is my colour?'")
    assert claw.state(host, "alice") == "active"
