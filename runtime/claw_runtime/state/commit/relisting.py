"""Names that change during a walk: directories are listed again until all names are those of one moment.

A file that a program renames, from a directory that is not yet listed into one that is, is in neither listing. When no
directory has changed between its listing and a look at all of them, the names are those of the moment when that look
began. A tree that does not come to rest in a few rounds is stored nevertheless. Each file that any listing showed gets
the last name that it was seen under. A file of the parent generation that no listing showed is kept once more.
"""

import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Final

from claw_runtime.formats.manifest import Entry
from claw_runtime.safefs.levels import TICK, Listing
from claw_runtime.safefs.tree import Cursor, Tree
from claw_runtime.state.commit.chunker import Chunker, File
from claw_runtime.state.commit.databases import Databases, Item, Later
from claw_runtime.state.commit.stat_cache import NEVER, CachedTree, Record, Status, kept
from claw_runtime.state.rules.selection import Selection
from claw_runtime.state.sqlite import copy
from claw_runtime.state.sqlite.backup import SIDECARS

ROUNDS: Final = 8
"""Times that changed directories are listed again before a tree counts as restless."""
_QUIET: Final = 2  # rounds that show no other name, after which only the names of journals change

_Identity = tuple[int, int]
_NO_INODE: Final = (0, 0)  # of a version that is not the tree's


