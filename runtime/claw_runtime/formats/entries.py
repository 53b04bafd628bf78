"""Names of a tree as a generation holds them, the places of their content, and the digest of a file with holes."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

LATEST: Final = 2**63 - 1
"""The last time that a manifest holds, in ns: a day of 2262. The first is as far before 1970."""
MAX_XATTRS: Final = 64 * 1024
"""Bytes of all extended attributes of one name."""
PLACES: Final = "places:"
"""Prefix of the digest of a file with holes, which is that of its list of places."""

EntryType = Literal["f", "d", "l"]
ContentKind = Literal["plain", "sqlite"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """The place of one frame of a file: `stored` bytes at `offset` of `pack` decompress to `raw` bytes.

    Attributes:
        pack: Digest of the pack; empty for a hole, which is `raw` zero bytes and is not stored.
        sha256: Of the raw bytes, where a file has several frames; an only frame has the file's own digest.
    """

    pack: str
    offset: int
    stored: int
    raw: int
    sha256: str | None = None

    @property
    def hole(self) -> bool:
        return not self.pack


def hole(raw: int) -> Extent:
    """`raw` bytes that were never written."""
    return Extent(pack="", offset=0, stored=0, raw=raw)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One name of the tree. `sha256` and `extents` belong to files, `target` to links; `size` in bytes.

    Attributes:
        sha256: Digest of all bytes; of a file with holes that of its places (`places_digest`), so that nobody has to
            read the holes. Format 2 had the digest of all bytes there too.
        blob: Name of the object below `blobs/` that is the file's content; there are no extents then.
        xattrs: The `user.*` extended attributes, by name.
    """

    path: str
    type: EntryType
    mode: int
    mtime_ns: int
    size: int = 0
    sha256: str | None = None
    extents: tuple[Extent, ...] = ()
    target: str | None = None
    kind: ContentKind = "plain"
    blob: str | None = None
    xattrs: tuple[tuple[str, bytes], ...] = ()

    @property
    def places(self) -> str | None:
        """`places_digest` of a file with holes; None for any other."""
        if not any(extent.hole for extent in self.extents):
            return None
        return places_digest((extent.raw, extent.sha256, extent.hole) for extent in self.extents)

    @property
    def unwritten(self) -> int:
        """Bytes of all holes."""
        return sum(extent.raw for extent in self.extents if extent.hole)

    def lies_in(self, packs: frozenset[str]) -> bool:
        """Whether a part of a file's content is in one of these packs, or in a blob."""
        return self.blob is not None or any(extent.pack in packs for extent in self.extents)

    def texts(self) -> list[bytes]:
        """All bytes of the entry besides its content: its path, its target, and its attributes' names and values."""
        names = [self.path, self.target or "", *(name for name, _ in self.xattrs)]
        return [*(name.encode("utf-8", "surrogateescape") for name in names), *(value for _, value in self.xattrs)]

    def data(self) -> list[tuple[int, int]] | None:
        """Offset and length of each part of a file that is not a hole, in order; None if it has no hole."""
        if not any(extent.hole for extent in self.extents):
            return None
        parts, at = list[tuple[int, int]](), 0
        for extent in self.extents:
            if not extent.hole:
                start, length = parts.pop() if parts and sum(parts[-1]) == at else (at, 0)
                parts.append((start, length + extent.raw))
            at += extent.raw
        return parts

    def holds_same(self, other: "Entry") -> bool:
        """Whether two files have equal bytes; of a file with holes two digests exist."""
        if self.size != other.size:
            return False
        return self.sha256 == other.sha256 or (self.places is not None and self.places == other.places)

    def same_as(self, other: "Entry") -> bool:
        """Whether a restore of either gives the same name and content, even if the bytes are stored elsewhere."""
        return (
            (self.path, self.type, self.mode, self.mtime_ns) == (other.path, other.type, other.mode, other.mtime_ns)
            and (self.target, self.kind, self.xattrs) == (other.target, other.kind, other.xattrs)
            and self.holds_same(other)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PackRef:
    """A pack that entries refer to. `size` in bytes; `sealed` when its frames are encrypted."""

    sha256: str
    size: int
    sealed: bool = False


def places_digest(places: Iterable[tuple[int, str | None, bool]]) -> str | None:
    """The digest of a file with holes: of one line for each place, its length, then the digest of its bytes unless it
    is a hole. None if there is no hole, or a place has no digest.

    Args:
        places: Length, digest, and whether it is a hole, of each place in sequence.
    """
    lines, holes = list[str](), False
    for raw, sha256, is_hole in places:
        if not is_hole and sha256 is None:
            return None
        holes = holes or is_hole
        lines.append(f"{raw}\n" if is_hole else f"{raw} {sha256}\n")
    return PLACES + hashlib.sha256("".join(lines).encode()).hexdigest() if holes else None


class ContentDigest:
    """The digest of a file that is read from front to back: of all bytes, or of its places if it has a hole."""

    def __init__(self) -> None:
        self._whole, self._places = hashlib.sha256(), list[tuple[int, str | None, bool]]()
        self._holes = False

    def data(self, raw: bytes, sha256: str | None = None) -> None:
        """Add the bytes of a place; `sha256` is their digest, if it is known."""
        if not self._holes:
            self._whole.update(raw)
        self._places.append((len(raw), sha256 or hashlib.sha256(raw).hexdigest(), False))

    def hole(self, length: int) -> None:
        """Add a hole; the next place is none."""
        self._holes = True
        self._places.append((length, None, True))

    def value(self) -> str:
        return places_digest(self._places) or self._whole.hexdigest()


def used_packs(entries: Iterable[Entry], known: Iterable[PackRef]) -> tuple[PackRef, ...]:
    """Those of the known packs that entries refer to, in the order of the first use. Raises `KeyError` for another."""
    packs = {pack.sha256: pack for pack in known}
    used = dict.fromkeys(extent.pack for entry in entries for extent in entry.extents if extent.pack)
    return tuple(packs[sha256] for sha256 in used)


def tree_order(path: str) -> bytes:
    """The sort key of a path: a directory comes before its content, and that before the next sibling."""
    return path.encode("utf-8", "surrogateescape").replace(b"/", b"\0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Splice:
    """A change of a list of places: `count` places from number `first` became these."""

    first: int
    count: int
    places: tuple[Extent, ...]


def splices(old: Sequence[Extent], new: Sequence[Extent]) -> tuple[Splice, ...]:
    """What turns the first list of places into the second; places are compared where they begin at the same byte."""
    found: list[Splice] = []
    i = j = old_at = new_at = 0
    first = start = -1  # of the present run of differences

    while i < len(old) or j < len(new):
        both = i < len(old) and j < len(new)
        if both and old_at == new_at and (old[i] is new[j] or old[i] == new[j]):
            if first >= 0:
                found.append(Splice(first=first, count=i - first, places=tuple(new[start:j])))
                first = -1
            old_at, new_at = old_at + old[i].raw, new_at + new[j].raw
            i, j = i + 1, j + 1
            continue
        if first < 0:
            first, start = i, j
        if i < len(old) and (old_at <= new_at or j == len(new)):
            old_at, i = old_at + old[i].raw, i + 1
        else:
            new_at, j = new_at + new[j].raw, j + 1
    if first >= 0:
        found.append(Splice(first=first, count=len(old) - first, places=tuple(new[start:])))
    return tuple(found)


_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


def is_digest(text: object) -> bool:
    """Whether this is a SHA-256 in lower-case hex."""
    return isinstance(text, str) and _DIGEST.fullmatch(text) is not None
