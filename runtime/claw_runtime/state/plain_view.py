"""The plain view: files of the newest generation as one object each, for other tools to read.

It is made from the store in the background after the commit: no claim or release waits for it, no tree is read for it,
and claw never reads it back. A note in the bucket records what the view holds: first what may change, then what has
changed. So the next pass repairs what a crash left.

    files/<path>   a file; each name of the path is escaped
    files/_VIEW    zstd of {"v": 1, "rules": digest, "generation": n, "files": {key: digest}, "unsure": [key]}
"""

import hashlib
import io
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
import zstandard

from claw_runtime.errors import ClawError, RestoreFailed, VerifyMismatch
from claw_runtime.formats.manifest import Entry, Manifest
from claw_runtime.ports import AmbiguousWrite, ObjectMissing, ObjectStore, PreconditionFailed
from claw_runtime.safefs.tree import printable
from claw_runtime.spec.plan import Workload
from claw_runtime.state.repository import Repository
from claw_runtime.state.rules.selection import selection_of
from claw_runtime.tenancy import Keys, TenantId

log = structlog.get_logger(__name__)

THREADS: Final = 4
LARGE: Final = 8 * 1024 * 1024
"""Minimum bytes of a file that is sent in parts, which limits the memory that it needs."""
UNWRITTEN: Final = 1024 * 1024 * 1024
"""Maximum bytes of a file's holes: in a view they are zeros, and a tenant can make holes of terabytes."""
LONGEST_NAME: Final = 255
LONGEST_KEY: Final = 900
NOTE: Final = "_VIEW"
"""The key of the note. No escaped name equals it: after `_` come two hexadecimal digits or another `_`."""
_MAX_NOTE: Final = 256 * 1024 * 1024
_ODD: Final = re.compile(rb"[^A-Za-z0-9.-]")


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewStatus:
    """The result of a tenant's last pass: the view's generation and files, how many names were too long, and why it is
    not whole."""

    generation: int
    files: int
    left_out: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Note:
    """The note in the bucket: digests by key below `files/`. The content of an `unsure` key is unknown."""

    rules: str = ""
    generation: int = 0
    files: Mapping[str, str] = field(default_factory=dict)
    unsure: tuple[str, ...] = ()


class _Stopped(Exception):
    """The daemon ends; the next one continues."""


def escape(path: str) -> str:
    """A path as part of a key: in each name `_` becomes `__`, and each byte except ASCII letters, digits, `.` and `-`
    becomes `_XX`."""
    return "/".join(_ODD.sub(_escaped, name.encode("utf-8", "surrogateescape")).decode() for name in path.split("/"))


def shown(workload: Workload, document: Manifest) -> tuple[dict[str, Entry], int]:
    """What the view must hold: entries by key below `files/`, and how many names are too long for it."""
    selection, found, left_out = selection_of(workload), dict[str, Entry](), 0
    for entry in document.entries:
        number = selection.governing(entry.path) if entry.type == "f" else None
        mapping = None if number is None else workload.mappings[number]
        if mapping is None or mapping.view == "none" or (entry.kind == "sqlite" and mapping.view != "all"):
            continue
        inner = entry.path[len(mapping.path) :].lstrip("/")
        key = escape("/".join(filter(None, (mapping.view_path, inner))))
        if len(Keys(document.tenant).files) + len(key) > LONGEST_KEY or max(map(len, key.split("/"))) > LONGEST_NAME:
            left_out += 1
        else:
            found[key] = entry
    return found, left_out


