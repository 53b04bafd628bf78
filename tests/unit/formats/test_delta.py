"""A manifest may be a delta of a whole one: it says exactly what became of the tree, and nothing wrong is believed."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import zstandard
from claw_runtime.errors import RestoreFailed
from claw_runtime.formats import manifest
from claw_runtime.formats.entries import places_digest, splices, tree_order
from claw_runtime.formats.manifest import Base, Entry, Extent, Manifest, PackRef, hole
from claw_runtime.tenancy import tenant_id
from hypothesis import given
from hypothesis import strategies as st

ALICE, BOB = tenant_id("alice"), tenant_id("bob")
OLD, NEW, UNUSED = (PackRef(sha256=letter * 64, size=100_000) for letter in "abc")
SHA256 = "e" * 64  # of the base's object


def place(number: int, pack: PackRef = OLD) -> Extent:
    return Extent(pack=pack.sha256, offset=number, stored=10, raw=50, sha256=hashlib.sha256(b"%d" % number).hexdigest())


def file(path: str, *extents: Extent, digest: str = "b" * 64) -> Entry:
    return Entry(
        path=path, type="f", mode=0o644, mtime_ns=1, size=sum(e.raw for e in extents), sha256=digest, extents=extents
    )


def folder(path: str) -> Entry:
    return Entry(path=path, type="d", mode=0o755, mtime_ns=1)


def whole(*entries: Entry, packs: tuple[PackRef, ...] = (OLD,), generation: int = 1) -> Manifest:
    return Manifest(
        tenant=ALICE,
        generation=generation,
        parent=None,
        created="2026-01-01T00:00:00.000+00:00",
        image="",
        application="",
        entries=tuple(sorted(entries, key=lambda entry: tree_order(entry.path))),
        packs=packs,
    )


def delta(base: Manifest, *entries: Entry, packs: tuple[PackRef, ...] = (OLD,)) -> Manifest:
    return replace(whole(*entries, packs=packs, generation=5), base=Base(sha256=SHA256, document=base))


LARGE = file("d/large", *map(place, range(20)))
BASE = whole(folder("d"), LARGE, file("d/small", place(90)), folder("e"), file("z", place(91)))


def read(data: bytes, base: Manifest = BASE) -> Manifest:
    return manifest.decode(data, tenant=ALICE, base_of=lambda *_: base)


def lines(data: bytes) -> list[Any]:
    return [json.loads(line) for line in zstandard.decompress(data).splitlines()]


def test_a_delta_says_only_what_is_other_than_in_its_base() -> None:
    """Names that are new, changed or gone, and packs that the base lacks; what comes back is the whole tree."""
    small = replace(file("d/small", place(7, NEW)), mode=0o600)
    link = Entry(path="a", type="l", mode=0o777, mtime_ns=1, target="z")
    document = delta(BASE, link, folder("d"), LARGE, small, file("z", place(91)), packs=(OLD, NEW))
    header, rows = lines(manifest.encode(document))

    assert (header["v"], header["base"], header["entries"], header["packs"]) == (
        3,
        [1, SHA256],
        5,
        [[NEW.sha256, NEW.size]],
    )
    assert rows[0] == ["-", "e"]
    assert [row[1] for row in rows[1:]] == ["a", "d/small"]
    assert read(manifest.encode(document)) == document
    assert manifest.encode(read(manifest.encode(document))) == manifest.encode(document)


def test_packs_that_nothing_needs_any_more_are_dropped() -> None:
    """The pack of a file that is gone is not the generation's any more, although the base lists it."""
    base = whole(file("x", place(1)), file("y", place(2, UNUSED)), packs=(OLD, UNUSED))
    assert read(manifest.encode(delta(base, file("x", place(1)))), base).packs == (OLD,)


