"""The databases of a tenant's tree: all names of a tree are known, then each database is stored as of one moment.

A database is one consistent file, made by SQLite from a private copy. One that SQLite cannot read is stored with its
sidecars as they were at one moment. One that changes each time keeps the parent generation's version, of all its files.
"""

import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from claw_runtime.safefs.opening import NotRegular, attributes
from claw_runtime.safefs.tree import VANISHED, Cursor, Skipped
from claw_runtime.state.commit.chunker import Chunker, File
from claw_runtime.state.commit.stat_cache import MAPPED, RACY, CachedTree, Record, holds, kept
from claw_runtime.state.rules.selection import Selection
from claw_runtime.state.sqlite import backup, copy
from claw_runtime.state.sqlite.copy import DatabaseCopy, Unstable


class Later(NamedTuple):
    """A database, or a name like a sidecar of one: handled when all names are known."""

    path: str
    status: os.stat_result


Item = Record | File | Later | None


class Databases:
    """The databases of one pass over one tree.

    Args:
        cached: What need not be read, if the parent is HEAD's generation.
        scratch: Private directory for copies.
        still: The tree does not change.
        reported: Gets the names that are left out or stored differently.
        read: Returns what is stored for a file; a `Later` when it is a database.
        keep: Returns the parent generation's version of a file that changed each time.

    Attributes:
        records: By path of each database, the records of it and its sidecars.
        apart: Files of databases that are stored file by file: no cache may know one alone.
        added: Of such databases, what the parent has and the tree has not.
        news: Whether a database was not taken over from the parent.
    """

    def __init__(
        self,
        reader: Chunker,
        cached: CachedTree | None,
        selection: Selection,
        scratch: Path,
        *,
        still: bool,
        reported: list[Skipped],
        read: Callable[[Cursor, str], Item],
        keep: Callable[[str], Record | None],
    ) -> None:
        self._reader, self._old, self._selection, self._scratch = reader, cached, selection, scratch
        self._still, self._reported, self._read, self._keep = still, reported, read, keep
        self._items: list[Item] = []
        self.records: dict[str, tuple[Record, ...]] = {}
        self.apart: set[str] = set()
        self.added: list[Record] = []
        self.news = False
        self._done: set[str] = set()
        self._bound: set[str] = set()
        self._linked: dict[str, str] = {}

    def store(self, cursor: Cursor, items: list[Item], *, news: bool) -> bool:
        """Copy all databases at nearly the same moment, then store them; what only looks like a sidecar is a file.

        Args:
            items: Of all names; the `Later` of a database is replaced by what is stored for it.
            news: The tree has changed: an unchanged database in a pack that the commit retires is stored again.

        Returns:
            Whether any was read; that takes a while, so names may have changed meanwhile.

        Raises:
            UploadFailed: A database kept changing although the tree should be still.
            StoreUnavailable, StoreDenied, BucketMissing: The store failed.
            OSError: The tree cannot be read, or the scratch directory not written.
        """
        self._items = items
        later = {item.path: number for number, item in enumerate(self._items) if isinstance(item, Later)}
        found = self._sort_out(cursor, later)
        links = self._links(later, found)
        self._linked.update(links)
        paths = sorted(found - links.keys())
        held = {path for path in paths if self._take_over(later, path)}
        self.news = self.news or len(held) < len(paths)
        wanted = [path for path in paths if path not in held or ((news or self.news) and self._moves(path))]
        with ExitStack() as stack:
            copies = dict[str, DatabaseCopy]()
            for path in wanted:
                try:
                    copies[path] = copy.copy(cursor, path, self._scratch)
                    stack.callback(shutil.rmtree, copies[path].directory)
                except (Unstable, FileNotFoundError, backup.NoSnapshot) as error:
                    self._without_copy(cursor, later, path, error)
            for path, copied in copies.items():
                try:
                    self._items[later[path]] = self._reader.read_database(path, copied)
                except backup.NoSnapshot as error:
                    self._without_copy(cursor, later, path, error)  # not the copy: SQLite may have changed it
        for path, linked in links.items():
            self._items[later[path]] = self._as_link(path, self._items[later[linked]])
        self._done |= found - set(self.pending(items))
        return bool(wanted)

    def store_copy(self, items: list[Item], path: str, copied: DatabaseCopy) -> set[str]:
        """Store a database from a copy that was made while no program wrote; the paths that are no longer left out.

        Args:
            items: Of all names; those of the database and its sidecars are replaced.

        Raises:
            StoreUnavailable, StoreDenied, BucketMissing: The store failed.
            OSError: The scratch directory cannot be written.
        """
        self._items = items
        self.forget(path)
        later = {item.entry.path if isinstance(item, Record) else item.path: n for n, item in enumerate(items) if item}
        for name in copy.names(path)[1:]:
            if name in later:
                items[later[name]] = None
        if path not in later:
            later[path] = len(items)
            items.append(None)
        spare = copied.directory.with_name(f"{copied.directory.name}-spare")  # SQLite may change what it is given
        shutil.copytree(copied.directory, spare)
        try:
            items[later[path]] = self._reader.read_database(path, replace(copied, directory=spare))
        except backup.NoSnapshot as error:
            self._put_apart(later, path, self._parts(path, copied), error)
        finally:
            shutil.rmtree(spare)
        self._done.add(path)
        links = [name for name, linked in self._linked.items() if linked == path and name in later]
        for name in links:
            items[later[name]] = self._as_link(name, items[later[path]])
        return {path, *links}

    def _parts(self, path: str, copied: DatabaseCopy) -> list[File]:
        """The files of a copied database, one by one."""
        parts = list[File]()
        for suffix, status in copied.files.items():
            with (copied.directory / f"{backup.DATABASE}{suffix}").open("rb") as file:
                xattrs = () if suffix else self._reader.fit(path, copied.xattrs)
                parts.append(self._reader.read_part(file.fileno(), f"{path}{suffix}", status, xattrs))
        return parts

    def pending(self, items: list[Item]) -> list[str]:
        """Databases that are not stored yet: new ones, and those that went before they could be copied."""
        names = (item.path for item in items if isinstance(item, Later))
        return [path for path in names if path not in self._done and not path.endswith(backup.SIDECARS)]

    def binds(self, path: str) -> bool:
        """Whether a sidecar is stored as it was with its database, at one moment."""
        return path in self._bound

    def forget(self, path: str) -> None:
        """Another file has this name now, or none: what is known of a database there no longer counts."""
        names = set(copy.names(path))
        self._done.discard(path)
        self.records.pop(path, None)
        self.apart -= names
        self._bound -= names
        self.added = [one for one in self.added if one.entry.path not in names]

    def _links(self, later: dict[str, int], found: set[str]) -> dict[str, str]:
        """Other names of databases that have sidecars: without these, the file under its other name is not whole."""
        names: dict[tuple[int, int], list[str]] = {}
        for path in sorted(found):
            item = self._items[later[path]]
            if isinstance(item, Later):
                names.setdefault((item.status.st_dev, item.status.st_ino), []).append(path)
        links = dict[str, str]()
        for paths in names.values():
            files, whole = max((sum(name in later for name in copy.names(path)), path) for path in paths)
            if files > 1:
                links.update((path, whole) for path in paths if path != whole)
        return links

    def _as_link(self, path: str, item: Item) -> Item:
        """The content of a database under another name of its file."""
        self.news = True
        if isinstance(item, File) and item.kind == "sqlite":
            return item._replace(path=path)
        if isinstance(item, Record) and item.entry.kind == "sqlite":
            return kept(replace(item.entry, path=path))
        self._reported.append(Skipped(path=path, reason="another name of a database that is not stored as one"))
        return None

    def _sort_out(self, cursor: Cursor, later: dict[str, int]) -> set[str]:
        """The databases among the postponed names; the others are their sidecars, or files, which are read."""
        sidecars = {path for path in later if path.endswith(backup.SIDECARS)}
        found = later.keys() - sidecars
        for path in sorted(sidecars):
            if path.rpartition("-")[0] not in found | self._done and self._selection.stores(path, False):
                item = self._items[later[path]] = self._read(cursor, path)
                if isinstance(item, Later):
                    found.add(path)
        return found

    def _take_over(self, later: dict[str, int], path: str) -> bool:
        """Whether neither the database nor a sidecar of it has changed."""
        known = self._old.databases.get(path) if self._old else None
        files = [later[name] for name in copy.names(path) if name in later]
        statuses = [item.status for item in map(self._items.__getitem__, files) if isinstance(item, Later)]
        still = MAPPED if self._still else RACY
        if known is None or len(known) != len(statuses):
            return False
        if not all(holds(old, status, still) for old, status in zip(known, statuses, strict=True)):
            return False
        self._items[later[path]], self.records[path] = known[0], known
        return True

    def _moves(self, path: str) -> bool:
        """Whether an unchanged database is in a pack that the commit replaces."""
        return self._reader.retires(self.records[path][0].entry)

    def _without_copy(self, cursor: Cursor, later: dict[str, int], path: str, error: Exception) -> None:
        """What is stored of a database that cannot be copied; one that has not changed stays where it is stored."""
        if isinstance(self._items[later[path]], Record):
            return
        if isinstance(error, Unstable):
            self._keep_database(later, path)
        elif isinstance(error, FileNotFoundError):
            self._reported.append(Skipped(path=path, reason=VANISHED))
        else:
            self._read_apart(cursor, later, path, error)

    def _read_apart(self, cursor: Cursor, later: dict[str, int], path: str, error: Exception) -> None:
        """Store a database that SQLite cannot read, or that has no room for a copy, as files of one moment."""
        parts = list[File]()

        def take(files: copy.Files) -> None:
            parts.clear()
            for suffix, fd in files.items():
                xattrs = () if suffix else self._reader.fit(path, attributes(fd))
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
            self.apart.add(part.path)
            if part.path != path:
                self._bound.add(part.path)
            if part.path in later:
                self._items[later[part.path]] = part
            else:  # it appeared after the names were listed
                self._items.append(part)

    def _keep_database(self, later: dict[str, int], path: str) -> None:
        """The parent generation's version of a database that cannot be read: of all its files, or of none."""
        self._items[later[path]] = self._keep(path)
        before = self._reader.before
        for name in copy.names(path)[1:]:
            if (entry := before.get(name)) is not None and entry.type == "f":
                self._bound.add(name)
                if name in later:
                    self._items[later[name]] = kept(entry)
                else:
                    self.added.append(kept(entry))
