"""Output for people and programs: data on stdout, everything else on stderr, untrusted text without control characters.

The only module that prints. Text from tenants (file names, error texts) loses its control characters here, since a
terminal would execute them.
"""

import errno
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from claw_runtime.errors import ClawError, DiskFull

if TYPE_CHECKING:
    from claw_runtime.api.client import Client
    from claw_runtime.settings import Settings

FORMS = ("text", "json", "yaml", "name")
"""Forms of an answer; `name` is the identifier of each item, one a line."""

STATES: Mapping[str, str] = {"active": "green", "claiming": "yellow", "releasing": "yellow", "kept": "red"}
"""Colours of tenants' states; ordinary states have none."""

_NARROWEST = 6  # cells of a column that is cut


@dataclass(slots=True)
class Context:
    """The global options; `settings` and `client` are made when a verb asks for them."""

    home: Path | None = None
    config: Path | None = None
    form: str = "text"

    def settings(self, **flags: str | None) -> "Settings":
        """The settings of this call. Raises `InvalidSpec`."""
        from claw_runtime import settings

        return settings.load({"home": self.home, **flags}, config=self.config)

    def client(self, *, timeout: float | None = None) -> "Client":
        """The daemon's API, until the verb ends; `timeout` in seconds, for callers that must not wait."""
        import gc

        from claw_runtime.api.client import Client

        gc.set_threshold(100_000)  # a thousand tenants are many objects and no cycle: a tenth of the time of `status`
        settings = self.settings()
        if settings.origins["home"] != "default":
            _check_served(settings.home, settings.layout.run_lock)
        client = Client(settings.layout.api_socket, timeout=timeout)
        if context := click.get_current_context(silent=True):  # there is none while a shell completes
            context.call_on_close(client.close)
        return client


def _check_served(home: Path, run_lock: Path) -> None:
    """Refuse to ask the daemon of another data directory for this one's tenants. Raises `DaemonUnreachable`."""
    from claw_runtime.errors import DaemonUnreachable

    try:
        served = Path(run_lock.read_text("utf-8", "surrogateescape").splitlines()[1])
        if served == home or served.samefile(home):
            return
    except (OSError, IndexError):  # there is no daemon, or one of the two directories does not exist
        return
    raise DaemonUnreachable(
        f"no daemon of {home} uses the run directory {run_lock.parent}",
        why=f"that one belongs to the data directory {served}",
        hint="set CLAW_RUN to the run directory of this data directory's daemon",
    )


# --- machine forms ----------------------------------------------------------------------------------------------------


def _choose(context: click.Context, _option: click.Parameter, form: str | None) -> str | None:
    chosen = context.ensure_object(Context)
    chosen.form = form or chosen.form
    return form


form_option = click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(FORMS),
    callback=_choose,
    is_eager=True,  # so that every other error of the line has this form
    expose_value=False,
    help="Form of the answer.",
)
"""`-o json` after the verb as well as before it; the later one is `Context.form`."""


def emitted(context: Context, value: object, names: Iterable[object]) -> bool:
    """Print the answer in the form for programs that was asked for; False when it is text, which the verb prints.

    Args:
        value: One JSON document.
        names: The identifier of each item in it.
    """
    if context.form == "text":
        return False
    if context.form == "name":
        _write("".join(f"{clean(name)}\n" for name in names))
    elif context.form == "yaml":
        _write(_yaml(value))
    else:
        _write(f"{_json(value, indent=2 if sys.stdout.isatty() else None)}\n")
    return True


def one_line(value: object) -> str:
    """A JSON document as a text of one line."""
    return _json(value)


