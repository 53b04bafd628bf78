"""What is printed: data on stdout, the rest on stderr, and no character that a terminal would obey."""

import io
import json

import pytest
import yaml
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


class TestWidth:
    """A table on a terminal."""

    ROWS = (("a-tenant-with-a-long-name-1", "active", "small"), ("bob", "cold", "another-pool-that-is-long"))
    COLUMNS = ("TENANT", "STATE", "POOL")

    @pytest.mark.parametrize("width", [200, 80, 60, 50, 40, 30, 22, 21, 10, 1])
    def test_no_line_is_wider(self, width: int) -> None:
        """Whatever the terminal's width, no line is wider; from 22 cells on columns stand below their heads."""
        lines = output.table_lines(self.COLUMNS, self.ROWS, width=width)

        assert all(len(line) <= width for line in lines)
        assert len(lines) == 3
        if width >= 22:
            assert len({line.index(word) for line, word in zip(lines, ("STATE", "active", "cold"), strict=True)}) == 1

    def test_the_middle_goes(self) -> None:
        """What is too long keeps its beginning and its end, by which names differ; the widest columns give way."""
        assert output.table_lines(self.COLUMNS, self.ROWS, width=45) == [
            "TENANT             STATE   POOL",
            "a-tenant…g-name-1  active  small",
            "bob                cold    another-…t-is-long",
        ]

    def test_wide_letters_take_two_cells(self) -> None:
        """Columns stand below each other also behind letters that are two cells wide or none."""
        lines = output.table_lines(("A", "B"), [("漢字", "x"), ("e\u0301", "y"), ("abcd", "z")])

        assert lines == ["A     B", "漢字  x", "e\u0301     y", "abcd  z"]

    def test_states_have_colours_and_nothing_else_has(self) -> None:
        """Of a table only what needs an eye is coloured, and the columns stay where they are."""
        lines = output.table_lines(("TENANT", "STATE", "N"), [("active", "active", 1), ("b", "cold", 2)], colour=True)

        assert lines == ["TENANT  STATE   N", "active  \x1b[32mactive\x1b[0m  1", "b       cold    2"]

    @pytest.mark.parametrize(
        ("terminal", "variables", "coloured"),
        [
            (True, {}, True),
            (False, {}, False),
            (True, {"NO_COLOR": "1"}, False),
            (True, {"NO_COLOR": ""}, True),
            (True, {"TERM": "dumb"}, False),
        ],
    )
    def test_colours_are_for_terminals_only(
        self, monkeypatch: pytest.MonkeyPatch, terminal: bool, variables: dict[str, str], coloured: bool
    ) -> None:
        """Only a terminal that has colours, and whose user did not say no."""
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.delenv("NO_COLOR", raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        stream = io.StringIO()
        monkeypatch.setattr(stream, "isatty", lambda: terminal)

        assert output.coloured(stream) is coloured


@pytest.mark.parametrize(
    "value",
    [
        {"name": "ü 漢字", "n": [1, None, True, 1.5], "yes": "yes", "empty": "", "number": "1", "null": "null"},
        [],
        ["a\nb", "\x1b[2J", "\x9b2J", "\u202e", "\U000e0001", " lead", "trail ", "#c", "a: b", "- x", "x" * 300],
        {"\x1b": {"a": {}}},
    ],
)
def test_yaml_is_the_same_document(capsys: Capture, value: object) -> None:
    """YAML gives back what went in, holds nothing that a terminal would obey, and can follow another document."""
    output.emitted(output.Context(form="yaml"), value, ())

    printed = capsys.readouterr().out
    assert printed.startswith("---")
    assert printed.replace("\n", "").isprintable()
    assert yaml.safe_load(printed) == value


@given(
    st.recursive(
        st.text() | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_yaml_of_anything(value: object) -> None:
    """Whatever is in it, a reader of YAML gets it back."""
    printed = output._yaml(value)

    assert printed.replace("\n", "").isprintable()
    assert yaml.safe_load(printed) == value


def test_names_are_one_a_line(capsys: Capture) -> None:
    """An identifier cannot make two lines of itself."""
    output.emitted(output.Context(form="name"), {}, ["a", "b\nc"])

    assert capsys.readouterr().out == "a\nb\\nc\n"


def test_text_is_the_verbs_own(capsys: Capture) -> None:
    """Where text is asked for nothing is printed for programs."""
    assert not output.emitted(output.Context(), {}, ["a"])
    assert capsys.readouterr() == ("", "")


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
    """The whole comes first, then phases in their order; the unit is said once."""
    assert output.milliseconds({"slot": 2.4, "ready": 1904.0}) == "1906 ms (slot 2 · ready 1904)"
    assert output.milliseconds({}) == ""
