"""What a claim restores into the tree, and what a generation keeps from its parent although the tree lacks it.

A mapping may ignore deletions, ignore the tree's own version, or not restore a file at a claim, so that its absence in
the tree means nothing. This module never loses an entry that the rules keep: if another entry has its name, that entry
is stored under another name.
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
    """The tree's entries and the kept entries of the parent generation, in tree order; and what to report.

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
            reported.append(Skipped(path=path, reason=f"stored as {aside!r}: a kept entry has its name"))
    for path, entry in kept.items():
        if path not in merged or not selection.stores(path, entry.type == "d"):
            merged[path] = entry
    for path in [path for path, entry in merged.items() if entry.kind == "sqlite"]:
        for suffix in SIDECARS:  # SQLite would apply an older or newer one to the whole database
            merged.pop(f"{path}{suffix}", None)
    return sorted(merged.values(), key=in_tree_order), reported


def brought(entries: Sequence[Entry], selection: Selection) -> tuple[Entry, ...]:
    """The entries of a generation that a claim restores, with their parent directories."""
    if selection.restores_all:
        return tuple(entries)
    wanted: set[str] = set()
    for entry in entries:
        if selection.restores(entry.path, is_dir=entry.type == "d"):
            _reach(entry.path, wanted)
    return tuple(entry for entry in entries if entry.path in wanted)


def _reach(path: str, wanted: set[str]) -> None:
    """Mark a path and its parent directories as wanted."""
    while path and path not in wanted:
        wanted.add(path)
        path = path.rpartition("/")[0]


def _kept(merged: Mapping[str, Entry], parent: Mapping[str, Entry], selection: Selection) -> dict[str, Entry]:
    """The kept entries of the parent generation, with their parent directories, parents first."""
    wanted: set[str] = set()
    for path, entry in parent.items():
        is_dir = entry.type == "d"
        found = merged.get(path)
        newer = found is not None and selection.stores(path, found.type == "d")
        if not newer and selection.keeps_deleted(path, is_dir=is_dir):
            _reach(path, wanted)
    return {path: entry for path, entry in parent.items() if path in wanted}


def _put_aside(path: str, merged: dict[str, Entry], kept: Mapping[str, Entry]) -> str:
    """Move the tree's entries at and below a path to a free name; returns the name."""
    moving = [merged.pop(old) for old in list(merged) if old == path or old.startswith(f"{path}/")]

    def moved(aside: str) -> list[Entry]:
        return [replace(entry, path=f"{aside}{entry.path[len(path) :]}") for entry in moving]

    def fits(aside: str) -> bool:
        """Whether the name is free, or an earlier commit gave it to the same entry."""
        return aside not in merged and all(_same(kept.get(entry.path), entry) for entry in moved(aside))

    names = chain((f"{path}{ASIDE}",), (f"{path}{ASIDE}-{number}" for number in count(2)))
    aside = next(filter(fits, names))
    merged.update({entry.path: entry for entry in moved(aside)})
    return aside


def _same(kept: Entry | None, entry: Entry) -> bool:
    return kept is None or kept.type == entry.type == "d" or kept.same_as(entry)


def in_tree_order(entry: Entry) -> tuple[bytes, ...]:
    """The sort key of a path in tree order."""
    return tuple(map(os.fsencode, entry.path.split("/")))
