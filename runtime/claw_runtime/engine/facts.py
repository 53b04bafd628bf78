"""What `podman info` says of this host, as the rest of claw needs it."""

from collections.abc import Mapping
from typing import Any

from claw_runtime.engine import controllers, network, versions
from claw_runtime.errors import StorageUnusable
from claw_runtime.ports import EngineInfo


def read(answer: Mapping[str, Any]) -> EngineInfo:
    """The facts of Podman's answer.

    Raises:
        EngineUnsupported: Its version is too old or too new.
        StorageUnusable: It has the vfs driver.
    """
    host, store, version = answer["host"], answer["store"], str(answer["version"]["Version"])
    versions.check(version)
    info = EngineInfo(
        version=version,
        rootless=bool(host["security"]["rootless"]),
        storage_driver=str(store["graphDriverName"]),
        cgroup_version=str(host["cgroupVersion"]),
        cgroup_controllers=controllers.of_containers(host),
        runtime=str(host["ociRuntime"]["name"]),
        seccomp=bool(host["security"]["seccompEnabled"]),
        network=network.helper(host),
    )
    if info.storage_driver == "vfs":
        path = store.get("configFile", "~/.config/containers/storage.conf")
        raise StorageUnusable(
            "Podman stores images with the vfs driver",
            why="it copies the whole image for every container: tens of seconds and its full size each",
            hint=f"write '[storage]' and 'driver = \"overlay\"' to {path}, then run `podman system reset`: it "
            "forgets all images and containers of this user",
            path=path,
        )
    return info
