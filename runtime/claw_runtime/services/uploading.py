"""From a tenant's tree to packs in the bucket: walk, snapshot databases, hash, pack what is new, upload side by side.

Nobody may be writing to the tree while it is committed for release; a file that changes under us all the same is
refused then, and keeps its parent's version otherwise.
"""

import hashlib
import os
import tempfile
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from claw_runtime import packs, sqlite_snapshot
from claw_runtime.errors import StoreUnavailable, UploadFailed
from claw_runtime.fsutil import chunks, stamp, write_all
from claw_runtime.manifest import LATEST, ContentKind, Entry, Extent, Manifest, PackRef
from claw_runtime.ports import AmbiguousWrite, Clock, ObjectStore, PreconditionFailed
from claw_runtime.services.carrying import carry
from claw_runtime.services.leases import ATTEMPTS
from claw_runtime.services.selection import Selection
from claw_runtime.tenancy import Keys
from claw_runtime.treewalk import Cursor, Found, NotRegular, Skipped, Tree

THREADS: Final = 4
_READS: Final = 3
_OPEN: Final = "#"  # before the number of a pack whose digest is not known yet


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """A tree as the manifest will tell it. `uploaded` bytes of packs were sent; `reported` is for a person to see."""

    entries: tuple[Entry, ...]
    packs: tuple[PackRef, ...]
    uploaded: int
    reported: tuple[Skipped, ...]


class _Unstable(Exception):
    """A file changed while it was read, every time."""


def put_immutable(store: ObjectStore, clock: Clock, key: str, data: bytes) -> bool:
    """Store bytes under a key that names their digest; whether they were new.

    Raises:
        StoreUnavailable: The store did not take them, several times.
        StoreDenied, BucketMissing: The store.
    """
    last: Exception | None = None
    for attempt in range(ATTEMPTS):
        if attempt:
            clock.sleep(0.1 * 2**attempt)
        try:
            store.put(key, data, if_absent=True)
        except PreconditionFailed:
            return False
        except (AmbiguousWrite, StoreUnavailable) as error:
            last = error
        else:
            return True
    raise StoreUnavailable(
        "an object could not be stored", why=str(last), hint="check the object store and try again", key=key
    ) from last


class _Uploads:
    """Packs on their way: a few at once, the rest of the walk waits, so that memory stays bounded."""

    def __init__(self, store: ObjectStore, clock: Clock, keys: Keys) -> None:
        self._store, self._clock, self._keys = store, clock, keys
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="claw-upload")
        self._room = threading.BoundedSemaphore(THREADS)
        self._sent: list[Future[int]] = []

    def send(self, builder: packs.PackBuilder) -> PackRef:
        self._room.acquire()
        self._raise_first()
        pack = builder.seal()
        self._sent.append(self._pool.submit(self._put, pack))
        return pack.ref

    def _put(self, pack: packs.Pack) -> int:
        try:
            new = put_immutable(self._store, self._clock, self._keys.pack(pack.sha256), pack.data)
            return len(pack.data) if new else 0
        finally:
            self._room.release()

    def _raise_first(self) -> None:
        for future in self._sent:
            if future.done() and (error := future.exception()):
                self._room.release()
                raise error

    def finish(self) -> int:
        return sum(future.result() for future in self._sent)

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


