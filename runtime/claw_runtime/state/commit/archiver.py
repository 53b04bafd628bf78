"""From a tenant's tree to packs in the bucket: list, read what changed, split, pack what is new, upload in parallel.

Unchanged files are taken from the parent generation without being read. Of a file that grows, the bytes that were there
when it was opened are stored. A file that changes otherwise during the read keeps its parent's version and is reported;
if the last commit kept it too, it may be copied while the programs are held.
Before a file is read, its dirty pages are written back, so that a later write through a mapping sets its time. In a
tree that is committed for a release nothing may write, so every change is refused there. The loop over all names does
as little as it can: every commit of a running tenant pays for it.
"""

import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from claw_runtime.errors import UploadFailed
from claw_runtime.formats.manifest import MAX_XATTRS, Entry, EntryType, Manifest, PackRef
from claw_runtime.fsutil import PERMISSIONS, write_back
from claw_runtime.ports import Clock
from claw_runtime.safefs.levels import Listing
from claw_runtime.safefs.opening import Attributes, NotRegular, attributes
from claw_runtime.safefs.tree import KINDS, NO_KIND, VANISHED, Cursor, Skipped, Tree, printable, too_deep
from claw_runtime.spec.parts import SyncLimits
from claw_runtime.state.commit.chunker import Chunker, File, storable
from claw_runtime.state.commit.compaction import NEW, Packing
from claw_runtime.state.commit.compactor import as_stored, compacted
from claw_runtime.state.commit.databases import Databases, Item, Later
from claw_runtime.state.commit.guards import ArchivedTree, unchanged
from claw_runtime.state.commit.holding import Holding
from claw_runtime.state.commit.limits import TreeLimits
from claw_runtime.state.commit.moving import CHANGES, MovingFiles
from claw_runtime.state.commit.pack_upload import CommitUpload, FileChanged
from claw_runtime.state.commit.relisting import Relisting, directories_above
from claw_runtime.state.commit.stat_cache import (
    MAPPED,
    RACY,
    CachedTree,
    Record,
    holds,
    kept,
    record,
    stillness,
    stored,
)
from claw_runtime.state.rules.carry_over import carry, in_tree_order
from claw_runtime.state.rules.selection import Selection
from claw_runtime.state.sqlite import backup
from claw_runtime.state.sqlite.copy import Unstable

_READS: Final = 3
_PASSES: Final = 3
_UNSEEN: Final = "not found while names kept changing; the parent generation's version is kept"


