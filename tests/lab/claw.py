"""claw on a laboratory's host."""

import json

from lab.hosts import Host


def slots(host: Host) -> int:
    """Slots of the first pool that wait; 0 while the daemon does not answer."""
    ran = host.run("claw-runtime pool list -o json")
    return int(json.loads(ran.out)[0]["ready"]) if ran.code == 0 else 0