class Collector:
    """One pass over one tree; use it once.

    Args:
        parent: The generation below; content that it holds is not sent again.
        scratch: Directory of ours for private copies of databases.
        still: The tree is promised not to change, so that a change is an error rather than bad luck.
    """

    def __init__(
        self, store: ObjectStore, clock: Clock, keys: Keys, *, parent: Manifest | None, scratch: Path, still: bool
    ) -> None:
        self._uploads = _Uploads(store, clock, keys)
        self._scratch, self._still = scratch, still
        self._parent = {entry.path: entry for entry in parent.entries} if parent else {}
        self._known: dict[str, tuple[Extent, ...]] = {}
        self._packs: dict[str, PackRef] = {pack.sha256: pack for pack in parent.packs} if parent else {}
        for entry in self._parent.values():
            if entry.sha256:
                self._known[entry.sha256] = entry.extents
        self._builder = packs.PackBuilder()
        self._sealed: list[PackRef] = []
        self._entries: list[Entry] = []
        self._sidecars: set[str] = set()
        self._reported: list[Skipped] = []

    def collect(self, root: Path, selection: Selection) -> Collected:
        """Walk the tree, upload what is new, wait for it; what the tree lacks and the selection keeps is as it was.

        Raises:
            UploadFailed: A file kept changing although the tree should be still.
            StoreUnavailable, StoreDenied, BucketMissing: The store.
            OSError: Something in the tree cannot be read; better no generation than one without it.
        """
        try:
            with Tree(root) as tree, tree.cursor() as cursor:
                for found in tree.walk(selection):
                    if isinstance(found, Skipped):
                        self._reported.append(found)
                    elif entry := self._entry(cursor, found):
                        self._entries.append(entry)
            self._flush()
            uploaded = self._uploads.finish()
        finally:
            self._uploads.close()
        self._entries, reported = carry(self._entries, self._parent, selection)
        self._reported.extend(reported)
        return self._collected(uploaded)

    def _collected(self, uploaded: int) -> Collected:
        entries = tuple(
            replace(entry, extents=tuple(self._settle(extent) for extent in entry.extents)) for entry in self._entries
        )
        known = {**self._packs, **{pack.sha256: pack for pack in self._sealed}}
        used = dict.fromkeys(extent.pack for entry in entries for extent in entry.extents)
        return Collected(
            entries=entries,
            packs=tuple(known[sha256] for sha256 in used),
            uploaded=uploaded,
            reported=tuple(self._reported),
        )

    def _settle(self, extent: Extent) -> Extent:
        """An extent with its pack's digest, which is not known before the pack is sealed."""
        if not extent.pack.startswith(_OPEN):
            return extent
        return replace(extent, pack=self._sealed[int(extent.pack[len(_OPEN) :])].sha256)

    def _entry(self, cursor: Cursor, found: Found) -> Entry | None:
        match found.kind:
            case "d":
                return Entry(path=found.path, type="d", mode=found.mode, mtime_ns=storable(found.mtime_ns))
            case "l":
                time = storable(found.mtime_ns)
                return Entry(path=found.path, type="l", mode=found.mode, mtime_ns=time, target=found.target)
            case "f":
                return None if found.path in self._sidecars else self._file(cursor, found)

    def _file(self, cursor: Cursor, found: Found) -> Entry | None:
        for _ in range(_READS):
            with suppress(_Unstable, NotRegular, FileNotFoundError), cursor.reading(found.path) as fd:
                if os.pread(fd, len(sqlite_snapshot.HEADER), 0) == sqlite_snapshot.HEADER:
                    entry = self._database(cursor, found, fd)
                    if entry is not None:
                        return entry
                before = stamp(fd)
                entry = self._content(fd, found, mtime_ns=storable(before.mtime_ns))
                if stamp(fd) == before:
                    return entry
        return self._unstable(found.path)

    def _unstable(self, path: str) -> Entry | None:
        reason = "changed each time it was read"
        if self._still:
            raise UploadFailed(
                f"{printable(path)} {reason}",
                why="something still writes to the tree",
                hint="the tree is kept; find what writes to it, then release again",
                path=path,
            )
        parent = self._parent.get(path)
        kept = "the parent generation's version is kept" if parent else "it is left out"
        self._reported.append(Skipped(path=path, reason=f"{reason}; {kept}"))
        return parent

    def _database(self, cursor: Cursor, found: Found, fd: int) -> Entry | None:
        """A database as one consistent file; None, reported, when SQLite cannot make one.

        Its sidecars are asked for by name, so that no exclude pattern can take the newest rows away.
        """
        with tempfile.TemporaryDirectory(prefix="sqlite-", dir=self._scratch) as private:
            try:
                mtime_ns = _copy_database(cursor, found.path, fd, Path(private))
                with sqlite_snapshot.snapshot(Path(private)).open("rb") as file:
                    entry = self._content(file.fileno(), found, mtime_ns=mtime_ns, kind="sqlite")
            except (sqlite_snapshot.NoSnapshot, NotRegular) as error:
                reason = f"stored as a plain file with its sidecars, not as a database: {error}"
                self._reported.append(Skipped(path=found.path, reason=reason))
                return None
        self._sidecars.update(f"{found.path}{suffix}" for suffix in sqlite_snapshot.SIDECARS)
        return entry

    def _content(self, fd: int, found: Found, *, mtime_ns: int, kind: ContentKind = "plain") -> Entry:
        """Hash a file and pack it unless its content is known; a big file is hashed first, to send nothing twice."""
        size, sha256, only = _digest(fd)
        extents = self._known.get(sha256)
        if extents is None:
            sent, size, parts = hashlib.sha256(), 0, []
            for raw in (only,) if only else chunks(fd, packs.FRAME):
                sent.update(raw)
                parts.append(self._pack(raw, found, size, mtime_ns))
                size += len(raw)
            extents, sha256 = tuple(parts), sent.hexdigest()
            self._known[sha256] = extents
        return Entry(
            path=found.path,
            type="f",
            mode=found.mode,
            mtime_ns=mtime_ns,
            size=size,
            sha256=sha256,
            extents=extents,
            kind=kind,
        )

    def _pack(self, raw: bytes, found: Found, at: int, mtime_ns: int) -> Extent:
        offset, stored = self._builder.add(raw, path=found.path, at=at, mode=found.mode, mtime_ns=mtime_ns)
        extent = Extent(pack=f"{_OPEN}{len(self._sealed)}", offset=offset, stored=stored, raw=len(raw))
        if self._builder.full:
            self._flush()
        return extent

    def _flush(self) -> None:
        if not self._builder.empty:
            self._sealed.append(self._uploads.send(self._builder))
            self._builder = packs.PackBuilder()