class Relisting:
    """The names of one pass over one tree.

    Args:
        listings: Of the walk, by path of each directory.
        reader: Knows the parent generation.
        cached: What is known of the tree that equals the parent.
        databases: Learns which names are gone, or are something else now.
        look: Reads a name, and returns what is stored for it.

    Attributes:
        edits: How many names came, went, or are something else now; sidecars of databases do not count.
        touched: Whether the items may no longer be in tree order.
    """

    def __init__(
        self,
        tree: Tree,
        cursor: Cursor,
        listings: dict[str, Listing],
        selection: Selection,
        reader: Chunker,
        cached: CachedTree | None,
        databases: Databases,
        look: Callable[[str, os.stat_result], Item],
    ) -> None:
        self._tree, self._cursor, self._listings, self._selection = tree, cursor, listings, selection
        self._reader, self._cached, self._databases, self._look = reader, cached, databases, look
        self.edits, self.touched = 0, False
        self._items: dict[str, Item] = {}
        self._gone: dict[str, Item] = {}
        self._inodes: dict[str, _Identity] = {}
        self._below: dict[str, set[str]] = {}
        self._seen: dict[_Identity, dict[str, None]] = {}  # the names of each inode, the last seen last
        self._statuses: dict[_Identity, os.stat_result] = {}

    def settle(self, items: list[Item]) -> bool:
        """Bring the items' names to one moment; whether the tree came to rest.

        Raises:
            OSError: A directory cannot be read; or what `look` raises.
        """
        quiet = 0
        for number in range(ROUNDS):
            changed = self._changed()
            if not changed:
                return True
            if not number:
                self._take(items)
            edits = self.edits
            _wait(changed)
            for path, status in changed.items():
                self._list_again(path, status)
            items[:] = self._items.values()
            quiet = quiet + 1 if self.edits == edits else 0
            if quiet >= _QUIET and not any(self._unseen()):
                break
        return not self._changed()

    def _take(self, items: list[Item]) -> None:
        first, self.touched = not self.touched, True
        self._items = {_path(item): item for item in items if item is not None}
        for path, item in self._items.items() if first else ():
            self._inodes[path] = identity = _identity(item) if item else _NO_INODE
            self._below.setdefault(_parent(path), set()).add(path)
            if identity != _NO_INODE:
                self._seen.setdefault(identity, {})[path] = None

    # --- listings ---

    def _changed(self) -> dict[str, os.stat_result]:
        """The directories whose names may have changed since they were listed, with their status, parents first."""
        found = list(self._tree.changed(self._listings))
        changed = {path: status for path, status in found if status is not None}
        if found and not changed:  # one went during this look: the next one finds from where
            changed[""] = self._tree.status()
        return dict(sorted(changed.items()))

    def _list_again(self, directory: str, status: os.stat_result) -> None:
        """Bring the names in a directory, and in directories that are new there, up to date."""
        if directory not in self._listings:
            return  # it was gone with one above it
        found, listings, last = dict[str, os.stat_result](), dict[str, Listing](), status
        fresh = dict[str, Item]()

        def stays(path: str, status: os.stat_result) -> bool:
            """Whether it was here before; in a directory that is new, nothing was."""
            return path in self._items and _parent(path) == directory and self._is_same(path, status)

        def enters(path: str) -> bool:
            return self._selection.descends(path) and not (path in self._listings and stays(path, last))

        self._cursor.close()
        try:
            # What was moved too deep is reported by the next commit, which walks over it.
            names = self._tree.scan(enters, below=directory, listed=listings.__setitem__, deep=lambda _path: None)
            for path, now in names:
                if now is None:
                    found.pop(path, None)
                    continue
                found[path] = last = now
                self._see(path, now)
                if not stays(path, now):
                    fresh[path] = self._read_before(path, now) or self._look(path, now)
        except (FileNotFoundError, NotADirectoryError):
            return  # the next round finds that a directory above it has changed
        for path in sorted(self._below.get(directory, set()) - found.keys()):
            self._drop(path)
        for path, now in found.items():
            self._update(path, now, found, fresh)
        self._listings.update(listings)
        self._update_directory(directory, status)

    def _is_same(self, path: str, status: os.stat_result) -> bool:
        known = self._inodes.get(path)
        return known is not None and known in (_inode(status), _NO_INODE)

    def _see(self, path: str, status: os.stat_result) -> None:
        identity = _inode(status)
        names = self._seen.setdefault(identity, {})
        names.pop(path, None)
        names[path] = None
        self._statuses[identity] = status

    def _update(
        self, path: str, status: os.stat_result, found: Mapping[str, os.stat_result], fresh: Mapping[str, Item]
    ) -> None:
        if path not in fresh:
            self._inodes[path] = _inode(status)
            if isinstance(self._items[path], Later):
                self._items[path] = Later(path, status)
            return
        if not self._drop(path):
            return
        if (item := fresh[path]) is None:
            return
        self._put(path, item, _inode(status))
        if path.endswith(SIDECARS):
            self._begin_anew(path, found)

    def _read_before(self, path: str, status: os.stat_result) -> Item:
        """A file that was read in this pass under another name: in a storm of renames no file is read in each round."""
        if not stat.S_ISREG(status.st_mode) or path.endswith(SIDECARS) or not self._selection.stores(path, False):
            return None
        for name in reversed(self._seen[_inode(status)]):
            item = self._items.get(name) or self._gone.get(name)
            if isinstance(item, Record | File) and _is_plain(item) and _version(item) == _version_of(status):
                return _moved(item, path)
        return None

    def _begin_anew(self, sidecar: str, found: Mapping[str, os.stat_result]) -> None:
        """A sidecar that had another name, and so another database: the copy of its present one was made without it."""
        names = self._seen[self._inodes[sidecar]]
        database = sidecar.rpartition("-")[0]
        if database not in found or not any(name != sidecar and name.endswith(SIDECARS) for name in names):
            return
        if not isinstance(self._items.get(database), File | Record):
            return
        self._databases.forget(database)
        for name in copy.names(database):
            if name not in found:
                self._drop(name)
            elif name in self._items:
                self._items[name] = Later(name, found[name])
        self.edits += 1

    def _update_directory(self, path: str, status: os.stat_result) -> None:
        known = self._items.get(path)
        if isinstance(known, Record) and (known.mtime_ns, known.mode) != (status.st_mtime_ns, status.st_mode):
            self._items[path] = self._look(path, status) or known

    def _put(self, path: str, item: Item, identity: _Identity) -> None:
        self._items[path], self._inodes[path] = item, identity
        self._below.setdefault(_parent(path), set()).add(path)
        self.edits += not _is_sidecar(item)

    def _drop(self, path: str) -> bool:
        """Remove a name, and all below it; False for a sidecar without which its database is not whole."""
        if self._databases.binds(path):
            return False
        for name in self._below.pop(path, set()):
            self._drop(name)
        self._listings.pop(path, None)
        if (item := self._items.pop(path, None)) is not None:
            self._gone[path] = item
            self._below.get(_parent(path), set()).discard(path)
            self._databases.forget(path)
            self.edits += not _is_sidecar(item)
        return True

    # --- a tree that did not come to rest ---

    def merge(self, items: list[Item]) -> tuple[frozenset[str], list[str]]:
        """Add what was seen but is not in the last listings, and once what the parent has and no listing showed.

        Returns:
            The paths that are kept from the parent because no listing showed the file, and the names of files that
            were seen but could not be read.
        """
        lost = list[str]()
        self._take(items)
        for path in [path for path, item in self._items.items() if isinstance(item, Later)]:
            if not path.endswith(SIDECARS):
                self._drop(path)  # a database that went before it was copied
        for identity, names in self._seen.items():
            self._leave(
                identity, [path for path in names if self._inodes.get(path) == identity and path in self._items]
            )
        for identity, names in sorted(self._seen.items(), key=lambda seen: next(reversed(seen[1]))):
            last = next(reversed(names))
            if self._is_here(identity) or self._place_again(identity, last) or last.endswith(SIDECARS):
                continue
            if identity[1] in (stat.S_IFREG, stat.S_IFLNK) and self._selection.stores(last, False):
                lost.append(last)
        unseen = list(self._unseen())
        doubted = frozenset(entry.path for entry in unseen if self._place(entry.path, kept(entry)))
        items[:] = self._items.values()
        return doubted, [path for path in lost if path not in self._items]

    def _is_here(self, identity: _Identity) -> bool:
        """Whether a file is stored under one of its names."""
        return any(path in self._items and self._inodes[path] == identity for path in self._seen.get(identity, ()))

    def _leave(self, identity: _Identity, paths: list[str]) -> None:
        """Drop the names that a file has no more, when listings of different moments show too many: the older ones."""
        status = self._statuses.get(identity)
        if status is not None:
            links = 1 if stat.S_ISDIR(status.st_mode) else status.st_nlink
            for path in paths[:-links]:
                self._drop(path)

    def _place_again(self, identity: _Identity, last: str) -> bool:
        """Store a file that was seen under the last name that it had, or under the one that it was read under."""
        status = self._statuses.get(identity)
        for path in reversed(self._seen[identity]):
            item = self._gone.get(path)
            if not isinstance(item, Record | File) or _identity(item) != identity:
                continue
            is_dir = stat.S_ISDIR(identity[1])
            same = status is not None and (is_dir or _version(item) == _version_of(status))
            target = last if same else path
            if self._selection.stores(target, is_dir) and self._place(target, _moved(item, target)):
                self._inodes[target] = identity
                return True
        return False

    def _place(self, path: str, item: Item) -> bool:
        """Store an item under a free name, with the directories above it; whether that could be done."""
        directories = dict[str, Item]()
        for above in directories_above(path):
            found = self._items.get(above)
            if found is None:
                entry = self._reader.before.get(above)
                found = directories[above] = self._gone.get(above) or (kept(entry) if entry else None)
            if not isinstance(found, Record) or found.entry.type != "d":
                return False
        if path in self._items:
            return False
        for name, one in (directories | {path: item}).items():
            self._put(name, one, _NO_INODE)
        return True

    def _unseen(self) -> Iterator[Entry]:
        """Files of the parent generation that no listing showed; each is kept once, since it may as well be deleted."""
        old = self._cached
        kept_databases = set[str]()
        for path, entry in self._reader.before.items():
            if entry.type == "d" or path in self._items or not self._selection.stores(path, False):
                continue
            if old is not None:
                known = (old.records.get(path), *old.databases.get(path, ()))
                if path in old.doubted or any(self._is_here(_identity(one)) for one in known[:2] if one):
                    continue
            if path.endswith(SIDECARS) and path.rpartition("-")[0] not in kept_databases:
                continue  # beside another version of its database it would do harm
            kept_databases.add(path)
            yield entry


