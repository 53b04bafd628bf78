"""A state out of the store as a tar."""

from collections.abc import Iterator
from typing import Final

from claw_runtime.formats.manifest import Entry, Manifest
from claw_runtime.interchange import pax
from claw_runtime.state.repository import Repository

_PIECE: Final = 1 << 18
_RECORD: Final = 20 * pax.BLOCK


def exported(repository: Repository, document: Manifest) -> Iterator[bytes]:
    """A generation as a tar (POSIX), piece by piece: names, modes, times, links, attributes, holes and content as they
    were.

    Raises:
        RestoreFailed, VerifyMismatch: A file is damaged; the tar breaks off.
        StoreUnavailable, StoreDenied, BucketMissing: The store; likewise.
    """
    parts, waiting, written = list[bytes](), 0, 0
    for part in _parts(repository, document):
        parts.append(part)
        waiting += len(part)
        if waiting >= _PIECE:
            yield b"".join(parts)
            written += waiting
            parts, waiting = [], 0
    end = 2 * pax.BLOCK
    parts.append(bytes(end + -(written + waiting + end) % _RECORD))
    yield b"".join(parts)


def _parts(repository: Repository, document: Manifest) -> Iterator[bytes]:
    for entry in document.entries:
        if entry.type != "f":
            yield _linked(entry) if entry.type == "l" else _directory(entry)
            continue
        content, segments = repository.generations.content(document, entry, holes=False), entry.data()
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


def _directory(entry: Entry) -> bytes:
    return pax.member(f"{entry.path}/", pax.DIRECTORY, mode=entry.mode, mtime_ns=entry.mtime_ns, xattrs=entry.xattrs)


def _linked(entry: Entry) -> bytes:
    return pax.member(entry.path, pax.LINK, mode=entry.mode, mtime_ns=entry.mtime_ns, target=entry.target or "")
