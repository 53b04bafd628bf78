"""A server's whole life as the runbook tells it, its blocks executed as printed: from `make install` to the removal.

The small image stands in for OpenClaw's under its name. A host has no network: pip takes wheels that are at hand, and
the test carries the archive from one server to the other.
"""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from lab import image
from lab.hosts import DISTS, Host, booted
from smoke.runbook_blocks import Step, steps, unmatched

TOP = Path(__file__).parents[2]
CHAPTER = re.search(
    r"^## On a server$.*?(?=^## )", (TOP / "docs/RUNBOOK.md").read_text("utf-8"), re.MULTILINE | re.DOTALL
)
STAGES = {
    "install": "Install claw on a server",
    "first tenant": "The first tenant on a server",
    "reboot": "Reboot a server",
    "upgrade of claw": "Upgrade claw itself",
    "move to another host": "Move a server",
    "uninstall": "Uninstall claw",
}
ARCHIVE = "claw-moved.tar"
OPENCLAW = "localhost/openclaw-nix:dev"
STAND_IN = image.WORKLOAD.replace("id: small", "id: openclaw").replace(image.NAME, OPENCLAW)
SETTINGS = """
printf '[global]\\nno-index = true\\nfind-links = /opt/claw/venv/wheels\\n' > /etc/pip.conf
rm /etc/profile.d/claw.sh    # the environment of the laboratory's other tests
"""
NEWER = """
cp -r /opt/claw/tree ~/claw-new
sed -i 's/^__version__ = .*/__version__ = "9.9.9"/' ~/claw-new/runtime/claw_runtime/__init__.py
"""


@dataclass(slots=True)
class Servers:
    """The old server, and the one that its tenants move to; `failed` is the stage that did."""

    old: Host
    new: Host
    failed: str = ""
    done: list[str] = field(default_factory=list)


@pytest.fixture(scope="module", params=DISTS)
def servers(request: pytest.FixtureRequest, laboratory: None) -> Iterator[Servers]:
    """Two fresh hosts of a release with the image of the page's workload."""
    with booted("nspawn", request.param, "-old") as old, booted("nspawn", request.param, "-new") as new:
        for host in (old, new):
            image.bring(host, OPENCLAW)
            (host.tree / "docs/examples/openclaw/workload.yaml").write_text(STAND_IN)
            host.ok(SETTINGS, user="root")
            host.ok("mkdir -p ~/.config/claw; echo 'limits = \"drop\"' > ~/.config/claw/runtime.toml")
        old.ok(NEWER)
        yield Servers(old, new)


@pytest.mark.long
@pytest.mark.parametrize("stage", STAGES)
def test_the_runbook_holds(servers: Servers, stage: str) -> None:
    """Each block of a server's chapter ends as printed, and prints what the page shows."""
    assert not servers.failed, f"the stage {servers.failed!r} failed before"
    servers.failed = stage
    for step in steps_below(STAGES[stage]):
        execute(servers, step)
    servers.failed = ""


def steps_below(heading: str) -> list[Step]:
    """The blocks of one section of the chapter; there is at least one."""
    assert CHAPTER is not None
    section = re.search(rf"^### {re.escape(heading)}$.*?(?=^### |\Z)", CHAPTER[0], re.MULTILINE | re.DOTALL)
    assert section is not None, heading
    found = steps(section[0], "server")
    assert found, heading
    return found


def execute(servers: Servers, step: Step) -> None:
    """One block, on the host and as the user that its marks name, in a new login shell."""
    marks = step.block.marks
    host = servers.new if "new-host" in marks else servers.old
    if "reboot" in marks:
        assert step.block.text == "systemctl reboot\n"
        host.reboot()
        return
    if "new-host" in marks and "moved" not in servers.done:
        carry(servers)
        servers.done.append("moved")
    user, directory = ("root", "/opt/claw/tree") if "root" in marks else ("claw", "~/claw-work")
    where = f"[ ! -d {directory} ] || cd {directory}\n"  # the copy is made by the installation
    script = f"set -euo pipefail\nexec 2>&1\n{where}{step.block.text}"
    ran = host.run(script, user=user, seconds=600)
    if step.block.text.startswith("claw doctor") and ran.code != 0:  # on a loaded host its first look may take too long
        time.sleep(20)
        ran = host.run(script, user=user, seconds=600)
    log = "" if ran.code == 0 else host.run("journalctl --no-pager --output=cat --lines=60", user="root").out
    assert ran.code == 0, f"{step.block.text}\nended with {ran.code} on {host.name}:\n{ran.out}\n{ran.err}\n{log}"
    assert unmatched(ran.out, step.expected) is None, f"{step.block.text}\n{ran.out}"


def carry(servers: Servers) -> None:
    """As `scp` does, which needs a network; the new server has no settings but the archive's."""
    servers.old.ok(f"cp -p ~claw/{ARCHIVE} /lab/", user="root")
    (servers.old.share / ARCHIVE).rename(servers.new.share / ARCHIVE)
    servers.new.ok(f"rm -r ~claw/.config/claw; cp -p /lab/{ARCHIVE} ~claw/", user="root")
