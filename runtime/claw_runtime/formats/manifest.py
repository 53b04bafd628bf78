"""The manifest: one immutable document (zstd) that describes one generation of a tenant's state.

It consists of lines of JSON: an object with all but the entries, then arrays of rows, one row per entry, so that a
reader holds at most one line beside the entries. docs/STATE_FORMAT.md documents it byte by byte.

Others may write to the bucket, so parsing is strict: anything that claw would not have written is refused as
`RestoreFailed`, before a byte reaches the disk.
"""

import base64
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import zstandard

from claw_runtime.errors import InvalidTenantId, RestoreFailed, UploadFailed
from claw_runtime.tenancy import TenantId, tenant_id

VERSION: Final = 2
MAX_BYTES: Final = 512 * 1024 * 1024
LATEST: Final = 2**63 - 1
"""The last time that a manifest holds, in ns: a day of 2262. The first is as far before 1970."""
_ROWS: Final = 500  # in a line
_MAX_FRAME: Final = 1024 * 1024
_MAX_PACK: Final = 16 * 1024 * 1024
_MAX_DEPTH: Final = 256
MAX_XATTRS: Final = 64 * 1024
"""Bytes of all extended attributes of one name."""
_LARGEST: Final = 2**63 - 1
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_BLOB: Final = re.compile(r"[0-9a-f]{64}\.[1-9][0-9]{0,18}")
_XATTR: Final = re.compile(r"user\.[^\0]{1,250}")

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

    def lies_in(self, packs: frozenset[str]) -> bool:
        """Whether a part of a file's content is in one of these packs, or in a blob."""
        return self.blob is not None or any(extent.pack in packs for extent in self.extents)

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

    def same_as(self, other: "Entry") -> bool:
        """Whether a restore of either gives the same name and content, even if the bytes are stored elsewhere."""
        return (
            (self.path, self.type, self.mode, self.mtime_ns) == (other.path, other.type, other.mode, other.mtime_ns)
            and (self.size, self.sha256, self.target) == (other.size, other.sha256, other.target)
            and (self.kind, self.xattrs) == (other.kind, other.xattrs)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PackRef:
    """A pack that entries refer to. `size` in bytes; `sealed` when its frames are encrypted."""

    sha256: str
    size: int
    sealed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """The generation that this one was made from: its number, object key and the digest of that object."""

    generation: int
    key: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """An earlier generation that was still in the store when this one was sealed: `sha256` of its manifest, and in
    short what it held; `size` in bytes."""

    generation: int
    sha256: str
    created: str
    files: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One generation.

    Attributes:
        created: When it was sealed, ISO 8601 in UTC; a record, never compared.
        image: Digest of the image that wrote the state.
        application: Name and version of the program that wrote it.
        parent: None for the first generation.
        history: Earlier generations, oldest first, including the parent; so all are found from the newest alone, even
            if some between were removed.
    """

    tenant: TenantId
    generation: int
    parent: Parent | None
    created: str
    image: str
    application: str
    entries: tuple[Entry, ...]
    packs: tuple[PackRef, ...]
    history: tuple[Past, ...] = ()

    @property
    def files(self) -> int:
        return sum(entry.type == "f" for entry in self.entries)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.entries)

    @property
    def plain_packs(self) -> frozenset[str]:
        """Digests of the packs that are not encrypted."""
        return frozenset(pack.sha256 for pack in self.packs if not pack.sealed)

    def find(self, path: str) -> Entry | None:
        return next((entry for entry in self.entries if entry.path == path), None)

    def past(self, sha256: str) -> Past:
        """This generation as an entry of a later history; `sha256` is the digest of its manifest object."""
        return Past(generation=self.generation, sha256=sha256, created=self.created, files=self.files, size=self.size)

    def grew_from(self, generation: int, sha256: str) -> bool:
        """Whether its history has that generation, with this digest of the manifest. A generation that retention
        dropped from the history is not known any more: its number alone decides."""
        rows = (*self.history, *((self.parent,) if self.parent else ()))
        named = {row.sha256 for row in rows if row.generation == generation}
        return sha256 in named if named else any(row.generation > generation for row in rows)


def encode(manifest: Manifest) -> bytes:
    """The bytes of the manifest object; the same manifest always gives the same bytes.

    Raises:
        UploadFailed: The document is longer than `decode` accepts.
    """
    index = {pack.sha256: number for number, pack in enumerate(manifest.packs)}
    lines = [_line(_header(manifest))]
    for start in range(0, len(manifest.entries), _ROWS):
        lines.append(_line([_row(entry, index) for entry in manifest.entries[start : start + _ROWS]]))
    size = sum(map(len, lines))
    if size > MAX_BYTES:
        raise UploadFailed(
            f"the tree of tenant {manifest.tenant} has too many names",
            why=f"its manifest would have {size} bytes, more than the limit of {MAX_BYTES}",
            hint="the tree is kept; remove files that are not needed, or exclude them in the workload's sync.exclude",
            tenant=manifest.tenant,
        )
    compressor = zstandard.ZstdCompressor(level=3).compressobj(size=size)
    return b"".join([*map(compressor.compress, lines), compressor.flush()])


def decode(data: bytes, *, tenant: TenantId) -> Manifest:
    """Read a manifest object of this tenant.

    Raises:
        RestoreFailed: The manifest is damaged, has an unknown version, is another tenant's, or names what no tree can
            hold.
    """
    try:
        return _manifest(_lines(data), tenant)
    except (ValueError, KeyError, TypeError, RecursionError, zstandard.ZstdError, InvalidTenantId) as error:
        raise RestoreFailed(
            f"the manifest of tenant {tenant} is not valid",
            why=str(error) or type(error).__name__,
            hint="nothing was started; an earlier generation may be intact",
            tenant=tenant,
        ) from error


def _header(manifest: Manifest) -> dict[str, Any]:
    parent = manifest.parent
    return {
        "v": VERSION,
        "tenant": manifest.tenant,
        "generation": manifest.generation,
        "parent": parent and {"generation": parent.generation, "manifest": parent.key, "sha256": parent.sha256},
        "created": manifest.created,
        "image": manifest.image,
        "application": manifest.application,
        "entries": len(manifest.entries),
        "history": [[past.generation, past.sha256, past.created, past.files, past.size] for past in manifest.history],
        "packs": [[pack.sha256, pack.size, *([1] if pack.sealed else [])] for pack in manifest.packs],
    }


def _line(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode() + b"\n"


def _row(entry: Entry, index: Mapping[str, int]) -> list[Any]:
    row: list[Any] = [entry.type, _name(entry.path), entry.mode, entry.mtime_ns]
    if entry.type == "f":
        row += (entry.size, entry.sha256, entry.blob or _content(entry.extents, index))
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


def _content(extents: Sequence[Extent], index: Mapping[str, int]) -> list[Any]:
    if len(extents) == 1 and not extents[0].hole and extents[0].sha256 is None:
        return [index[extents[0].pack], extents[0].offset, extents[0].stored]
    return [_extent_row(extent, index) for extent in extents]


def _extent_row(extent: Extent, index: Mapping[str, int]) -> list[Any]:
    if extent.hole:
        return [extent.raw]
    row: list[Any] = [index[extent.pack], extent.offset, extent.stored, extent.raw]
    return row if extent.sha256 is None else [*row, extent.sha256]


def _lines(data: bytes) -> Iterator[Any]:
    if not 0 <= zstandard.frame_content_size(data) <= MAX_BYTES:
        raise ValueError("its size is missing or out of range")
    with zstandard.ZstdDecompressor().stream_reader(data) as plain:
        yield from map(json.loads, io.BufferedReader(plain, 1 << 20))


def _manifest(lines: Iterator[Any], tenant: TenantId) -> Manifest:
    document = next(lines, None)
    if not isinstance(document, dict):
        raise TypeError("it is not a JSON object")
    if document.get("v") != VERSION:
        raise ValueError(f"its format version is {document.get('v')!r}, this program reads {VERSION}")
    if tenant_id(_text(document["tenant"])) != tenant:
        raise ValueError(f"it belongs to tenant {document['tenant']}")
    packs, parent = tuple(_pack(item) for item in document["packs"]), document["parent"]
    entries = tuple(_Rows(packs).entries(lines))
    if len(entries) != document["entries"]:
        raise ValueError(f"it has {len(entries)} entries of {document['entries']}")
    return Manifest(
        tenant=tenant,
        generation=_count(document["generation"]),
        parent=None
        if parent is None
        else Parent(
            generation=_count(parent["generation"]), key=_text(parent["manifest"]), sha256=_digest(parent["sha256"])
        ),
        created=_text(document["created"]),
        image=_text(document["image"]),
        application=_text(document["application"]),
        entries=entries,
        packs=packs,
        history=tuple(_past(item) for item in document["history"]),
    )


def _pack(item: Sequence[Any]) -> PackRef:
    sha256, size, *sealed = item
    if sealed not in ([], [1]):
        raise ValueError("a pack is sealed or not")
    return PackRef(sha256=_digest(sha256), size=_count(size, _MAX_PACK), sealed=bool(sealed))


def _past(item: Sequence[Any]) -> Past:
    generation, sha256, created, files, size = item
    return Past(
        generation=_count(generation),
        sha256=_digest(sha256),
        created=_text(created),
        files=_count(files),
        size=_count(size),
    )


class _Rows:
    """Reads rows: every name once, every parent an earlier directory, so that nothing is below a link or file."""

    def __init__(self, packs: Sequence[PackRef]) -> None:
        self._packs = packs
        self._depths = {"": 0}  # of directories; -1 of what nothing lies below

    def entries(self, lines: Iterable[Any]) -> Iterator[Entry]:
        for line in lines:
            yield from map(self._entry, line)

    def _entry(self, row: Sequence[Any]) -> Entry:
        type_, name, mode, mtime_ns, *rest = row
        path = self._path(name, directory=type_ == "d")
        mode, mtime_ns = _count(mode, 0o777), _signed(mtime_ns)
        if type_ == "f":
            return self._file(path, mode, mtime_ns, *rest)
        if type_ == "d":
            return Entry(path=path, type="d", mode=mode, mtime_ns=mtime_ns, xattrs=_more(*rest)[1])
        if type_ == "l":
            (target,) = rest
            return Entry(path=path, type="l", mode=mode, mtime_ns=mtime_ns, target=_unnamed(target))
        raise ValueError(f"{path[:80]!r} is of unknown type {type_!r}"[:200])

    def _file(self, path: str, mode: int, mtime_ns: int, size: Any, sha256: Any, content: Any, *more: Any) -> Entry:
        kind, xattrs = _more(*more)
        blob = content if isinstance(content, str) else None
        if blob is not None and not (_BLOB.fullmatch(blob) and blob.startswith(_digest(sha256)) and size):
            raise ValueError(f"the blob of {path[:80]!r} is not one of its content")
        return Entry(
            path=path,
            type="f",
            mode=mode,
            mtime_ns=mtime_ns,
            size=_count(size),
            sha256=_digest(sha256),
            extents=self._extents(content, size) if blob is None else (),
            kind=kind,
            blob=blob,
            xattrs=xattrs,
        )

    def _path(self, name: Any, *, directory: bool) -> str:
        path = _unnamed(name)
        if path in self._depths:
            raise ValueError(f"{path[:80]!r} is empty or occurs twice")
        parent, _, step = path.rpartition("/")
        depth = self._depths.get(parent, -1)
        if depth < 0 or (not parent and path != step):
            raise ValueError(f"{path[:80]!r} is not in a directory")
        if step in ("", ".", "..") or depth > _MAX_DEPTH:
            raise ValueError(f"a path leads out of the tree or too deep: {path[:80]!r}")
        self._depths[path] = depth + 1 if directory else -1
        return path

    def _extents(self, content: Sequence[Any], size: Any) -> tuple[Extent, ...]:
        if content and type(content[0]) is int:
            number, offset, stored = content
            return (self._extent(number, offset, stored, size),)
        extents = tuple(hole(_count(item[0])) if len(item) == 1 else self._extent(*item) for item in content)
        if sum(extent.raw for extent in extents) != size or not all(extent.raw for extent in extents):
            raise ValueError("the frames of a file do not add up to its size")
        return extents

    def _extent(self, number: Any, offset: Any, stored: Any, raw: Any, sha256: Any = None) -> Extent:
        pack = self._packs[_count(number, len(self._packs) - 1)]
        if _count(offset) + _count(stored) > pack.size or not _count(raw, _MAX_FRAME):
            raise ValueError("an extent lies outside of its pack")
        return Extent(
            pack=pack.sha256, offset=offset, stored=stored, raw=raw, sha256=None if sha256 is None else _digest(sha256)
        )


def _unnamed(name: Any) -> str:
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
    xattrs = tuple((_attribute(name), base64.b64decode(_text(value), validate=True)) for name, value in items)
    if any(not _XATTR.fullmatch(name) for name, _ in xattrs) or sum(len(value) for _, value in xattrs) > MAX_XATTRS:
        raise ValueError("an extended attribute is not the user's, or too long")
    return kind, xattrs


def _attribute(name: Any) -> str:
    """Name of an attribute. Earlier commits wrote bytes that are not UTF-8 as lone surrogates, which are still read."""
    if not isinstance(name, str):
        return _unnamed(name)
    name.encode("utf-8", "surrogateescape")
    return name


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a text is expected, not {value!r}"[:200])
    return value


def _digest(value: Any) -> str:
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise ValueError(f"not a SHA-256 digest: {value!r}"[:200])
    return value


def _signed(value: Any) -> int:
    if type(value) is not int or not -LATEST <= value <= LATEST:
        raise TypeError(f"a whole number is expected, not {value!r}"[:200])
    return value


def _count(value: Any, highest: int = _LARGEST) -> int:
    if type(value) is not int or not 0 <= value <= highest:
        raise ValueError(f"a number is out of range: {value!r}"[:200])
    return value
