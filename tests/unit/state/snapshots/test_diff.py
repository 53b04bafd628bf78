"""What differs between two trees, and what comes of putting parts of one into the other."""

from typing import Any

import pytest
from claw_runtime.errors import Conflict, StateMissing
from claw_runtime.formats.manifest import Entry
from claw_runtime.state.snapshots.diff import compare, order, put_back, same
from claw_runtime.tenancy import tenant_id

ALICE = tenant_id("alice")


def file(path: str, text: str = "x", **more: Any) -> Entry:
    told: dict[str, Any] = {"mode": 0o644, "mtime_ns": 1, "size": len(text), "sha256": text.ljust(64, "0"), **more}
    return Entry(path=path, type="f", **told)


def folder(path: str, mode: int = 0o755, mtime_ns: int = 1) -> Entry:
    return Entry(path=path, type="d", mode=mode, mtime_ns=mtime_ns)


def link(path: str, target: str) -> Entry:
    return Entry(path=path, type="l", mode=0o777, mtime_ns=1, target=target)


def told(before: list[Entry], after: list[Entry]) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(change.kind, change.path, change.what) for change in compare(before, after)]


def names(entries: tuple[Entry, ...]) -> list[str]:
    return [entry.path for entry in entries]


def test_every_kind_of_difference_has_its_name() -> None:
    """What is new, gone or other, and in what; a time alone is no change, since a directory's follows its files."""
    before = [folder("d"), file("d/a", "old"), file("d/b"), file("d/m"), file("gone"), link("l", "a"), file("t")]
    after = [
        *(folder("d", mtime_ns=9), file("d/a", "new!"), file("d/b", mtime_ns=9), file("d/m", mode=0o600)),
        *(link("l", "b"), file("new"), folder("t")),
    ]
    assert told(before, after) == [
        ("changed", "d/a", ("content",)),
        ("changed", "d/m", ("mode",)),
        ("removed", "gone", ()),
        ("changed", "l", ("target",)),
        ("added", "new", ()),
        ("changed", "t", ("type",)),
    ]
    assert told([file("x", xattrs=(("user.a", b"1"),))], [file("x")]) == [("changed", "x", ("attributes",))]
    assert told(after, after) == []


def test_times_make_a_difference_to_a_restore_all_the_same() -> None:
    """What `compare` does not mention is not taken for equal."""
    assert not same([file("a")], [file("a", mtime_ns=9)])
    assert not same([file("a")], [])
    assert same([file("a")], [file("a")])


def test_paths_are_in_the_order_of_a_walk() -> None:
    """A directory is followed by what is in it, also where a neighbour's name begins like it."""
    paths = ["\udcff", "a.txt", "é", "a-b", "a/z", "a"]
    assert sorted(paths, key=order) == ["a", "a/z", "a-b", "a.txt", "é", "\udcff"]


def test_a_directory_is_put_back_as_it_was() -> None:
    """What was in it is there again, what came since is gone, and nothing beside it moves."""
    now = [file("beside", "now"), folder("d"), file("d/new"), file("d/same", "now"), file("d.txt")]
    old = [file("beside", "old"), folder("d", mode=0o700), file("d/lost"), file("d/same", "old")]
    back = put_back(ALICE, now, old, ["d/"])
    assert names(back) == ["beside", "d", "d/lost", "d/same", "d.txt"]
    assert [entry.sha256 and entry.sha256.rstrip("0") for entry in back] == ["now", None, "x", "old", "x"]


def test_what_leads_to_a_path_comes_with_it() -> None:
    """A file whose directory is gone brings the directory, but none of its neighbours."""
    old = [folder("a"), folder("a/b"), file("a/b/c"), file("a/b/other")]
    assert names(put_back(ALICE, [file("z")], old, ["/a/b/c"])) == ["a", "a/b", "a/b/c", "z"]


def test_what_was_not_there_is_not_there_again() -> None:
    """A path that only the present has is taken away; all of it is `.`."""
    assert names(put_back(ALICE, [file("a"), file("b")], [file("a")], ["b"])) == ["a"]
    assert names(put_back(ALICE, [file("a"), file("b")], [file("c")], ["."])) == ["c"]


def test_a_database_is_put_back_without_what_lay_beside_another_state_of_it() -> None:
    """A log of the present database would be played into the old one."""
    now = [file("m.db"), file("m.db-journal"), file("m.db-wal"), file("n.db-wal")]
    assert names(put_back(ALICE, now, [file("m.db", "old", kind="sqlite")], ["m.db"])) == ["m.db", "n.db-wal"]


def test_what_cannot_be_put_back_is_refused() -> None:
    """A path that neither has, and one below what is no longer a directory."""
    with pytest.raises(StateMissing, match="no 'nowhere'"):
        put_back(ALICE, [file("a")], [file("a")], ["nowhere"])
    with pytest.raises(Conflict, match="'d/a' cannot be restored alone"):
        put_back(ALICE, [link("d", "elsewhere")], [folder("d"), file("d/a")], ["d/a"])
