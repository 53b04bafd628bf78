"""A manifest is read as if somebody hostile wrote it, and says exactly what was put in."""

import json
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import zstandard
from claw_runtime.errors import RestoreFailed
from claw_runtime.formats import manifest
from claw_runtime.formats.manifest import Entry, Extent, Manifest, PackRef, Parent, Past
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


def _one_more(*row: Any) -> Callable[[dict[str, Any]], object]:
    def change(document: dict[str, Any]) -> None:
        document["rows"].append(list(row))
        document["entries"] += 1

    return change


def _field(number: int, place: int, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda document: document["rows"][number].__setitem__(slice(place, place + 1), [value])


FULL = made(
    Entry(path="d", type="d", mode=0o755, mtime_ns=5),
    FILE,
    Entry(path="d/l", type="l", mode=0o777, mtime_ns=5, target="/etc/\udcff"),
    parent=Parent(generation=1, key="k", sha256="c" * 64),
)


def changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    """The full manifest with one thing made wrong; its rows are `rows` of the document that is changed."""
    text = zstandard.ZstdDecompressor().decompress(manifest.encode(FULL))
    document, rows = (json.loads(line) for line in text.splitlines())
    document["rows"] = rows
    change(document)
    rows = document.pop("rows")
    text = "\n".join(json.dumps(line) for line in (document, rows))
    return zstandard.ZstdCompressor().compress(text.encode())


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
    with pytest.raises(RestoreFailed, match="manifest of tenant alice is not valid"):
        manifest.decode(changed(_one_more("d", path, 0o755, 0)), tenant=ALICE)


@pytest.mark.parametrize("encoded", ["Li4=", "Lw==", "YQBi", "%%%", "L2V0Yw=="])
def test_base64_hides_nothing(encoded: str) -> None:
    """`..`, `/`, NUL, rubbish and `/etc` in base64 are refused like plain ones."""
    with pytest.raises(RestoreFailed):
        manifest.decode(changed(_one_more("d", [encoded], 0o755, 0)), tenant=ALICE)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(v=1),
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
        lambda d: d.update(entries=4),
        lambda d: d.update(rows=None),
        lambda d: d.update(rows=[None]),
        lambda d: d.update(history=[[1, "c" * 64, "then", 3]]),
        lambda d: d.update(history=None),
        _one_more("d", "d", 0o755, 5),
        lambda d: d["rows"].reverse(),
        lambda d: d["rows"][0].append(7),
        lambda d: d["rows"][2].pop(),
        _field(0, 0, "c"),
        _field(0, 1, 7),
        _field(0, 1, ["ZA==", "ZA=="]),
        _field(0, 2, 0o1777),
        _field(0, 2, -1),
        _field(0, 3, 1.5),
        _field(0, 3, 2**63),
        _field(1, 4, -1),
        _field(1, 4, True),
        _field(1, 5, None),
        _field(1, 6, [0, 990, 20]),
        _field(1, 6, [1, 10, 20]),
        _field(1, 6, [-1, 10, 20]),
        _field(1, 6, [True, 10, 20]),
        _field(1, 6, [0, 10]),
        _field(1, 6, [[0, 10, 20, 8]]),
        _field(1, 6, None),
        _field(1, 7, {"kind": "exe", "xattrs": []}),
        lambda d: d["rows"][1].__setitem__(slice(4, 7), [2**21, "b" * 64, [0, 10, 20]]),
        _field(2, 4, ""),
        _field(2, 4, None),
    ],
)
def test_what_we_would_not_write_is_not_read(change: Callable[[dict[str, Any]], object]) -> None:
    """Unknown versions, other tenants, numbers out of range, duplicates, extents outside of their pack."""
    with pytest.raises(RestoreFailed, match="manifest of tenant alice is not valid"):
        manifest.decode(changed(change), tenant=ALICE)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 600) | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["kind", "xattrs", "v"]), inner),
    max_leaves=5,
)


@given(st.data())
def test_any_content_is_read_or_refused(data: st.DataObject) -> None:
    """Any value in any place gives a manifest that can be written again, or `RestoreFailed`; nothing else is raised."""

    def change(document: dict[str, Any]) -> None:
        where: Any = document
        while True:
            places = list(where) if isinstance(where, dict) else list(range(len(where)))
            place = data.draw(st.sampled_from(places))
            if not isinstance(where[place], dict | list) or not where[place] or data.draw(st.booleans()):
                where[place] = data.draw(JSON)
                return
            where = where[place]

    try:
        found = manifest.decode(changed(change), tenant=ALICE)
    except RestoreFailed:
        return
    assert manifest.decode(manifest.encode(found), tenant=ALICE) == found


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"rubbish",
        manifest.encode(FULL)[:-5],
        zstandard.ZstdCompressor().compress(b"[]"),
        zstandard.ZstdCompressor().compress(b"[" * 100_000),
        zstandard.ZstdCompressor().compress(b'{"v":2}'),
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
    with pytest.raises(RestoreFailed, match="out of range"):
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
    ("place", "value"),
    [
        (6, "b" * 64),
        (6, "../HEAD"),
        (6, "c" * 64 + ".1"),
        (6, [[]]),
        (6, [[-7]]),
        (6, [[0], [7]]),
        (6, [[0, 10, 20, 7, "short"]]),
        (6, [[0, 10, 20, 7, "b" * 64, 0]]),
        (7, {"kind": "plain", "xattrs": [["security.capability", ""]]}),
        (7, {"kind": "plain", "xattrs": [["user.x", "A" * 100_000]]}),
        (7, {"kind": "plain", "xattrs": [["user.x", "%%%"]]}),
        (7, []),
    ],
)
def test_what_is_no_hole_blob_or_attribute_is_refused(place: int, value: object) -> None:
    """Names that lead elsewhere, numbers that do not add up, attributes that are not the user's."""
    with pytest.raises(RestoreFailed):
        manifest.decode(changed(_field(1, place, value)), tenant=ALICE)


def test_names_of_attributes_that_are_not_text() -> None:
    """They are base64 in an array, as names of files are; the lone surrogates of earlier commits are read too."""
    odd = made(replace(FILE, path="f", xattrs=(("user.\udcff=%", b"x"), ("user.ü", b""))))
    data = manifest.encode(odd)

    assert b'[["dXNlci7/PSU="],"eA=="]' in zstandard.decompress(data)
    assert manifest.decode(data, tenant=ALICE) == odd
    more = {"kind": "sqlite", "xattrs": [["user.\udcff=%", "eA=="], ["user.ü", ""]]}
    assert manifest.decode(changed(_field(1, 7, more)), tenant=ALICE).entries[1].xattrs == odd.entries[0].xattrs
    for name in ("user.\ud800", ["!"], 7, [], ["c2VjdXJpdHkueA=="]):
        with pytest.raises(RestoreFailed):
            manifest.decode(changed(_field(1, 7, {"kind": "plain", "xattrs": [[name, ""]]})), tenant=ALICE)


def test_ten_thousand_files_take_little_time_and_memory() -> None:
    """Neither side holds the whole text: a tenth of a second and a few hundred bytes an entry are far from it."""
    entries = [replace(FILE, path=f"{number:05}", kind="plain") for number in range(10_000)]
    document = made(*entries)
    tracemalloc.start()
    try:
        data = manifest.encode(document)
        written = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        read = manifest.decode(data, tenant=ALICE)
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()

    assert read == document
    assert written < 6_000_000
    assert peak < 12_000_000
