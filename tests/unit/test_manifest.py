"""A manifest is read as if somebody hostile wrote it, and says exactly what was put in."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import zstandard
from claw_runtime import manifest
from claw_runtime.errors import RestoreFailed
from claw_runtime.manifest import Entry, Extent, Manifest, PackRef, Parent, Past
from claw_runtime.tenancy import tenant_id
from hypothesis import given
from hypothesis import strategies as st

ALICE = tenant_id("alice")
PACK = PackRef(sha256="a" * 64, size=1000)
FILE = Entry(
    path="d/f",
    type="f",
    mode=0o640,
    mtime_ns=-1,
    size=7,
    sha256="b" * 64,
    extents=(Extent(pack="a" * 64, offset=10, stored=20, raw=7),),
    kind="sqlite",
)


def made(*entries: Entry, parent: Parent | None = None) -> Manifest:
    return Manifest(
        tenant=ALICE,
        generation=2,
        parent=parent,
        created="2026-01-01T00:00:00.000+00:00",
        image="sha256:1",
        application="openclaw 2026.6.11",
        entries=entries,
        packs=(PACK,),
    )


FULL = made(
    Entry(path="d", type="d", mode=0o755, mtime_ns=5),
    FILE,
    Entry(path="d/l", type="l", mode=0o777, mtime_ns=5, target="/etc/\udcff"),
    parent=Parent(generation=1, key="k", sha256="c" * 64),
)


def changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    """The full manifest with one thing made wrong."""
    document = json.loads(zstandard.ZstdDecompressor().decompress(manifest.encode(FULL)))
    change(document)
    return zstandard.ZstdCompressor().compress(json.dumps(document).encode())


def test_a_manifest_comes_back_as_it_was() -> None:
    """All of it, and equal manifests are equal bytes."""
    assert manifest.decode(manifest.encode(FULL), tenant=ALICE) == FULL
    assert manifest.encode(FULL) == manifest.encode(FULL)
    assert (FULL.files, FULL.size, FULL.find("d/f"), FULL.find("x")) == (1, 7, FILE, None)


names = st.binary(min_size=1, max_size=255).filter(lambda name: not set(name) & {0, 47} and name not in (b".", b".."))


@given(names, names)
def test_any_name_that_linux_allows_comes_back(name: bytes, target: bytes) -> None:
    """Control characters, backslashes and bytes that are no UTF-8 included."""
    path, where = (part.decode("utf-8", "surrogateescape") for part in (name, target))
    found = made(Entry(path=path, type="l", mode=0o777, mtime_ns=0, target=where))
    assert manifest.decode(manifest.encode(found), tenant=ALICE) == found


@pytest.mark.parametrize(
    "path",
    [
        "",
        "..",
        "../x",
        "/etc/passwd",
        "a/../b",
        "a//b",
        "a/",
        "./a",
        "a\0b",
        "a/.",
        "\udcff",
        "nowhere/x",
        "d/f/x",
        "d/l/x",
    ],
)
def test_a_path_that_leads_out_is_refused(path: str) -> None:
    """Upwards, absolute, doubled, below a file, below a link, below nothing."""
    extra = {"path": path, "type": "d", "mode": 0o755, "mtime_ns": 0}
    with pytest.raises(RestoreFailed, match="manifest of tenant alice is not valid"):
        manifest.decode(changed(lambda document: document["entries"].append(extra)), tenant=ALICE)


@pytest.mark.parametrize("encoded", ["Li4=", "Lw==", "YQBi", "%%%", "L2V0Yw=="])
def test_base64_hides_nothing(encoded: str) -> None:
    """`..`, `/`, NUL, rubbish and `/etc` in base64 are refused like plain ones."""
    extra = {"path": encoded, "path_b64": True, "type": "d", "mode": 0o755, "mtime_ns": 0}
    with pytest.raises(RestoreFailed):
        manifest.decode(changed(lambda document: document["entries"].append(extra)), tenant=ALICE)


def _entry(number: int, **values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda document: document["entries"][number].update(values)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(v=2),
        lambda d: d.pop("v"),
        lambda d: d.update(tenant="bob"),
        lambda d: d.update(tenant="../x"),
        lambda d: d.update(generation=-1),
        lambda d: d.update(generation=True),
        lambda d: d.update(generation="2"),
        lambda d: d.update(parent=7),
        lambda d: d.update(packs=[["a" * 63, 10]]),
        lambda d: d.update(packs=[["A" * 64, 10]]),
        lambda d: d.update(packs=[["a" * 64, 2**40]]),
        lambda d: d.update(packs=[]),
        lambda d: d.update(entries=None),
        lambda d: d["entries"].append(d["entries"][0]),
        lambda d: d["entries"].reverse(),
        _entry(0, mode=0o1777),
        _entry(0, mode=-1),
        _entry(0, mtime_ns=1.5),
        _entry(0, mtime_ns=2**63),
        _entry(0, type="c"),
        _entry(1, size=8),
        _entry(1, sha256=None),
        _entry(1, kind="exe"),
        _entry(1, extents=[[0, 990, 20, 7]]),
        _entry(1, extents=[[1, 10, 20, 7]]),
        _entry(1, extents=[[-1, 10, 20, 7]]),
        _entry(1, extents=[[0, 10, 20, 2**21]], size=2**21),
        _entry(1, extents=[[0, 10, 20]]),
        _entry(2, target=""),
        _entry(2, target=None),
    ],
)
def test_what_we_would_not_write_is_not_read(change: Callable[[dict[str, Any]], object]) -> None:
    """Unknown versions, other tenants, numbers out of range, duplicates, extents outside of their pack."""
    with pytest.raises(RestoreFailed, match="manifest of tenant alice is not valid"):
        manifest.decode(changed(change), tenant=ALICE)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"rubbish",
        manifest.encode(FULL)[:-5],
        zstandard.ZstdCompressor().compress(b"[]"),
        zstandard.ZstdCompressor().compress(b"[" * 100_000),
        zstandard.ZstdCompressor().compress(b'{"v":1}'),
        zstandard.ZstdCompressor(write_content_size=False).compress(b"{}"),
    ],
)
def test_damaged_bytes_are_refused(data: bytes) -> None:
    """Cut, empty, not JSON, nested without end, of unknown length."""
    with pytest.raises(RestoreFailed):
        manifest.decode(data, tenant=ALICE)


def test_a_bomb_is_refused_before_it_is_inflated(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stated length is checked first."""
    monkeypatch.setattr(manifest, "MAX_BYTES", 1000)
    with pytest.raises(RestoreFailed, match="absurd"):
        manifest.decode(zstandard.ZstdCompressor().compress(b" " * 1001), tenant=ALICE)