def test_of_a_large_file_only_changed_places_are_written() -> None:
    """A changed page, an appended and a cut end; a delta lists a completely new file in full."""
    grown = file("d/large", *LARGE.extents[:5], place(50, NEW), *LARGE.extents[6:], place(51, NEW), digest="c" * 64)
    document = delta(BASE, folder("d"), grown, packs=(OLD, NEW))
    data = manifest.encode(document)
    changes = lines(data)[1][-1][6]["changes"]
    assert [(first, count, len(places)) for first, count, places in changes] == [(5, 1, 1), (20, 0, 1)]
    assert read(data) == document

    cut = delta(BASE, folder("d"), file("d/large", *LARGE.extents[:12]))
    assert lines(manifest.encode(cut))[1][-1][6] == {"changes": [[12, 8, []]]}
    assert read(manifest.encode(cut)) == cut

    other = delta(BASE, folder("d"), file("d/large", *(place(n, NEW) for n in range(20))), packs=(NEW,))
    assert isinstance(lines(manifest.encode(other))[1][-1][6], list)
    assert read(manifest.encode(other)) == other


places = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3)), max_size=12)


@given(places, places)
def test_any_list_of_places_becomes_any_other(before: list[tuple[int, int]], after: list[tuple[int, int]]) -> None:
    """The changes, applied to the first list, give the second."""
    old, new = ([replace(place(n), raw=raw) if n else hole(raw) for n, raw in some] for some in (before, after))
    made = list(old)
    for one in reversed(splices(old, new)):
        made[one.first : one.first + one.count] = one.places
    assert made == new


@given(st.dictionaries(st.sampled_from("abc"), st.booleans()), st.dictionaries(st.sampled_from("abcd"), st.booleans()))
def test_any_tree_becomes_any_other(before: dict[str, bool], after: dict[str, bool]) -> None:
    """Files become directories with content, and the other way."""

    def tree(names: dict[str, bool]) -> list[Entry]:
        return [
            entry
            for name, is_file in names.items()
            for entry in ([file(name, place(1))] if is_file else [folder(name), file(f"{name}/in", place(2))])
        ]

    base = whole(*tree(before))
    document = delta(base, *tree(after), packs=(OLD,) if after else ())
    assert read(manifest.encode(document), base) == document


def changed(change: Callable[[dict[str, Any], list[Any]], object]) -> bytes:
    """A delta with one thing made wrong."""
    grown = file("d/large", *LARGE.extents[:5], place(50, NEW), *LARGE.extents[6:])
    header, rows = lines(manifest.encode(delta(BASE, folder("d"), grown, packs=(OLD, NEW))))
    change(header, rows)
    text = "\n".join(json.dumps(line) for line in (header, rows))
    return zstandard.ZstdCompressor().compress(text.encode())


@pytest.mark.parametrize(
    "change",
    [
        lambda header, _: header.update(base=[5, SHA256]),
        lambda header, _: header.update(base=[6, SHA256]),
        lambda header, _: header.update(base=[2, SHA256]),
        lambda header, _: header.update(base=[1, "short"]),
        lambda header, _: header.update(base=[1]),
        lambda header, _: header.update(base=7),
        lambda header, _: header.pop("base"),
        lambda header, _: header.update(v=2),
        lambda header, _: header.update(base=None),
        lambda header, _: header.update(packs=[[OLD.sha256, OLD.size]]),
        lambda header, _: header.update(packs=[[NEW.sha256, NEW.size]] * 2),
        lambda header, _: header.update(packs=[]),
        lambda header, _: header.update(entries=4),
        lambda _, rows: rows.append(["-", "nowhere"]),
        lambda _, rows: rows.append(["-", "z"]),
        lambda _, rows: rows.append(["-", "d", 1]),
        lambda _, rows: rows.append(["-"]),
        lambda _, rows: rows.append([]),
        lambda _, rows: rows.append(["-", "d"]),
        lambda _, rows: rows.append(rows[-1]),
        lambda _, rows: rows.append(["d", "d/large", 0o755, 1]),
        lambda _, rows: rows.append(["d", "nowhere/x", 0o755, 1]),
        lambda _, rows: rows.append(["l", "d", 0o777, 1, "z"]),
        lambda _, rows: rows[-1].__setitem__(1, "d/new"),
        lambda _, rows: rows[-1].__setitem__(4, 999),
        lambda _, rows: rows[-1].__setitem__(6, {}),
        lambda _, rows: rows[-1].__setitem__(6, {"changes": [[5, 1, []]]}),
        lambda _, rows: rows[-1].__setitem__(6, {"changes": [[20, 1, []]]}),
        lambda _, rows: rows[-1].__setitem__(6, {"changes": [[-1, 0, []]]}),
        lambda _, rows: rows[-1].__setitem__(6, {"changes": [[5, 0, []], [4, 0, []]]}),
        lambda _, rows: rows[-1].__setitem__(6, {"changes": [[5, 2, []], [6, 0, [[50], [50]]]]}),
    ],
)
def test_a_delta_that_we_would_not_write_is_refused(change: Callable[[dict[str, Any], list[Any]], object]) -> None:
    """A base that is no earlier one, or another than it names; names that are gone and were not there, or occur twice;
    changes outside of the base's places."""
    with pytest.raises(RestoreFailed, match="manifest of tenant alice is not valid"):
        read(changed(change))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 99)
    | st.floats(allow_nan=False)
    | st.sampled_from(["-", "d", "z", "f"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["changes", "kind", "base"]), inner),
    max_leaves=5,
)


