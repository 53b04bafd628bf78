"""Packs: many small files in one immutable object, so that a restore needs few requests.

Layout, all of it fixed by the key (the SHA-256 of the bytes):

    frame …          zstd, one a file, or one for each 64 KiB of a file beyond that
    index            zstd JSON: {"epoch": …, "frames": [row, …]}, a row being
                     [path, path is base64, offset in file, offset, stored, raw, mode, mtime_ns]
    index length     4 bytes, little endian
    magic            8 bytes, CLAWPK01, or CLAWPKS1 where each frame and the index are sealed (formats/envelope.py)

The index repeats what the manifest holds, so that files can be recovered even if every manifest is lost. It holds the
epoch under which the pack was written: the same frames give another pack under another lease. So a runtime that lost
its lease during a garbage collection never removes a pack of its successor.
"""

import base64
import hashlib
import json
import os
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import zstandard

from claw_runtime.errors import VerifyMismatch
from claw_runtime.formats.envelope import PLAIN, Sealer
from claw_runtime.formats.manifest import Extent, PackRef

FRAME: Final = 1024 * 1024
"""The longest frame that is read."""

CHUNK: Final = 64 * 1024
"""The longest frame that is written. A change of a database of 84 MB sends 1.7 % of it in pieces of this size, 17 % in
pieces of 1 MiB (measured, 205 rows)."""

TARGET: Final = 8 * 1024 * 1024
LIMIT: Final = 16 * 1024 * 1024
MAGIC: Final = b"CLAWPK01"
SEALED: Final = b"CLAWPKS1"
_FOOTER: Final = struct.Struct("<I8s")


class _Threads(threading.local):
    decompressor: zstandard.ZstdDecompressor