def test_entries_are_the_same_wherever_their_bytes_lie() -> None:
    """Extents do not count, everything else does."""
    moved = Entry(path="d/f", type="f", mode=0o640, mtime_ns=-1, size=7, sha256="b" * 64, extents=(), kind="sqlite")
    touched = Entry(path="d/f", type="f", mode=0o640, mtime_ns=0, size=7, sha256="b" * 64, kind="sqlite")
    assert FILE.same_as(moved)
    assert not FILE.same_as(touched)


def test_holes_blobs_attributes_and_history_come_back() -> None:
    """What a manifest tells beyond names and frames."""
    digest = "b" * 64
    part = Extent(pack=PACK.sha256, offset=0, stored=10, raw=20, sha256="d" * 64)
    sparse = replace(
        FILE,
        path="a",
        size=2**40 + 20,
        sha256=digest,
        extents=(manifest.hole(2**40), part),
        xattrs=(("user.tag", b"\0x"),),
    )
    large = replace(FILE, path="b", size=9, sha256=digest, extents=(), kind="plain", blob=f"{digest}.7")
    past = Past(generation=1, sha256="c" * 64, created="then", files=3, size=5)
    document = replace(made(sparse, large), packs=(replace(PACK, sealed=True),), history=(past,))

    assert manifest.decode(manifest.encode(document), tenant=ALICE) == document


@pytest.mark.parametrize(
    "change",
    [
        {"blob": "b" * 64},
        {"blob": "../HEAD"},
        {"blob": "c" * 64 + ".1"},
        {"extents": [[-1, 1, 0, 7]]},
        {"extents": [[-1, 0, 0, -7]]},
        {"extents": [[0, 10, 20, 7, "short"]]},
        {"xattrs": [["security.capability", ""]]},
        {"xattrs": [["user.x", "A" * 100_000]]},
    ],
)
def test_what_is_no_hole_blob_or_attribute_is_refused(change: dict[str, object]) -> None:
    """Names that lead elsewhere, numbers that do not add up, attributes that are not the user's."""
    with pytest.raises(RestoreFailed):
        manifest.decode(changed(lambda document: document["entries"][1].update(change)), tenant=ALICE)
