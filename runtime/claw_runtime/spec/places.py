"""The tenant's own directories: their paths in the container, and in the stored tree."""

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass

from claw_runtime.spec.workload import WorkloadFile

OWN = ".claw-volumes"
"""Directory in the state under which the tenant's other volumes are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StateMount:
    """A directory of the tenant's own that is kept in its state, at `subdirectory`, and is mounted at `target` as well.

    The state's own mount shows it too. A slot makes it empty, ahead; the claim fills it and never replaces it, since
    the container has that very directory mounted.
    """

    name: str
    subdirectory: str
    target: str
    read_only: bool


def state_mounts(file: WorkloadFile) -> tuple[StateMount, ...]:
    """The tenant's own directories that a file mounts besides state, logs and secrets."""
    return tuple(
        StateMount(name=name, subdirectory=f"{OWN}/{name}", target=volume.target, read_only=bool(volume.read_only))
        for name, volume in file.volumes.items()
        if name == "comm" or volume.per_tenant
    )


def volumes(state: str, mounts: tuple[StateMount, ...]) -> dict[str, str]:
    """The paths of the tenant's own directories in the container and in its tree."""
    return {**{mount.target: mount.subdirectory for mount in mounts}, state: ""}


def locate(path: str, state: str, own: Mapping[str, str]) -> tuple[str, str] | None:
    """A mapping's path in the container and in the tree; None when it is in no volume of the tenant's own.

    A relative path counts from the directory around the state, as boilerhouse counts it, if that leads into such a
    volume, and from the state itself otherwise.

    Args:
        state: Where the state is in the container.
        own: As `volumes` gives it.
    """
    for around in (posixpath.dirname(state), state):
        absolute = posixpath.normpath(posixpath.join(around, path))
        for target, subdirectory in own.items():
            if absolute == target or absolute.startswith(f"{target}/"):
                return absolute, "/".join(filter(None, (subdirectory, absolute[len(target) + 1 :])))
    return None
