"""A state out of the store as a tar."""

import io
import tarfile
from collections.abc import Iterator
from typing import Any

from claw_runtime.formats.manifest import Entry, Manifest
from claw_runtime.state.repository import Repository


def exported(repository: Repository, document: Manifest) -> Iterator[bytes]:
    """A generation as a tar (POSIX), piece by piece: names, modes, times, links, attributes and content as they were.

    Raises:
        RestoreFailed, VerifyMismatch: A file is damaged; the tar breaks off.
        StoreUnavailable, StoreDenied, BucketMissing: The store; likewise.
    """
    out = _Pieces()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for entry in document.entries:
            tar.addfile(_info(entry))
            if entry.type == "f":
                for piece in repository.generations.content(document, entry):
                    out.write(piece)
                    yield from out.taken()
                out.write(bytes(-entry.size % tarfile.BLOCKSIZE))
                tar.offset += entry.size + -entry.size % tarfile.BLOCKSIZE
            yield from out.taken()
    yield from out.taken()


class _Pieces(io.RawIOBase):
    """Keeps what is written until it is taken."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._written = 0

    def tell(self) -> int:
        return self._written

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        self._written += len(data)
        return len(data)

    def taken(self) -> Iterator[bytes]:
        parts, self._parts = self._parts, []
        if joined := b"".join(parts):
            yield joined


def _info(entry: Entry) -> tarfile.TarInfo:
    info = tarfile.TarInfo(entry.path)
    info.mode, info.mtime = entry.mode, entry.mtime_ns / 1e9  # PAX keeps the fraction
    match entry.type:
        case "d":
            info.type = tarfile.DIRTYPE
        case "l":
            info.type, info.linkname = tarfile.SYMTYPE, entry.target or ""
        case "f":
            info.size = entry.size
    info.pax_headers = {
        f"SCHILY.xattr.{name}": value.decode("utf-8", "surrogateescape") for name, value in entry.xattrs
    }
    return info
