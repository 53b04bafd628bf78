"""Names of files as text: what is printed can be given back, and names exactly one file."""

import os

import pytest
from claw_runtime.safefs.quoting import quoted, unquoted
from hypothesis import given
from hypothesis import strategies as st


@given(st.binary(min_size=1).filter(lambda raw: b"\0" not in raw))
def test_any_name_comes_back(raw: bytes) -> None:
    """Whatever bytes a name has, its text is printable and leads to the same bytes."""
    path = os.fsdecode(raw)

    assert quoted(path).isprintable()
    assert unquoted(quoted(path)) == path


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("notes/täglich.md", "notes/täglich.md"),
        ("a b", "a b"),
        (" a ", r"\x20a\x20"),
        ("back\\slash", r"back\\slash"),
        ("line\nbreak\t\r", r"line\nbreak\t\r"),
        ("\x1b[31m\u200b", r"\x1b[31m\xe2\x80\x8b"),
        (os.fsdecode(b"\xff"), r"\xff"),
        (r"\xff", r"\\xff"),
    ],
)
def test_what_it_looks_like(path: str, text: str) -> None:
    """Ordinary names stay as they are."""
    assert quoted(path) == text
    assert unquoted(text) == path


@pytest.mark.parametrize("text", ["a\\", r"\q", r"\x4", r"\xzz", r"C:\users"])
def test_what_is_no_escape(text: str) -> None:
    """A backslash alone is refused, so that no other file is meant by mistake."""
    with pytest.raises(ValueError, match="written"):
        unquoted(text)
