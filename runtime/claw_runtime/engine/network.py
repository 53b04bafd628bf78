"""Podman's helper for containers with a network of their own: a program outside the container that forwards packets.

Podman 4.3 has slirp4netns only. Podman 5 takes pasta unless containers.conf says otherwise, and Podman 6 has no
slirp4netns (its release notes). With either, a container does not reach what listens on the host's loopback addresses.
"""

from collections.abc import Mapping
from typing import Any, Final

_SLIRP4NETNS: Final = "slirp4netns"
_PASTA: Final = "pasta"


def helper(host: Mapping[str, Any]) -> str:
    """The helper that Podman would take, else the one that is installed; empty when there is none.

    Args:
        host: The part `host` of `podman info`. Before version 5 it lacks `rootlessNetworkCmd`, before 4.4 `pasta` too.
    """
    first = str(host.get("rootlessNetworkCmd") or _SLIRP4NETNS)
    for name in (first, _PASTA, _SLIRP4NETNS):
        if (host.get(name) or {}).get("executable"):
            return name
    return ""


def options(name: str) -> dict[str, Any]:
    """Options of podman-py's `create` for a network through this helper."""
    if name == _PASTA:  # Podman itself gives it what keeps the host's loopback addresses out of reach
        return {"network_mode": _PASTA}
    # Without a helper Podman refuses the container, and names what is missing.
    return {"network_mode": _SLIRP4NETNS, "network_options": {_SLIRP4NETNS: ["allow_host_loopback=false"]}}
