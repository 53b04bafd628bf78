"""From a manifest to a tree on disk: fetch packs side by side, check every digest, write below directory fds.

Nothing here decides whether the result may be used: it is whole, or an exception says why not.
"""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from claw_runtime import packs
from claw_runtime.errors import DiskFull, VerifyMismatch
from claw_runtime.fsutil import chunks, finish, room, write_all
from claw_runtime.manifest import Entry, Extent, Manifest, PackRef
from claw_runtime.ports import ObjectStore
from claw_runtime.tenancy import Keys
from claw_runtime.treewalk import Cursor, Tree

THREADS: Final = 4  # each holds one pack of at most 16 MiB
_BLOCK: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frame:
    """One frame and where it goes: at offset `at` of the file `entry`."""

    entry: Entry
    extent: Extent
    at: int


def check_room(manifest: Manifest, directory: Path) -> None:
    """Raises `DiskFull` when the tree cannot fit where `directory` lies."""
    need = sum(-(-entry.size // _BLOCK) * _BLOCK + _BLOCK * (entry.type == "d") for entry in manifest.entries)
    left = room(directory)
    if need > left.size or (left.files is not None and len(manifest.entries) > left.files):
        raise DiskFull(
            f"no room to restore tenant {manifest.tenant}",
            why=f"{need} bytes in {len(manifest.entries)} files are needed, {left.size} bytes and "
            f"{'any number of' if left.files is None else left.files} files are left",
            hint="make room on the disk that holds the data directory, then claim again",
            tenant=manifest.tenant,
            need=need,
            left=left.size,
        )


def fetch_pack(store: ObjectStore, keys: Keys, ref: PackRef) -> bytes:
    """A pack's bytes, checked; asked for twice before they are called damaged.

    Raises:
        VerifyMismatch: They are damaged.
        ObjectMissing, StoreUnavailable, StoreDenied, BucketMissing: The store.
    """
    data, _ = store.get(keys.pack(ref.sha256))
    try:
        packs.verify(data, ref)
    except VerifyMismatch:
        data, _ = store.get(keys.pack(ref.sha256))
        packs.verify(data, ref)
    return data


def unpack(store: ObjectStore, manifest: Manifest, tree: Tree) -> None:
    """Make the manifest's tree below an empty directory and make it durable.

    Raises:
        VerifyMismatch: A pack or file is not what its digest says.
        ObjectMissing, StoreUnavailable, StoreDenied, BucketMissing: The store.
        OSError: The disk.
    """
    keys = Keys(manifest.tenant)
    with tree.cursor() as cursor:
        _prepare(cursor, manifest.entries)
    _fill(store, keys, manifest, tree)
    with tree.cursor() as cursor:
        _finish(cursor, manifest.entries)
    tree.sync()


def read_file(store: ObjectStore, keys: Keys, entry: Entry) -> Iterator[bytes]:
    """A file's content, frame by frame; the digest is checked after the last one.

    Raises:
        VerifyMismatch: The content is not what its digest says; bytes that were given before are not to be trusted.
        ObjectMissing, StoreUnavailable, StoreDenied, BucketMissing: The store.
    """
    sha256 = hashlib.sha256()
    for extent in entry.extents:
        raw = packs.inflate(store.get_range(keys.pack(extent.pack), extent.offset, extent.stored), extent)
        sha256.update(raw)
        yield raw
    _compare(sha256.hexdigest(), entry)


def _prepare(cursor: Cursor, entries: Sequence[Entry]) -> None:
    """Make what needs no pack: directories, links, empty files, and room for files of several frames."""
    for entry in entries:
        if entry.type == "d":
            cursor.make_directory(entry.path)
        elif entry.target is not None:
            cursor.make_link(entry.path, entry.target, mtime_ns=entry.mtime_ns)
        elif not entry.extents:
            _compare(hashlib.sha256().hexdigest(), entry)
            cursor.write_file(entry.path, b"", mode=entry.mode, mtime_ns=entry.mtime_ns)
        elif len(entry.extents) > 1:
            cursor.write_file(entry.path, b"", mode=0o600, mtime_ns=entry.mtime_ns)


def _fill(store: ObjectStore, keys: Keys, manifest: Manifest, tree: Tree) -> None:
    frames: dict[str, list[_Frame]] = {}
    for entry in manifest.entries:
        at = 0
        for extent in entry.extents:
            frames.setdefault(extent.pack, []).append(_Frame(entry=entry, extent=extent, at=at))
            at += extent.raw
    refs = {ref.sha256: ref for ref in manifest.packs}

    def fill(sha256: str) -> None:
        data = memoryview(fetch_pack(store, keys, refs[sha256]))
        with tree.cursor() as cursor:
            for frame in frames[sha256]:
                _write(cursor, frame, data)

    if len(frames) < 2:  # most states: a thread would only cost, 2 ms of a claim on a busy host (measured)
        for sha256 in frames:
            fill(sha256)
        return
    with ThreadPoolExecutor(THREADS, thread_name_prefix="claw-restore") as pool:
        futures = [pool.submit(fill, sha256) for sha256 in frames]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        for future in futures:
            if not future.cancelled():
                future.result()


def _write(cursor: Cursor, frame: _Frame, data: memoryview) -> None:
    entry, extent = frame.entry, frame.extent
    raw = packs.inflate(data[extent.offset : extent.offset + extent.stored], extent)
    if len(entry.extents) == 1:
        _compare(hashlib.sha256(raw).hexdigest(), entry)
        cursor.write_file(entry.path, raw, mode=entry.mode, mtime_ns=entry.mtime_ns)
    else:
        with cursor.patching(entry.path) as fd:
            write_all(fd, raw, offset=frame.at)


def _finish(cursor: Cursor, entries: Sequence[Entry]) -> None:
    """Check the files that came in several frames, by reading them back; set directories, deepest first."""
    for entry in entries:
        if len(entry.extents) > 1:
            with cursor.patching(entry.path) as fd:
                sha256 = hashlib.sha256()
                for raw in chunks(fd, packs.FRAME):
                    sha256.update(raw)
                _compare(sha256.hexdigest(), entry)
                finish(fd, mode=entry.mode, mtime_ns=entry.mtime_ns)
    for entry in reversed(entries):
        if entry.type == "d":
            cursor.finish_directory(entry.path, mode=entry.mode, mtime_ns=entry.mtime_ns)


def _compare(sha256: str, entry: Entry) -> None:
    if sha256 != entry.sha256:
        raise VerifyMismatch(
            "a file is not what its digest says",
            why=f"{entry.path!r}"[:200],
            hint="the object store returned other bytes than were stored; check its disks",
            path=entry.path,
        )
