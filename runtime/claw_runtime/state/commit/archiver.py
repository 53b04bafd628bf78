"""From a tenant's tree to packs in the bucket: list, read what changed, split, pack what is new, upload in parallel.

Unchanged files are taken from the parent generation without being read. Of a file that grows, the bytes that were there
when it was opened are stored. A file that changes otherwise during the read keeps its parent's version and is reported.
In a tree that is committed for a release nothing may write, so every change is refused there. The loop over all names
does as little as it can: every commit of a running tenant pays for it.
"""

import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

from claw_runtime.errors import UploadFailed
from claw_runtime.formats.manifest import LATEST, MAX_XATTRS, Entry, EntryType, Manifest
from claw_runtime.fsutil import PERMISSIONS
from claw_runtime.ports import Clock
from claw_runtime.safefs.opening import Attributes, NotRegular, attributes
from claw_runtime.safefs.tree import KINDS, NO_KIND, VANISHED, Cursor, Skipped, Tree, printable
from claw_runtime.spec.parts import SyncLimits
from claw_runtime.state.commit.chunker import Chunker, File, storable
from claw_runtime.state.commit.guards import ArchivedTree
from claw_runtime.state.commit.pack_upload import CommitUpload, Moving
from claw_runtime.state.commit.stat_cache import MAPPED, RACY, CachedTree, Record, holds, record, stillness, stored
from claw_runtime.state.rules.carry_over import carry, in_tree_order
from claw_runtime.state.rules.selection import Selection
from claw_runtime.state.sqlite import backup, copy
from claw_runtime.state.sqlite.copy import DatabaseCopy, Unstable

_READS: Final = 3
_NEVER: Final = -1
_CHANGES: Final = "changed each time it was read"


class _Later(NamedTuple):
    """A database, or a name like a sidecar of one: handled when all names are known."""

    path: str
    status: os.stat_result


