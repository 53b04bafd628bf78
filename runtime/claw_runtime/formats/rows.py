"""Rows of a manifest: one JSON array for each name, or for each name that a delta changes or removes.

Others may write to the bucket, so reading is strict: it raises `ValueError`, `TypeError` or `KeyError` for anything
that claw would not have written.
"""

import base64
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from claw_runtime.formats.entries import (
    LATEST,
    MAX_XATTRS,
    ContentKind,
    Entry,
    Extent,
    PackRef,
    Splice,
    hole,
    is_digest,
    splices,
    tree_order,
)

ROWS: Final = 500  # in a line
MAX_DEPTH: Final = 256
REMOVED: Final = "-"
_MAX_FRAME: Final = 1024 * 1024
_LARGEST: Final = 2**63 - 1
_BLOB: Final = re.compile(r"[0-9a-f]{64}\.[1-9][0-9]{0,18}")
_XATTR: Final = re.compile(r"user\.[^\0]{1,250}")

# --- write ---


def written(entries: Sequence[Entry], index: Mapping[str, int]) -> Iterator[list[list[Any]]]:
    """The lines of rows of a whole manifest; `index` has the number of each pack."""
    for start in range(0, len(entries), ROWS):
        yield [_row(entry, _content(entry, index)) for entry in entries[start : start + ROWS]]


def written_delta(
    entries: Sequence[Entry], base: Mapping[str, Entry], index: Mapping[str, int]
) -> Iterator[list[list[Any]]]:
    """The lines of rows that turn the base's entries, by path, into these."""
    rows = [[REMOVED, _name(path)] for path in _removed(entries, base)]
    rows += [_row(entry, _changed_content(entry, base.get(entry.path), index)) for entry in changed(entries, base)]
    for start in range(0, len(rows), ROWS):
        yield rows[start : start + ROWS]


def changed(entries: Iterable[Entry], base: Mapping[str, Entry]) -> list[Entry]:
    """The entries that are new or differ."""
    found = []
    for entry in entries:
        old = base.get(entry.path)
        if old is not entry and old != entry:
            found.append(entry)
    return found


def _removed(entries: Sequence[Entry], base: Mapping[str, Entry]) -> list[str]:
    here = {entry.path for entry in entries}
    return [path for path in base if path not in here]


def spliced(entry: Entry, old: Entry | None) -> tuple[Splice, ...] | None:
    """The changes to the base's places of a file with several; None if all its places are to be written."""
    if old is None or min(len(old.extents), len(entry.extents)) < 2:
        return None
    found = splices(old.extents, entry.extents)
    return found if 2 * sum(1 + len(one.places) for one in found) <= len(entry.extents) else None


def _row(entry: Entry, content: Any) -> list[Any]:
    row: list[Any] = [entry.type, _name(entry.path), entry.mode, entry.mtime_ns]
    if entry.type == "f":
        row += (entry.size, entry.sha256, content)
    elif entry.target is not None:
        row.append(_name(entry.target))
    if entry.kind != "plain" or entry.xattrs:
        xattrs = [[_name(name), base64.b64encode(value).decode()] for name, value in entry.xattrs]
        row.append({"kind": entry.kind, "xattrs": xattrs})
    return row


