"""The manifest: one immutable JSON document (zstd) that says everything about one generation of a tenant's state.

It is read back from a bucket that others may write to, so parsing is strict: whatever is not exactly what we would
have written is refused as `RestoreFailed`, before a byte reaches the disk.
"""

import base64
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import zstandard

from claw_runtime.errors import InvalidTenantId, RestoreFailed, UploadFailed
from claw_runtime.tenancy import TenantId, tenant_id

VERSION: Final = 1
MAX_BYTES: Final = 512 * 1024 * 1024
LATEST: Final = 2**63 - 1
"""The last time that a manifest holds, in ns: a day of 2262. The first is as far before 1970."""
_HOLE: Final = -1
_MAX_FRAME: Final = 1024 * 1024
_MAX_PACK: Final = 16 * 1024 * 1024
_MAX_DEPTH: Final = 256
_NO_STEPS: Final = frozenset({"", ".", ".."})
_MAX_XATTRS: Final = 64 * 1024
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_BLOB: Final = re.compile(r"[0-9a-f]{64}\.[1-9][0-9]{0,18}")
_XATTR: Final = re.compile(r"user\.[^\0]{1,250}")

EntryType = Literal["f", "d", "l"]
ContentKind = Literal["plain", "sqlite"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """Where one frame of a file lies: `stored` bytes at `offset` of `pack` inflate to `raw` bytes.

    Attributes:
        pack: Digest of the pack; empty for a hole, which is `raw` bytes of zeros and lies nowhere.
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
        blob: Name of the object below `blobs/` that is the file's content as it is; it has no extents then.
        xattrs: The user's own extended attributes, by name.
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

    def same_as(self, other: "Entry") -> bool:
        """Whether a restore of either gives the same name with the same content; where the bytes lie is no matter."""
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
        history: Earlier generations, oldest first, the parent among them; so all are found from the newest alone,
            also when some in between were removed.
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

    def find(self, path: str) -> Entry | None:
        return next((entry for entry in self.entries if entry.path == path), None)

    def past(self, sha256: str) -> Past:
        """This generation as later ones remember it; `sha256` of its manifest object."""
        return Past(generation=self.generation, sha256=sha256, created=self.created, files=self.files, size=self.size)


def encode(manifest: Manifest) -> bytes:
    """The bytes of the manifest object; the same manifest always gives the same bytes.

    Raises:
        UploadFailed: It is longer than `decode` would ever read.
    """
    index = {pack.sha256: number for number, pack in enumerate(manifest.packs)}
    parent = manifest.parent
    document = {
        "v": VERSION,
        "tenant": manifest.tenant,
        "generation": manifest.generation,
        "parent": parent and {"generation": parent.generation, "manifest": parent.key, "sha256": parent.sha256},
        "created": manifest.created,
        "image": manifest.image,
        "application": manifest.application,
        "history": [[past.generation, past.sha256, past.created, past.files, past.size] for past in manifest.history],
        "packs": [[pack.sha256, pack.size, *([1] if pack.sealed else [])] for pack in manifest.packs],
        "entries": [_entry_document(entry, index) for entry in manifest.entries],
    }
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    if len(text) > MAX_BYTES:
        raise UploadFailed(
            f"the tree of tenant {manifest.tenant} has too many names",
            why=f"its manifest would have {len(text)} bytes, and at most {MAX_BYTES} are ever read back",
            hint="the tree is kept; remove what nobody needs, or exclude it in the workload's sync.exclude",
            tenant=manifest.tenant,
        )
    return zstandard.ZstdCompressor(level=3).compress(text.encode())


def decode(data: bytes, *, tenant: TenantId) -> Manifest:
    """Read a manifest object of this tenant.

    Raises:
        RestoreFailed: It is damaged, of an unknown version, of another tenant, or names what no tree can hold.
    """
    try:
        return _manifest(_inflate(data), tenant)
    except (ValueError, KeyError, TypeError, RecursionError, zstandard.ZstdError, InvalidTenantId) as error:
        raise RestoreFailed(
            f"the manifest of tenant {tenant} is not valid",
            why=str(error) or type(error).__name__,
            hint="nothing was started; an earlier generation may be whole",
            tenant=tenant,
        ) from error


def _inflate(data: bytes) -> dict[str, Any]:
    size = zstandard.frame_content_size(data)
    if not 0 <= size <= MAX_BYTES:
        raise ValueError("its size is not stated, or absurd")
    document = json.loads(zstandard.ZstdDecompressor().decompress(data, max_output_size=MAX_BYTES))
    if not isinstance(document, dict):
        raise TypeError("it is no JSON object")
    return document


def _manifest(document: Mapping[str, Any], tenant: TenantId) -> Manifest:
    if document.get("v") != VERSION:
        raise ValueError(f"its format version is {document.get('v')!r}, this program reads {VERSION}")
    if tenant_id(_text(document["tenant"])) != tenant:
        raise ValueError(f"it belongs to tenant {document['tenant']}")
    packs = tuple(_pack(item) for item in document["packs"])
    entries = tuple(_entry(item, packs) for item in document["entries"])
    _check_tree(entries)
    parent = document["parent"]
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
        history=tuple(_past(item) for item in document.get("history", ())),
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


def _entry_document(entry: Entry, index: Mapping[str, int]) -> dict[str, Any]:
    document: dict[str, Any] = dict(_named("path", entry.path))
    document |= {"type": entry.type, "mode": entry.mode, "mtime_ns": entry.mtime_ns}
    if entry.type == "f":
        document |= {"size": entry.size, "sha256": entry.sha256, "kind": entry.kind}
        if entry.blob is not None:
            document["blob"] = entry.blob
        else:
            document["extents"] = [_extent_document(extent, index) for extent in entry.extents]
    if entry.target is not None:
        document |= _named("target", entry.target)
    if entry.xattrs:
        document["xattrs"] = [[name, base64.b64encode(value).decode()] for name, value in entry.xattrs]
    return document


def _extent_document(extent: Extent, index: Mapping[str, int]) -> list[Any]:
    if extent.hole:
        return [_HOLE, 0, 0, extent.raw]
    document: list[Any] = [index[extent.pack], extent.offset, extent.stored, extent.raw]
    return document if extent.sha256 is None else [*document, extent.sha256]


def _named(name: str, value: str) -> Iterator[tuple[str, Any]]:
    """A name in JSON; base64 and a flag when its bytes are not UTF-8."""
    try:
        value.encode()
    except UnicodeEncodeError:
        yield name, base64.b64encode(value.encode("utf-8", "surrogateescape")).decode()
        yield f"{name}_b64", True
    else:
        yield name, value


def _unnamed(document: Mapping[str, Any], name: str) -> str:
    value = _text(document[name])
    if document.get(f"{name}_b64", False) is True:
        value = base64.b64decode(value, validate=True).decode("utf-8", "surrogateescape")
    else:
        value.encode()
    if "\0" in value or not value:
        raise ValueError(f"a {name} is empty or holds NUL")
    return value


def _entry(document: Mapping[str, Any], packs: Sequence[PackRef]) -> Entry:
    path = _unnamed(document, "path")
    steps = path.split("/")
    if not _NO_STEPS.isdisjoint(steps) or len(steps) > _MAX_DEPTH + 1:
        raise ValueError(f"a path leads out of the tree or too deep: {path[:80]!r}")
    mode, mtime_ns = _count(document["mode"], 0o777), _signed(document["mtime_ns"])
    match document["type"]:
        case "d":
            return Entry(path=path, type="d", mode=mode, mtime_ns=mtime_ns, xattrs=_xattrs(document))
        case "l":
            return Entry(path=path, type="l", mode=mode, mtime_ns=mtime_ns, target=_unnamed(document, "target"))
        case "f":
            return _file_entry(document, path, mode, mtime_ns, packs)
        case other:
            raise ValueError(f"{path[:80]!r} is of unknown type {other!r}")


def _file_entry(document: Mapping[str, Any], path: str, mode: int, mtime_ns: int, packs: Sequence[PackRef]) -> Entry:
    size, kind = _count(document["size"]), document["kind"]
    sha256, blob = _digest(document["sha256"]), document.get("blob")
    extents = () if blob is not None else tuple(_extent(item, packs) for item in document["extents"])
    if blob is not None and (not _BLOB.fullmatch(_text(blob)) or not blob.startswith(sha256) or not size):
        raise ValueError(f"the blob of {path[:80]!r} is not one of its content")
    if blob is None and sum(extent.raw for extent in extents) != size:
        raise ValueError(f"the extents of {path[:80]!r} do not add up to its size")
    if kind not in ("plain", "sqlite"):
        raise ValueError(f"{path[:80]!r} is of unknown kind {kind!r}")
    return Entry(
        path=path,
        type="f",
        mode=mode,
        mtime_ns=mtime_ns,
        size=size,
        sha256=sha256,
        extents=extents,
        kind=kind,
        blob=blob,
        xattrs=_xattrs(document),
    )


def _xattrs(document: Mapping[str, Any]) -> tuple[tuple[str, bytes], ...]:
    if "xattrs" not in document:
        return ()
    found = tuple((_text(name), base64.b64decode(_text(value))) for name, value in document["xattrs"])
    if any(not _XATTR.fullmatch(name) for name, _ in found) or sum(len(value) for _, value in found) > _MAX_XATTRS:
        raise ValueError("an extended attribute is not the user's, or too long")
    return found


def _extent(item: Sequence[Any], packs: Sequence[PackRef]) -> Extent:
    number, offset, stored, raw, *digest = item
    if number == _HOLE and offset == stored == 0 and raw:
        return hole(_count(raw))
    pack = packs[_count(number, len(packs) - 1)]
    if _count(offset) + _count(stored) > pack.size or not _count(raw, _MAX_FRAME):
        raise ValueError("an extent lies outside of its pack")
    return Extent(
        pack=pack.sha256, offset=offset, stored=stored, raw=raw, sha256=_digest(digest[0]) if digest else None
    )


def _check_tree(entries: Sequence[Entry]) -> None:
    """Every name once, every parent a directory that came before: nothing can lie below a link or a file."""
    types: dict[str, str] = {}
    for entry in entries:
        if entry.path in types:
            raise ValueError(f"{entry.path[:80]!r} is there twice")
        parent = entry.path.rpartition("/")[0]
        if parent and types.get(parent) != "d":
            raise ValueError(f"{entry.path[:80]!r} does not lie in a directory")
        types[entry.path] = entry.type


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a text is expected, not {value!r}"[:200])
    return value


def _digest(value: Any) -> str:
    if not _DIGEST.fullmatch(_text(value)):
        raise ValueError(f"not a SHA-256 digest: {value!r}"[:200])
    return str(value)


def _signed(value: Any) -> int:
    if type(value) is not int or abs(value) > LATEST:
        raise TypeError(f"a whole number is expected, not {value!r}"[:200])
    return value


def _count(value: Any, highest: int = 2**63 - 1) -> int:
    if type(value) is not int or not 0 <= value <= highest:
        raise ValueError(f"not a whole number from 0 to {highest}: {value!r}"[:200])
    return value