def _wait(changed: Mapping[str, os.stat_result]) -> None:
    """Wait until a later change of these directories has another time."""
    newest = max(status.st_ctime_ns for status in changed.values())
    left = newest + TICK - time.time_ns()
    if 0 < left <= TICK:
        time.sleep(left / 10**9)


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def directories_above(path: str) -> Iterator[str]:
    """The directories above a path, outermost first."""
    at = path.find("/")
    while at >= 0:
        yield path[:at]
        at = path.find("/", at + 1)


def _path(item: Record | File | Later) -> str:
    return item.entry.path if isinstance(item, Record) else item.path


def _is_sidecar(item: Item) -> bool:
    return isinstance(item, Later) and item.path.endswith(SIDECARS)


def _inode(status: os.stat_result) -> _Identity:
    return status.st_ino, stat.S_IFMT(status.st_mode)


def _identity(item: Record | File | Later) -> _Identity:
    match item:
        case Record():
            return item.inode, stat.S_IFMT(item.mode)
        case File():
            return item.statuses[0].st_ino, stat.S_IFMT(item.statuses[0].st_mode)
        case Later():
            return item.status.st_ino, stat.S_IFMT(item.status.st_mode)


def _is_plain(item: Record | File) -> bool:
    return (item.entry.kind if isinstance(item, Record) else item.kind) == "plain"


def _version(item: Record | File) -> tuple[int, ...]:
    """What tells a file and its content, and stays when it is renamed."""
    if isinstance(item, Record):
        return item.inode, item.mode, item.size, item.mtime_ns
    return _version_of(item.statuses[0])


def _version_of(status: os.stat_result | Status) -> tuple[int, ...]:
    return status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns


def _moved(item: Record | File, path: str) -> Record | File:
    """An item under another name; the next pass reads it again."""
    if isinstance(item, File):
        return item._replace(path=path)
    return item if item.entry.path == path else item._replace(entry=replace(item.entry, path=path), still=NEVER)
