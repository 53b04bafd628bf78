"""The built image, held against its contract in real containers. Needs the image: `claw-runtime image build`.

CLAW_IMAGE names another image than the default one, of any supported version; its contract is the one of that version.
"""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from claw_runtime.engine.imagetool import PodmanImageTool
from claw_runtime.images.verify import check_config
from claw_runtime.images.versions import read_contract
from image.reference import RECIPE, REFERENCE, opened

pytestmark = [pytest.mark.image, pytest.mark.podman]

TOP = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def promised(tool: PodmanImageTool) -> Mapping[str, Any]:
    """The contract of this tree for the version that the image states."""
    version = tool.config(REFERENCE)["Labels"]["org.opencontainers.image.version"]
    return read_contract(RECIPE, version=version)


@pytest.fixture(scope="module")
def tool() -> PodmanImageTool:
    return opened()


def shell(tool: PodmanImageTool, script: str) -> str:
    """What a shell says in a hardened container of the image; the script must succeed."""
    done = tool.run(REFERENCE, ["/bin/sh", "-euc", script])
    assert done.exit_code == 0, done.stderr.decode()
    return done.stdout.decode()


def test_the_image_carries_the_contract_of_this_tree(tool: PodmanImageTool, promised: Mapping[str, Any]) -> None:
    """The runtime reads the contract from the image: an image of another tree would be held to other promises."""
    assert json.loads(tool.config(REFERENCE)["Labels"]["io.claw.contract"]) == promised
    assert json.loads(shell(tool, "cat /etc/claw/contract.json")) == promised


def test_the_configuration_is_the_contracts(tool: PodmanImageTool, promised: Mapping[str, Any]) -> None:
    """No user, no healthcheck, no command; environment, ports and version as written."""
    assert [check for check in check_config(tool.config(REFERENCE), promised) if not check.ok] == []


def test_nothing_of_the_building_host_is_left(tool: PodmanImageTool) -> None:
    """Neither mirrors nor client settings nor what was lent at /mnt, in the files or in the image's history."""
    found = shell(
        tool,
        "ls /mnt; find / -xdev -type f -not -path '*/node_modules/*' \\( -path '/etc/apt/sources.list*' "
        "-o -path '/etc/apt/auth.conf*' -o -name .npmrc -o -name npmrc -o -name pip.conf -o -name certificates.pem \\) "
        "2>/dev/null || true",  # some directories are root's own
    )
    assert found == ""
    argv = ["podman", "history", "--no-trunc", "--format={{.CreatedBy}}", REFERENCE]
    history = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert "://" not in history.replace("http://localhost", "").split("io.claw.contract", 1)[0]


def test_no_builder_is_left(tool: PodmanImageTool) -> None:
    """Debian's node and npm only fetch; compilers are not needed at all."""
    names = set(shell(tool, "dpkg-query -Wf '${Package}\\n'").split())
    assert not names & {"npm", "nodejs", "gcc", "build-essential", "libllvm15"}
    assert shell(tool, "ls /var/lib/apt/lists /usr/share/doc /usr/share/man").replace(":", "").split() == [
        "/usr/share/doc",
        "/usr/share/man",
        "/var/lib/apt/lists",
    ]


def test_python_starts_without_compiling(tool: PodmanImageTool) -> None:
    """Layers have no times, so a compiled file that is checked against its source's time would never be used."""
    script = (
        "import glob, sys; files = glob.glob('/usr/lib/claw/**/*.pyc', recursive=True) "
        "+ glob.glob('/usr/lib/python3.11/__pycache__/*.pyc'); "
        "print(len(files), {open(f, 'rb').read(8)[4] for f in files})"
    )
    count, _, flags = shell(tool, f'python3 -c "{script}"').strip().partition(" ")
    assert int(count) > 100
    assert flags == "{1}"  # PEP 552: hash-based, unchecked


def test_the_gateway_is_started_past_path(tool: PodmanImageTool, promised: Mapping[str, Any]) -> None:
    """A tenant may put a `node` into /state/bin: the contract's programs are absolute, and are the image's."""
    program = promised["exec"]["argv"][0]
    assert shell(tool, f"readlink -f {program}").startswith("/opt/")
    assert promised["environment"]["PATH"].startswith("/state/bin:")


def test_documents_that_every_chat_needs_are_there(tool: PodmanImageTool) -> None:
    """Without these templates the gateway is ready, and answers every message with an error."""
    found = shell(tool, "ls /opt/openclaw/node_modules/openclaw/docs/reference/templates").split()
    assert {"SOUL.md", "AGENTS.md", "USER.md", "IDENTITY.md"} <= set(found)


def test_bundled_channels_and_providers_stay(tool: PodmanImageTool) -> None:
    """Trimming takes files that nothing runs, never somebody's channel or provider."""
    found = set(shell(tool, "ls /opt/openclaw/node_modules/openclaw/dist/extensions").split())
    assert {"telegram", "anthropic", "openai", "openrouter", "memory-core"} <= found
    assert len(found) > 60


def test_plugins_share_the_gateway(tool: PodmanImageTool, promised: Mapping[str, Any]) -> None:
    """Each channel plugin's peer is the one gateway in the image, and its files belong to the image's root."""
    for entry in promised["plugins"]["entries"]:
        for peer in (
            f"{entry['path']}/node_modules/openclaw",
            f"{entry['path'].removesuffix(entry['package'])}openclaw",
        ):
            assert shell(tool, f"readlink -f {peer}").strip() == "/opt/openclaw/node_modules/openclaw"
        assert shell(tool, f"stat -c %u {entry['path']}").strip() == "0"


def test_the_template_is_valid(tool: PodmanImageTool) -> None:
    """OpenClaw itself accepts the template, placeholders and all."""
    script = (
        "export HOME=/tmp OPENCLAW_STATE_DIR=/tmp/s OPENCLAW_CONFIG_PATH=/tmp/c.json OPENCLAW_GATEWAY_TOKEN=a "
        "OPENROUTER_API_KEY=a CLAW_MODEL_BASE_URL=http://127.0.0.1:9/v1 CLAW_MODEL_API_KEY=a CLAW_MODEL_ID=a "
        "OPENCLAW_MATRIX_HOMESERVER=https://m.example OPENCLAW_MATRIX_USER_ID=@a:m.example OPENCLAW_MATRIX_TOKEN=a; "
        "sed 's#/logs/#/tmp/#' /etc/claw/openclaw.json > /tmp/c.json; openclaw config validate"
    )
    assert "Config valid" in shell(tool, script)


def test_media_tools_work_without_a_screen(tool: PodmanImageTool) -> None:
    """The software renderer that was left out is not needed to make and to read a film."""
    script = (
        "ffmpeg -loglevel error -f lavfi -i testsrc=d=1 -y /tmp/x.mp4; "
        "ffprobe -v error -show_entries format=duration -of csv=p=0 /tmp/x.mp4"
    )
    assert shell(tool, script).strip() == "1.000000"