def printable(path: str) -> str:
    """A tenant's file name, safe to print: no control character reaches a terminal."""
    return repr(os.fsencode(path).decode(errors="replace"))[:200]


def storable(mtime_ns: int) -> int:
    """The nearest time that a manifest holds: a tenant can set any, and one name must not cost the whole tree."""
    return max(-LATEST, min(LATEST, mtime_ns))


def _digest(fd: int) -> tuple[int, str, bytes | None]:
    """Size and digest of a file, and its content when it is no longer than one frame."""
    sha256, size, only = hashlib.sha256(), 0, None
    for raw in chunks(fd, packs.FRAME):
        sha256.update(raw)
        only = None if size else raw
        size += len(raw)
    return size, sha256.hexdigest(), only


def _copy_database(cursor: Cursor, path: str, fd: int, private: Path) -> int:
    """Copy a database and its sidecars under the names that SQLite expects; the newest of their times, in ns.

    Raises:
        _Unstable: One of them changed meanwhile.
        NotRegular: A sidecar is a link or worse.
    """
    with ExitStack() as open_files:
        sources = {sqlite_snapshot.DATABASE: fd}
        for suffix in ("-wal", "-journal"):
            with suppress(FileNotFoundError):
                sources[f"{sqlite_snapshot.DATABASE}{suffix}"] = open_files.enter_context(
                    cursor.reading(f"{path}{suffix}")
                )
        before = {name: stamp(source) for name, source in sources.items()}
        for name, source in sources.items():
            with (private / name).open("xb") as copy:
                for raw in chunks(source, packs.FRAME):
                    write_all(copy.fileno(), raw)
        if {name: stamp(source) for name, source in sources.items()} != before:
            raise _Unstable
        return storable(max(mark.mtime_ns for mark in before.values()))
