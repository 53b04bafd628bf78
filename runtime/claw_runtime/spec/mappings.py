"""Mappings of the workload file, in the terms of the tenant's tree."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from claw_runtime.spec.loader import Document
from claw_runtime.spec.places import StateMount, locate, volumes
from claw_runtime.spec.sync import MappingFile

View = Literal["none", "files", "all"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncMapping:
    """What happens to a part of the tree.

    Attributes:
        path: File or directory relative to the tree; empty is the state, without the tenant's other volumes in it.
        pattern, exclude: Relative to `path`; None is all.
        view: Whether it is in the plain view: not, without databases, or with them.
        view_path: Where in the plain view `path` is.
    """

    path: str
    pattern: str | None = None
    exclude: tuple[str, ...] = ()
    direction: Literal["bidirectional", "upload", "download"] = "bidirectional"
    mode: Literal["sync", "copy"] = "sync"
    view: View = "none"
    view_path: str = ""


def resolved(document: Document, state: str, mounts: tuple[StateMount, ...]) -> tuple[SyncMapping, ...]:
    """The file's mappings that lie in the tenant's tree.

    Raises:
        InvalidSpec: Two files could have the same name in the plain view.
    """
    own, found = volumes(state, mounts), dict[int, SyncMapping]()
    for number, mapping in enumerate(document.workload.sync.mappings):
        if (placed := locate(mapping.path, state, own)) is not None:
            found[number] = _mapping(mapping, placed[1])
    _check_views(document, found)
    return tuple(found.values())


def _mapping(file: MappingFile, path: str) -> SyncMapping:
    view: View = "all" if file.plain_view == "all" else "files" if file.plain_view else "none"
    return SyncMapping(
        path=path,
        pattern=file.pattern,
        exclude=file.exclude,
        direction=file.direction,
        mode=file.mode,
        view=view,
        view_path=path if file.sink_path is None else file.sink_path,
    )


def _check_views(document: Document, mappings: Mapping[int, SyncMapping]) -> None:
    """Refuse two mappings whose files could have the same name in the plain view."""
    shown = {number: mapping for number, mapping in mappings.items() if mapping.view != "none"}
    for number, mapping in shown.items():
        for other in shown.values():
            below = _below(mapping.view_path, other.view_path)
            if below is not None and _below(mapping.path, other.path) != below:
                raise document.refusal(
                    ("sync", "mappings", number, "sink_path"),
                    f"sync.mappings[{number}] is where another mapping's plain view is",
                    why=f"two files of {mapping.path or 'the state'} and {other.path or 'the state'} may be one there",
                    hint="give each mapping with plain_view a sink_path of its own",
                )


def _below(path: str, around: str) -> str | None:
    """What a path is relative to one that it is in; None when it is not."""
    if not around or path == around:
        return path if not around else ""
    return path[len(around) + 1 :] if path.startswith(f"{around}/") else None
