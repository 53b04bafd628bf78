"""From a tenant's tree to packs in the bucket: walk, read what changed, cut it, pack what is new, upload side by side.

Whatever a pass finds as it was is taken over from the generation before without being read. A file that changes under
us keeps its parent's version, and is reported; nobody may be writing to a tree that is committed for release, so that
there it is refused. The loop over all names does as little as it can: every commit of a running tenant pays for it.
"""

import hashlib
import os
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, NamedTuple

import zstandard

from claw_runtime import sqlite_snapshot
from claw_runtime.errors import UploadFailed
from claw_runtime.fsutil import PERMISSIONS, cut, hash_zeros
from claw_runtime.manifest import LATEST, MAX_XATTRS, ContentKind, Entry, EntryType, Extent, Manifest, PackRef, hole
from claw_runtime.packs import CHUNK
from claw_runtime.ports import Clock
from claw_runtime.services import databases
from claw_runtime.services.carrying import carry
from claw_runtime.services.databases import Copied, Unstable
from claw_runtime.services.selection import Selection
from claw_runtime.services.stat_cache import MAPPED, RACY, Known, Record, holds, record, stillness, stored
from claw_runtime.services.uplink import Blob, Moving, Place, Shipment
from claw_runtime.spec.parts import SyncLimits
from claw_runtime.treewalk import (
    KINDS,
    NO_KIND,
    VANISHED,
    Attributes,
    Cursor,
    NotRegular,
    Skipped,
    Tree,
    attributes,
)

BLOB: Final = 8 * 1024 * 1024
"""Bytes from which on a file that zstd makes no shorter is an object of its own."""
_SAMPLE: Final = 1024 * 1024
_DENSE: Final = 0.95
_READS: Final = 3
_NEVER: Final = -1
_CHANGES: Final = "changed each time it was read"


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """A tree as the manifest will tell it.

    Attributes:
        uploaded: Bytes of packs that were sent.
        reported: For a person to see.
        records, databases: What the next pass need not read, as in `Known`.
    """

    entries: tuple[Entry, ...]
    packs: tuple[PackRef, ...]
    uploaded: int
    reported: tuple[Skipped, ...]
    records: Mapping[str, Record]
    databases: Mapping[str, tuple[Record, ...]]


class _Part(NamedTuple):
    """A chunk of a file: its digest, and where it lies or will lie. A hole has no digest."""

    sha256: str | None
    place: Extent | Place


class _File(NamedTuple):
    """A file that was read; its entry is made when the packs have their names."""

    path: str
    status: os.stat_result
    mtime_ns: int
    size: int
    sha256: str
    parts: list[_Part]
    kind: ContentKind
    xattrs: Attributes
    blob: Future[Blob] | None = None


class _Later(NamedTuple):
    """A database, or a name like a sidecar of one: looked at when all names are known."""

    path: str
    status: os.stat_result


_Item = Record | _File | _Later | None


