"""Copies a generation to another tenant: every byte is read, checked, and packed again below the other prefix.

No object is shared or copied unchanged: prefix, key and epoch, which separate two tenants, are those of the target.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from claw_runtime.errors import RestoreFailed, VerifyMismatch
from claw_runtime.formats import pack as packs
from claw_runtime.formats.envelope import PLAIN, Sealer
from claw_runtime.formats.manifest import Entry, Extent, Manifest, PackRef, hole
from claw_runtime.ports import Clock, ObjectStore
from claw_runtime.state.commit.guards import Draft
from claw_runtime.state.commit.pack_upload import put_immutable
from claw_runtime.state.restore.restore import fetch_pack
from claw_runtime.state.rules.handed_out import BorderSearch, FileFrame, SecretSearch
from claw_runtime.tenancy import Keys, TenantId

Wanted = dict[str, dict[int, tuple[Entry, Extent, int]]]
"""By pack and offset: the first file that has this frame, the frame, and its offset in the file."""

RANGE: Final = 8 * 1024 * 1024
"""Bytes of a blob that one request fetches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _FrameLocation:
    """A frame's present place: in the pack of this number."""

    pack: int
    offset: int
    stored: int


class Repack:
    """One copy of one generation; use it once. Needs memory for two packs, and no disk.

    Args:
        document: The generation's manifest.
        target: The tenant that gets the copy.
        epoch: Epoch of the target under which the packs are written.
        opens: The source tenant's sealer.
        seals: The target tenant's sealer.
        search: Looks at every name and frame that is copied.
    """

    def __init__(
        self,
        store: ObjectStore,
        clock: Clock,
        document: Manifest,
        target: TenantId,
        *,
        epoch: int,
        opens: Sealer,
        seals: Sealer,
        search: SecretSearch | None = None,
    ) -> None:
        self._search = search or SecretSearch()
        self._store, self._clock, self._document = store, clock, document
        self._from, self._to = Keys(document.tenant), Keys(target)
        self._epoch, self._opens, self._seals = epoch, opens, seals
        self._builder = packs.PackBuilder(epoch, seals)
        self._sealed: list[PackRef] = []

    def copy(self) -> Draft:
        """Store the content; returns entries with the new places.

        Raises:
            VerifyMismatch, RestoreFailed: The source is damaged.
            ObjectMissing, StoreUnavailable, StoreDenied, BucketMissing: The store.
        """
        document = self._document
        self._search.entries(document.entries)
        moved = self._frames()
        blobs = {entry.path: self._blob(entry) for entry in document.entries if entry.blob is not None}
        self._flush()
        return Draft(
            entries=tuple(self._entry(entry, moved, blobs) for entry in document.entries),
            packs=tuple(self._sealed),
            image=document.image,
            application=document.application,
        )

    def _frames(self) -> dict[tuple[str, int], _FrameLocation]:
        """Every frame that an entry needs, pack by pack."""
        wanted: Wanted = {}
        for entry in self._document.entries:
            at = 0
            for extent in entry.extents:
                if not extent.hole:
                    wanted.setdefault(extent.pack, {}).setdefault(extent.offset, (entry, extent, at))
                at += extent.raw
        moved, borders = {}, BorderSearch(self._search, self._runs(wanted))
        for ref in self._document.packs:
            if not (frames := wanted.pop(ref.sha256, {})):
                continue
            data, opens = memoryview(fetch_pack(self._store, self._from, ref)), self._opens if ref.sealed else PLAIN
            for offset, (entry, extent, at) in sorted(frames.items(), key=lambda item: item[0]):
                raw = packs.inflate(data[offset : offset + extent.stored], extent, opens)
                borders.look((ref.sha256, offset), raw)
                moved[ref.sha256, offset] = self._pack(raw, entry, at)
        return moved

    def _runs(self, wanted: Wanted) -> Iterator[tuple[str, list[FileFrame]]]:
        """The frames of each file, from one hole to the next."""
        for entry in self._document.entries:
            at, run, end = 0, list[FileFrame](), ("", 0)
            for extent in (*entry.extents, hole(0)):
                if extent.hole:
                    if len(run) > 1:
                        yield entry.path, run
                    run, end = [], ("", 0)
                else:
                    first, _, place = wanted[extent.pack][extent.offset]
                    is_first = first is entry and place == at
                    follows = is_first and end == (extent.pack, extent.offset)
                    run.append(FileFrame((extent.pack, extent.offset), extent.raw, follows))
                    end = (extent.pack, extent.offset + extent.stored) if is_first else ("", 0)
                at += extent.raw

    def _blob(self, entry: Entry) -> tuple[Extent, ...]:
        """A file that was a separate object, in frames."""
        sha256, at, extents = hashlib.sha256(), 0, []
        for raw in self._cut(self._from.blob(entry.blob or ""), entry.size):
            sha256.update(raw)
            extents.append(_extent(self._pack(raw, entry, at), len(raw), hashlib.sha256(raw).hexdigest()))
            at += len(raw)
        if at != entry.size or sha256.hexdigest() != entry.sha256:
            raise VerifyMismatch(
                "a file does not match its digest",
                why=f"{entry.path!r}"[:200],
                hint="the object store returned bytes that differ from those stored; check its disks",
                path=entry.path,
            )
        return tuple(extents)

    def _cut(self, key: str, size: int) -> Iterator[bytes]:
        for start in range(0, size, RANGE):
            data = self._store.get_range(key, start, min(RANGE, size - start))
            for at in range(0, len(data), packs.CHUNK):
                yield data[at : at + packs.CHUNK]

    def _pack(self, raw: bytes, entry: Entry, at: int) -> _FrameLocation:
        self._search.look(entry.path, at, raw)
        offset, stored = self._builder.add(raw, path=entry.path, at=at, mode=entry.mode, mtime_ns=entry.mtime_ns)
        place = _FrameLocation(pack=len(self._sealed), offset=offset, stored=stored)
        if self._builder.full:
            self._flush()
        return place

    def _flush(self) -> None:
        if self._builder.empty:
            return
        pack = self._builder.seal()
        put_immutable(self._store, self._clock, self._to.pack(pack.sha256), pack.data)
        self._sealed.append(pack.ref)
        self._builder = packs.PackBuilder(self._epoch, self._seals)

    def _entry(
        self, entry: Entry, moved: dict[tuple[str, int], _FrameLocation], blobs: dict[str, tuple[Extent, ...]]
    ) -> Entry:
        extents = blobs.get(entry.path) or tuple(self._moved(extent, moved) for extent in entry.extents)
        return replace(entry, blob=None, extents=self._settled(extents))

    def _moved(self, extent: Extent, moved: dict[tuple[str, int], _FrameLocation]) -> Extent:
        if extent.hole:
            return extent
        place = moved.get((extent.pack, extent.offset))
        if place is None:
            raise RestoreFailed(
                f"the manifest of tenant {self._document.tenant} names a pack that it does not list",
                hint="nothing was changed; choose another generation",
                tenant=self._document.tenant,
            )
        return _extent(place, extent.raw, extent.sha256)

    def _settled(self, extents: Sequence[Extent]) -> tuple[Extent, ...]:
        """Replace numbers of packs by their digests."""
        return tuple(
            extent if extent.hole else replace(extent, pack=self._sealed[int(extent.pack)].sha256) for extent in extents
        )


def _extent(place: _FrameLocation, raw: int, sha256: str | None) -> Extent:
    """An extent in a pack whose digest is not known yet."""
    return Extent(pack=str(place.pack), offset=place.offset, stored=place.stored, raw=raw, sha256=sha256)
