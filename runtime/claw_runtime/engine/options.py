"""Options of podman-py's `create` for a tenant's container.

All hardening is here and cannot be switched off: the host user's own uid and gid and no others, no capabilities, no new
privileges, a seccomp profile, separate namespaces of all kinds, ports on 127.0.0.1 only.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from claw_runtime.engine import init, mapping, network
from claw_runtime.errors import EngineFailed
from claw_runtime.ports import Bind, ContainerSpec

_CPU_PERIOD = 100_000  # microseconds, the kernel's default
_LOG_BYTES = 10 << 20
_SHM_BYTES = 64 << 20  # of /dev/shm, which is in memory; a browser takes --disable-dev-shm-usage


def of(
    spec: ContainerSpec, *, profile: Path, cgroup_parent: str | None, log_driver: str, helper: str
) -> dict[str, Any]:
    """All options of a tenant's container. Raises `EngineFailed` for mounts that podman-py would misread.

    Args:
        profile: File of its seccomp profile.
        cgroup_parent: Parent of its cgroup; None leaves it to Podman.
        log_driver: What Podman would use.
        helper: Podman's helper for a network (network.py).
    """
    options = mapping.options() | _hardening(spec) | _limits(spec) | _network(spec, helper)
    options |= {
        "name": spec.name,
        "environment": dict(spec.environment),
        "labels": dict(spec.labels),
        "stop_timeout": spec.stop_timeout,
        "seccomp_profile_path": str(profile),
    }
    if spec.entrypoint is not None:
        options["entrypoint"] = list(spec.entrypoint)
    if spec.init:
        options["init"] = True  # catatonit, 0.7 MB of which 50 kB are a container's own
        if program := init.program():
            options["init_path"] = os.fspath(program)
    if cgroup_parent:
        options["cgroup_parent"] = cgroup_parent
    if log_driver != "journald":  # the journal bounds itself, a file does not
        options["log_config"] = {"Type": "k8s-file", "Config": {"size": _LOG_BYTES}}
    return options


def _hardening(spec: ContainerSpec) -> dict[str, Any]:
    """Options of podman-py's `create`. Raises `EngineFailed` for mounts that it would misread."""
    return {
        "cap_drop": ["all"],
        "no_new_privileges": True,
        "read_only": spec.read_only,
        "read_write_tmpfs": False,  # otherwise newer Podmans mount /run, /tmp and /var/tmp writable, without a bound
        "shm_size": _SHM_BYTES,
        # The kernel counts message queues for each user of the host, so that one tenant could use up those of all.
        "ulimits": [{"Name": "MSGQUEUE", "Soft": 0, "Hard": 0}],
        "systemd": "false",  # otherwise an image whose command looks like an init gets more writable mounts
        "image_volume_mode": "ignore",  # an image's VOLUME would be an additional writable directory
        "volumes": _volumes(spec.binds),
        # `tmpfs=` raises TypeError; Podman adds nosuid and nodev itself, and copies what the image has there.
        "mounts": [{"type": "tmpfs", "source": "tmpfs", "target": path, "mode": "1777"} for path in spec.tmpfs],
    }


def _network(spec: ContainerSpec, helper: str) -> dict[str, Any]:
    if spec.network != "private":
        return {"network_mode": "none"}
    options = network.options(helper)
    if spec.port is not None:
        options["ports"] = {f"{spec.port}/tcp": ("127.0.0.1", 0)}
    return options


def _limits(spec: ContainerSpec) -> dict[str, Any]:
    """Only the limits that are set: without controllers even `unlimited` (-1) is refused.

    `pids` 0 leaves out Podman's own default of 2,048 too. The runtimes ignore a limit of 0, also without the controller
    (measured with crun and runc on Podman 4.3.1).
    """
    options: dict[str, Any] = {}
    if spec.memory is not None:
        options |= {"mem_limit": spec.memory, "memswap_limit": spec.memory}
    if spec.cpus is not None:
        options |= {"cpu_period": _CPU_PERIOD, "cpu_quota": int(spec.cpus * _CPU_PERIOD)}
    if spec.pids is not None:
        options["pids_limit"] = spec.pids
    return options


def _volumes(binds: Sequence[Bind]) -> dict[str, dict[str, Any]]:
    """Binds as podman-py takes them: keyed by source; it treats a relative source as a named volume."""
    volumes: dict[str, dict[str, Any]] = {}
    for bind in binds:
        source = os.fspath(bind.source)
        if not bind.source.is_absolute() or source in volumes:
            raise EngineFailed(
                f"cannot mount {source} at {bind.target}",
                why="each bind mount needs a different, absolute source directory",
                hint="give every mount a different directory",
            )
        options = ["nosuid", "nodev", "ro" if bind.read_only else "rw"]  # fresh: podman-py appends to it
        volumes[source] = {"bind": bind.target, "extended_mode": options}
    return volumes