class Collector:
    """One pass over one tree; use it once.

    Args:
        parent: The generation below; content that it holds is not sent again.
        known: What need not be read, if the parent is what HEAD names.
        scratch: Directory of ours for private copies of databases.
        still: The tree is promised not to change, so that a change is an error rather than bad luck.
    """

    def __init__(
        self,
        shipment: Shipment,
        clock: Clock,
        *,
        parent: Manifest | None,
        known: Known | None,
        selection: Selection,
        limits: SyncLimits,
        scratch: Path,
        still: bool,
    ) -> None:
        self._shipment, self._clock, self._selection, self._limits = shipment, clock, selection, limits
        self._scratch, self._still, self._parent = scratch, still, parent
        self._old = known
        self._items: list[_Item] = []
        self._hidden: set[str] = set()
        self._fresh: dict[str, Place] = {}
        self._reported: list[Skipped] = []
        self._databases: dict[str, tuple[Record, ...]] = {}
        self._copied: dict[str, tuple[os.stat_result, ...]] = {}
        self._news = False
        self._started, self._now = clock.monotonic(), time.time_ns()

    def collect(self, root: Path) -> Collected:
        """Walk the tree, upload what is new, wait for it.

        Raises:
            UploadFailed: The tree is over its limits, or a file kept changing although the tree should be still.
            StoreUnavailable, StoreDenied, BucketMissing: The store.
            OSError: Something in the tree cannot be read; better no generation than one without it.
        """
        with Tree(root) as tree, tree.cursor() as cursor:
            self._walk(tree, cursor)
            self._end(cursor)
        self._shipment.flush()
        return self._collected()

    # --- names ---

    def _walk(self, tree: Tree, cursor: Cursor) -> None:
        records = stored(self._old, self._selection) if self._old else {}
        still = MAPPED if self._still else RACY
        items, size, limits = self._items, 0, self._limits
        most_bytes = LATEST if limits.size is None else limits.size
        most_names = LATEST if limits.files is None else limits.files
        for path, status in tree.scan(self._selection.descends):
            if status is None:
                self._gone(path)
                continue
            found = records.get(path)
            if found is not None and holds(found, status, still):
                items.append(found)
                size += found.entry.size
            else:
                size += self._look(cursor, path, status)
                self._check_time()
            if size > most_bytes:
                self._refuse("size", f"{most_bytes} bytes", f"its first {len(items)} names have {size}")
            if len(items) > most_names + len(self._hidden):
                self._refuse("files", f"{most_names} files, directories and links")

    def _gone(self, path: str) -> None:
        """A name went away; a directory's own entry, when it was given before, goes too."""
        if self._items and isinstance(last := self._items[-1], Record) and last.entry.path == path:
            self._items.pop()
        if not path.endswith(sqlite_snapshot.SIDECARS):  # these come and go
            self._reported.append(Skipped(path=path, reason=VANISHED))

    def _look(self, cursor: Cursor, path: str, status: os.stat_result) -> int:
        """A name that is not known to be as it was; its size."""
        kind = KINDS.get(stat.S_IFMT(status.st_mode))
        stored = self._selection.stores(path, kind == "d")
        try:
            if kind == "d" and not stored and not self._selection.descends(path):
                return 0
            if kind == "d":
                with cursor.directory(path) as fd:
                    entry = _entry(path, "d", status, xattrs=self._own(path, attributes(fd)))
                if not stored:
                    self._hidden.add(path)
                self._note(status, entry)
            elif kind == "f" and path.endswith(sqlite_snapshot.SIDECARS):
                self._items.append(_Later(path, status))
            elif kind == "f" and stored:
                known = self._old is not None and path in self._old.databases
                self._items.append(_Later(path, status) if known else self._read(cursor, path))
                return status.st_size
            elif kind == "l" and stored:
                self._note(status, _entry(path, "l", status, target=cursor.target(path)))
            elif kind is None and stored:
                self._reported.append(Skipped(path=path, reason=NO_KIND))
        except (NotRegular, NotADirectoryError, FileNotFoundError):
            self._reported.append(Skipped(path=path, reason=VANISHED))
        return 0

    def _note(self, status: os.stat_result, entry: Entry) -> None:
        self._news = True
        self._items.append(record(status, stillness(status, self._now), entry))

    def _own(self, path: str, found: Attributes) -> Attributes:
        """Extended attributes, as far as a manifest takes them."""
        if sum(len(value) for _, value in found) <= MAX_XATTRS:
            return found
        self._reported.append(Skipped(path=path, reason=f"its extended attributes have more than {MAX_XATTRS} bytes"))
        return ()

    def _check_time(self) -> None:
        most = self._limits.time
        if most is not None and self._clock.monotonic() - self._started > most:
            self._refuse("time", f"{most:g} s of reading", f"{len(self._items)} names were read until then")

    def _refuse(self, limit: str, what: str, more: str = "") -> None:
        raise UploadFailed(
            "the state is over its limits",
            why=f"it has more than the {what} that sync.limits.{limit} allows{more and '; '}{more}",
            hint=f"the tree is kept; remove what nobody needs, exclude it, or raise sync.limits.{limit}",
            limit=limit,
        )

    # --- content ---

    def _read(self, cursor: Cursor, path: str, *, plain: bool = False) -> _Item:
        """A file's content, packed unless it is known; a database is left for later unless it is to be taken plain."""
        self._news = True
        for _ in range(_READS):
            with suppress(Unstable, NotRegular, FileNotFoundError):
                fd, status = cursor.open(path)
                try:
                    return self._read_open(fd, status, path, plain=plain)
                finally:
                    os.close(fd)
        return self._unstable(path)

    def _read_open(self, fd: int, before: os.stat_result, path: str, *, plain: bool) -> _Item:
        only = os.read(fd, before.st_size + 1) if before.st_size <= CHUNK else b""
        start = only or os.pread(fd, len(sqlite_snapshot.HEADER), 0)
        if not plain and start.startswith(sqlite_snapshot.HEADER):
            return _Later(path, before)
        mtime_ns, xattrs = storable(before.st_mtime_ns), self._own(path, attributes(fd))
        if before.st_size >= BLOB and not self._shipment.seals and _is_dense(fd, before):
            blob = self._shipment.send(fd, before.st_size, self._blobs)
            return _File(path, before, mtime_ns, before.st_size, "", [], "plain", xattrs, blob)
        mode = before.st_mode & PERMISSIONS
        if before.st_size <= CHUNK:
            size, sha256, parts = len(only), hashlib.sha256(only).hexdigest(), list[_Part]()
            if only:
                parts.append(self._part(only, sha256, path, 0, mode, mtime_ns))
        else:
            size, sha256, parts = self._content(fd, before, path, mode, mtime_ns)
        if size != before.st_size or _changed(before, os.fstat(fd)):
            raise Unstable
        return _File(path, before, mtime_ns, size, sha256, parts, "plain", xattrs)

    def _content(
        self, fd: int, status: os.stat_result, path: str, mode: int, mtime_ns: int
    ) -> tuple[int, str, list[_Part]]:
        """Size, digest and chunks of a large file."""
        whole, at, parts = hashlib.sha256(), 0, list[_Part]()
        for raw, length in cut(fd, status.st_size, CHUNK, holes=status.st_blocks * 512 < status.st_size):
            if raw:
                whole.update(raw)
                parts.append(self._part(raw, hashlib.sha256(raw).hexdigest(), path, at, mode, mtime_ns))
            else:
                hash_zeros(whole, length)
                parts.append(_Part(None, hole(length)))
            at += length
            self._check_time()
        return at, whole.hexdigest(), parts

    def _part(self, raw: bytes, sha256: str, path: str, at: int, mode: int, mtime_ns: int) -> _Part:
        place = self._frames.get(sha256) or self._fresh.get(sha256)
        if place is None:
            place = self._fresh[sha256] = self._shipment.add(raw, path, at, mode, mtime_ns)
        return _Part(sha256, place)

    @cached_property
    def _before(self) -> dict[str, Entry]:
        return {entry.path: entry for entry in self._parent.entries} if self._parent else {}

    @cached_property
    def _frames(self) -> dict[str, Extent]:
        """What the parent generation holds, by digest."""
        found = dict[str, Extent]()
        for entry in self._before.values():
            if self._shows(entry):
                continue
            if len(entry.extents) == 1 and entry.sha256 and not entry.extents[0].hole:
                found[entry.sha256] = entry.extents[0]
            else:
                found.update((extent.sha256, extent) for extent in entry.extents if extent.sha256)
        return found

    @cached_property
    def _plain(self) -> frozenset[str]:
        return self._parent.plain_packs if self._parent else frozenset()

    def _shows(self, entry: Entry) -> bool:
        """Whether an entry's content lies in the store as it is although it is to be encrypted now."""
        return self._shipment.seals and entry.lies_in(self._plain)

    @cached_property
    def _blobs(self) -> dict[str, str]:
        """Files of the parent generation that are objects of their own, by digest."""
        return {entry.sha256: entry.blob for entry in self._before.values() if entry.sha256 and entry.blob}

    def _unstable(self, path: str) -> Record | None:
        if self._still:
            raise UploadFailed(
                f"{printable(path)} {_CHANGES}",
                why="something still writes to the tree",
                hint="the tree is kept; find what writes to it, then release again",
                path=path,
            )
        parent = self._before.get(path)
        kept = "the parent generation's version is kept" if parent else "it is left out"
        self._reported.append(Skipped(path=path, reason=f"{_CHANGES}; {kept}"))
        return None if parent is None else Record(0, 0, 0, 0, 0, _NEVER, parent)

    # --- databases ---

    def _end(self, cursor: Cursor) -> None:
        """Take every database at nearly one moment, then store them; what only looks like a sidecar is a file."""
        later = {item.path: number for number, item in enumerate(self._items) if isinstance(item, _Later)}
        found = self._sort_out(cursor, later)
        with ExitStack() as stack:
            copies = dict[str, Copied]()
            for path in sorted(found):
                try:
                    if not self._take_over(later, path):
                        self._news = True
                        copies[path] = databases.copy(cursor, path, self._scratch)
                        stack.callback(shutil.rmtree, copies[path].directory)
                except Unstable:
                    self._items[later[path]] = self._unstable(path)
                except FileNotFoundError:
                    self._reported.append(Skipped(path=path, reason=VANISHED))
                except sqlite_snapshot.NoSnapshot as error:
                    self._as_files(cursor, later, path, error)
            for path, copied in copies.items():
                try:
                    self._items[later[path]] = self._snapshot(path, copied)
                except sqlite_snapshot.NoSnapshot as error:
                    self._as_files(cursor, later, path, error)

    def _sort_out(self, cursor: Cursor, later: dict[str, int]) -> set[str]:
        """The databases among the names left for later; the others are sidecars of them, or files, which are read."""
        sidecars = {path for path in later if path.endswith(sqlite_snapshot.SIDECARS)}
        found = later.keys() - sidecars
        for path in sorted(sidecars):
            if path.rpartition("-")[0] not in found and self._selection.stores(path, False):
                item = self._items[later[path]] = self._read(cursor, path)
                if isinstance(item, _Later):
                    found.add(path)
        return found

    def _take_over(self, later: dict[str, int], path: str) -> bool:
        """Whether neither the database nor a sidecar of it has changed."""
        known = self._old.databases.get(path) if self._old else None
        files = [later[name] for name in databases.files(path) if name in later]
        statuses = [item.status for item in map(self._items.__getitem__, files) if isinstance(item, _Later)]
        still = MAPPED if self._still else RACY
        if known is None or len(known) != len(statuses):
            return False
        if not all(holds(old, status, still) for old, status in zip(known, statuses, strict=True)):
            return False
        self._items[later[path]], self._databases[path] = known[0], known
        return True

    def _snapshot(self, path: str, copied: Copied) -> _File:
        """The database as one consistent file."""
        with sqlite_snapshot.snapshot(copied.directory).open("rb") as file:
            status, original = os.fstat(file.fileno()), copied.statuses[0]
            mode, mtime_ns = original.st_mode & PERMISSIONS, storable(copied.mtime_ns)
            size, sha256, parts = self._content(file.fileno(), status, path, mode, mtime_ns)
        self._copied[path] = copied.statuses
        return _File(path, original, mtime_ns, size, sha256, parts, "sqlite", copied.xattrs)

    def _as_files(self, cursor: Cursor, later: dict[str, int], path: str, error: Exception) -> None:
        """What SQLite makes nothing of is stored as it is, with its sidecars: better odd bytes than none."""
        reason = f"stored as a plain file with its sidecars, not as a database: {error}"
        self._reported.append(Skipped(path=path, reason=reason))
        for name in (path, *(f"{path}{suffix}" for suffix in sqlite_snapshot.SIDECARS)):
            if name in later and self._selection.stores(name, False):
                self._items[later[name]] = self._read(cursor, name, plain=True)

    # --- the whole ---

    def _collected(self) -> Collected:
        files = (self._whole(item) if isinstance(item, _File) else item for item in self._items)
        made = [item for item in files if isinstance(item, Record)]  # what is still left for later is a sidecar
        if self._old and not self._news and len(made) == len(self._old.manifest.entries) and self._selection.keeps_none:
            return self._as_before(self._old)
        made = self._rooted(made)
        needed = self._needed(made) if self._hidden else set[str]()
        made = [one for one in made if one.entry.path not in self._hidden or one.entry.path in needed]
        entries = [one.entry for one in made]
        if not self._selection.keeps_none:
            entries, reported = carry(entries, self._before, self._selection)
            self._reported.extend(reported)
        packs = {pack.sha256: pack for pack in self._parent.packs} if self._parent else {}
        packs.update((ref.sha256, ref) for ref in self._shipment.refs())
        used = dict.fromkeys(extent.pack for entry in entries for extent in entry.extents if extent.pack)
        return Collected(
            entries=tuple(entries),
            packs=tuple(packs[sha256] for sha256 in used),
            uploaded=self._shipment.finish(),
            reported=tuple(self._reported),
            records={
                one.entry.path: one
                for one in made
                if one.still > 0 and one.entry.path not in self._hidden and one.entry.kind == "plain"
            },
            databases=self._databases,
        )

    def _as_before(self, old: Known) -> Collected:
        """Every name was taken over, and none is missing."""
        return Collected(
            entries=old.manifest.entries,
            packs=old.manifest.packs,
            uploaded=0,
            reported=tuple(self._reported),
            records=old.records,
            databases=old.databases,
        )

    def _whole(self, item: _File) -> Record | None:
        """What comes of a file; of one that changed while it was sent, what comes of that."""
        if item.blob is None:
            return self._made(item, item.sha256, None)
        try:
            blob = item.blob.result()
        except Moving:
            return self._unstable(item.path)
        return self._made(item, blob.sha256, blob.name)

    def _made(self, item: _File, sha256: str, blob: str | None) -> Record:
        entry = Entry(
            path=item.path,
            type="f",
            mode=item.status.st_mode & PERMISSIONS,
            mtime_ns=item.mtime_ns,
            size=item.size,
            sha256=sha256,
            blob=blob,
            extents=tuple(_extent(part, only=len(item.parts) == 1) for part in item.parts),
            kind=item.kind,
            xattrs=item.xattrs,
        )
        before = self._before.get(item.path)
        if before is not None and before.same_as(entry) and not self._shows(before):
            entry = before
        statuses = self._copied.get(item.path, (item.status,))
        records = tuple(record(status, stillness(status, self._now), entry) for status in statuses)
        if item.kind == "sqlite":
            self._databases[item.path] = records
        return records[0]

    def _rooted(self, made: list[Record]) -> list[Record]:
        """The names that lie in a directory: a tenant may have swapped one for a link between two looks at it."""
        directories, rooted = {""}, list[Record]()
        for one in made:
            path = one.entry.path
            if path.rpartition("/")[0] not in directories:
                self._reported.append(Skipped(path=path, reason=VANISHED))
                continue
            if one.entry.type == "d":
                directories.add(path)
            rooted.append(one)
        return rooted

    def _needed(self, made: list[Record]) -> set[str]:
        """Directories that are stored only since something in them is."""
        needed = set[str]()
        for one in made:
            if one.entry.path not in self._hidden:
                needed.update(_above(one.entry.path))
        return needed


