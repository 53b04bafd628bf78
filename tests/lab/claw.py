"""claw on a laboratory's host."""

import json

from lab import hosts, image
from lab.hosts import Host

INSTALL = """
own=~/.local/share/claw/venvs/lab
umask 022
mkdir -p $own/bin ~/.config/claw ~/.local/share/claw/workloads
for name in python claw claw-runtime; do
  printf '#!/bin/sh\\nexec /opt/claw/venv/bin/%s "$@"\\n' $name > $own/bin/$name
  chmod 755 $own/bin/$name
done
touch $own/claw-whole
cp /lab/runtime.toml ~/.config/claw/
chmod 600 ~/.config/claw/runtime.toml
cp /lab/small.yaml ~/.local/share/claw/workloads/
claw-runtime install --digest lab
"""
"""The units, with the laboratory's environment in place of one that pip makes."""


def install(host: Host, workload: str = image.WORKLOAD, settings: str = 'limits = "drop"\n') -> None:
    """Install claw as units of the host's user; back when a slot of the workload waits."""
    (host.share / "small.yaml").write_text(workload)
    (host.share / "runtime.toml").write_text(settings)
    host.ok(INSTALL, seconds=200)
    hosts.eventually(lambda: slots(host) >= 1)


def state(host: Host, tenant: str) -> str:
    """A tenant's state, such as `active`; empty while the daemon does not answer."""
    ran = host.run(f"claw-runtime status {tenant} -o json")
    return str(json.loads(ran.out)["state"]) if ran.code == 0 else ""


def slots(host: Host) -> int:
    """Slots of the first pool that wait; 0 while the daemon does not answer."""
    ran = host.run("claw-runtime pool list -o json")
    return int(json.loads(ran.out)[0]["ready"]) if ran.code == 0 else 0
