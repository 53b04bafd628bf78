"""The writer of state format 2, as claw had it before deltas: for buckets that the present program must read."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace

import pytest
import zstandard
from claw_runtime.formats import manifest
from claw_runtime.formats.manifest import Entry, Manifest
from claw_runtime.state.commit import publisher


def write_format_2(patch: pytest.MonkeyPatch, content: Callable[[str], bytes]) -> None:
    """Let commits write format 2 for as long as the patch lasts.

    Args:
        content: Returns the bytes of a file of the tree; a row of a file with holes had the digest of all of them.
    """
    encode = manifest.encode  # of format 3

    def written(document: Manifest) -> bytes:
        entries = tuple(_with_whole_digest(entry, content) for entry in document.entries)
        header, *rows = zstandard.decompress(encode(replace(document, entries=entries, base=None))).splitlines()
        told = json.loads(header)
        del told["base"]
        text = b"\n".join([json.dumps({**told, "v": 2}, separators=(",", ":")).encode(), *rows, b""])
        return zstandard.ZstdCompressor(level=3).compress(text)

    patch.setattr(publisher.manifests, "encode", written)


def _with_whole_digest(entry: Entry, content: Callable[[str], bytes]) -> Entry:
    if not any(extent.hole for extent in entry.extents):
        return entry
    return replace(entry, sha256=hashlib.sha256(content(entry.path)).hexdigest())