class Archiver:
    """One pass over one tree; use it once.

    Args:
        parent: The parent generation; content that it holds is not sent again.
        cached: What need not be read, if the parent is HEAD's generation.
        scratch: Private directory for copies of databases.
        still: The caller promises that the tree does not change, so a change is an error.
    """

    def __init__(
        self,
        upload: CommitUpload,
        clock: Clock,
        *,
        parent: Manifest | None,
        cached: CachedTree | None,
        selection: Selection,
        limits: SyncLimits,
        scratch: Path,
        still: bool,
    ) -> None:
        self._upload, self._selection, self._limits = upload, selection, TreeLimits(limits, clock)
        self._still, self._parent = still, parent
        self._old = cached
        self._items: list[Item] = []
        self._hidden: set[str] = set()
        self._reported: list[Skipped] = []
        self._doubted: frozenset[str] = frozenset()
        self._news = self._reordered = False
        self._reader = Chunker(
            upload,
            parent,
            still=still,
            go_on=self._check_time,
            fit=self._fit,
            lacks=self._lacks,
            packing=cached.packing if cached else Packing(settled=parent.pack_names) if parent else NEW,
        )
        self._databases = Databases(
            self._reader,
            cached,
            selection,
            scratch,
            still=still,
            reported=self._reported,
            read=self._read,
            keep=self._unstable,
        )
        self._moving = MovingFiles(self._reader, self._databases, self._reported, self._read, self._unstable)
        self._unchanged = MAPPED if still else RACY
        self._now = time.time_ns()

    def archive(
        self, root: Path, report: Callable[[int], None] = lambda _: None, *, holding: Holding | None = None
    ) -> ArchivedTree:
        """List the tree, upload what is new, and wait for the uploads.

        Args:
            report: Called with the bytes of each name that was read.
            holding: May hold the programs of a running tenant; by default nothing does.

        Raises:
            UploadFailed: The tree is over its limits, or a file kept changing although the tree should be still.
            StoreUnavailable, StoreDenied, BucketMissing: The store failed.
            OSError: A part of the tree cannot be read; a generation without it is never made.
        """
        self._moving.holding = holding
        with Tree(root) as tree, tree.cursor() as cursor:
            if tree.is_overlay():
                self._unchanged = MAPPED
            listings = self._walk(tree, cursor, report)
            if self._still:
                self._databases.store(cursor, self._items, news=self._news)
            else:
                self._settle(tree, cursor, listings, report)
                self._store_moving(cursor)
            with self._durable(tree):
                self._upload.flush()
                archived = self._archived()
            if self._parent is not None and archived.entries is self._parent.entries:
                return archived
            if self._parent is not None and unchanged(self._parent, archived):
                archived = as_stored(archived, self._reader)
            elif self._parent is not None:
                archived = compacted(archived, cursor, self._reader, self._upload, self._packs)
            return replace(archived, spare=self._reader.spare_after(archived.uploaded))

    @contextmanager
    def _durable(self, tree: Tree) -> Iterator[None]:
        """Sync the tree of a running tenant beside the body, if it has news: else a power failure leaves an older tree
        than this commit, and that would be the next. A sync waits for all that is written to the disk, also by
        others."""
        if self._still or (self._old is not None and self._is_as_before(self._old)):
            yield
            return
        with ThreadPoolExecutor(1, thread_name_prefix="claw-durable") as beside:
            synced = beside.submit(tree.sync)
            yield
            synced.result()

    # --- names ---

    def _walk(self, tree: Tree, cursor: Cursor, report: Callable[[int], None]) -> dict[str, Listing]:
        """Look at every name; returns how each directory was when its listing began."""
        records = stored(self._old, self._selection) if self._old else {}
        still, deep = self._unchanged, list[str]()
        items, size, listings = self._items, 0, dict[str, Listing]()
        most_bytes, most_names = self._limits.size, self._limits.files
        for path, status in tree.scan(self._selection.descends, listed=listings.__setitem__, deep=deep.append):
            if status is None:
                self._gone(path)
                continue
            found = records.get(path)
            if found is not None and holds(found, status, still):
                items.append(found)
                size += found.entry.size
            else:
                looked = self._look(cursor, path, status)
                size += looked
                report(looked)
                self._check_time()
            if size > most_bytes or len(items) > most_names + len(self._hidden):
                self._limits.check(size, len(items), len(self._hidden))
        self._reported.extend(too_deep(deep))
        return listings

    def _settle(self, tree: Tree, cursor: Cursor, listings: dict[str, Listing], report: Callable[[int], None]) -> None:
        """Store the databases, and bring the names of a running tenant's tree to one moment."""

        def look(path: str, status: os.stat_result) -> Item:
            count = len(self._items)
            report(self._look(cursor, path, status))
            self._check_time()
            made = self._items[count:]
            del self._items[count:]
            return made[0] if made else None

        databases, items = self._databases, self._items
        names = Relisting(tree, cursor, listings, self._selection, self._reader, self._old, databases, look)
        rest = names.settle(items)
        for _ in range(_PASSES):
            edits = names.edits
            if not databases.store(cursor, items, news=self._news):
                break
            rest = names.settle(items)
            if names.edits == edits and not databases.pending(items):
                break
        databases.store(cursor, items, news=self._news)
        self._reported[:] = [one for one in self._reported if one.reason != VANISHED]  # where they are now is known
        if not rest or databases.pending(items):
            self._doubted, lost = names.merge(items)
            self._reported.extend(Skipped(path=path, reason=VANISHED) for path in lost)
            self._reported.extend(Skipped(path=path, reason=_UNSEEN) for path in sorted(self._doubted))
        self._reordered = names.touched
        if names.edits:
            self._news = True
            self._check_size()

    def _store_moving(self, cursor: Cursor) -> None:
        """Store what changes all the time, as far as the programs may be held for it."""
        if self._moving.store(cursor, self._items):
            self._reordered = True
            self._check_size()

    def _check_size(self) -> None:
        self._limits.check(sum(_size(item) for item in self._items), len(self._items), len(self._hidden))

    def _gone(self, path: str) -> None:
        """A name disappeared; the record of a directory that was added before is removed too."""
        if self._items and isinstance(last := self._items[-1], Record) and last.entry.path == path:
            self._items.pop()
        if not path.endswith(backup.SIDECARS):  # these come and go
            self._reported.append(Skipped(path=path, reason=VANISHED))

    def _look(self, cursor: Cursor, path: str, status: os.stat_result) -> int:
        """Handle a name that is not known to be unchanged; returns its size."""
        kind = KINDS.get(stat.S_IFMT(status.st_mode))
        stored = self._selection.stores(path, kind == "d")
        try:
            if kind == "d" and not stored and not self._selection.descends(path):
                return 0
            if kind == "d":
                with cursor.directory(path) as fd:
                    entry = _entry(path, "d", status, xattrs=self._fit(path, attributes(fd)))
                if not stored:
                    self._hidden.add(path)
                self._note(status, entry)
            elif kind == "f" and path.endswith(backup.SIDECARS):
                self._items.append(Later(path, status))
            elif kind == "f" and stored:
                known = self._old is not None and path in self._old.databases
                self._items.append(Later(path, status) if known else self._read(cursor, path))
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

    def _fit(self, path: str, found: Attributes) -> Attributes:
        """Extended attributes, up to the size that a manifest allows."""
        if sum(len(value) for _, value in found) <= MAX_XATTRS:
            return found
        self._reported.append(Skipped(path=path, reason=f"its extended attributes have more than {MAX_XATTRS} bytes"))
        self._databases.apart.add(path)  # the next commit reads it, and reports it, again
        return ()

    def _check_time(self) -> None:
        self._limits.check_time(len(self._items))

    # --- content ---

    def _read(self, cursor: Cursor, path: str, *, plain: bool = False) -> Item:
        """A file's content; a database is handled later unless it is to be stored as a plain file."""
        self._news = True
        gone = False
        if self._moving.defers(cursor, path):
            return self._kept(path)
        for number in range(_READS):
            try:
                fd, status = cursor.open(path)
            except (NotRegular, FileNotFoundError):
                gone = True
                cursor.close()  # its directory may be another one now
                continue
            try:
                # The last read is for a mapping that is written to without an end. The file's time is of this moment
                # then, so the next pass reads it again.
                if number < _READS - 1:
                    write_back(fd)
                    status = os.fstat(fd)
                return self._reader.read(fd, status, path, plain=plain) or Later(path, status)
            except Unstable:
                gone = False
            finally:
                os.close(fd)
        if gone and not self._still:
            self._reported.append(Skipped(path=path, reason=VANISHED))
            return None
        return self._unstable(path)

    def _unstable(self, path: str) -> Record | None:
        if self._still:
            raise UploadFailed(
                f"{printable(path)} {CHANGES}",
                why="a program still writes to the tree",
                hint="the tree is kept; stop the program that writes to it, then release again",
                path=path,
            )
        self._moving.paths.add(path)
        found = self._kept(path)
        instead = "the parent generation's version is kept" if found else "it is left out"
        self._reported.append(Skipped(path=path, reason=f"{CHANGES}; {instead}"))
        return found

    def _kept(self, path: str) -> Record | None:
        parent = self._reader.before.get(path)
        return None if parent is None else kept(parent)

    # --- the whole ---

    def _archived(self) -> ArchivedTree:
        if self._old is not None and self._is_as_before(self._old):
            return self._as_before(self._old)
        for number, item in enumerate(self._items):  # one by one: many files would not fit twice
            if isinstance(item, File):
                self._items[number] = self._made(item)
        made = [item for item in self._items if isinstance(item, Record)]  # a later one is a sidecar
        if self._reordered or self._databases.added or self._databases.apart:
            made = sorted([*made, *self._databases.added], key=lambda one: in_tree_order(one.entry))
        made = self._rooted(made)
        needed = self._needed(made) if self._hidden else set[str]()
        made = [one for one in made if one.entry.path not in self._hidden or one.entry.path in needed]
        entries = [one.entry for one in made]
        if not self._selection.keeps_none:
            entries, reported = carry(entries, self._reader.before, self._selection)
            self._reported.extend(reported)
        return ArchivedTree(
            entries=tuple(entries),
            packs=self._packs(entries),
            uploaded=self._upload.finish(),
            reported=self._reports(),
            records={
                one.entry.path: one
                for one in made
                if one.inode  # also one that was read too soon: it says which file had the name
                and one.entry.path not in self._hidden
                and one.entry.path not in self._databases.apart
                and one.entry.kind == "plain"
            },
            databases=self._databases.records,
            doubted=self._doubted,
            moving=frozenset(self._moving.paths),
        )

    def _reports(self) -> tuple[Skipped, ...]:
        """What was reported, each once: a running tenant's names are listed more than once."""
        return tuple(dict.fromkeys(self._reported))

    def _is_as_before(self, old: CachedTree) -> bool:
        """Whether every name was taken over, and none is missing."""
        if self._news or self._databases.news or not self._selection.keeps_none:
            return False
        return sum(type(item) is Record for item in self._items) == len(old.manifest.entries)

    def _as_before(self, old: CachedTree) -> ArchivedTree:
        return ArchivedTree(
            entries=old.manifest.entries,
            packs=old.manifest.packs,
            uploaded=0,
            reported=self._reports(),
            records=old.records,
            databases=old.databases,
            doubted=self._doubted,
            moving=frozenset(self._moving.paths),
            spare=old.packing.spare,
        )

    def _packs(self, entries: Iterable[Entry]) -> tuple[PackRef, ...]:
        """The packs that entries refer to."""
        packs = {pack.sha256: pack for pack in self._parent.packs} if self._parent else {}
        packs.update((ref.sha256, ref) for ref in self._upload.refs())
        used = dict.fromkeys(extent.pack for entry in entries for extent in entry.extents if extent.pack)
        return tuple(packs[sha256] for sha256 in used)

    def _lacks(self, path: str) -> bool:
        """Whether the parent generation's entry of a name may stay although the tree does not have it."""
        if self._selection.keeps_none or not self._selection.keeps_deleted(path):
            return False
        return self._old is None or (path not in self._old.records and path not in self._old.databases)

    def _made(self, file: File) -> Record | None:
        """A file's record; for one that changed while it was sent, the record of its parent's version, or None."""
        try:
            entry = self._reader.entry(file)
        except FileChanged:
            return self._unstable(file.path)
        records = tuple(record(status, stillness(status, self._now), entry) for status in file.statuses)
        if file.kind == "sqlite":
            self._databases.records[file.path] = records
        return records[0]

    def _rooted(self, made: list[Record]) -> list[Record]:
        """The records whose parents are directories: a tenant may replace a directory by a link during the pass."""
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
        """Directories that are stored only because something in them is."""
        needed = set[str]()
        for one in made:
            if one.entry.path not in self._hidden:
                needed.update(directories_above(one.entry.path))
        return needed


def _size(item: Item) -> int:
    match item:
        case Record():
            return item.entry.size
        case File():
            return item.size
        case _:  # a later one is a sidecar
            return 0


def _entry(
    path: str, kind: EntryType, status: os.stat_result, *, target: str | None = None, xattrs: Attributes = ()
) -> Entry:
    time_ns, mode = storable(status.st_mtime_ns), status.st_mode & PERMISSIONS
    return Entry(path=path, type=kind, mode=mode, mtime_ns=time_ns, target=target, xattrs=xattrs)
