"""The peer of a claim: `podman run -d` of the same image under the same terms, as a person would type it.

`PodmanRun` asks Podman whether the terms really are the same: a comparison with a less hardened peer would be false.
"""

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.stage import LABEL_PEER, Stage
from claw_runtime.engine import mapping
from claw_runtime.ports import EngineInfo
from claw_runtime.seccomp import profiles
from claw_runtime.spec.plan import Workload
from claw_runtime.tenancy import SlotDirs

_HOST_TERMS: tuple[str, ...] = ("ReadonlyRootfs", "CapDrop", "UsernsMode", "IDMappings", "CgroupParent", "Privileged")
_HOST_TERMS += (
    "Memory",
    "MemorySwap",
    "PidsLimit",
    "CpuPeriod",
    "CpuQuota",
    "NetworkMode",
    "IpcMode",
    "PidMode",
    "Init",
    "UTSMode",
)


class PodmanRun:
    """The peer of one workload, one container at a time.

    Args:
        info: What the engine can enforce: a limit that ours drops is dropped here too.
        log_driver: The engine's default.
    """

    def __init__(self, stage: Stage, workload: Workload, info: EngineInfo, log_driver: str) -> None:
        self._stage = stage
        self._workload = workload
        self._info = info
        self._log_driver = log_driver
        self._count = 0
        self._our_terms: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        """Name of the container over the newest directories."""
        return f"{self._stage.home.name}-peer-{self._count}"

    def directories(self) -> SlotDirs:
        """Fresh directories for the next container."""
        self._count += 1
        root = self._stage.peers / str(self._count)
        dirs = SlotDirs(root / "state", root / "logs", root / "values")
        for directory in (dirs.state, dirs.logs, dirs.values):
            directory.mkdir(parents=True)
        return dirs

    def start(self, dirs: SlotDirs) -> None:
        """`podman run -d`; back when Podman is."""
        _podman(*self.argv(dirs))

    def match(self, ours: str) -> None:
        """Keep the terms of a container of ours; peers are compared with them."""
        self._our_terms = _terms(ours)

    def remove(self) -> None:
        """Remove the container.

        Raises:
            AssertionError: It ran under other terms than ours.
        """
        if self._our_terms is not None:
            compare(self._our_terms, _terms(self.name))
        _podman("rm", "-f", "-t", "0", "-v", self.name)

    def end(self) -> None:
        """`podman stop`, which the program heeds, and `podman rm`."""
        _podman("stop", "-t", str(self._workload.stop_timeout), self.name)
        _podman("rm", "-v", self.name)

    def argv(self, dirs: SlotDirs) -> list[str]:
        """Podman's arguments."""
        workload = self._workload
        label = f"{LABEL_PEER}={self._stage.home.name}"
        argv = ["run", "-d", "--pull=never", f"--name={self.name}", f"--label={label}"]
        argv += [*mapping.flags(), "--cap-drop=all"]
        argv += ["--init"] if workload.init else []
        argv += ["--security-opt=no-new-privileges", "--systemd=false", "--image-volume=ignore"]
        argv += [f"--security-opt=seccomp={profiles.path_of(workload.seccomp)}"]
        argv += ["--read-only", "--read-only-tmpfs=false"] if workload.read_only else []
        argv += [f"--tmpfs={path}:mode=1777" for path in workload.ephemeral]
        argv += [f"--volume={source}:{target}:{mode},nosuid,nodev" for source, target, mode in _binds(workload, dirs)]
        argv += self._network() + self._limits()
        argv += [f"--env={name}={text}" for name, text in workload.environment.items()]
        argv += [f"--stop-timeout={workload.stop_timeout}"]
        if self._log_driver != "journald":
            argv += ["--log-driver=k8s-file", f"--log-opt=max-size={10 << 20}"]
        if parent := self._stage.settings.cgroup_parent:
            argv += [f"--cgroup-parent={parent}"]
        return [*argv, workload.image, *workload.command]

    def _network(self) -> list[str]:
        if self._workload.network == "none":
            return ["--network=none"]
        helper = "pasta" if self._info.network == "pasta" else "slirp4netns:allow_host_loopback=false"
        return [f"--network={helper}", f"--publish=127.0.0.1::{self._workload.port}"]

    def _limits(self) -> list[str]:
        wanted = self._workload.limits
        flags = {
            "memory": [f"--memory={wanted.memory}", f"--memory-swap={wanted.memory}"],
            "cpus": [f"--cpus={wanted.cpus}"],
            "pids": [f"--pids-limit={wanted.pids}"],
        }
        asked = [name for name in flags if getattr(wanted, name) is not None]
        return [flag for name in asked if name in self._info.enforceable_limits for flag in flags[name]]


def log_driver() -> str:
    """The log driver that containers of this user's Podman get by default."""
    return _podman("info", "--format", "{{.Host.LogDriver}}").strip()


def _podman(*arguments: str) -> str:
    return subprocess.run(["podman", *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


def compare(ours: Mapping[str, Any], peer: Mapping[str, Any]) -> None:
    """Compare two containers by what Podman says of them.

    Raises:
        AssertionError: They run under different terms.
    """
    different = {name: (ours[name], peer[name]) for name in ours if ours[name] != peer[name]}
    if different:
        raise AssertionError(f"ours and the peer run under different terms: {different}")


def _terms(container: str) -> dict[str, Any]:
    answer = json.loads(_podman("container", "inspect", container))[0]
    config, host = answer["Config"], answer["HostConfig"]
    return {name: host.get(name) for name in _HOST_TERMS} | {
        "image": answer["Image"],
        "argv": [answer["Path"], *answer["Args"]],
        "user": config["User"],
        "environment": sorted(text for text in config["Env"] if not text.startswith(("HOSTNAME=", "container="))),
        # Podman names the profile's file where the command line gave it; that all have one is the tests' to say.
        "security": [option for option in host["SecurityOpt"] or () if not option.startswith("seccomp=")],
        "capabilities": [answer["BoundingCaps"], answer["EffectiveCaps"]],
        "log": [host["LogConfig"]["Type"], host["LogConfig"]["Size"]],
        "ports": sorted(host["PortBindings"] or {}),
        "mounts": _mounts(answer["Mounts"], host["Tmpfs"] or {}),
    }


def _mounts(mounts: Sequence[Mapping[str, Any]], tmpfs: Mapping[str, str]) -> list[tuple[str, ...]]:
    """Target, kind and options of each; Podman lists a tmpfs in one place or the other, as it was asked for."""
    listed = [(mount["Destination"], mount["Type"], str(mount["RW"]), *sorted(mount["Options"])) for mount in mounts]
    binds = [entry for entry in listed if entry[1] != "tmpfs"]
    return sorted([*binds, *((path, "tmpfs") for path in {*tmpfs, *(e[0] for e in listed if e[1] == "tmpfs")})])


def _binds(workload: Workload, dirs: SlotDirs) -> list[tuple[Path, str, str]]:
    binds = [(dirs.state, workload.state_target, "rw")]
    binds += [(dirs.logs, workload.logs_target, "rw")] if workload.logs_target else []
    binds += [(dirs.values, workload.values_target, "ro")] if workload.values_target else []
    return binds + [(bind.source, bind.target, "ro") for bind in workload.binds]
