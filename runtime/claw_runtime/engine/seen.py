"""Podman's two descriptions of a container, as `ports.Container`, and what shows of one without asking Podman."""

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from claw_runtime.ports import Container, ContainerState

_STATES: Mapping[str, ContainerState] = {
    "created": "created",
    "initialized": "initialized",
    "running": "running",
    "paused": "paused",
    "stopped": "exited",
    "exited": "exited",
}


def inspected(attrs: Mapping[str, Any]) -> Container:
    """The answer of `GET /containers/{id}/json`."""
    state = _STATES.get(attrs["State"]["Status"], "other")
    published = [port for ports in (attrs["NetworkSettings"]["Ports"] or {}).values() for port in ports or ()]
    return Container(
        id=str(attrs["Id"]),
        name=str(attrs["Name"]),
        state=state,
        image_id=str(attrs["Image"]).removeprefix("sha256:"),
        labels=dict(attrs["Config"]["Labels"] or {}),
        pid=int(attrs["State"]["Pid"]),
        exit_code=int(attrs["State"]["ExitCode"]) if state == "exited" else None,
        host_port=int(published[0]["HostPort"]) if published else None,
        oom_killed=bool(attrs["State"].get("OOMKilled")),
    )


def listed(entry: Mapping[str, Any]) -> Container:
    """An entry of `GET /containers/json`."""
    state = _STATES.get(entry["State"], "other")
    ports = entry.get("Ports") or ()
    return Container(
        id=str(entry["Id"]),
        name=str(entry["Names"][0]),
        state=state,
        image_id=str(entry["ImageID"]).removeprefix("sha256:"),
        labels=dict(entry["Labels"] or {}),
        pid=int(entry["Pid"]),
        exit_code=int(entry["ExitCode"]) if state == "exited" else None,
        host_port=int(ports[0]["host_port"]) if ports else None,
    )


def watched(pid: int) -> bool | None:
    """Whether the parent of a container's first process is conmon; None when that process cannot be seen.

    The kernel gives the process another parent when its conmon dies (measured on Podman 4.3.1: the container can still
    be started, but its ports are gone and nothing notes its end).
    """
    try:
        # The name of a program may hold blanks and parentheses, but nothing after it does.
        parent = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[1]
    except (OSError, IndexError):
        return None
    try:
        return Path(f"/proc/{parent}/comm").read_text("utf-8", "replace").strip() == "conmon"
    except OSError:
        return False


def published(port: int) -> bool:
    """Whether a process holds this port of 127.0.0.1: Podman's rootlessport does, beside the container.

    When that one dies, the container runs on, and nobody reaches it. A port that cannot be looked at counts as held.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False
