"""Data that a commit passes between its steps, and its refusals: each with its reason and remedy."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NoReturn

from claw_runtime.errors import Fenced, UploadFailed
from claw_runtime.formats.head import Head
from claw_runtime.formats.manifest import Entry, Manifest, PackRef
from claw_runtime.ports import ObjectMissing
from claw_runtime.safefs.tree import Skipped
from claw_runtime.spec.parts import Retention
from claw_runtime.state.commit.stat_cache import Record
from claw_runtime.state.lease.leases import UploadRight
from claw_runtime.tenancy import TenantId

MANY: Final = 100
"""Minimum files of a generation for a loss of half of them to count as a mass delete."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivedTree:
    """A tree as the manifest will describe it.

    Attributes:
        uploaded: Bytes of packs that were sent.
        reported: Names that were left out or stored differently, and why.
        records, databases: What the next pass does not need to read, as in `CachedTree`.
        doubted: What the next pass does not keep again, as in `CachedTree`.
        moving: Files that changed each time they were read: the parent's version is kept, or they are left out.
        spare: What the next pass may store again only to have fewer packs, as in `CachedTree`.
    """

    entries: tuple[Entry, ...]
    packs: tuple[PackRef, ...]
    uploaded: int
    reported: tuple[Skipped, ...]
    records: Mapping[str, Record]
    databases: Mapping[str, tuple[Record, ...]]
    doubted: frozenset[str]
    moving: frozenset[str] = frozenset()
    spare: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """The content of a generation before it has a number; the store has every byte of it already."""

    entries: tuple[Entry, ...]
    packs: tuple[PackRef, ...]
    image: str
    application: str
    retention: Retention | None = None
    """Which earlier generations are kept; None keeps all."""
    release: bool = False
    """The tenant is given back with it: its next reader is a restore."""


def refuse_empty(right: UploadRight, parent: Manifest | None, archived: ArchivedTree, *, allow_empty: bool) -> None:
    if allow_empty or parent is None or not any(entry.type != "d" for entry in parent.entries):
        return
    if not any(entry.type != "d" for entry in archived.entries):
        raise UploadFailed(
            f"the tree of tenant {right.tenant} is empty, but its generation {right.base_generation} is not",
            why="every file is gone, which is usually an accident",
            hint="if this is intended, leave one file in the state; the tree and the generation are both kept",
            tenant=right.tenant,
        )


def mass_delete(parent: Manifest, archived: ArchivedTree) -> int:
    """How many files of the parent are gone, if more than half are gone and the parent has enough files; else 0."""
    before = {entry.path for entry in parent.entries if entry.type == "f"}
    gone = len(before.difference(entry.path for entry in archived.entries if entry.type == "f"))
    return gone if len(before) >= MANY and 2 * gone > len(before) else 0


def refuse_mass_delete(right: UploadRight, parent: Manifest, gone: int) -> NoReturn:
    raise UploadFailed(
        f"{gone} of the {parent.files} files of tenant {right.tenant} are gone",
        why="a loss of more than half at once is usually an accident, and sync.policy.on_mass_delete is refuse",
        hint="if this is intended, set it to pin, which keeps the generation that has them; the tree is kept",
        tenant=right.tenant,
        gone=gone,
    )


def unchanged(parent: Manifest | None, archived: ArchivedTree) -> bool:
    """Whether a generation would equal its parent. Content that is encrypted only now counts as a change."""
    sealing = any(pack.sealed for pack in archived.packs)
    if parent and sealing and _plain(archived) < _plain(parent):
        return False
    before = parent.entries if parent else ()
    after = archived.entries
    return before is after or (
        len(before) == len(after)
        and all(old is new or old.same_as(new) for old, new in zip(before, after, strict=True))
    )


def _plain(state: Manifest | ArchivedTree) -> int:
    """Objects that are not encrypted."""
    return sum(not pack.sealed for pack in state.packs) + sum(entry.blob is not None for entry in state.entries)


def check_lineage(right: UploadRight, head: Head, newest: Manifest | None) -> None:
    """Check that HEAD is the generation of this right, or a later one that grew from it.

    Raises:
        Fenced: It is of another lineage, whatever its number and epoch.
    """
    if right.head.sha256 is None or head.sha256 == right.head.sha256:
        return
    if newest is None or not newest.grew_from(right.head.generation, right.head.sha256):
        fence(right, head)


def fence(right: UploadRight, head: Head | None) -> NoReturn:
    raise Fenced(
        f"another runtime took over tenant {right.tenant}",
        why=f"epoch {right.epoch} is over; {(head.owner if head else None) or 'another runtime'} came after"
        if head
        else "its HEAD is gone",
        hint="this host keeps its tree; the other runtime's state is the current one",
        tenant=right.tenant,
        epoch=right.epoch,
        owner=head and head.owner,
    )


def refuse_upload(tenant: TenantId, error: BaseException) -> NoReturn:
    why = f"an object is missing: {error}" if isinstance(error, ObjectMissing) else str(error)
    hint = getattr(error, "hint", "") or "fix the cause, then release again"
    raise UploadFailed(
        f"the state of tenant {tenant} could not be committed",
        why=why,
        hint=f"the tree is kept here; {hint}",
        tenant=tenant,
    ) from error