_Item = Record | File | _Later | None


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
        self._upload, self._clock, self._selection, self._limits = upload, clock, selection, limits
        self._scratch, self._still, self._parent = scratch, still, parent
        self._old = cached
        self._items: list[_Item] = []
        self._hidden: set[str] = set()
        self._reported: list[Skipped] = []
        self._databases: dict[str, tuple[Record, ...]] = {}
        self._apart: set[str] = set()  # files of databases that are stored file by file: no cache may know one alone
        self._added: list[Record] = []  # of such databases, what the parent has and the tree has not
        self._news = False
        self._reader = Chunker(upload, parent, still=still, go_on=self._check_time, fit=self._fit)
        self._started, self._now = clock.monotonic(), time.time_ns()

    def archive(self, root: Path, report: Callable[[int], None] = lambda _: None) -> ArchivedTree:
        """List the tree, upload what is new, and wait for the uploads.

        Args:
            report: Called with the bytes of each name that was read.

        Raises:
            UploadFailed: The tree is over its limits, or a file kept changing although the tree should be still.
            StoreUnavailable, StoreDenied, BucketMissing: The store failed.
            OSError: A part of the tree cannot be read; a generation without it is never made.
        """
        with Tree(root) as tree, tree.cursor() as cursor:
            self._walk(tree, cursor, report)
            self._end(cursor)
        self._upload.flush()
        return self._archived()

    # --- names ---

    def _walk(self, tree: Tree, cursor: Cursor, report: Callable[[int], None]) -> None:
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
                looked = self._look(cursor, path, status)
                size += looked
                report(looked)
                self._check_time()
            if size > most_bytes:
                self._refuse("size", f"{most_bytes} bytes", f"its first {len(items)} names hold {size}")
            if len(items) > most_names + len(self._hidden):
                self._refuse("files", f"{most_names} files, directories and links")

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

    def _fit(self, path: str, found: Attributes) -> Attributes:
        """Extended attributes, up to the size that a manifest allows."""
        if sum(len(value) for _, value in found) <= MAX_XATTRS:
            return found
        self._reported.append(Skipped(path=path, reason=f"its extended attributes have more than {MAX_XATTRS} bytes"))
        return ()

    def _check_time(self) -> None:
        most = self._limits.time
        if most is not None and self._clock.monotonic() - self._started > most:
            self._refuse("time", f"{most:g} s of reading", f"{len(self._items)} names were read before that")

    def _refuse(self, limit: str, what: str, more: str = "") -> None:
        raise UploadFailed(
            "the state is over its limits",
            why=f"it has more than the {what} that sync.limits.{limit} allows{more and '; '}{more}",
            hint=f"the tree is kept; remove or exclude what is not needed, or raise sync.limits.{limit}",
            limit=limit,
        )

    # --- content ---

    def _read(self, cursor: Cursor, path: str, *, plain: bool = False) -> _Item:
        """A file's content; a database is handled later unless it is to be stored as a plain file."""
        self._news = True
        for _ in range(_READS):
            with suppress(Unstable, NotRegular, FileNotFoundError):
                fd, status = cursor.open(path)
                try:
                    return self._reader.read(fd, status, path, plain=plain) or _Later(path, status)
                finally:
                    os.close(fd)
        return self._unstable(path)

    def _unstable(self, path: str) -> Record | None:
        if self._still:
            raise UploadFailed(
                f"{printable(path)} {_CHANGES}",
                why="a program still writes to the tree",
                hint="the tree is kept; stop the program that writes to it, then release again",
                path=path,
            )
        parent = self._reader.before.get(path)
        kept = "the parent generation's version is kept" if parent else "it is left out"
        self._reported.append(Skipped(path=path, reason=f"{_CHANGES}; {kept}"))
        return None if parent is None else Record(0, 0, 0, 0, 0, _NEVER, parent)

    # --- databases ---

    def _end(self, cursor: Cursor) -> None:
        """Copy all databases at nearly the same moment, then store them; what only looks like a sidecar is a file."""
        later = {item.path: number for number, item in enumerate(self._items) if isinstance(item, _Later)}
        found = self._sort_out(cursor, later)
        links = self._links(later, found)
        with ExitStack() as stack:
            copies = dict[str, DatabaseCopy]()
            for path in sorted(found - links.keys()):
                try:
                    if not self._take_over(later, path):
                        self._news = True
                        copies[path] = copy.copy(cursor, path, self._scratch)
                        stack.callback(shutil.rmtree, copies[path].directory)
                except Unstable:
                    self._keep_database(later, path)
                except FileNotFoundError:
                    self._reported.append(Skipped(path=path, reason=VANISHED))
                except backup.NoSnapshot as error:
                    self._read_apart(cursor, later, path, error)
            for path, copied in copies.items():
                try:
                    self._items[later[path]] = self._reader.read_database(path, copied)
                except backup.NoSnapshot as error:
                    self._read_apart(cursor, later, path, error)  # not the copy: SQLite may have changed it
        for path, linked in links.items():
            self._items[later[path]] = self._as_link(path, self._items[later[linked]])

    def _links(self, later: dict[str, int], found: set[str]) -> dict[str, str]:
        """Other names of databases that have sidecars: without these, the file under its other name is not whole."""
        names: dict[tuple[int, int], list[str]] = {}
        for path in sorted(found):
            item = self._items[later[path]]
            if isinstance(item, _Later):
                names.setdefault((item.status.st_dev, item.status.st_ino), []).append(path)
        links = dict[str, str]()
        for paths in names.values():
            files, whole = max((sum(name in later for name in copy.names(path)), path) for path in paths)
            if files > 1:
                links.update((path, whole) for path in paths if path != whole)
        return links

    def _as_link(self, path: str, item: _Item) -> _Item:
        """The content of a database under another name of its file."""
        self._news = True
        if isinstance(item, File) and item.kind == "sqlite":
            return item._replace(path=path)
        if isinstance(item, Record) and item.entry.kind == "sqlite":
            return Record(0, 0, 0, 0, 0, _NEVER, replace(item.entry, path=path))
        self._reported.append(Skipped(path=path, reason="another name of a database that is not stored as one"))
        return None

    def _sort_out(self, cursor: Cursor, later: dict[str, int]) -> set[str]:
        """The databases among the postponed names; the others are their sidecars, or files, which are read."""
        sidecars = {path for path in later if path.endswith(backup.SIDECARS)}
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
        files = [later[name] for name in copy.names(path) if name in later]
        statuses = [item.status for item in map(self._items.__getitem__, files) if isinstance(item, _Later)]
        still = MAPPED if self._still else RACY
        if known is None or len(known) != len(statuses):
            return False
        if not all(holds(old, status, still) for old, status in zip(known, statuses, strict=True)):
            return False
        self._items[later[path]], self._databases[path] = known[0], known
        return True

    def _read_apart(self, cursor: Cursor, later: dict[str, int], path: str, error: Exception) -> None:
        """Store a database that SQLite cannot read, or that has no room for a copy, as files of one moment."""
        parts = list[File]()

        def take(files: copy.Files) -> None:
            parts.clear()
            for suffix, fd in files.items():
                xattrs = () if suffix else self._fit(path, attributes(fd))
                parts.append(self._reader.read_part(fd, f"{path}{suffix}", os.fstat(fd), xattrs))

        try:
            copy.read(cursor, path, take, regular=True)
        except Unstable:
            self._keep_database(later, path)
        except (FileNotFoundError, NotRegular):
            self._reported.append(Skipped(path=path, reason=VANISHED))
        else:
            self._put_apart(later, path, parts, error)

    def _put_apart(self, later: dict[str, int], path: str, parts: list[File], error: Exception) -> None:
        reason = f"stored as a plain file with its sidecars, not as a database: {error}"
        self._reported.append(Skipped(path=path, reason=reason))
        for part in parts:
            if not self._selection.stores(part.path, False):
                continue
            self._apart.add(part.path)
            if part.path in later:
                self._items[later[part.path]] = part
            else:  # it appeared after the names were listed
                self._items.append(part)

    def _keep_database(self, later: dict[str, int], path: str) -> None:
        """The parent generation's version of a database that cannot be read: of all its files, or of none."""
        self._items[later[path]] = self._unstable(path)
        before = self._reader.before
        for name in copy.names(path)[1:]:
            if (entry := before.get(name)) is not None and entry.type == "f":
                kept = Record(0, 0, 0, 0, 0, _NEVER, entry)
                if name in later:
                    self._items[later[name]] = kept
                else:
                    self._added.append(kept)

    # --- the whole ---

    def _archived(self) -> ArchivedTree:
        if self._old is not None and self._is_as_before(self._old):
            return self._as_before(self._old)
        for number, item in enumerate(self._items):  # one by one: many files would not fit twice
            if isinstance(item, File):
                self._items[number] = self._made(item)
        made = [item for item in self._items if isinstance(item, Record)]  # a later one is a sidecar
        if self._added or self._apart:
            made = sorted([*made, *self._added], key=lambda one: in_tree_order(one.entry))
        made = self._rooted(made)
        needed = self._needed(made) if self._hidden else set[str]()
        made = [one for one in made if one.entry.path not in self._hidden or one.entry.path in needed]
        entries = [one.entry for one in made]
        if not self._selection.keeps_none:
            entries, reported = carry(entries, self._reader.before, self._selection)
            self._reported.extend(reported)
        packs = {pack.sha256: pack for pack in self._parent.packs} if self._parent else {}
        packs.update((ref.sha256, ref) for ref in self._upload.refs())
        used = dict.fromkeys(extent.pack for entry in entries for extent in entry.extents if extent.pack)
        return ArchivedTree(
            entries=tuple(entries),
            packs=tuple(packs[sha256] for sha256 in used),
            uploaded=self._upload.finish(),
            reported=tuple(self._reported),
            records={
                one.entry.path: one
                for one in made
                if one.still > 0
                and one.entry.path not in self._hidden
                and one.entry.path not in self._apart
                and one.entry.kind == "plain"
            },
            databases=self._databases,
        )

    def _is_as_before(self, old: CachedTree) -> bool:
        """Whether every name was taken over, and none is missing."""
        if self._news or not self._selection.keeps_none:
            return False
        return sum(type(item) is Record for item in self._items) == len(old.manifest.entries)

    def _as_before(self, old: CachedTree) -> ArchivedTree:
        return ArchivedTree(
            entries=old.manifest.entries,
            packs=old.manifest.packs,
            uploaded=0,
            reported=tuple(self._reported),
            records=old.records,
            databases=old.databases,
        )

    def _made(self, file: File) -> Record | None:
        """A file's record; for one that changed while it was sent, the record of its parent's version, or None."""
        try:
            entry = self._reader.entry(file)
        except Moving:
            return self._unstable(file.path)
        records = tuple(record(status, stillness(status, self._now), entry) for status in file.statuses)
        if file.kind == "sqlite":
            self._databases[file.path] = records
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
                needed.update(_above(one.entry.path))
        return needed


def _above(path: str) -> Iterator[str]:
    """The directories above a path, outermost first."""
    at = path.find("/")
    while at >= 0:
        yield path[:at]
        at = path.find("/", at + 1)


def _entry(
    path: str, kind: EntryType, status: os.stat_result, *, target: str | None = None, xattrs: Attributes = ()
) -> Entry:
    time_ns, mode = storable(status.st_mtime_ns), status.st_mode & PERMISSIONS
    return Entry(path=path, type=kind, mode=mode, mtime_ns=time_ns, target=target, xattrs=xattrs)