def _is_dense(fd: int, status: os.stat_result) -> bool:
    """Whether a file is all there, and a look at its beginning says that zstd makes it no shorter."""
    if status.st_blocks * 512 < status.st_size:
        return False
    start = os.pread(fd, _SAMPLE, 0)
    return len(zstandard.ZstdCompressor(level=1).compress(start)) > _DENSE * len(start)


def _above(path: str) -> Iterator[str]:
    """The directories that a path lies in, outermost first."""
    at = path.find("/")
    while at >= 0:
        yield path[:at]
        at = path.find("/", at + 1)


def _extent(part: _Part, *, only: bool) -> Extent:
    """A chunk's place; an only one has its file's digest, and needs none of its own."""
    sha256, place = part
    if isinstance(place, Place):
        return place.parcel.extent(place.number, None if only else sha256)
    if only or place.hole or place.sha256:
        return place
    return Extent(pack=place.pack, offset=place.offset, stored=place.stored, raw=place.raw, sha256=sha256)


def _entry(
    path: str, kind: EntryType, status: os.stat_result, *, target: str | None = None, xattrs: Attributes = ()
) -> Entry:
    time_ns, mode = storable(status.st_mtime_ns), status.st_mode & PERMISSIONS
    return Entry(path=path, type=kind, mode=mode, mtime_ns=time_ns, target=target, xattrs=xattrs)


def _changed(before: os.stat_result, after: os.stat_result) -> bool:
    return (before.st_mtime_ns, before.st_ctime_ns, before.st_size) != (
        after.st_mtime_ns,
        after.st_ctime_ns,
        after.st_size,
    )


def printable(path: str) -> str:
    """A tenant's file name, safe to print: no control character reaches a terminal."""
    return repr(os.fsencode(path).decode(errors="replace"))[:200]


def storable(mtime_ns: int) -> int:
    """The nearest time that a manifest holds: a tenant can set any, and one name must not cost the whole tree."""
    return max(-LATEST, min(LATEST, mtime_ns))