def _json(value: object, *, indent: int | None = None) -> str:
    """JSON with letters unescaped and all control characters escaped, also those that JSON allows."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    if text.isascii() and "\x7f" not in text:
        return text
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)


def _yaml(value: object) -> str:
    """One YAML document, with `---` before it so that several can follow one another; escapes as in JSON."""
    import yaml

    class Dumper(yaml.SafeDumper):
        pass

    def text_node(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
        style = None if text.isprintable() else '"'  # only there an escape is an escape
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    Dumper.add_representer(str, text_node)
    text = yaml.dump(value, Dumper=Dumper, allow_unicode=True, sort_keys=False, explicit_start=True, width=1 << 20)
    return "".join(c if c.isprintable() or c == "\n" else f"\\U{ord(c):08X}" for c in text)


# --- text -------------------------------------------------------------------------------------------------------------


def clean(text: object) -> str:
    """Text without control characters: they are shown as `\\x1b`, not obeyed."""
    text = str(text)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def line(text: str) -> None:
    """One line of data on stdout."""
    _write(f"{clean(text)}\n")


def note(text: str) -> None:
    """One line for a person, on stderr."""
    click.echo(clean(text), err=True)


def redraw(text: str) -> None:
    """Replace the line at the cursor on a terminal, on stderr."""
    sys.stderr.write(f"\r{clean(text)}\x1b[K")
    sys.stderr.flush()


def confirm(question: str) -> None:
    """Ask a person at the terminal, on stderr. Raises `click.Abort` unless the answer is yes."""
    click.confirm(clean(question), abort=True, err=True)


def coloured(stream: TextIO) -> bool:
    """Whether colours may go there: to a terminal that has them, unless NO_COLOR is set (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table on stdout: columns padded by spaces, no lines, so that it can be cut and grepped.

    On a terminal it fits the width: long cells lose their middle, and a column STATE is coloured.
    """
    on_terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if on_terminal else None
    _write("".join(f"{row}\n" for row in table_lines(columns, rows, width=width, colour=coloured(sys.stdout))))


def table_lines(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, width: int | None = None, colour: bool = False
) -> list[str]:
    """The table's lines, the heading first; none is wider than `width` cells, if that is given."""
    cells = [list(columns), *([clean(cell) for cell in row] for row in rows)]
    widths = [max(map(_cells, column)) for column in zip(*cells, strict=True)]
    fitting = widths if width is None else _fitted(widths, width)
    if fitting != widths:
        cells = [[_shortened(cell, room) for cell, room in zip(row, fitting, strict=True)] for row in cells]
    fits = width is None or sum(fitting) + 2 * (len(fitting) - 1) <= width
    state = columns.index("STATE") if colour and fits and "STATE" in columns else None
    lines = []
    for number, row in enumerate(cells):
        padded = [cell + " " * (room - _cells(cell)) for cell, room in zip(row, fitting, strict=True)]
        if state is not None and number:
            padded[state] = click.style(padded[state], STATES[row[state]]) if row[state] in STATES else padded[state]
        line = "  ".join(padded).rstrip()
        lines.append(line if fits or width is None else line[:width])
    return lines


def aligned(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, least: Sequence[int]
) -> tuple[list[str], list[int]]:
    """The table's lines, the heading first, and the widths of its columns, each at least that of `least`."""
    cells = [list(columns), *([clean(cell) for cell in row] for row in rows)]
    widths = [max(room, *map(_cells, column)) for room, column in zip(least, zip(*cells, strict=True), strict=True)]
    return [_padded(row, widths) for row in cells], widths


def _padded(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell + " " * (room - _cells(cell)) for cell, room in zip(row, widths, strict=True)).rstrip()


def _fitted(widths: Sequence[int], width: int) -> list[int]:
    """Column widths that fit with two spaces between them: the widest shrink first, none below six cells."""
    fitting = list(widths)
    over = sum(widths) + 2 * (len(widths) - 1) - width
    while over > 0:
        widest = max(fitting)
        if widest <= _NARROWEST:
            break
        fitting[fitting.index(widest)] -= 1
        over -= 1
    return fitting


def _shortened(text: str, room: int) -> str:
    """The text in at most `room` cells; `…` stands for its middle, since names differ at both ends."""
    if _cells(text) <= room:
        return text
    head, tail = text[: len(text) // 2], text[len(text) // 2 :]
    while _cells(head) + 1 + _cells(tail) > room:
        head, tail = (head[:-1], tail) if _cells(head) >= _cells(tail) else (head, tail[1:])
    return f"{head}…{tail}"


def _cells(text: str) -> int:
    """Cells of a terminal: wide characters take two, combining characters none."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def fields(pairs: Mapping[str, object]) -> None:
    """`name  value` lines on stdout; empty values are left out."""
    width = max(len(name) for name in pairs)
    for name, value in pairs.items():
        if value not in (None, ""):
            line(f"{name.ljust(width)}  {clean(value)}")


def counted(number: int, noun: str) -> str:
    """`1 file`, `2 files`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def milliseconds(phases: Mapping[str, float]) -> str:
    """`1937 ms (slot 2 · restore 31 · ready 1904)`."""
    parts = " · ".join(f"{name} {value:.0f}" for name, value in phases.items())
    return f"{sum(phases.values()):.0f} ms ({parts})" if phases else ""


def _write(text: str) -> None:
    """At once: a thousand rows are one write. What is no Unicode (a lone surrogate) was made an escape before."""
    with writing():
        click.echo(text, nl=False)


def raw(piece: bytes) -> None:
    """Bytes on stdout as they are, at once. Raises as `writing`."""
    with writing():
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()


def hold_closed() -> None:
    """Let a closed stdout fail when something is printed; Python would drop it without a word."""
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w", encoding="utf-8")


def drop() -> None:
    """Forget what stdout still holds and could not take: the interpreter would fail with it again at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def writing() -> Iterator[None]:
    """For a block that writes to stdout; a reader that has gone ends the process quietly, as click does.

    Raises:
        DiskFull: There is no room where stdout leads.
        ClawError: Stdout is closed, or cannot be written to.
    """
    try:
        yield
    except OSError as problem:
        if problem.errno == errno.EPIPE:
            raise
        kind = DiskFull if problem.errno in (errno.ENOSPC, errno.EDQUOT) else ClawError
        hint = "what was asked for is done; free space, or send the output elsewhere"
        raise kind("the answer cannot be printed", why=f"standard output: {problem.strerror}", hint=hint) from problem


# --- errors -----------------------------------------------------------------------------------------------------------


def error(problem: ClawError, form: str = "text") -> None:
    """An error on stderr: what, why, what to do; or one JSON object, for programs that read JSON or YAML."""
    if form in ("json", "yaml"):
        error_object(problem.exit_code, problem.slug, problem.brief, why=problem.why, hint=problem.hint)
        return
    label = click.style("error:", "red") if coloured(sys.stderr) else "error:"
    click.echo(f"{label} {clean(problem.brief)}", err=True)
    for label, text in (("why", problem.why), ("hint", problem.hint)):
        lines = [one for part in str(text).splitlines() if part for one in _wrapped(clean(part), indent=7)]
        for number, one in enumerate(lines):
            click.echo(f"{label if number == 0 else '':>5}{':' if number == 0 else ' '} {one}", err=True)


def _wrapped(text: str, *, indent: int) -> list[str]:
    """The text's lines: several only on a terminal that is narrower; a word, which may be a path, stays whole."""
    if not sys.stderr.isatty():
        return [text]
    from textwrap import wrap

    width = max(20, shutil.get_terminal_size().columns - indent)
    return wrap(text, width, break_long_words=False, break_on_hyphens=False)


def error_object(code: int, slug: str, message: str, *, why: str = "", hint: str = "") -> None:
    """An error as one JSON object on stderr; its fields are in docs/JSON_OUTPUT.md."""
    body = {"messageType": "exit_error", "code": code, "slug": slug, "message": message, "why": why, "hint": hint}
    click.echo(_json(body), err=True)


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is closest to a misspelt one."""
    from difflib import get_close_matches

    return next(iter(get_close_matches(word, list(known), 1)), None)
