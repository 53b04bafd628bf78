"""A cache of tenants' trees: the newest generation, and the `lstat` result of each name when it was read.

A name is unchanged when inode, size, both times and mode are equal, and its times were old enough when its content was
read: a second change in the same clock tick is invisible. A name that is not cached is read again, so any record may be
dropped at any time. The cache is only in memory.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from claw_runtime.formats.manifest import Entry, Manifest
from claw_runtime.safefs.tree import Tree
from claw_runtime.state.commit.compaction import NEW, Packing
from claw_runtime.state.rules.selection import Selection
from claw_runtime.tenancy import TenantId

NAMES: Final = 250_000
"""Maximum names in the cache, of all tenants together; about 1 KB each with their manifest entries."""
RACY: Final = 2 * 10**9
"""Nanoseconds that a name must have been unchanged before it was read, so that a later change shows."""
MAPPED: Final = 60 * 10**9
"""Likewise for the last commit of a tree, and on overlayfs. A file that a program has mapped may change without a new
time, as long as its pages are not written back: half a minute by Linux's default, where `write_back` has no effect."""
_TICK: Final = 5 * 10**7
NEVER: Final = -1


class Record(NamedTuple):
    """A name's status when its content was read, after it had been unchanged for `still` ns."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    mode: int
    still: int
    entry: Entry


class Status(NamedTuple):
    """The part of `os.stat_result` that shows a change; half its size, since 100,000 names are kept at once."""

    st_mode: int
    st_ino: int
    st_size: int
    st_mtime_ns: int
    st_ctime_ns: int


def part_of(status: os.stat_result) -> Status:
    """The part of a stat result that is kept."""
    return Status(status.st_mode, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def record(status: os.stat_result | Status, still: int, entry: Entry) -> Record:
    """The record of a name whose content was read after this status."""
    times = status.st_mtime_ns, status.st_ctime_ns
    return Record(status.st_ino, status.st_size, *times, status.st_mode, still, entry)


def kept(entry: Entry) -> Record:
    """The record of a name whose entry is the parent generation's: the tree's own version is read by the next pass."""
    return Record(0, 0, 0, 0, 0, NEVER, entry)


def stillness(status: os.stat_result | Status, now: int) -> int:
    """How long a name has been unchanged, in ns."""
    return now - max(status.st_mtime_ns, status.st_ctime_ns)


def holds(known: Record, status: os.stat_result, still: int) -> bool:
    """Whether a name is unchanged since it was read, and had been unchanged for more than so many ns before."""
    inode, size, mtime_ns, ctime_ns, mode, was_still, _ = known
    return (
        ctime_ns == status.st_ctime_ns
        and mtime_ns == status.st_mtime_ns
        and size == status.st_size
        and inode == status.st_ino
        and mode == status.st_mode
        and was_still > still
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedTree:
    """The cache of one tenant: HEAD's manifest, and the records of a tree that equals it.

    Attributes:
        selection: The selection under which all names of `records` are stored; None when unknown.
        records: By path; names that are missing are read.
        databases: By path, the records of a database and its sidecars.
        doubted: Paths that the manifest has only because its names changed during the walk, and no listing showed them.
        files, size: Counts of the manifest, so that each pass need not count again.
        packing: What the next commit must know of the manifest's packs.
    """

    manifest: Manifest
    selection: Selection | None
    records: Mapping[str, Record] = field(default_factory=dict)
    databases: Mapping[str, tuple[Record, ...]] = field(default_factory=dict)
    doubted: frozenset[str] = frozenset()
    files: int = 0
    size: int = 0
    packing: Packing = NEW

    def sealed(self) -> "CachedTree":
        """The cache without files that are stored in plain text: they must be sent again, encrypted."""
        plain = self.manifest.plain_packs
        stale = {entry.path for entry in self.manifest.entries if entry.lies_in(plain)}
        if not stale:
            return self
        records = {path: one for path, one in self.records.items() if path not in stale}
        databases = {path: some for path, some in self.databases.items() if path not in stale}
        return replace(self, records=records, databases=databases)


class StatCache:
    """The newest cached tree of each tenant, as long as all of them fit.

    Running tenants commit in turns. If the one used longest ago were always evicted, one tenant too many would leave
    none of them cached. A tenant therefore evicts only those used less recently than itself the last time; if that is
    not enough, it stays uncached itself. A tenant seen for the first time evicts those used longest ago.

    Args:
        names: Maximum names of all trees; a tree that has more is never cached.
    """

    def __init__(self, names: int = NAMES) -> None:
        self._most, self._count, self._uses = names, 0, 0
        self._lock = threading.Lock()
        self._trees: OrderedDict[TenantId, tuple[str, CachedTree]] = OrderedDict()  # used longest ago first
        self._used: dict[TenantId, int] = {}  # number of the last use; of tenants that are not cached, too

    def recall(self, tenant: TenantId, sha256: str | None) -> CachedTree | None:
        """The tenant's cached tree, if it belongs to the manifest with this digest."""
        with self._lock:
            digest, known = self._trees.get(tenant, (None, None))
            if known is None or digest != sha256:
                return None
            self._trees.move_to_end(tenant)
            self._use(tenant)
            return known

    def remember(self, tenant: TenantId, sha256: str, known: CachedTree) -> None:
        with self._lock:
            self._drop(tenant)
            size, before = _size(known), self._used.get(tenant)
            self._use(tenant)
            if size <= self._most and self._make_room(size, before):
                self._trees[tenant] = sha256, known
                self._count += size

    def forget(self, tenant: TenantId) -> None:
        with self._lock:
            self._drop(tenant)

    def _use(self, tenant: TenantId) -> None:
        self._uses += 1
        self._used[tenant] = self._uses

    def _make_room(self, size: int, before: int | None) -> bool:
        """Evict trees until so many names fit, but none used after `before`; whether they fit. None evicts any."""
        victims, free = list[TenantId](), self._most - self._count
        for tenant, (_, known) in self._trees.items():
            if free >= size or (before is not None and self._used[tenant] > before):
                break
            victims.append(tenant)
            free += _size(known)
        if free < size:
            return False
        for tenant in victims:
            self._drop(tenant)
        return True

    def _drop(self, tenant: TenantId) -> None:
        _, known = self._trees.pop(tenant, (None, None))
        self._count -= _size(known) if known else 0


def learn(tree: Tree, manifest: Manifest, now: int) -> CachedTree:
    """Cache a tree that was just made from a manifest and that no other program has opened.

    Args:
        now: Nanoseconds of the wall clock; names made in the last moment are left out.

    Raises:
        OSError: The tree cannot be read.
    """
    entries = {entry.path: entry for entry in manifest.entries if entry.kind == "plain"}
    records = {}
    for path, status in tree.scan():
        entry = entries.get(path)
        # No other program could write to it yet, so one clock tick without a change is enough.
        if entry and status and now - status.st_ctime_ns > _TICK:
            records[path] = record(status, MAPPED + 1, entry)
    return CachedTree(
        manifest=manifest,
        selection=None,
        records=records,
        files=manifest.files,
        size=manifest.size,
        packing=Packing(settled=manifest.pack_names),
    )


def stored(known: CachedTree, selection: Selection) -> Mapping[str, Record]:
    """The cache of the names that a selection stores."""
    if known.selection == selection:
        return known.records
    return {path: one for path, one in known.records.items() if selection.stores(path, one.entry.type == "d")}


def _size(known: CachedTree) -> int:
    return 1 + len(known.manifest.entries)
