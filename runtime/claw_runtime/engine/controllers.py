"""Which cgroup controllers limit this user's containers."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

_CGROUPS: Final = Path("/sys/fs/cgroup")


def of_containers(host: Mapping[str, Any], cgroups: Path = _CGROUPS) -> Sequence[str]:
    """The controllers by name, from the part `host` of Podman's answer about this machine.

    Podman names those of the cgroup that it runs in. Systemd switches the controller `cpu` on only where a unit asks
    for it, so a service or a terminal of the user often lacks it. With Podman's manager `systemd`, each rootless
    container is a unit of its own, and can have everything that is delegated to the user's manager.
    """
    named = tuple(host["cgroupControllers"] or ())
    if host["cgroupManager"] != "systemd" or not host["security"]["rootless"]:
        return named
    user = os.getuid()
    delegated = cgroups / f"user.slice/user-{user}.slice/user@{user}.service/cgroup.controllers"
    try:
        more = delegated.read_text("ascii").split()
    except OSError:
        return named
    return named + tuple(name for name in more if name not in named)
