"""The content of a tenant's files: read once, split into chunks, and compared with what the store has already.

A small file is one frame. A large one is split at multiples of 64 KiB, and holes stay holes: they are neither read nor
digested. Only chunks whose digest no file of the parent generation has are packed. A large file that zstd cannot
compress becomes a separate object, until it changes for the first time.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import cached_property
from typing import Final, NamedTuple

import zstandard

from claw_runtime.formats.entries import ContentDigest
from claw_runtime.formats.manifest import LATEST, ContentKind, Entry, Extent, Manifest, hole
from claw_runtime.formats.pack import CHUNK
from claw_runtime.fsutil import PERMISSIONS, chunks, cut
from claw_runtime.safefs.opening import Attributes, attributes
from claw_runtime.state.commit import compaction
from claw_runtime.state.commit.compaction import NEW, Packing
from claw_runtime.state.commit.pack_upload import Blob, CommitUpload, FileChanged, PendingFrame
from claw_runtime.state.commit.stat_cache import Status, part_of
from claw_runtime.state.sqlite import backup
from claw_runtime.state.sqlite.copy import DatabaseCopy, Unstable

BLOB: Final = 8 * 1024 * 1024
"""Minimum bytes of a file that zstd cannot compress and that becomes a separate object."""
_SAMPLE: Final = 1024 * 1024
_DENSE: Final = 0.95
_ZEROS: Final = bytes(CHUNK)


class Part(NamedTuple):
    """A chunk of a file: its digest, and its place in a pack, known or pending. A hole has no digest."""

    sha256: str | None
    place: Extent | PendingFrame


class File(NamedTuple):
    """A file that was read; its entry is made when the packs have their names.

    Attributes:
        statuses: Of the file, and of a database's sidecars, before they were read.
        blob: The separate object that holds it, once it is sent; then it has no parts, and no digest yet.
    """

    path: str
    statuses: tuple[Status, ...]
    mtime_ns: int
    size: int
    sha256: str
    parts: list[Part]
    kind: ContentKind
    xattrs: Attributes
    blob: Future[Blob] | None = None


class Chunker:
    """Reads the files of one pass.

    Args:
        parent: The parent generation; content that it holds is not sent again.
        still: The tree does not change: a file that does is refused, even if it only grew.
        go_on: Called between two chunks; raises when the time limit of the read has passed.
        fit: Returns which of a name's extended attributes can be kept.
        lacks: Whether a generation keeps the entry of a name that the tree lacks, so that it cannot be stored again.
        packing: What is known of the parent's packs.
    """

    def __init__(
        self,
        upload: CommitUpload,
        parent: Manifest | None,
        *,
        still: bool,
        go_on: Callable[[], None],
        fit: Callable[[str, Attributes], Attributes],
        lacks: Callable[[str], bool] = lambda _path: False,
        packing: Packing = NEW,
    ) -> None:
        self._upload, self._parent, self._go_on, self.fit = upload, parent, go_on, fit
        self._still, self._lacks, self._packing = still, lacks, packing
        self._fresh: dict[str, PendingFrame] = {}

    def read(self, fd: int, before: os.stat_result, path: str, *, plain: bool) -> File | None:
        """An open file's content, as long as `before` says; None for a database, unless it is to be stored `plain`.

        A file of a running tenant may gain bytes meanwhile, as a log does: the next commit stores them.

        Raises:
            Unstable: The content changed during the read.
            StoreUnavailable, StoreDenied, BucketMissing: The store failed at an earlier file.
        """
        found: Attributes | None = None
        if not before.st_mode & stat.S_IRUSR:  # to read them, its mode changes for a moment, which its time shows
            found, before = attributes(fd), os.fstat(fd)
        only = os.pread(fd, before.st_size, 0) if before.st_size <= CHUNK else b""
        start = only or os.pread(fd, len(backup.HEADER), 0)
        if not plain and start.startswith(backup.HEADER):
            return None
        mtime_ns, xattrs = storable(before.st_mtime_ns), self.fit(path, attributes(fd) if found is None else found)
        if before.st_size >= BLOB and not self._upload.seals and _is_dense(fd, before):
            blob = self._blob(fd, before, path)
            if blob:
                return File(path, (part_of(before),), mtime_ns, before.st_size, "", [], "plain", xattrs, blob)
        mode = before.st_mode & PERMISSIONS
        if before.st_size <= CHUNK:
            size, sha256, parts = len(only), hashlib.sha256(only).hexdigest(), list[Part]()
            if only:
                parts.append(self._part(only, sha256, path, 0, mode, mtime_ns))
        else:
            size, sha256, parts = self._content(fd, before, path, mode, mtime_ns)
        if size != before.st_size or (changed(before, os.fstat(fd)) and not self._is_same(fd, before, sha256)):
            raise Unstable
        return File(path, (part_of(before),), mtime_ns, before.st_size, sha256, parts, "plain", xattrs)

    def _blob(self, fd: int, before: os.stat_result, path: str) -> "Future[Blob] | None":
        """The separate object of a file that does not compress. None if an earlier version of it is in the parent: one
        that changed once is likely to change again, and of chunks only those that changed are sent.

        Raises:
            Unstable: The content changed during the read.
        """
        old = self.before.get(path)
        if old is None or old.size < BLOB:
            return self._upload.send(
                fd, path, before.st_size, self._blobs, check=lambda fd: self._refuse_change(fd, before)
            )
        if old.blob is None:
            return None
        digest = hashlib.sha256()
        for piece in chunks(fd, _SAMPLE, before.st_size):
            digest.update(piece)
            self._go_on()
        name = self._blobs.get(digest.hexdigest())
        if name is None:
            return None
        if self._still and changed(before, os.fstat(fd)):
            raise Unstable
        found: Future[Blob] = Future()
        found.set_result(Blob(digest.hexdigest(), name))
        return found

    def _is_same(self, fd: int, before: os.stat_result, sha256: str) -> bool:
        """Whether a second read of a changed file gives the same bytes: then the tree held them between the two."""
        if self._still:
            return False
        digest, seen = ContentDigest(), 0
        for raw, length in _pieces(fd, before):
            if raw:
                digest.data(raw)
            else:
                digest.hole(length)
            seen += length
            self._go_on()
        # A file that became shorter reads as a hole up to its former end.
        return seen == before.st_size <= os.fstat(fd).st_size and digest.value() == sha256

    def _refuse_change(self, fd: int, before: os.stat_result) -> None:
        """Raises `FileChanged` if a file of a still tree changed; in another tree, two equal reads suffice."""
        if self._still and changed(before, os.fstat(fd)):
            raise FileChanged

    def read_database(self, path: str, copied: DatabaseCopy) -> File:
        """A copied database as one consistent file. Raises `NoSnapshot`, and what `read` raises of the store."""
        with backup.snapshot(copied.directory).open("rb") as file:
            status, mode = os.fstat(file.fileno()), copied.statuses[0].st_mode & PERMISSIONS
            mtime_ns = storable(copied.mtime_ns)
            size, sha256, parts = self._content(file.fileno(), status, path, mode, mtime_ns)
        statuses = tuple(map(part_of, copied.statuses))
        return File(path, statuses, mtime_ns, size, sha256, parts, "sqlite", copied.xattrs)

    def read_part(self, fd: int, path: str, like: os.stat_result, xattrs: Attributes = ()) -> File:
        """One of a database's files as it is, when the database cannot be stored as one; `like` has its mode and time.

        Raises:
            Unstable: It became shorter.
            StoreUnavailable, StoreDenied, BucketMissing: The store failed at an earlier file.
        """
        status, mode, mtime_ns = os.fstat(fd), like.st_mode & PERMISSIONS, storable(like.st_mtime_ns)
        size, sha256, parts = self._content(fd, status, path, mode, mtime_ns)
        if size != status.st_size:
            raise Unstable
        return File(path, (part_of(like),), mtime_ns, size, sha256, parts, "plain", xattrs)

    def entry(self, file: File) -> Entry:
        """A file's entry in the manifest; waits until its place is known.

        Raises:
            FileChanged: The file changed while it was sent.
            StoreUnavailable, StoreDenied, BucketMissing: The store failed.
        """
        blob = file.blob.result() if file.blob else None
        entry = Entry(
            path=file.path,
            type="f",
            mode=file.statuses[0].st_mode & PERMISSIONS,
            mtime_ns=file.mtime_ns,
            size=file.size,
            sha256=blob.sha256 if blob else file.sha256,
            blob=blob.name if blob else None,
            extents=tuple(_extent(part, only=len(file.parts) == 1) for part in file.parts),
            kind=file.kind,
            xattrs=file.xattrs,
        )
        before = self.before.get(file.path)
        if before is None or self._shows(before) or self.retires(before):
            return entry
        return before if before.same_as(entry) else entry

    def store_again(self, fd: int, entry: Entry) -> list[Part]:
        """The chunks of an unchanged file; those in retired packs are sent. One whose bytes differ keeps its place."""
        at, parts = 0, list[Part]()
        for extent in entry.extents:
            sha256 = extent.sha256 or (entry.sha256 if len(entry.extents) == 1 else None)
            part = Part(sha256, extent)
            if extent.pack in self.retired and sha256:
                raw = os.pread(fd, extent.raw, at)
                if hashlib.sha256(raw).hexdigest() == sha256:
                    part = self._part(raw, sha256, entry.path, at, entry.mode, entry.mtime_ns)
            parts.append(part)
            at += extent.raw
        return parts

    def placed(self, entry: Entry, parts: Sequence[Part]) -> Entry:
        """An entry with other places of the same chunks; waits until they are known. Raises errors of the store."""
        return replace(entry, extents=tuple(_extent(part, only=len(parts) == 1) for part in parts))

    def _content(
        self, fd: int, status: os.stat_result, path: str, mode: int, mtime_ns: int
    ) -> tuple[int, str, list[Part]]:
        """Size, digest and chunks of a large file."""
        digest, at, parts = ContentDigest(), 0, list[Part]()
        for raw, length in _pieces(fd, status):
            if raw:
                sha256 = hashlib.sha256(raw).hexdigest()
                digest.data(raw, sha256)
                parts.append(self._part(raw, sha256, path, at, mode, mtime_ns))
            else:
                digest.hole(length)
                parts.append(Part(None, hole(length)))
            at += length
            self._go_on()
        return at, digest.value(), parts

    def _part(self, raw: bytes, sha256: str, path: str, at: int, mode: int, mtime_ns: int) -> Part:
        place: Extent | PendingFrame | None = self._frames.get(sha256)
        if place is None or place.pack in self.retired:
            place = self._fresh.get(sha256)
        if place is None:
            place = self._fresh[sha256] = self._upload.add(raw, path, at, mode, mtime_ns)
        else:
            self._upload.passed(raw, path, at)
        return Part(sha256, place)

    @cached_property
    def before(self) -> dict[str, Entry]:
        """The parent generation's entries, by path."""
        return {entry.path: entry for entry in self._parent.entries} if self._parent else {}

    @cached_property
    def _frames(self) -> dict[str, Extent]:
        """Places of the chunks that the parent generation holds, by digest."""
        found = dict[str, Extent]()
        for entry in self.before.values():
            if self._shows(entry):
                continue
            if len(entry.extents) == 1 and entry.sha256 and not entry.extents[0].hole:
                found[entry.sha256] = entry.extents[0]
            else:
                found.update((extent.sha256, extent) for extent in entry.extents if extent.sha256)
        return found

    @cached_property
    def retired(self) -> frozenset[str]:
        """Packs whose content is stored again, so that the next generation does not name them."""
        if self._parent is None:
            return frozenset()
        fixed = {extent.pack for entry in self.before.values() if self._stays(entry) for extent in entry.extents}
        return compaction.retired(
            self._frames.values(), self._parent.packs, fixed, packing=self._packing, release=self._still
        )

    def spare_after(self, sent: int) -> int:
        """Bytes that the next commit may store again only to have fewer packs; this one sent so many."""
        moved = sum(extent.stored for extent in self._frames.values() if extent.pack in self.retired)
        return compaction.spare_after(self._packing.spare, sent, moved)

    def retires(self, entry: Entry) -> bool:
        """Whether a part of an entry's content is in a retired pack."""
        return any(extent.pack in self.retired for extent in entry.extents)

    def _stays(self, entry: Entry) -> bool:
        """Whether an entry's content cannot be stored again: the tree lacks it, or a chunk has no digest."""
        several = len(entry.extents) > 1
        return self._lacks(entry.path) or (several and not all(one.sha256 or one.hole for one in entry.extents))

    @cached_property
    def _plain(self) -> frozenset[str]:
        return self._parent.plain_packs if self._parent else frozenset()

    def _shows(self, entry: Entry) -> bool:
        """Whether an entry's content is stored in plain text although it must be encrypted now."""
        return self._upload.seals and entry.lies_in(self._plain)

    @cached_property
    def _blobs(self) -> dict[str, str]:
        """Files of the parent generation that are separate objects, by digest."""
        return {entry.sha256: entry.blob for entry in self.before.values() if entry.sha256 and entry.blob}


