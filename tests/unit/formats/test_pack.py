"""Packs give back what went in, know what they hold, and never inflate beyond what was promised."""

import os
from dataclasses import replace

import pytest
import zstandard
from claw_runtime.errors import VerifyMismatch
from claw_runtime.formats import pack as packs
from claw_runtime.formats.envelope import PLAIN, Aes
from claw_runtime.formats.manifest import Extent
from claw_runtime.formats.pack import PackBuilder
from claw_runtime.tenancy import TenantId


def test_frames_come_back() -> None:
    """By offset and stored length, each on its own."""
    builder = PackBuilder()
    bodies = [b"x", b"blue" * 1000, os.urandom(packs.FRAME)]
    places = [builder.add(body, path=f"f{i}", at=0, mode=0o644, mtime_ns=1) for i, body in enumerate(bodies)]
    pack = builder.seal()
    packs.verify(pack.data, pack.ref)
    for body, (offset, stored) in zip(bodies, places, strict=True):
        extent = Extent(pack=pack.sha256, offset=offset, stored=stored, raw=len(body))
        assert packs.inflate(pack.data[offset : offset + stored], extent) == body


def test_the_index_tells_the_files_apart_without_a_manifest() -> None:
    """Path, place in the file, length, mode and time of every frame, hostile names included."""
    builder = PackBuilder()
    for at, path in enumerate(("plain", "ü\n", "\udcff")):
        builder.add(b"body", path=path, at=at, mode=0o600, mtime_ns=-7)
    pieces = packs.read_index(builder.seal().data)
    assert [(piece.path, piece.at, piece.raw, piece.mode, piece.mtime_ns) for piece in pieces] == [
        ("plain", 0, 4, 0o600, -7),
        ("ü\n", 1, 4, 0o600, -7),
        ("\udcff", 2, 4, 0o600, -7),
    ]


def test_the_same_tree_gives_the_same_pack() -> None:
    """So that a commit that is repeated after a crash sends nothing twice."""

    def build() -> str:
        builder = PackBuilder()
        builder.add(b"body", path="f", at=0, mode=0o600, mtime_ns=0)
        return builder.seal().sha256

    assert build() == build()


@pytest.mark.parametrize(("body", "name"), [(packs.FRAME, 10), (1, 4000)])
def test_no_pack_outgrows_its_limit(body: int, name: int) -> None:
    """Neither through content that does not compress nor through names that do not."""
    builder = PackBuilder()
    while not builder.full:
        builder.add(os.urandom(body), path=os.fsdecode(os.urandom(name)), at=0, mode=0, mtime_ns=0)
    assert packs.TARGET // 3 < len(builder.seal().data) <= packs.LIMIT


def test_other_bytes_are_not_the_pack() -> None:
    """One bit, one byte less, one more."""
    builder = PackBuilder()
    builder.add(b"body", path="f", at=0, mode=0, mtime_ns=0)
    pack = builder.seal()
    flipped = bytes([pack.data[0] ^ 1]) + pack.data[1:]
    for data in (flipped, pack.data[:-1], pack.data + b"x", b""):
        with pytest.raises(VerifyMismatch, match="is damaged"):
            packs.verify(data, pack.ref)


def test_a_frame_never_inflates_beyond_its_promise() -> None:
    """A frame that claims or holds more than the manifest says is refused."""
    frame = zstandard.ZstdCompressor().compress(b"\0" * 100_000)
    extent = Extent(pack="a" * 64, offset=0, stored=len(frame), raw=10)
    silent = zstandard.ZstdCompressor(write_content_size=False).compress(b"\0" * 100_000)
    for data in (frame, silent, b"rubbish", b""):
        with pytest.raises(VerifyMismatch, match="is damaged"):
            packs.inflate(data, extent)
    huge = zstandard.ZstdCompressor().compress(b"\0" * (packs.FRAME + 1))
    with pytest.raises(VerifyMismatch):
        packs.inflate(huge, replace(extent, raw=packs.FRAME + 1))


@pytest.mark.parametrize(
    "data", [b"", b"x" * 5, b"x" * 100, b"\xff\xff\xff\xff" + packs.MAGIC, b"\0\0\0\0" + packs.MAGIC]
)
def test_what_is_no_pack_has_no_index(data: bytes) -> None:
    """Short, foreign, or with a length that leads nowhere."""
    with pytest.raises(VerifyMismatch, match="not a pack"):
        packs.read_index(data)


def test_the_same_frames_make_another_pack_in_another_epoch() -> None:
    """So a fenced runtime can never remove what its successor relies on."""
    packed = []
    for epoch in (1, 2, 2):
        builder = PackBuilder(epoch)
        builder.add(b"blue", path="a", at=0, mode=0o600, mtime_ns=1)
        packed.append(builder.seal().sha256)

    assert packed[0] != packed[1] == packed[2]


def test_a_sealed_pack_shows_nothing_and_opens_with_its_key_alone() -> None:
    """Neither content nor names; another key, another tenant and a frame in the index's place are all refused."""
    key = os.urandom(32)
    sealer, names = Aes(key, TenantId("alice")), b"holiday-in-rome.md"
    builder = PackBuilder(1, sealer)
    offset, stored = builder.add(b"likes blue " * 9, path=names.decode(), at=0, mode=0o600, mtime_ns=1)
    pack = builder.seal()
    extent = Extent(pack=pack.sha256, offset=offset, stored=stored, raw=99)
    frame = pack.data[offset : offset + stored]

    assert pack.ref.sealed
    assert names not in pack.data
    assert b"\x28\xb5\x2f\xfd" not in pack.data  # zstd's magic
    assert packs.inflate(frame, extent, sealer) == b"likes blue " * 9
    assert [piece.path for piece in packs.read_index(pack.data, sealer)] == [names.decode()]
    for stranger in (Aes(os.urandom(32), TenantId("alice")), Aes(key, TenantId("bob")), PLAIN):
        with pytest.raises(VerifyMismatch):
            packs.inflate(frame, extent, stranger)
    with pytest.raises(VerifyMismatch):
        sealer.open(frame, "index")
