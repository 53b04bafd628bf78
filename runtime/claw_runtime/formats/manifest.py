"""The manifest: one immutable document (zstd) that describes one generation of a tenant's state.

It consists of lines of JSON: an object with all but the entries, then arrays of rows, one row per entry, so that a
reader holds at most one line beside the entries. Most manifests are deltas: they name the whole manifest of an earlier
generation, their base, and hold only the rows that differ. docs/STATE_FORMAT.md documents it byte by byte.

Others may write to the bucket, so parsing is strict: anything that claw would not have written is refused as
`RestoreFailed`, before a byte reaches the disk.
"""

import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import zstandard

from claw_runtime.errors import InvalidTenantId, RestoreFailed, UploadFailed
from claw_runtime.formats.entries import (
    LATEST,
    MAX_XATTRS,
    ContentKind,
    Entry,
    EntryType,
    Extent,
    PackRef,
    hole,
    used_packs,
)
from claw_runtime.formats.rows import Rows, count, digest, text, written, written_delta
from claw_runtime.tenancy import TenantId, tenant_id

__all__ = [
    "LATEST",
    "MAX_BYTES",
    "MAX_XATTRS",
    "VERSION",
    "Base",
    "ContentKind",
    "Entry",
    "EntryType",
    "Extent",
    "Manifest",
    "PackRef",
    "Parent",
    "Past",
    "decode",
    "encode",
    "hole",
]

VERSION: Final = 3
_READ: Final = (2, VERSION)
MAX_BYTES: Final = 512 * 1024 * 1024
_MAX_PACK: Final = 16 * 1024 * 1024


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
class Base:
    """The earlier generation of a delta: `sha256` of its manifest object, and its content. It has no base itself."""

    sha256: str
    document: "Manifest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One generation.

    Attributes:
        created: When it was sealed, ISO 8601 in UTC; a record, never compared.
        image: Digest of the image that wrote the state.
        application: Name and version of the program that wrote it.
        parent: None for the first generation.
        entries: In tree order, unless format 2 has them otherwise.
        packs: Those that the entries refer to.
        history: Earlier generations, oldest first, including the parent; so all are found from the newest alone, even
            if some between were removed.
        base: The whole manifest that this one is a delta of; None for a whole one.
        sealed: Whether its object is encrypted.
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
    base: Base | None = None
    sealed: bool = field(default=False, compare=False)

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

    @property
    def pack_names(self) -> frozenset[str]:
        """Digests of all packs."""
        return frozenset(pack.sha256 for pack in self.packs)

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
    base = manifest.base.document if manifest.base else None
    before = base.packs if base else ()
    known = frozenset(pack.sha256 for pack in before)
    packs = [pack for pack in manifest.packs if pack.sha256 not in known]
    index = {pack.sha256: number for number, pack in enumerate((*before, *packs))}
    rows = (
        written_delta(manifest.entries, {entry.path: entry for entry in base.entries}, index)
        if base
        else written(manifest.entries, index)
    )
    lines = [_line(_header(manifest, packs)), *map(_line, rows)]
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


def decode(data: bytes, *, tenant: TenantId, base_of: Callable[[int, str], Manifest] | None = None) -> Manifest:
    """Read a manifest object of this tenant.

    Args:
        base_of: Returns the whole manifest of a generation of this tenant, by its number and the digest of its object,
            which it has checked. None refuses deltas.

    Raises:
        RestoreFailed: The manifest is damaged, has an unknown version, is another tenant's, or names what no tree can
            hold.
        Whatever `base_of` raises.
    """
    try:
        lines = _lines(data)
        document = _document(lines, tenant)
        reference = _base(document)
    except (ValueError, KeyError, TypeError, RecursionError, zstandard.ZstdError, InvalidTenantId) as error:
        raise _refused(tenant, error) from error
    base = None
    if reference:
        if base_of is None:
            raise _refused(tenant, ValueError("it is a delta where a whole manifest is expected"))
        base = Base(sha256=reference[1], document=base_of(*reference))
        if base.document.base or (base.document.tenant, base.document.generation) != (tenant, reference[0]):
            raise _refused(tenant, ValueError("its base is not the whole manifest that it names"))
    try:
        return _manifest(document, lines, tenant, base)
    except (ValueError, KeyError, TypeError, RecursionError, zstandard.ZstdError) as error:
        raise _refused(tenant, error) from error