def storable(mtime_ns: int) -> int:
    """The nearest time that a manifest can hold: a tenant can set any, and one name must not fail the whole commit."""
    return max(-LATEST, min(LATEST, mtime_ns))


def _pieces(fd: int, status: os.stat_result) -> Iterator[tuple[bytes, int]]:
    """The chunks of a file and their lengths; of a hole no bytes. No two holes are adjacent. In a file with holes, a
    chunk of zeros is one, too: a restore does not write it, so that the same file gives the same places again."""
    holes, gap = status.st_blocks * 512 < status.st_size, 0
    for raw, length in cut(fd, status.st_size, CHUNK, holes=holes):
        if holes and (not raw or raw == _ZEROS[:length]):
            gap += length
            continue
        if gap:
            yield b"", gap
            gap = 0
        yield raw, length
    if gap:
        yield b"", gap


def _is_dense(fd: int, status: os.stat_result) -> bool:
    """Whether a file has no holes and a sample of its beginning does not compress."""
    if status.st_blocks * 512 < status.st_size:
        return False
    start = os.pread(fd, _SAMPLE, 0)
    return len(zstandard.ZstdCompressor(level=1).compress(start)) > _DENSE * len(start)


def _extent(part: Part, *, only: bool) -> Extent:
    """A chunk's place; a file's only chunk has the file's digest and needs no other."""
    sha256, place = part
    if isinstance(place, PendingFrame):
        return place.pack.extent(place.number, None if only else sha256)
    if only or place.hole or place.sha256:
        return place
    return Extent(pack=place.pack, offset=place.offset, stored=place.stored, raw=place.raw, sha256=sha256)


def changed(before: os.stat_result, after: os.stat_result) -> bool:
    """Whether a file has changed between two looks at it."""
    return (before.st_mtime_ns, before.st_ctime_ns, before.st_size) != (
        after.st_mtime_ns,
        after.st_ctime_ns,
        after.st_size,
    )