def _name(value: str) -> str | list[str]:
    """A name unchanged; in an array and base64 if its bytes are not UTF-8."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return [base64.b64encode(value.encode("utf-8", "surrogateescape")).decode()]
    return value


def _content(entry: Entry, index: Mapping[str, int]) -> Any:
    extents = entry.extents
    if entry.blob:
        return entry.blob
    if len(extents) == 1 and not extents[0].hole and extents[0].sha256 is None:
        return [index[extents[0].pack], extents[0].offset, extents[0].stored]
    return [_place(extent, index) for extent in extents]


def _changed_content(entry: Entry, old: Entry | None, index: Mapping[str, int]) -> Any:
    if (found := spliced(entry, old)) is None:
        return _content(entry, index)
    return {"changes": [[one.first, one.count, [_place(extent, index) for extent in one.places]] for one in found]}


def _place(extent: Extent, index: Mapping[str, int]) -> list[Any]:
    if extent.hole:
        return [extent.raw]
    row: list[Any] = [index[extent.pack], extent.offset, extent.stored, extent.raw]
    return row if extent.sha256 is None else [*row, extent.sha256]


# --- read ---


class Rows:
    """Reads the rows of one manifest.

    Args:
        packs: Those that rows refer to by number.
        version: Of the manifest.
    """

    def __init__(self, packs: Sequence[PackRef], version: int) -> None:
        self._packs, self._version = packs, version

    def entries(self, lines: Iterable[Any]) -> Iterator[Entry]:
        """A whole tree."""
        tree = _Tree()
        for line in lines:
            for row in line:
                entry = self._entry(row)
                tree.add(entry)
                yield entry

    def applied(self, lines: Iterable[Any], base: Iterable[Entry]) -> Iterator[Entry]:
        """The tree that a delta makes of the base's, in tree order."""
        merged, seen = {entry.path: entry for entry in base}, set[str]()
        for line in lines:
            for row in line:
                type_, name, *rest = row
                path = unnamed(name)
                if path in seen:
                    raise ValueError(f"{path[:80]!r} occurs twice")
                seen.add(path)
                if type_ == REMOVED:
                    if rest:
                        raise ValueError(f"{path[:80]!r} is removed, but has further rows")
                    del merged[path]
                else:
                    merged[path] = self._entry(row, merged.get(path))
        tree = _Tree()
        for path in sorted(merged, key=tree_order):
            tree.add(merged[path])
            yield merged[path]

    def _entry(self, row: Sequence[Any], old: Entry | None = None) -> Entry:
        type_, name, mode, mtime_ns, *rest = row
        path = unnamed(name)
        mode, mtime_ns = count(mode, 0o777), _signed(mtime_ns)
        if type_ == "f":
            return self._file(path, mode, mtime_ns, old, *rest)
        if type_ == "d":
            return Entry(path=path, type="d", mode=mode, mtime_ns=mtime_ns, xattrs=_more(*rest)[1])
        if type_ == "l":
            (target,) = rest
            return Entry(path=path, type="l", mode=mode, mtime_ns=mtime_ns, target=unnamed(target))
        raise ValueError(f"{path[:80]!r} is of unknown type {type_!r}"[:200])

    def _file(
        self, path: str, mode: int, mtime_ns: int, old: Entry | None, size: Any, sha256: Any, content: Any, *more: Any
    ) -> Entry:
        kind, xattrs = _more(*more)
        blob = content if isinstance(content, str) else None
        if blob is not None and not (_BLOB.fullmatch(blob) and blob.startswith(digest(sha256)) and size):
            raise ValueError(f"the blob of {path[:80]!r} is not one of its content")
        entry = Entry(
            path=path,
            type="f",
            mode=mode,
            mtime_ns=mtime_ns,
            size=count(size),
            sha256=text(sha256),
            extents=self._extents(content, size, old) if blob is None else (),
            kind=kind,
            blob=blob,
            xattrs=xattrs,
        )
        if not is_digest(sha256) and not (self._version > 2 and sha256 == entry.places):
            raise ValueError(f"not the digest of a file: {sha256!r}"[:200])
        return entry

    def _extents(self, content: Any, size: Any, old: Entry | None) -> tuple[Extent, ...]:
        if isinstance(content, dict):
            extents = self._spliced(content["changes"], old)
        elif content and type(content[0]) is int:
            number, offset, stored = content
            return (self._extent(number, offset, stored, size),)
        else:
            extents = self._places(content)
        if sum(extent.raw for extent in extents) != size or not all(extent.raw for extent in extents):
            raise ValueError("the frames of a file do not add up to its size")
        return extents

    def _places(self, rows: Sequence[Any]) -> tuple[Extent, ...]:
        return tuple(hole(count(row[0])) if len(row) == 1 else self._extent(*row) for row in rows)

    def _spliced(self, changes: Sequence[Any], old: Entry | None) -> tuple[Extent, ...]:
        """The base's places of the same name with some replaced, in sequence."""
        if old is None or len(old.extents) < 2:
            raise ValueError("a file's places refer to a base that has none")
        extents, at = list[Extent](), 0
        for first, gone, rows in changes:
            if count(first, len(old.extents)) < at or count(gone) > len(old.extents) - first:
                raise ValueError("a change of places lies outside of the base's")
            extents += old.extents[at:first]
            extents += self._places(rows)
            at = first + gone
        return (*extents, *old.extents[at:])

    def _extent(self, number: Any, offset: Any, stored: Any, raw: Any, sha256: Any = None) -> Extent:
        pack = self._packs[count(number, len(self._packs) - 1)]
        if count(offset) + count(stored) > pack.size or not count(raw, _MAX_FRAME):
            raise ValueError("an extent lies outside of its pack")
        return Extent(
            pack=pack.sha256, offset=offset, stored=stored, raw=raw, sha256=None if sha256 is None else digest(sha256)
        )


