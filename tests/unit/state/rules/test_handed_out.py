"""Values that were handed out are found in what is stored, in each form that a program gives them."""

import json
from urllib.parse import quote

import pytest
from claw_runtime.state.rules.handed_out import FIRST, SecretSearch

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


def test_what_is_not_searched() -> None:
    """Short values, which are everywhere, and what lies far behind the beginning of a large file."""
    search = SecretSearch([("PIN", "1234"), ("KEY", "0123456789")])
    search.look("a", 0, b"1234")
    search.look("a", FIRST, b"0123456789")
    assert search.found == ()
