"""How a container's users map to the host's: as few ids as there can be, the same for all containers and images.

Two ids have a meaning inside: that of the host's user, as which every program runs, and 0, which owns the image's files
and is the first of the user's subordinate ids outside. Every other id does not exist inside. Files of an image that
belong to one show as nobody's; their modes decide as before, since no program is in their group or has a capability.

`keep-id` would map all 65,536 subordinate ids, which a program that gained rights inside could become. Podman knows
`keep-id:size=…` from 5.x on only. Each mapping costs a copy of the image, so all must use this one.
"""

import os
from typing import Any


def options() -> dict[str, Any]:
    """The options of podman-py's `create`."""
    return {
        "userns_mode": "private",
        "idmappings": {"UIDMap": _ranges(os.getuid()), "GIDMap": _ranges(os.getgid())},
        "user": f"{os.getuid()}:{os.getgid()}",
    }


def passwd_entry(home: str) -> str:
    """The line of /etc/passwd for the program's user. Podman's own has a number as the name and the working directory
    as the home (4.3.1), so that `whoami`, `~` and git's look for an author find nothing useful.

    Args:
        home: Empty, or unfit for such a line, leaves Podman its own.
    """
    fit = home.startswith("/") and not set(home) & set(":\n$")
    return f"claw:*:{os.getuid()}:{os.getgid()}:tenant:{home}:/bin/sh" if fit else ""


def flags() -> list[str]:
    """The same as flags of `podman run`."""
    maps = {"uidmap": _ranges(os.getuid()), "gidmap": _ranges(os.getgid())}
    told = [
        f"--{name}={one['container_id']}:{one['host_id']}:{one['size']}"
        for name, ranges in maps.items()
        for one in ranges
    ]
    return [*told, f"--user={os.getuid()}:{os.getgid()}"]


def _ranges(own: int) -> list[dict[str, int]]:
    """Podman counts host ids from this user, who is 0; 1 is the first subordinate id."""
    return [{"container_id": 0, "host_id": 1, "size": 1}, {"container_id": own, "host_id": 0, "size": 1}]