_threads: Final = _Threads()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pack:
    """A finished pack: its digest, which is its name, its bytes, and whether its frames are sealed."""

    sha256: str
    data: bytes
    sealed: bool = False

    @property
    def ref(self) -> PackRef:
        return PackRef(sha256=self.sha256, size=len(self.data), sealed=self.sealed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One frame in the index: the `raw` bytes of the file `path` from offset `at`."""

    path: str
    at: int
    offset: int
    stored: int
    raw: int
    mode: int
    mtime_ns: int


class PackBuilder:
    """Collects frames until `full`; use one builder per pack.

    Args:
        epoch: Epoch of the lease under which the pack is written.
        sealer: The tenant's sealer.
    """

    def __init__(self, epoch: int = 0, sealer: Sealer = PLAIN) -> None:
        self._epoch, self._sealer = epoch, sealer
        self._body = bytearray()
        self._rows: list[list[Any]] = []
        self._index_size = 0
        self._compressor = zstandard.ZstdCompressor(level=1, write_content_size=True)

    @property
    def full(self) -> bool:
        """Whether it is time to seal; the frame that made it so and the index still fit below `LIMIT`."""
        return len(self._body) + self._index_size >= TARGET

    @property
    def empty(self) -> bool:
        return not self._rows

    def add_all(self, pieces: Sequence[tuple[bytes, str, int, int, int]]) -> list[tuple[int, int]]:
        """Add many at once, each the bytes of a file, its path, where in it they lie, its mode and time: zstd is called
        once, and other threads go on meanwhile. Offset and stored length of each."""
        frames = self._compressor.multi_compress_to_buffer([raw for raw, *_ in pieces])
        return [
            self._take(frames[number].tobytes(), len(raw), path, at, mode, mtime_ns)
            for number, (raw, path, at, mode, mtime_ns) in enumerate(pieces)
        ]

    def add(self, raw: bytes, *, path: str, at: int, mode: int, mtime_ns: int) -> tuple[int, int]:
        """Add 1 to `FRAME` bytes of a file; offset and stored length of the frame."""
        return self._take(self._compressor.compress(raw), len(raw), path, at, mode, mtime_ns)

    def _take(self, frame: bytes, raw: int, path: str, at: int, mode: int, mtime_ns: int) -> tuple[int, int]:
        frame = self._sealer.seal(frame, "frame")
        offset = len(self._body)
        self._body += frame
        self._index_size += 80 + 2 * len(os.fsencode(path))
        self._rows.append([*_named(path), at, offset, len(frame), raw, mode, mtime_ns])
        return offset, len(frame)

    def seal(self) -> Pack:
        document = {"epoch": self._epoch, "frames": self._rows}
        index = self._sealer.seal(self._compressor.compress(json.dumps(document).encode()), "index")
        self._body += index
        self._body += _FOOTER.pack(len(index), SEALED if self._sealer.seals else MAGIC)
        data = bytes(self._body)
        self._body.clear()
        return Pack(sha256=hashlib.sha256(data).hexdigest(), data=data, sealed=self._sealer.seals)


def verify(data: bytes, ref: PackRef) -> None:
    """Check a pack's bytes against its name.

    Raises:
        VerifyMismatch: The bytes are truncated or differ from those stored.
    """
    if len(data) != ref.size or hashlib.sha256(data).hexdigest() != ref.sha256:
        raise VerifyMismatch(
            f"pack {ref.sha256[:16]} is damaged",
            why=f"{len(data)} of {ref.size} bytes were returned, or their digest differs",
            hint="the object store returned bytes that differ from those stored; check its disks",
            pack=ref.sha256,
        )


def inflate(frame: bytes | memoryview, extent: Extent, sealer: Sealer = PLAIN) -> bytes:
    """The raw bytes of one frame; never more than the extent says, whatever the frame claims.

    Raises:
        VerifyMismatch: The frame is no zstd frame of `extent.raw` bytes, or not sealed by this key.
    """
    frame = sealer.open(frame, "frame")
    try:
        if zstandard.frame_content_size(frame) != extent.raw or extent.raw > FRAME:
            raise _damaged(extent, "its length differs from the manifest's")
        return _decompressor().decompress(frame, max_output_size=extent.raw)
    except zstandard.ZstdError as error:
        raise _damaged(extent, str(error)) from error


def read_index(data: bytes, sealer: Sealer = PLAIN) -> list[Piece]:
    """The content of a pack, from its trailer.

    Raises:
        VerifyMismatch: The object has no valid trailer.
    """
    with _trailer():
        return [_piece(row) for row in _index(data, sealer)["frames"]]


def read_epoch(data: bytes, sealer: Sealer = PLAIN) -> int:
    """The epoch under which a pack was written, from its trailer: its last bytes from the index on.

    Raises:
        VerifyMismatch: The object has no valid trailer.
    """
    with _trailer():
        return int(_index(data, sealer)["epoch"])


def trailer_size(data: bytes) -> int:
    """Bytes of a pack's trailer, from the last bytes of the pack. Raises `VerifyMismatch`: there is no footer."""
    with _trailer():
        return int(_FOOTER.unpack(data[-_FOOTER.size :])[0]) + _FOOTER.size


def _index(data: bytes, sealer: Sealer) -> Any:
    length, magic = _FOOTER.unpack(data[-_FOOTER.size :])
    stored = data[-_FOOTER.size - length : -_FOOTER.size]
    index = sealer.open(stored, "index") if magic == SEALED else stored
    honest = magic in (MAGIC, SEALED) and 0 <= zstandard.frame_content_size(index) <= LIMIT
    return json.loads(zstandard.ZstdDecompressor().decompress(index if honest else b""))


@contextmanager
def _trailer() -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, KeyError, struct.error, zstandard.ZstdError) as error:
        raise VerifyMismatch("not a pack", why=str(error), hint="the object is not a pack of this program") from error


def _decompressor() -> zstandard.ZstdDecompressor:
    """One decompressor per thread: creating one costs more than decompressing a small file."""
    try:
        return _threads.decompressor
    except AttributeError:
        _threads.decompressor = zstandard.ZstdDecompressor()
        return _threads.decompressor


def _damaged(extent: Extent, why: str) -> VerifyMismatch:
    return VerifyMismatch(
        f"a frame of pack {extent.pack[:16]} is damaged",
        why=why,
        hint="the object store returned bytes that differ from those stored; check its disks",
        pack=extent.pack,
    )


def _named(path: str) -> tuple[str, bool]:
    """A path unchanged, or in base64 if its bytes are not UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return base64.b64encode(path.encode("utf-8", "surrogateescape")).decode(), True
    return path, False


def _piece(row: list[Any]) -> Piece:
    path, encoded, at, offset, stored, raw, mode, mtime_ns = row
    if encoded:
        path = base64.b64decode(path).decode("utf-8", "surrogateescape")
    return Piece(path=path, at=at, offset=offset, stored=stored, raw=raw, mode=mode, mtime_ns=mtime_ns)
