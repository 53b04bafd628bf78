"""From a manifest to a tree on disk: fetch packs in parallel, check every digest, write below directory fds.

The result is whole, or an exception gives the reason; the caller decides what happens then.
"""

import hashlib
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Final, NoReturn

import structlog

from claw_runtime.errors import BucketMissing, DiskFull, RestoreFailed, StoreDenied, StoreUnavailable, VerifyMismatch
from claw_runtime.formats import pack as packs
from claw_runtime.formats.entries import places_digest
from claw_runtime.formats.envelope import PLAIN, Sealer
from claw_runtime.formats.manifest import Entry, Extent, Manifest, PackRef
from claw_runtime.fsutil import (
    chunks,
    finish,
    hash_zeros,
    no_room,
    read_at,
    reads_as_zeros,
    write_all,
    write_sparse,
)
from claw_runtime.ports import ObjectMissing, ObjectStore
from claw_runtime.safefs.opening import annotate, attributes
from claw_runtime.safefs.tree import Cursor, Tree
from claw_runtime.state.restore.trailing import TrailingDigest
from claw_runtime.tenancy import Keys, TenantId

log = structlog.get_logger(__name__)

THREADS: Final = 4  # each holds one pack of at most 16 MiB
RANGE: Final = 8 * 1024 * 1024
_ZEROS_SAVE: Final = 2048
"""Bytes that a page of zeros saves in its frame, at least. Holes that are shorter than a chunk are stored as zeros."""
_WORTH_WHOLE: Final = 256 * 1024
"""Unneeded bytes of a pack that are fetched rather than skipped: another request would cost as much."""
_GAP: Final = 64 * 1024
_SMALL: Final = 64 * 1024
"""Bytes of a frame below which making its file, not its content, takes the time. Threads that make files are in each
other's way: 10,000 of 4 kB take one thread 430 ms, two 690 ms, four 840 ms (two processors)."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame and its place: offset `at` of the file `entry`."""

    entry: Entry
    extent: Extent
    at: int


def fetch_pack(store: ObjectStore, keys: Keys, ref: PackRef) -> bytes:
    """A pack's bytes, checked; fetched twice before they are reported as damaged.

    Raises:
        VerifyMismatch: The bytes are damaged.
        ObjectMissing, StoreUnavailable, StoreDenied, BucketMissing: The store.
    """
    data, _ = store.get(keys.pack(ref.sha256))
    try:
        packs.verify(data, ref)
    except VerifyMismatch:
        data, _ = store.get(keys.pack(ref.sha256))
        packs.verify(data, ref)
    return data


def unpack(
    store: ObjectStore, manifest: Manifest, tree: Tree, sealer: Sealer = PLAIN, donor: Tree | None = None
) -> None:
    """Make the manifest's tree below an empty directory and make it durable.

    Args:
        donor: An older, unused tree of the same tenant on the same file system: its files with the right digests are
            moved instead of fetched. The rest of it is then useless.

    Raises:
        VerifyMismatch: A pack or file is not what its digest says.
        ObjectMissing, StoreUnavailable, StoreDenied, BucketMissing: The store.
        OSError: The disk.
    """
    with tree.cursor() as cursor:
        entries = _prepare(cursor, manifest.entries, donor)
    _Filling(store, replace(manifest, entries=tuple(entries)), tree, sealer).fill()
    with tree.cursor() as cursor:
        _finish(cursor, entries)
    tree.sync()


def read_file(
    store: ObjectStore, manifest: Manifest, entry: Entry, sealer: Sealer = PLAIN, *, holes: bool = True
) -> Iterator[bytes]:
    """A file's content, piece by piece; the digest is checked after the last one.

    Args:
        holes: Whether the zeros of holes are given, too; there may be terabytes of them.

    Raises:
        VerifyMismatch: The content does not match its digest; the pieces given before must not be trusted.
        ObjectMissing, StoreUnavailable, StoreDenied, BucketMissing: The store.
    """
    whole, places, told = hashlib.sha256(), entry.places, list[tuple[int, str | None, bool]]()
    for piece, length in _pieces(store, manifest, entry, sealer):
        if places is None:
            whole.update(piece) if piece else hash_zeros(whole, length)
        else:
            told.append((length, hashlib.sha256(piece).hexdigest() if piece else None, not piece))
        if piece:
            yield piece
        elif holes:
            yield from _zeros(length)
    if places is None:
        _compare(whole.hexdigest(), entry)
    elif places_digest(told) != places:
        _damaged(entry)


