"""What a claim brings into the tree, and what the next generation has although the tree lacks it, as its parent has it.

A mapping may say that deletions do not count, that the tree's own version does not, or that a claim does not bring a
file into the tree: then its absence there says nothing. No entry that the rules keep is ever lost by this module: what
stands in the way of one is stored beside it.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain, count

from claw_runtime.formats.manifest import Entry
from claw_runtime.safefs.tree import Skipped
from claw_runtime.state.rules.selection import Selection
from claw_runtime.state.sqlite.backup import SIDECARS

ASIDE = ".aside"


def carry(
    entries: Sequence[Entry], parent: Mapping[str, Entry], selection: Selection
) -> tuple[list[Entry], list[Skipped]]:
    """The tree's entries and those of the parent generation that are kept, in the order of a walk; and what to report.

    Args:
        entries: What the tree has and the selection stores, with the directories on the way.
        parent: The parent generation's entries by path, parents first.
    """
    if selection.keeps_none or not parent:
        return list(entries), []
    merged = {entry.path: entry for entry in entries}
    kept = _kept(merged, parent, selection)
    if not kept:
        return list(entries), []
    reported = []
    for path, entry in kept.items():
        found = merged.get(path)
        if found is not None and not _same(entry, found):
            aside = _put_aside(path, merged, kept)
            reported.append(Skipped(path=path, reason=f"stored as {aside!r}: what is kept has its name"))
    for path, entry in kept.items():
        if path not in merged or not selection.stores(path, entry.type == "d"):
            merged[path] = entry
    for path in [path for path, entry in merged.items() if entry.kind == "sqlite"]:
        for suffix in SIDECARS:  # an older or newer one beside a whole database would be played into it
            merged.pop(f"{path}{suffix}", None)
    return sorted(merged.values(), key=_place), reported


def brought(entries: Sequence[Entry], selection: Selection) -> tuple[Entry, ...]:
    """Of a generation's entries those that a claim makes, with the directories that they lie in."""
    if selection.restores_all:
        return tuple(entries)
    wanted: set[str] = set()
    for entry in entries:
        if selection.restores(entry.path, is_dir=entry.type == "d"):
            _reach(entry.path, wanted)
    return tuple(entry for entry in entries if entry.path in wanted)


def _reach(path: str, wanted: set[str]) -> None:
    """Want a path and the directories that it lies in."""
    while path and path not in wanted:
        wanted.add(path)
        path = path.rpartition("/")[0]


def _kept(merged: Mapping[str, Entry], parent: Mapping[str, Entry], selection: Selection) -> dict[str, Entry]:
    """The parent's entries that stay, with the directories that they lie in, parents first."""
    wanted: set[str] = set()
    for path, entry in parent.items():
        is_dir = entry.type == "d"
        found = merged.get(path)
        newer = found is not None and selection.stores(path, found.type == "d")
        if not newer and selection.keeps_deleted(path, is_dir=is_dir):
            _reach(path, wanted)
    return {path: entry for path, entry in parent.items() if path in wanted}


def _put_aside(path: str, merged: dict[str, Entry], kept: Mapping[str, Entry]) -> str:
    """Move what the tree has at a path, and below it, to a name where it replaces nothing; the name."""
    moving = [merged.pop(old) for old in list(merged) if old == path or old.startswith(f"{path}/")]

    def moved(aside: str) -> list[Entry]:
        return [replace(entry, path=f"{aside}{entry.path[len(path) :]}") for entry in moving]

    def fits(aside: str) -> bool:
        """Nobody has the name, but an earlier commit of the same."""
        return aside not in merged and all(_same(kept.get(entry.path), entry) for entry in moved(aside))

    names = chain((f"{path}{ASIDE}",), (f"{path}{ASIDE}-{number}" for number in count(2)))
    aside = next(filter(fits, names))
    merged.update({entry.path: entry for entry in moved(aside)})
    return aside


def _same(kept: Entry | None, entry: Entry) -> bool:
    return kept is None or kept.type == entry.type == "d" or kept.same_as(entry)


def _place(entry: Entry) -> tuple[bytes, ...]:
    """Where a walk comes to a path."""
    return tuple(map(os.fsencode, entry.path.split("/")))
