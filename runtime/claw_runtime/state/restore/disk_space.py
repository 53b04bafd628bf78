"""Whether a tree fits on the disk where it is to be restored.

Holes need no room. Those of at least a chunk are in the manifest. Shorter ones are pages of zeros in frames, which only
the frames show: they are fetched and counted if the answer depends on them.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from claw_runtime.errors import DiskFull
from claw_runtime.formats import pack as packs
from claw_runtime.formats.envelope import PLAIN, Sealer
from claw_runtime.formats.manifest import Entry, Extent, Manifest
from claw_runtime.fsutil import pages_written, room
from claw_runtime.ports import ObjectStore
from claw_runtime.state.restore.restore import Fetching, Frame, may_have_holes

_BLOCK: Final = 4096


def check_room(store: ObjectStore, manifest: Manifest, directory: Path, sealer: Sealer = PLAIN) -> None:
    """Check that a tree fits where `directory` lies.

    Raises:
        DiskFull: It does not.
        VerifyMismatch: A frame that was counted is damaged.
        ObjectMissing, StoreUnavailable, StoreDenied, BucketMissing: The store, when frames had to be counted.
    """
    left, need = room(directory), _needed(manifest, lambda _extent: True)
    if need > left.size:
        need = least = _needed(manifest, lambda extent: not may_have_holes(extent))
        if least <= left.size:
            need += _Counting(store, manifest, sealer).bytes()
    if need > left.size or (left.files is not None and len(manifest.entries) > left.files):
        raise DiskFull(
            f"no room to restore tenant {manifest.tenant}",
            why=f"{need} bytes in {len(manifest.entries)} files are needed, {left.size} bytes and "
            f"{'any number of' if left.files is None else left.files} files are left",
            hint="make room on the disk that holds the data directory, then claim again",
            tenant=manifest.tenant,
            need=need,
            left=left.size,
        )


def _needed(manifest: Manifest, counts: Callable[[Extent], bool]) -> int:
    """Bytes on the disk for directories, and for the frames that count."""
    return sum(_blocks(entry, counts) for entry in manifest.entries) * _BLOCK


def _blocks(entry: Entry, counts: Callable[[Extent], bool]) -> int:
    """Disk blocks that an entry needs."""
    if entry.extents:
        written = sum(extent.raw for extent in entry.extents if extent.pack and counts(extent))
    else:
        written = entry.size
    return -(-written // _BLOCK) + (entry.type == "d")


class _Counting(Fetching):
    """Counts the pages that are not zeros, in frames that may hold such pages."""

    def __init__(self, store: ObjectStore, manifest: Manifest, sealer: Sealer) -> None:
        super().__init__(store, manifest, sealer, may_have_holes)
        self._pages = list[int]()

    def bytes(self) -> int:
        """What these frames need on the disk."""
        self.fetch()
        return sum(self._pages) * _BLOCK

    def take(self, frames: Sequence[Frame], data: memoryview, start: int, sealer: Sealer) -> None:
        for frame in frames:
            begin = frame.extent.offset - start
            raw = packs.inflate(data[begin : begin + frame.extent.stored], frame.extent, sealer)
            self._pages.append(pages_written(raw))