def _zeros(length: int) -> Iterator[bytes]:
    piece = bytes(min(RANGE, length))
    for start in range(0, length, RANGE):
        yield piece[: length - start]


def _pieces(store: ObjectStore, manifest: Manifest, entry: Entry, sealer: Sealer) -> Iterator[tuple[bytes, int]]:
    """Pieces of a file and their lengths; of a hole no bytes."""
    keys = Keys(manifest.tenant)
    if entry.blob is not None:
        for start in range(0, entry.size, RANGE):
            length = min(RANGE, entry.size - start)
            yield store.get_range(keys.blob(entry.blob), start, length), length
    sealed = {ref.sha256 for ref in manifest.packs if ref.sealed}
    for extent in entry.extents:
        if extent.hole:
            yield b"", extent.raw
            continue
        stored = store.get_range(keys.pack(extent.pack), extent.offset, extent.stored)
        yield packs.inflate(stored, extent, sealer if extent.pack in sealed else PLAIN), extent.raw


def _prepare(cursor: Cursor, entries: Sequence[Entry], donor: Tree | None) -> list[Entry]:
    """Make what needs no pack: directories, links, empty files, files of the donor, and files to be filled in pieces;
    returns the entries that are not complete."""
    if donor is None:
        for entry in entries:
            _begin(cursor, entry)
        return list(entries)
    left = []
    with donor.cursor() as old:
        for entry in entries:
            if entry.type == "f" and entry.size and _move(old, cursor, entry):
                continue
            _begin(cursor, entry)
            left.append(entry)
    return left


def _begin(cursor: Cursor, entry: Entry) -> None:
    if entry.type == "d":
        cursor.make_directory(entry.path)
    elif entry.target is not None:
        cursor.make_link(entry.path, entry.target, mtime_ns=entry.mtime_ns)
    elif _in_pieces(entry):
        with cursor.creating(entry.path, mode=0o600, mtime_ns=entry.mtime_ns) as fd:
            os.truncate(fd, entry.size)
    elif not entry.extents:
        _compare(hashlib.sha256().hexdigest(), entry)
        with cursor.creating(entry.path, mode=entry.mode, mtime_ns=entry.mtime_ns) as fd:
            _attribute(fd, entry)


def _move(old: Cursor, new: Cursor, entry: Entry) -> bool:
    """Move a file out of an older tree, if its digest is right. Its time is compared first, so that changed files are
    rarely read."""
    try:
        with old.reading(entry.path) as fd:
            status = os.fstat(fd)
            if (status.st_size, status.st_mtime_ns, status.st_nlink) != (entry.size, entry.mtime_ns, 1):
                return False
            if attributes(fd) != entry.xattrs or not _holds(fd, entry):
                return False
            finish(fd, mode=entry.mode, mtime_ns=entry.mtime_ns)
            (above, name), (into, same) = old.parent(entry.path), new.parent(entry.path)
            os.rename(name, same, src_dir_fd=above, dst_dir_fd=into)
    except OSError:
        return False
    return True


def _in_pieces(entry: Entry) -> bool:
    """Whether a file has more than one frame; parts that are never written stay holes."""
    extents = entry.extents
    return len(extents) > 1 or entry.blob is not None or (len(extents) == 1 and extents[0].hole)


