"""A state out of the store as a tar."""

from collections.abc import Iterator
from typing import Final

import structlog

from claw_runtime.formats.manifest import Entry, Manifest
from claw_runtime.interchange import pax
from claw_runtime.safefs.tree import printable
from claw_runtime.state.repository import Repository
from claw_runtime.state.rules.handed_out import Named, SecretSearch
from claw_runtime.telemetry.events import Recorder, unrecorded

log = structlog.get_logger(__name__)

_PIECE: Final = 1 << 18
_RECORD: Final = 20 * pax.BLOCK


def exported(
    repository: Repository, document: Manifest, secrets: Named = (), record: Recorder = unrecorded
) -> Iterator[bytes]:
    """A generation as a tar (POSIX), piece by piece: names, modes, times, links, attributes, holes and content as they
    were.

    Args:
        secrets: Names and values that are searched in names and content.
        record: Called at the end with each file that holds one.

    Raises:
        RestoreFailed, VerifyMismatch: A file is damaged; the tar breaks off.
        StoreUnavailable, StoreDenied, BucketMissing: The store; likewise.
    """
    parts, waiting, written, search = list[bytes](), 0, 0, SecretSearch(secrets)
    search.entries(document.entries)
    for part in _parts(repository, document, search):
        parts.append(part)
        waiting += len(part)
        if waiting >= _PIECE:
            yield b"".join(parts)
            written += waiting
            parts, waiting = [], 0
    end = 2 * pax.BLOCK
    parts.append(bytes(end + -(written + waiting + end) % _RECORD))
    for path, name in search.found:
        log.warning("a secret is exported in plain text", tenant=document.tenant, file=printable(path), name=name)
        record("secret-exported", tenant=document.tenant, file=printable(path), name=name)
    yield b"".join(parts)


def _parts(repository: Repository, document: Manifest, search: SecretSearch) -> Iterator[bytes]:
    for entry in document.entries:
        if entry.type != "f":
            yield _linked(entry) if entry.type == "l" else _directory(entry)
            continue
        content = _searched(repository.generations.content(document, entry, holes=False), entry, search)
        segments = entry.data()
        if segments is None:
            yield pax.member(
                entry.path, pax.FILE, mode=entry.mode, mtime_ns=entry.mtime_ns, size=entry.size, xattrs=entry.xattrs
            )
            yield from content
            yield pax.padded(entry.size)
        else:
            yield pax.sparse(
                entry.path, segments, mode=entry.mode, mtime_ns=entry.mtime_ns, size=entry.size, xattrs=entry.xattrs
            )
            yield from content
            yield pax.padded(sum(length for _, length in segments))


def _searched(content: Iterator[bytes], entry: Entry, search: SecretSearch) -> Iterator[bytes]:
    at = 0
    for piece in content:
        search.look(entry.path, at, piece)
        at += len(piece)
        yield piece


def _directory(entry: Entry) -> bytes:
    return pax.member(f"{entry.path}/", pax.DIRECTORY, mode=entry.mode, mtime_ns=entry.mtime_ns, xattrs=entry.xattrs)


def _linked(entry: Entry) -> bytes:
    return pax.member(entry.path, pax.LINK, mode=entry.mode, mtime_ns=entry.mtime_ns, target=entry.target or "")