class PlainViews:
    """The views of all tenants of this runtime.

    Args:
        stopping: Ends the running pass; the next daemon continues.
    """

    def __init__(self, store: ObjectStore, repository: Repository, *, stopping: threading.Event | None = None) -> None:
        self._store, self._generations, self._keyring = store, repository.generations, repository.keyring
        self._stopping = stopping or threading.Event()
        self._lock = threading.Lock()
        self._waiting: dict[TenantId, Workload] = {}
        self._done: dict[TenantId, ViewStatus] = {}
        self._bare: set[TenantId] = set()  # tenants without a view that need none

    def reflect(self, tenant: TenantId, workload: Workload) -> None:
        """Schedule the tenant's view after a commit. Never fails, never waits."""
        with self._lock:
            if _has_view(workload) or tenant not in self._bare:
                self._waiting[tenant] = workload

    def catch_up(self, tenants: Mapping[TenantId, str], workload_of: Callable[[str], Workload]) -> None:
        """Schedule all views after a start: they may lack what was committed before.

        Args:
            tenants: Their pools.
            workload_of: Returns the workload of a pool; raises `ClawError` if it cannot be loaded; its views then wait.
        """
        for pool in set(tenants.values()):
            with suppress(ClawError):
                workload = workload_of(pool)
                for tenant in [tenant for tenant, its in tenants.items() if its == pool and _has_view(workload)]:
                    self.reflect(tenant, workload)

    def status(self, tenant: TenantId) -> ViewStatus | None:
        """The result of a tenant's last pass; None when it has no view, or nothing was committed since the start."""
        return self._done.get(tenant)

    def work_off(self) -> None:
        """Make the scheduled views one by one; a failed one is made again after the tenant's next commit."""
        while not self._stopping.is_set():
            with self._lock:
                tenant = next(iter(self._waiting), None)
                if tenant is None:
                    return
                workload = self._waiting.pop(tenant)
            try:
                if _has_view(workload):
                    self._bare.discard(tenant)
                    self._done[tenant] = self._make(tenant, workload)
                else:
                    self._end(tenant)
            except _Stopped:
                return
            except (ClawError, ObjectMissing, PreconditionFailed, AmbiguousWrite) as error:
                if _has_view(workload):  # otherwise it probably has none, and the next commit checks again
                    self._failed(tenant, error)

    def _end(self, tenant: TenantId) -> None:
        """Remove the view of a tenant whose workload shows no mapping any more."""
        with suppress(ObjectMissing):
            self._store.get(f"{Keys(tenant).files}{NOTE}")
            self._clear(tenant)
        self._done.pop(tenant, None)
        self._bare.add(tenant)

    def _failed(self, tenant: TenantId, error: Exception) -> None:
        why = "another runtime changed it at the same time" if isinstance(error, PreconditionFailed) else str(error)
        log.warning("plain view not made", tenant=tenant, error=why)
        before = self._done.get(tenant, ViewStatus(generation=0, files=0))
        self._done[tenant] = ViewStatus(generation=before.generation, files=before.files, error=why)

    def _make(self, tenant: TenantId, workload: Workload) -> ViewStatus:
        if self._keyring.sealer(tenant).seals:  # a plain view would expose what is encrypted in the state
            self._clear(tenant)
            return ViewStatus(generation=0, files=0, error="states are encrypted, but a plain view would not be")
        head = self._generations.head(tenant)
        if head is None or head.manifest is None:
            return ViewStatus(generation=0, files=0)
        rules, (note, etag) = _rules(workload), self._noted(tenant)
        if (note.generation, note.rules, note.unsure) == (head.generation, rules, ()):
            return ViewStatus(generation=note.generation, files=len(note.files))
        document = self._generations.manifest(tenant)
        wanted, left_out = shown(workload, document)
        doubtful = set(note.unsure)
        stale = (note.files.keys() | doubtful) - wanted.keys()
        fresh = {key: entry for key, entry in wanted.items() if key in doubtful or note.files.get(key) != entry.sha256}
        if stale or fresh:
            unsure = tuple(sorted(doubtful | stale | fresh.keys()))
            before = _Note(rules=note.rules, generation=note.generation, files=note.files, unsure=unsure)
            etag = self._write(tenant, before, etag)
        failed = self._change(document, stale, fresh)
        after = {key: entry.sha256 or "" for key, entry in wanted.items() if key not in failed}
        note = _Note(rules=rules, generation=document.generation, files=after, unsure=tuple(sorted(failed)))
        self._write(tenant, note, etag)
        self._clear_if_gone(tenant)
        return ViewStatus(
            generation=document.generation,
            files=len(after),
            left_out=left_out,
            error="; ".join(sorted(set(failed.values())))[:500],
        )

    def _change(self, document: Manifest, stale: set[str], fresh: Mapping[str, Entry]) -> dict[str, str]:
        """Delete keys, then write files; returns the keys of files that cannot be read, each with the reason."""
        prefix = Keys(document.tenant).files
        failed: dict[str, str] = {}

        def delete(key: str) -> None:
            self._go_on()
            self._store.delete(f"{prefix}{key}")

        def put(key: str) -> None:
            self._go_on()
            entry = fresh[key]
            if entry.unwritten > UNWRITTEN:
                failed[key] = f"{printable(entry.path)} has holes of {entry.unwritten} bytes, which a view would store"
                return
            try:
                self._put(f"{prefix}{key}", document, entry)
            except (VerifyMismatch, RestoreFailed) as error:  # only that file; the others are readable
                failed[key] = str(error)

        with ThreadPoolExecutor(THREADS, thread_name_prefix="claw-view") as pool:
            for work, keys in ((delete, sorted(stale)), (put, sorted(fresh))):  # a name may become a directory
                for _ in pool.map(work, keys):
                    pass
        return failed

    def _put(self, key: str, document: Manifest, entry: Entry) -> None:
        pieces = self._generations.content(document, entry)
        if entry.size < LARGE:
            self._store.put(key, b"".join(pieces))
        else:
            self._store.send(key, io.BufferedReader(_Pieces(pieces)), entry.size)

    def _go_on(self) -> None:
        if self._stopping.is_set():
            raise _Stopped

    def _clear_if_gone(self, tenant: TenantId) -> None:
        """Remove the view if the tenant was removed meanwhile."""
        head = self._generations.head(tenant)
        if head is None or head.manifest is None:
            self._clear(tenant)

    def _clear(self, tenant: TenantId) -> None:
        for item in list(self._store.list(Keys(tenant).files)):
            self._store.delete(item.key)

    # --- the note ---

    def _noted(self, tenant: TenantId) -> tuple[_Note, str | None]:
        """The note and its etag; if it cannot be read, it counts as missing, and every existing key is unsure."""
        prefix = Keys(tenant).files
        try:
            data, etag = self._store.get(f"{prefix}{NOTE}")
        except ObjectMissing:
            return _Note(), None
        try:
            text = zstandard.ZstdDecompressor().decompress(data, max_output_size=_MAX_NOTE)
            return _parsed(json.loads(text)), etag
        except (ValueError, TypeError, KeyError, zstandard.ZstdError):
            there = (item.key.removeprefix(prefix) for item in self._store.list(prefix))
            return _Note(unsure=tuple(key for key in there if key != NOTE)), etag

    def _write(self, tenant: TenantId, note: _Note, etag: str | None) -> str:
        document = {
            "v": 1,
            "rules": note.rules,
            "generation": note.generation,
            "files": dict(note.files),
            "unsure": list(note.unsure),
        }
        data = zstandard.ZstdCompressor(level=3).compress(json.dumps(document, separators=(",", ":")).encode())
        key = f"{Keys(tenant).files}{NOTE}"
        return self._store.put(key, data, if_match=etag) if etag else self._store.put(key, data, if_absent=True)


class _Pieces(io.RawIOBase):
    """A file object that reads sequentially from an iterator of pieces."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._rest = pieces, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size


def _parsed(document: Mapping[str, Any]) -> _Note:
    if document["v"] != 1:
        raise ValueError("its version is not supported")
    return _Note(
        rules=str(document["rules"]),
        generation=int(document["generation"]),
        files={str(key): str(digest) for key, digest in document["files"].items()},
        unsure=tuple(map(str, document["unsure"])),
    )


def _has_view(workload: Workload) -> bool:
    return any(mapping.view != "none" for mapping in workload.mappings)


def _rules(workload: Workload) -> str:
    """A digest of all rules that decide what a view holds."""
    said = repr((workload.mappings, workload.exclude, workload.rest))
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def _escaped(found: re.Match[bytes]) -> bytes:
    return b"__" if found[0] == b"_" else b"_%02X" % found[0][0]