class Fetching(ABC):
    """Fetches the frames of all files, pack by pack, a few packs at a time.

    Args:
        wanted: Which frames are needed.
    """

    def __init__(
        self,
        store: ObjectStore,
        manifest: Manifest,
        sealer: Sealer,
        wanted: Callable[[Extent], bool] = lambda _extent: True,
    ) -> None:
        self._store, self._sealer = store, sealer
        self._keys = Keys(manifest.tenant)
        self._refs = {ref.sha256: ref for ref in manifest.packs}
        self._frames: dict[str, list[Frame]] = {}
        for entry in manifest.entries:
            at = 0
            for extent in entry.extents:
                if extent.pack and wanted(extent):
                    self._frames.setdefault(extent.pack, []).append(Frame(entry, extent, at))
                at += extent.raw
        if foreign := self._frames.keys() - self._refs.keys():
            raise RestoreFailed(f"a manifest names pack {min(foreign)[:16]}, which it does not list")

    def fetch(self) -> None:
        """Fetch and take every frame. Raises as `take`, and as the store."""
        if len(self._frames) < 2:  # most states: a thread would only cost 2 ms of a claim on a busy host (measured)
            for sha256 in self._frames:
                self._pack(sha256)
            return
        with ThreadPoolExecutor(THREADS, thread_name_prefix="claw-restore") as pool:
            futures = [pool.submit(self._pack, sha256) for sha256 in self._frames]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
            for future in futures:
                if not future.cancelled():
                    future.result()

    def _pack(self, sha256: str) -> None:
        ref, frames = self._refs[sha256], self._frames[sha256]
        sealer = self._sealer if ref.sealed else PLAIN
        needed = sum(frame.extent.stored for frame in frames)
        if needed * 2 >= ref.size or ref.size <= _WORTH_WHOLE:
            data = memoryview(fetch_pack(self._store, self._keys, ref))
            self.take(frames, data, 0, sealer)
            return
        for some in _neighbours(frames):
            start, end = some[0].extent.offset, max(frame.extent.offset + frame.extent.stored for frame in some)
            data = memoryview(self._store.get_range(self._keys.pack(sha256), start, end - start))
            some.sort(key=lambda frame: (frame.entry.path, frame.at))  # in the order of the tree
            self.take(some, data, start, sealer)

    @abstractmethod
    def take(self, frames: Sequence[Frame], data: memoryview, start: int, sealer: Sealer) -> None:
        """Take frames from the bytes of their pack from `start` on. It is called in several threads."""


class _Filling(Fetching):
    """Writes the content of all files."""

    def __init__(self, store: ObjectStore, manifest: Manifest, tree: Tree, sealer: Sealer) -> None:
        super().__init__(store, manifest, sealer)
        self._tree, self._making = tree, threading.Lock()
        self._blobs = [entry for entry in manifest.entries if entry.blob is not None]

    def fill(self) -> None:
        for entry in self._blobs:  # each is fetched in parallel parts
            self._blob(entry)
        self.fetch()

    def take(self, frames: Sequence[Frame], data: memoryview, start: int, sealer: Sealer) -> None:
        """Write frames; those of small files by one thread at a time.

        This loop runs once per file and takes most of the time of a restore of 10,000 small files.
        """
        inflate, sha256 = packs.inflate, hashlib.sha256
        small = sum(frame.extent.raw for frame in frames) < _SMALL * len(frames)
        with self._making if small else nullcontext(), self._tree.cursor() as cursor:
            for frame in frames:
                entry, extent = frame.entry, frame.extent
                begin = extent.offset - start
                raw = inflate(data[begin : begin + extent.stored], extent, sealer)
                if not _in_pieces(entry):
                    if sha256(raw).hexdigest() != entry.sha256:
                        _damaged(entry)
                    _make(cursor, entry, extent, raw)
                    continue
                if extent.sha256 is not None and sha256(raw).hexdigest() != extent.sha256:
                    _damaged(entry)
                with cursor.patching(entry.path) as fd:
                    if may_have_holes(extent):
                        write_sparse(fd, raw, frame.at)
                    else:
                        write_all(fd, raw, offset=frame.at)

    def _blob(self, entry: Entry) -> None:
        """Fetch a blob and digest it meanwhile; digesting it afterwards takes 1.5 times as long (1 GiB, two
        processors)."""
        with (
            self._tree.cursor() as cursor,
            cursor.patching(entry.path) as fd,
            TrailingDigest(fd, entry.size) as digest,
        ):

            def sink(offset: int, piece: memoryview) -> None:
                write_all(fd, piece, offset=offset)
                digest.wrote(offset, len(piece))

            self._store.fetch(self._keys.blob(entry.blob or ""), entry.size, sink)
            _compare(digest.whole(), entry)


