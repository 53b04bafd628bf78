"""An installation that cannot be completed, on an ordinary host: its own exit code, and nothing is written."""

import pytest
from lab.hosts import Host

HARMS = {
    "a port in use": (25, "echo CLAW_LISTEN=127.0.0.1:8080 > ~/.config/claw/claw.env"),
    "a small disk": (26, "export XDG_DATA_HOME=/tmp/small"),
    "a Podman that is too new": (45, "export PATH=/tmp/new:$PATH"),
}
"""What is wrong, by the exit code: the file system of /tmp/small has 20 MB, and on port 8080 somebody listens."""
INSTALL = """
mkdir -p ~/.config/claw
{harm}
code=0; claw-runtime install || code=$?
rm -f ~/.config/claw/claw.env
echo $code
"""
WRITTEN = "ls -A ~/.config/systemd/user ~/.local/share/claw ~/.local/bin /tmp/small 2>/dev/null || true"


@pytest.fixture(scope="module")
def poor(nspawn_host: Host) -> Host:
    """A host with a small file system, a port in use, and a program that calls itself Podman 6."""
    host = nspawn_host
    host.ok("mkdir /tmp/small; mount -t tmpfs -o size=20m,mode=777 small /tmp/small", user="root")
    host.ok(
        "mkdir /tmp/new; printf '#!/bin/sh\\necho podman version 6.0.0\\n' > /tmp/new/podman; chmod 755 /tmp/new/podman"
    )
    host.ok("systemd-run --user --quiet --unit=other busybox httpd -f -p 127.0.0.1:8080 -h /lab")
    host.ok("timeout 20 sh -c 'until curl --silent --output /dev/null http://127.0.0.1:8080/; do sleep 0.1; done'")
    return host


@pytest.mark.parametrize("harm", HARMS)
def test_an_installation_that_cannot_be_completed_leaves_nothing(poor: Host, harm: str) -> None:
    """The exit code names what is wrong, and no unit, command or environment is there afterwards."""
    code, script = HARMS[harm]
    before = poor.ok(WRITTEN)
    ran = poor.run(INSTALL.format(harm=script))
    assert ran.out.split()[-1:] == [str(code)], ran.err
    assert poor.ok(WRITTEN) == before
