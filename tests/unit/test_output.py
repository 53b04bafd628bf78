"""What is printed: data on stdout, the rest on stderr, and no character that a terminal would obey."""

import json

import pytest
from claw_runtime.cli import output
from claw_runtime.errors import ClawError
from hypothesis import given
from hypothesis import strategies as st

Capture = pytest.CaptureFixture[str]
JSON = output.Context(form="json")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, ünïcode, 漢字 🙂", "plain text, ünïcode, 漢字 🙂"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\rb\nc\td", "a\\rb\\nc\\td"),
        ("\x9b2J", "\\x9b2J"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\u200b\ufeff", "\\u200b\\ufeff"),
        ("\x00\x07\x7f", "\\x00\\x07\\x7f"),
        ("\udcff", "\\udcff"),
        (7, "7"),
    ],
)
def test_control_characters_are_shown(text: object, shown: str) -> None:
    """Escapes, line ends, C1 controls, text direction and lone surrogates are shown; letters stay letters."""
    assert output.clean(text) == shown


@given(st.text())
def test_nothing_unprintable_is_left(text: str) -> None:
    """Whatever a name holds, what is printed is printable, and printable text is not changed."""
    assert output.clean(text).isprintable()
    assert output.clean(output.clean(text)) == output.clean(text)


def test_lines_and_notes_go_their_ways(capsys: Capture) -> None:
    """Data and words to the person are on different streams, each one line."""
    output.line("data\x1b")
    output.note("note\nsecond")

    assert capsys.readouterr() == ("data\\x1b\n", "note\\nsecond\n")


def test_a_table_is_columns_and_spaces(capsys: Capture) -> None:
    """Columns are as wide as their widest cell, lines end without spaces."""
    output.table(("NAME", "N"), [("a", 1), ("long name", None), ("\x07", "")])

    assert capsys.readouterr().out == "NAME       N\na          1\nlong name  None\n\\x07\n"


def test_an_empty_table_is_its_heading(capsys: Capture) -> None:
    """No rows leave the heading."""
    output.table(("NAME", "N"), [])

    assert capsys.readouterr().out == "NAME  N\n"


def test_fields_leave_out_what_is_empty(capsys: Capture) -> None:
    """None and an empty text are no lines; zero is."""
    output.fields({"name": "a", "nothing": None, "empty": "", "zero": 0})

    assert capsys.readouterr().out == "name     a\nzero     0\n"


def test_an_error_without_cause_and_cure_is_one_line(capsys: Capture) -> None:
    """What is not known is not said."""
    output.error(ClawError("it went wrong"))

    assert capsys.readouterr() == ("", "error: it went wrong\n")


def test_an_error_as_json_is_one_line(capsys: Capture) -> None:
    """One object, also when its texts have many lines."""
    output.error(ClawError("a\nb", why="c\x1b", hint="d"), "json")

    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert json.loads(err)["why"] == "c\x1b"
    assert "\x1b" not in err


def test_json_is_one_document(capsys: Capture) -> None:
    """One line where no person looks, letters as they are."""
    assert output.emitted(JSON, {"name": "ü", "n": [1, None]}, ())

    assert capsys.readouterr().out == '{"name": "ü", "n": [1, null]}\n'


@pytest.mark.parametrize("text", ["\x1b[2J", "\x9b2J", "\u202e", "\udcff", "\U000e0001", 'a"b\\c\n'])
def test_json_cannot_steer_a_terminal_either(capsys: Capture, text: str) -> None:
    """Every control character is an escape, and a reader gets back exactly what was there."""
    output.emitted(JSON, {text: text}, ())

    printed = capsys.readouterr().out
    assert printed[:-1].isprintable()
    assert json.loads(printed) == {text: text}


@pytest.mark.parametrize(("word", "close"), [("cliam", "claim"), ("relase", "release"), ("zzz", None), ("", None)])
def test_the_closest_word(word: str, close: str | None) -> None:
    """A slip finds its word, anything else finds none."""
    assert output.closest(word, ["claim", "release", "status"]) == close


def test_phases_are_milliseconds() -> None:
    """Phases come in their order, the unit once at the end."""
    assert output.milliseconds({"slot": 2.4, "ready": 1904.0}) == "slot 2 · ready 1904 ms"
    assert output.milliseconds({}) == ""
