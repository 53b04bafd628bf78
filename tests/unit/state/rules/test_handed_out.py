"""Values that were handed out are found in what is stored, in each form that a program gives them."""

import itertools
import json
from urllib.parse import quote

import pytest
from claw_runtime.formats.manifest import Entry
from claw_runtime.state.rules.handed_out import BorderSearch, FileFrame, FileSearch, SecretSearch

KEY = 'sk-canary/"one" 4711'


@pytest.mark.parametrize("form", [KEY, json.dumps({"key": KEY}), quote(KEY)])
def test_each_form_is_found(form: str) -> None:
    """As it is, in JSON, and in a URL; the report has only its name."""
    search = SecretSearch([("KEY", KEY), ("OTHER", "something else")])
    search.look("a/b", 0, b"x" * 100 + form.encode() + b"y")

    assert search.found == (("a/b", "KEY"),)
    (told,) = search.told()
    assert (told.path, told.reason) == ("a/b", "it holds the secret KEY in plain text")


def test_it_is_found_across_two_pieces() -> None:
    """Pieces of one file that follow each other; those of another file do not."""
    search = SecretSearch([("KEY", "0123456789")])
    search.look("a", 0, b"abc01234")
    search.look("b", 8, b"56789")
    assert search.found == ()
    search.look("a", 0, b"abc01234")
    search.look("a", 8, b"56789")
    assert search.found == (("a", "KEY"),)


@pytest.mark.parametrize("lengths", [[1] * 10, [3, 3, 4], [9, 1], [1, 9]])
def test_it_is_found_across_many_small_pieces(lengths: list[int]) -> None:
    """Pieces may be shorter than the value."""
    search, at, text = SecretSearch([("KEY", "0123456789")]), 0, b"0123456789"
    for length in lengths:
        search.look("a", at, text[at : at + length])
        at += length
    assert search.found == (("a", "KEY"),)


@pytest.mark.parametrize("new", [(True, False), (False, True)])
def test_it_is_found_where_a_new_piece_borders_on_a_stored_one(new: tuple[bool, bool]) -> None:
    """A program wrote the first half before the last commit, or the other half."""
    search = SecretSearch([("KEY", "0123456789")])
    search.look("a", 0, b"abc01234", new=new[0])
    search.look("a", 8, b"56789abc", new=new[1])
    assert search.found == (("a", "KEY"),)


def test_what_is_not_searched() -> None:
    """Short values, which are everywhere, and content that the store has."""
    search = SecretSearch([("PIN", "1234"), ("KEY", "0123456789")])
    search.look("a", 0, b"1234")
    search.look("a", 4, b"0123456789", new=False)
    search.look("a", 14, b"0123456789", new=False)
    search.look("a", 100, b"12345", new=True)
    assert search.found == ()


def test_a_file_apart_is_reported_once_it_is_kept() -> None:
    """Another thread reads a large file; what it found counts if the file is stored."""
    search = SecretSearch([("KEY", "0123456789")])
    one = FileSearch(search, "big")
    one.look(0, b"x01234")
    one.look(6, b"56789")
    assert search.found == ()
    one.keep()
    assert search.found == (("big", "KEY"),)


@pytest.mark.parametrize("order", list(itertools.permutations("abc")))
@pytest.mark.parametrize("cut", [(1, 2), (5, 9), (8, 17), (14, 16), (8, 15)])
def test_it_is_found_across_frames_in_any_order(order: tuple[str, ...], cut: tuple[int, int]) -> None:
    """Packs hold the frames of a file in another order, and a frame may be shorter than the value."""
    text = b"xxxxxxxx0123456789"
    frames = {"a": text[: cut[0]], "b": text[cut[0] : cut[1]], "c": text[cut[1] :]}
    search = SecretSearch([("KEY", "0123456789")])
    borders = BorderSearch(search, [("f", [FileFrame(name, len(raw)) for name, raw in frames.items()])])
    for name in order:
        borders.look(name, frames[name])
        search.add("f", search.within(frames[name]))
    assert search.found == (("f", "KEY"),)
    assert (borders._open, borders._ends) == ({}, {})


def test_a_frame_of_two_files_has_borders_in_both() -> None:
    """The value is in the second file only. A frame may also stand beside itself."""
    search, ends = SecretSearch([("KEY", "0123456789")]), {"x": b"6789.01234", "y": b"harmless..", "z": b"56789....."}
    x, y, z = (FileFrame(name, len(raw)) for name, raw in ends.items())
    borders = BorderSearch(search, [("one", [x, y]), ("two", [x, z])])
    for name, raw in ends.items():
        borders.look(name, raw)
    assert search.found == (("two", "KEY"),)

    search = SecretSearch([("KEY", "0123456789")])
    BorderSearch(search, [("twice", [x, x])]).look("x", b"56789.01234")
    assert search.found == (("twice", "KEY"),)


def test_frames_that_come_in_order_keep_no_ends() -> None:
    """A copy of a large state needs no memory for each of its chunks; one whose border lies elsewhere is kept."""
    frames = [FileFrame(number, 100, follows=number not in (0, 7)) for number in range(9)]
    borders = BorderSearch(SecretSearch([("KEY", "0123456789")]), [("f", frames)])
    assert sorted(borders._open) == [6, 7]


KINDS = {
    "name": Entry(path="notes/0123456789.md", type="f", mode=0o600, mtime_ns=0, size=0),
    "directory": Entry(path="notes/0123456789", type="d", mode=0o700, mtime_ns=0),
    "target": Entry(path="notes/a", type="l", mode=0o777, mtime_ns=0, target="/k/0123456789"),
    "attribute": Entry(path="notes/a", type="d", mode=0o700, mtime_ns=0, xattrs=(("user.k", b"\xff0123456789"),)),
    "attribute's name": Entry(path="notes/a", type="d", mode=0o7, mtime_ns=0, xattrs=(("user.0123456789", b""),)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_names_targets_and_attributes_are_searched(kind: str) -> None:
    """Of entries that are new; a value in the path itself is masked."""
    entry, other = KINDS[kind], Entry(path="notes", type="d", mode=0o700, mtime_ns=0)
    search = SecretSearch([("KEY", "0123456789")])
    search.entries((other, entry), (other, entry))
    assert search.found == ()
    search.entries((other, entry), (other,))
    ((path, name),) = search.found
    assert (path, name) == (entry.path.replace("0123456789", "[redacted]"), "KEY")
    assert "0123456789" not in repr(search.told())


def test_what_lies_in_a_directory_with_a_secret_name_is_not_reported() -> None:
    """The directory is."""
    inner = Entry(path="0123456789/a", type="f", mode=0o600, mtime_ns=0, size=0)
    search = SecretSearch([("KEY", "0123456789")])
    search.entries((Entry(path="0123456789", type="d", mode=0o700, mtime_ns=0), inner))
    assert search.found == (("[redacted]", "KEY"),)