def _neighbours(frames: Sequence[Frame]) -> Iterator[list[Frame]]:
    """Frames of one pack, grouped into runs that are cheaper to fetch together than one by one."""
    some: list[Frame] = []
    end = 0
    for frame in sorted(frames, key=lambda frame: frame.extent.offset):
        if some and (frame.extent.offset - end > _GAP or end - some[0].extent.offset > RANGE):
            yield some
            some = []
        some.append(frame)
        end = max(end if len(some) > 1 else 0, frame.extent.offset + frame.extent.stored)
    if some:
        yield some


def may_have_holes(extent: Extent) -> bool:
    """Whether a frame may hold pages of zeros, of which a restore makes holes."""
    return extent.raw - extent.stored >= _ZEROS_SAVE


def _make(cursor: Cursor, entry: Entry, extent: Extent, raw: bytes) -> None:
    with cursor.creating(entry.path, mode=entry.mode, mtime_ns=entry.mtime_ns) as fd:
        if may_have_holes(extent):
            write_sparse(fd, raw, 0)
            if raw.endswith(b"\0"):  # it may end with a hole
                os.truncate(fd, len(raw))
        else:
            write_all(fd, raw)
        if entry.xattrs:
            _attribute(fd, entry)


def _attribute(fd: int, entry: Entry) -> None:
    """Set the extended attributes; a file system without them drops them."""
    for name, why in annotate(fd, entry.xattrs):
        log.warning("extended attribute not restored: the file system refuses it", attribute=name, why=why)


def _finish(cursor: Cursor, entries: Sequence[Entry]) -> None:
    """Check files of several frames by reading them back (blobs were checked during the fetch); set directories,
    deepest first."""
    for entry in entries:
        if entry.type == "f" and _in_pieces(entry):
            with cursor.patching(entry.path) as fd:
                if entry.blob is None and not _holds(fd, entry):
                    _damaged(entry)
                _attribute(fd, entry)
                finish(fd, mode=entry.mode, mtime_ns=entry.mtime_ns)
    for entry in reversed(entries):
        if entry.type == "d":
            if entry.xattrs:
                with cursor.directory(entry.path) as fd:
                    _attribute(fd, entry)
            cursor.finish_directory(entry.path, mode=entry.mode, mtime_ns=entry.mtime_ns)


def _holds(fd: int, entry: Entry) -> bool:
    """Whether an open file has an entry's content; its holes are not read."""
    if entry.places is None:
        return _digest(fd) == entry.sha256
    at = 0
    for extent in entry.extents:
        if extent.hole:
            same = reads_as_zeros(fd, at, at + extent.raw)
        else:
            same = hashlib.sha256(read_at(fd, extent.raw, at)).hexdigest() == extent.sha256
        if not same:
            return False
        at += extent.raw
    return os.fstat(fd).st_size == at


def _digest(fd: int) -> str:
    sha256 = hashlib.sha256()
    for raw in chunks(fd, packs.FRAME):
        sha256.update(raw)
    return sha256.hexdigest()


def _compare(sha256: str, entry: Entry) -> None:
    if sha256 != entry.sha256:
        _damaged(entry)


def _damaged(entry: Entry) -> NoReturn:
    raise VerifyMismatch(
        "a file does not match its digest",
        why=f"{entry.path!r}"[:200],
        hint="the object store returned bytes that differ from those stored; check its disks",
        path=entry.path,
    )


def refuse_restore(tenant: TenantId, generation: int, error: BaseException) -> NoReturn:
    if isinstance(error, (RestoreFailed, DiskFull)):
        raise error
    if no_room(error):
        raise DiskFull(
            f"no room to restore tenant {tenant}",
            why=str(error),
            hint="make room on the disk that holds the data directory, then claim again",
            tenant=tenant,
        ) from error
    why = f"an object is missing: {error}" if isinstance(error, ObjectMissing) else str(error)
    hint = "nothing was started; the state in the bucket is untouched"
    if isinstance(error, (StoreUnavailable, StoreDenied, BucketMissing)) and error.hint:
        hint = f"{hint}; {error.hint}"
    raise RestoreFailed(
        f"generation {generation} of tenant {tenant} could not be restored", why=why, hint=hint, tenant=tenant
    ) from error