def _refused(tenant: TenantId, error: Exception) -> RestoreFailed:
    return RestoreFailed(
        f"the manifest of tenant {tenant} is not valid",
        why=str(error) or type(error).__name__,
        hint="nothing was started; an earlier generation may be intact",
        tenant=tenant,
    )


def _header(manifest: Manifest, packs: Sequence[PackRef]) -> dict[str, Any]:
    parent, base = manifest.parent, manifest.base
    return {
        "v": VERSION,
        "tenant": manifest.tenant,
        "generation": manifest.generation,
        "parent": parent and {"generation": parent.generation, "manifest": parent.key, "sha256": parent.sha256},
        "base": base and [base.document.generation, base.sha256],
        "created": manifest.created,
        "image": manifest.image,
        "application": manifest.application,
        "entries": len(manifest.entries),
        "history": [[past.generation, past.sha256, past.created, past.files, past.size] for past in manifest.history],
        "packs": [[pack.sha256, pack.size, *([1] if pack.sealed else [])] for pack in packs],
    }


def _line(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode() + b"\n"


def _lines(data: bytes) -> Iterator[Any]:
    if not 0 <= zstandard.frame_content_size(data) <= MAX_BYTES:
        raise ValueError("its size is missing or out of range")
    with zstandard.ZstdDecompressor().stream_reader(data) as plain:
        yield from map(json.loads, io.BufferedReader(plain, 1 << 20))


def _document(lines: Iterator[Any], tenant: TenantId) -> dict[str, Any]:
    document = next(lines, None)
    if not isinstance(document, dict):
        raise TypeError("it is not a JSON object")
    if document.get("v") not in _READ or type(document["v"]) is not int:
        raise ValueError(f"its format version is {document.get('v')!r}, this program reads {_READ[0]} and {VERSION}")
    if tenant_id(text(document["tenant"])) != tenant:
        raise ValueError(f"it belongs to tenant {document['tenant']}")
    return document


def _base(document: dict[str, Any]) -> tuple[int, str] | None:
    """The generation and digest of a delta's base."""
    if document["v"] < VERSION or document["base"] is None:
        return None
    generation, sha256 = document["base"]
    if count(generation) >= count(document["generation"]):
        raise ValueError(f"its base, generation {generation}, is not an earlier one")
    return generation, digest(sha256)


def _manifest(document: dict[str, Any], lines: Iterator[Any], tenant: TenantId, base: Base | None) -> Manifest:
    packs, parent = tuple(_pack(item) for item in document["packs"]), document["parent"]
    if base:
        before = base.document
        packs = (*before.packs, *packs)
        if len({pack.sha256 for pack in packs}) != len(packs):
            raise ValueError("it lists a pack of its base again")
        entries = tuple(Rows(packs, document["v"]).applied(lines, before.entries))
        packs = used_packs(entries, packs)
    else:
        entries = tuple(Rows(packs, document["v"]).entries(lines))
    if len(entries) != document["entries"]:
        raise ValueError(f"it has {len(entries)} entries of {document['entries']}")
    return Manifest(
        tenant=tenant,
        generation=count(document["generation"]),
        parent=None
        if parent is None
        else Parent(
            generation=count(parent["generation"]), key=text(parent["manifest"]), sha256=digest(parent["sha256"])
        ),
        created=text(document["created"]),
        image=text(document["image"]),
        application=text(document["application"]),
        entries=entries,
        packs=packs,
        history=tuple(_past(item) for item in document["history"]),
        base=base,
    )


def _pack(item: Sequence[Any]) -> PackRef:
    sha256, size, *sealed = item
    if sealed not in ([], [1]):
        raise ValueError("a pack is sealed or not")
    return PackRef(sha256=digest(sha256), size=count(size, _MAX_PACK), sealed=bool(sealed))


def _past(item: Sequence[Any]) -> Past:
    generation, sha256, created, files, size = item
    return Past(
        generation=count(generation),
        sha256=digest(sha256),
        created=text(created),
        files=count(files),
        size=count(size),
    )