class _Tree:
    """Checks names: each once, each parent an earlier directory, so that nothing is below a link or file."""

    def __init__(self) -> None:
        self._depths = {"": 0}  # of directories; -1 of what nothing lies below

    def add(self, entry: Entry) -> None:
        path = entry.path
        if path in self._depths:
            raise ValueError(f"{path[:80]!r} is empty or occurs twice")
        parent, _, step = path.rpartition("/")
        depth = self._depths.get(parent, -1)
        if depth < 0 or (not parent and path != step):
            raise ValueError(f"{path[:80]!r} is not in a directory")
        if step in ("", ".", "..") or depth > MAX_DEPTH:
            raise ValueError(f"a path leads out of the tree or too deep: {path[:80]!r}")
        self._depths[path] = depth + 1 if entry.type == "d" else -1


def unnamed(name: Any) -> str:
    """A name as it was before `_name`."""
    if isinstance(name, str):
        value = name
        if not value.isascii():
            value.encode()
    else:
        (encoded,) = name
        value = base64.b64decode(encoded, validate=True).decode("utf-8", "surrogateescape")
    if not value or "\0" in value:
        raise ValueError("a name is empty or holds NUL")
    return value


def _more(more: Mapping[str, Any] | None = None) -> tuple[ContentKind, tuple[tuple[str, bytes], ...]]:
    """Attributes that few entries have."""
    if more is None:
        return "plain", ()
    kind, items = more["kind"], more["xattrs"]
    if kind not in ("plain", "sqlite"):
        raise ValueError(f"an unknown kind of content: {kind!r}"[:200])
    xattrs = tuple((_attribute(name), base64.b64decode(text(value), validate=True)) for name, value in items)
    if any(not _XATTR.fullmatch(name) for name, _ in xattrs) or sum(len(value) for _, value in xattrs) > MAX_XATTRS:
        raise ValueError("an extended attribute is not the user's, or too long")
    return kind, xattrs


def _attribute(name: Any) -> str:
    """Name of an attribute. Earlier commits wrote bytes that are not UTF-8 as lone surrogates, which are still read."""
    if not isinstance(name, str):
        return unnamed(name)
    name.encode("utf-8", "surrogateescape")
    return name


def text(value: Any) -> str:
    """A text. Raises `TypeError`."""
    if not isinstance(value, str):
        raise TypeError(f"a text is expected, not {value!r}"[:200])
    return value


def digest(value: Any) -> str:
    """A SHA-256 in lower-case hex. Raises `ValueError`."""
    if not is_digest(value):
        raise ValueError(f"not a SHA-256 digest: {value!r}"[:200])
    return str(value)


def _signed(value: Any) -> int:
    if type(value) is not int or not -LATEST <= value <= LATEST:
        raise TypeError(f"a whole number is expected, not {value!r}"[:200])
    return value


def count(value: Any, highest: int = _LARGEST) -> int:
    """A number from 0 to `highest`. Raises `ValueError`."""
    if type(value) is not int or not 0 <= value <= highest:
        raise ValueError(f"a number is out of range: {value!r}"[:200])
    return value
