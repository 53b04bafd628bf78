"""Stores what is left in retired packs again, from the files of a tree that was just archived."""

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace

from claw_runtime.formats.manifest import Entry, PackRef
from claw_runtime.safefs.opening import NotRegular
from claw_runtime.safefs.tree import Cursor
from claw_runtime.state.commit.chunker import Chunker, Part
from claw_runtime.state.commit.guards import ArchivedTree
from claw_runtime.state.commit.pack_upload import CommitUpload


def as_stored(archived: ArchivedTree, reader: Chunker) -> ArchivedTree:
    """An unchanged tree as the parent generation has it: new places of its chunks would belong to no generation."""
    before = reader.before
    return replace(
        archived,
        records={path: one._replace(entry=before[path]) for path, one in archived.records.items() if path in before},
        databases={
            path: tuple(one._replace(entry=before[path]) for one in some)
            for path, some in archived.databases.items()
            if path in before
        },
    )


def compacted(
    archived: ArchivedTree,
    cursor: Cursor,
    reader: Chunker,
    upload: CommitUpload,
    packs: Callable[[Iterable[Entry]], tuple[PackRef, ...]],
) -> ArchivedTree:
    """A changed tree, of which what is left in retired packs is stored again.

    A file that has changed since it was read keeps its old place, so the pack stays until the next commit. Databases
    were stored again when they were copied.

    Args:
        packs: Returns the packs that entries refer to.

    Raises:
        StoreUnavailable, StoreDenied, BucketMissing: The store failed.
    """
    again = dict[str, list[Part]]()
    for entry in archived.entries if reader.retired else ():
        if entry.kind == "plain" and reader.retires(entry):
            with suppress(NotRegular, OSError):
                fd, _ = cursor.open(entry.path)
                try:
                    again[entry.path] = reader.store_again(fd, entry)
                finally:
                    os.close(fd)
    if not again:
        return archived
    upload.flush()
    placed = {entry.path: reader.placed(entry, again[entry.path]) for entry in archived.entries if entry.path in again}
    entries = tuple(placed.get(entry.path, entry) for entry in archived.entries)
    records = {
        path: one._replace(entry=placed[path]) if path in placed else one for path, one in archived.records.items()
    }
    return replace(archived, entries=entries, packs=packs(entries), uploaded=upload.finish(), records=records)
