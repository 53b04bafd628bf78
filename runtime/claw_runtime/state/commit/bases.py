"""Whether the next manifest is whole, or a delta of an earlier whole one.

A delta names all that changed since its base, so it grows, and a restore never reads more than two manifests. If deltas
grow evenly, the cost of a commit is least when all deltas of a base together are as long as the base
(docs/adr/0013-base-and-delta.md).
"""

from collections.abc import Iterable, Sequence
from operator import lt
from typing import Final

from claw_runtime.formats.entries import Entry, tree_order
from claw_runtime.formats.manifest import Base, Manifest
from claw_runtime.formats.rows import changed, spliced

SMALL: Final = 100
"""Rows of a manifest that is always whole: a second request of a restore would cost more than they do."""
RELEASED: Final = 2000
"""Likewise at a release, about 120 kB: claims restore what releases stored, and read one manifest instead of two."""


def base_of(
    parent: Manifest | None, sha256: str | None, entries: Sequence[Entry], *, seals: bool, release: bool = False
) -> Base | None:
    """The base of the generation after `parent`; None if its manifest is to be whole.

    Args:
        sha256: Digest of the parent's manifest object.
        entries: Of the new generation.
        seals: Whether the new manifest is encrypted: then its base must be, too.
        release: The next that reads it is a restore.
    """
    if parent is None or sha256 is None:
        return None
    base = parent.base or Base(sha256=sha256, document=parent)
    if seals and not base.document.sealed:
        return None
    before = base.document.entries
    whole = _weight(before)
    if whole < (RELEASED if release else SMALL) or not _in_order(entries):
        return None
    known = {entry.path: entry for entry in before}
    news = changed(entries, known)
    gone = len(before) + sum(entry.path not in known for entry in news) - len(entries)
    delta = gone + sum(_delta_weight(entry, known.get(entry.path)) for entry in news)
    deltas = parent.generation + 1 - base.document.generation
    return base if delta * (deltas + 1) < 2 * whole else None


def _weight(entries: Iterable[Entry]) -> int:
    """Length of rows, in units of a short one."""
    return sum(len(entry.extents) or 1 for entry in entries)


def _delta_weight(entry: Entry, old: Entry | None) -> int:
    """Likewise of a row of a delta."""
    found = spliced(entry, old)
    return (len(entry.extents) or 1) if found is None else 1 + sum(1 + len(one.places) for one in found)


def _in_order(entries: Iterable[Entry]) -> bool:
    """Whether the entries are in tree order; a reader of a delta sorts them."""
    paths = [entry.path for entry in entries]
    keys: Sequence[str | bytes] = [path.replace("/", "\0") for path in paths]
    try:
        "".join(paths).encode()
    except UnicodeEncodeError:  # only then the order of characters is not that of bytes
        keys = [tree_order(path) for path in paths]
    return all(map(lt, keys, keys[1:]))
