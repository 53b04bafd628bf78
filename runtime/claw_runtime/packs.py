"""Packs: many small files in one immutable object, so that a tenant's state is a handful of requests.

Layout, all of it fixed for ever by the key (the SHA-256 of the bytes):

    frame …          zstd, one a file, or one for each MiB of a file beyond 1 MiB
    index            zstd JSON: [[path, path is base64, offset in file, offset, stored, raw, mode, mtime_ns], …]
    index length     4 bytes, little endian
    magic            8 bytes, CLAWPK01

The index repeats what the manifest knows, so that files can be told apart again should every manifest be lost.
"""

import base64
import hashlib
import json
import os
import struct
from dataclasses import dataclass
from typing import Any, Final

import zstandard

from claw_runtime.errors import VerifyMismatch
from claw_runtime.manifest import Extent, PackRef

FRAME: Final = 1024 * 1024
TARGET: Final = 8 * 1024 * 1024
LIMIT: Final = 16 * 1024 * 1024
MAGIC: Final = b"CLAWPK01"
_FOOTER: Final = struct.Struct("<I8s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pack:
    """A sealed pack: its digest, which is its name, and its bytes."""

    sha256: str
    data: bytes

    @property
    def ref(self) -> PackRef:
        return PackRef(sha256=self.sha256, size=len(self.data))


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One frame as the index knows it: the `raw` bytes from `at` of the file `path`."""

    path: str
    at: int
    offset: int
    stored: int
    raw: int
    mode: int
    mtime_ns: int


class PackBuilder:
    """Collects frames until `full`, then seals them; use one builder a pack."""

    def __init__(self) -> None:
        self._body = bytearray()
        self._pieces: list[Piece] = []
        self._index_size = 0
        self._compressor = zstandard.ZstdCompressor(level=1, write_content_size=True)

    @property
    def full(self) -> bool:
        """Whether it is time to seal; the frame that made it so and the index still fit below `LIMIT`."""
        return len(self._body) + self._index_size >= TARGET

    @property
    def empty(self) -> bool:
        return not self._pieces

    def add(self, raw: bytes, *, path: str, at: int, mode: int, mtime_ns: int) -> tuple[int, int]:
        """Add 1 to `FRAME` bytes of a file; offset and stored length of the frame."""
        frame = self._compressor.compress(raw)
        offset = len(self._body)
        self._body += frame
        self._index_size += 80 + 2 * len(os.fsencode(path))
        self._pieces.append(
            Piece(path=path, at=at, offset=offset, stored=len(frame), raw=len(raw), mode=mode, mtime_ns=mtime_ns)
        )
        return offset, len(frame)

    def seal(self) -> Pack:
        index = self._compressor.compress(json.dumps([_row(piece) for piece in self._pieces]).encode())
        self._body += index
        self._body += _FOOTER.pack(len(index), MAGIC)
        data = bytes(self._body)
        self._body.clear()
        return Pack(sha256=hashlib.sha256(data).hexdigest(), data=data)


def verify(data: bytes, ref: PackRef) -> None:
    """Check a pack's bytes against its name.

    Raises:
        VerifyMismatch: They are cut short, or not what was stored.
    """
    if len(data) != ref.size or hashlib.sha256(data).hexdigest() != ref.sha256:
        raise VerifyMismatch(
            f"pack {ref.sha256[:16]} is damaged",
            why=f"{len(data)} bytes of {ref.size} came back, or their digest differs",
            hint="the object store returned other bytes than were stored; check its disks",
            pack=ref.sha256,
        )


def inflate(frame: bytes | memoryview, extent: Extent) -> bytes:
    """The raw bytes of one frame; never more than the extent says, whatever the frame claims.

    Raises:
        VerifyMismatch: The frame is no zstd frame of `extent.raw` bytes.
    """
    try:
        if zstandard.frame_content_size(frame) != extent.raw or extent.raw > FRAME:
            raise _damaged(extent, "its length is not what the manifest says")
        return zstandard.ZstdDecompressor().decompress(frame, max_output_size=extent.raw)
    except zstandard.ZstdError as error:
        raise _damaged(extent, str(error)) from error


def read_index(data: bytes) -> list[Piece]:
    """What a pack holds, from its own trailer.

    Raises:
        VerifyMismatch: It has no trailer of ours.
    """
    try:
        length, magic = _FOOTER.unpack(data[-_FOOTER.size :])
        index = data[-_FOOTER.size - length : -_FOOTER.size]
        honest = magic == MAGIC and 0 <= zstandard.frame_content_size(index) <= LIMIT
        return [_piece(row) for row in json.loads(zstandard.ZstdDecompressor().decompress(index if honest else b""))]
    except (ValueError, TypeError, struct.error, zstandard.ZstdError) as error:
        raise VerifyMismatch("not a pack", why=str(error), hint="the object is no pack of this program") from error


def _damaged(extent: Extent, why: str) -> VerifyMismatch:
    return VerifyMismatch(
        f"a frame of pack {extent.pack[:16]} is damaged",
        why=why,
        hint="the object store returned other bytes than were stored; check its disks",
        pack=extent.pack,
    )


def _row(piece: Piece) -> list[Any]:
    try:
        piece.path.encode()
        path, encoded = piece.path, False
    except UnicodeEncodeError:
        path, encoded = base64.b64encode(piece.path.encode("utf-8", "surrogateescape")).decode(), True
    return [path, encoded, piece.at, piece.offset, piece.stored, piece.raw, piece.mode, piece.mtime_ns]


def _piece(row: list[Any]) -> Piece:
    path, encoded, at, offset, stored, raw, mode, mtime_ns = row
    if encoded:
        path = base64.b64decode(path).decode("utf-8", "surrogateescape")
    return Piece(path=path, at=at, offset=offset, stored=stored, raw=raw, mode=mode, mtime_ns=mtime_ns)