@given(st.data())
def test_any_content_of_a_delta_is_read_or_refused(data: st.DataObject) -> None:
    """Any value in any place gives a tree that can be written again, or `RestoreFailed`; nothing else is raised."""

    def change(header: dict[str, Any], rows: list[Any]) -> None:
        where: Any = [header, rows]
        while True:
            places = list(where) if isinstance(where, dict) else list(range(len(where)))
            place = data.draw(st.sampled_from(places))
            if not isinstance(where[place], dict | list) or not where[place] or data.draw(st.booleans()):
                if where[place] is not header and where[place] is not rows:
                    where[place] = data.draw(JSON)
                    return
                continue
            where = where[place]

    try:
        found = read(changed(change))
    except RestoreFailed:
        return
    assert read(manifest.encode(found)) == found


def test_a_base_that_has_a_base_is_refused() -> None:
    """A chain would make a restore read ever more; a delta where a whole manifest is expected is refused too."""
    middle = delta(BASE, folder("d"))
    with pytest.raises(RestoreFailed, match="its base is not the whole manifest"):
        read(manifest.encode(replace(delta(middle), generation=6)), middle)
    with pytest.raises(RestoreFailed, match="a delta where a whole manifest is expected"):
        manifest.decode(manifest.encode(middle), tenant=ALICE)


def test_a_base_of_another_tenant_is_refused() -> None:
    """Even if its digest is the named one."""
    with pytest.raises(RestoreFailed, match="its base is not the whole manifest"):
        read(manifest.encode(delta(BASE)), replace(BASE, tenant=BOB))


def test_the_digest_of_a_file_with_holes_is_that_of_its_places() -> None:
    """As the format has it; a row whose digest is another is refused, and one of format 2 is believed."""
    part = place(1)
    text = f"4096\n50 {part.sha256}\n10\n".encode()
    digest = f"places:{hashlib.sha256(text).hexdigest()}"
    extents = (hole(4096), part, hole(10))
    sparse = file("s", *extents, digest=digest)
    assert sparse.places == digest == places_digest([(4096, None, True), (50, part.sha256, False), (10, None, True)])
    assert manifest.decode(manifest.encode(whole(sparse)), tenant=ALICE).entries == (sparse,)
    for wrong in (replace(sparse, sha256=digest[:-1] + "x"), file("s", part, place(2), digest=digest)):
        with pytest.raises(RestoreFailed):
            manifest.decode(manifest.encode(whole(wrong)), tenant=ALICE)
    old = replace(sparse, sha256="f" * 64)
    assert manifest.decode(manifest.encode(whole(old)), tenant=ALICE).entries == (old,)
    assert old.same_as(sparse)
    assert not old.same_as(replace(sparse, extents=(hole(4096), place(2), hole(10))))
    assert not file("s", part).same_as(file("s", part, digest="c" * 64))


def test_a_delta_of_few_changes_is_short_and_read_soon() -> None:
    """Of 10,000 names three changed: a few hundred bytes, whatever the tree holds."""
    entries = [
        file(f"{number:05}", place(number), digest=hashlib.sha256(b"%d" % number).hexdigest())
        for number in range(10_000)
    ]
    base = whole(*entries)
    for number in (7, 5000, 9000):
        entries[number] = file(f"{number:05}", place(number, NEW))
    document = delta(base, *entries, packs=(OLD, NEW))
    data = manifest.encode(document)
    assert len(data) < 800 < 300_000 < len(manifest.encode(base))
    assert read(data, base) == document
