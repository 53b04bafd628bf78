"""Mounts of a workload besides the state: host directories, and further directories of the tenant."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from claw_runtime.spec.loader import Document
from claw_runtime.spec.places import OWN
from claw_runtime.spec.workload import RESERVED_VOLUMES, WorkloadFile


@dataclass(frozen=True, slots=True, kw_only=True)
class HostBind:
    """A host directory that every container of the workload sees, read-only, at `target`."""

    name: str
    source: Path
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed:
    """A host directory whose files are copied into a tenant's state at its first claim, when it has no state at all.

    `subdirectory` is relative to the state, empty for the state itself.
    """

    source: Path
    subdirectory: str


def binds(file: WorkloadFile) -> tuple[HostBind, ...]:
    """The host directories that a file mounts."""
    return tuple(
        HostBind(name=name, source=Path(volume.source), target=volume.target)
        for name, volume in file.volumes.items()
        if name not in RESERVED_VOLUMES and volume.source is not None
    )


def seeds(document: Document) -> tuple[Seed, ...]:
    """The seeds of a tenant without state; relative paths start at the workload file."""
    return tuple(
        Seed(
            source=document.path.parent / volume.seed,
            subdirectory="" if name == "state" else f"{OWN}/{name}",
        )
        for name, volume in document.workload.volumes.items()
        if volume.seed is not None
    )


def check(document: Document, targets: Mapping[str, str | None]) -> None:
    """Refuse mounts that hide one another; the file's mounts were already compared with each other.

    Args:
        targets: Where everything is mounted, by the names of volumes, and by others for what the contract mounts.

    Raises:
        InvalidSpec: A volume of the file lies in, over or around another.
    """
    for name in document.workload.volumes:
        for other, target in targets.items():
            if other != name and target is not None and _overlap(targets[name] or "", target):
                raise document.refusal(
                    ("volumes", name, "target"),
                    f"volumes.{name} overlaps with {other} at {target}",
                    why="every container of this workload already mounts that path",
                    hint="choose another target",
                )


def _overlap(one: str, other: str) -> bool:
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")
