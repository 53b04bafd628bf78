"""What a person or a program gets to see: data on stdout, everything else on stderr, nothing untrusted raw.

The one place that prints. Text from tenants (file names, error texts) loses its control characters here, since a
terminal would obey them.
"""

import difflib
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from claw_runtime.errors import ClawError

if TYPE_CHECKING:
    from claw_runtime.api.client import Client
    from claw_runtime.settings import Settings


@dataclass(frozen=True, slots=True)
class Context:
    """The global options; `settings` and `client` are made when a verb asks for them."""

    home: Path | None
    config: Path | None
    json: bool

    def settings(self, **flags: str | None) -> "Settings":
        """The settings of this call. Raises `InvalidSpec`."""
        from claw_runtime import settings

        return settings.load({"home": self.home, **flags}, config=self.config)

    def client(self) -> "Client":
        """The daemon's API, until the verb ends."""
        from claw_runtime.api.client import Client

        client = Client(self.settings().layout.api_socket)
        click.get_current_context().call_on_close(client.close)
        return client


json_option = click.option(
    "-o", "--output", "form", type=click.Choice(["text", "json"]), default=None, help="Form of the answer."
)
"""`-o json` behind the verb as well as before it."""


def wants_json(context: Context, form: str | None) -> bool:
    """Whether this call prints JSON."""
    return context.json if form is None else form == "json"


def clean(text: object) -> str:
    """Text without control characters: they are shown as `\\x1b`, not obeyed."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(text))


def emit_json(value: object) -> None:
    """One JSON document on stdout."""
    click.echo(_json(value, indent=2 if sys.stdout.isatty() else None))


def _json(value: object, *, indent: int | None = None) -> str:
    """JSON whose letters are as they are and whose control characters are all escapes, also those that JSON allows."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)


def line(text: str) -> None:
    """One line of data on stdout."""
    click.echo(clean(text))


def note(text: str) -> None:
    """One line for the person, on stderr."""
    click.echo(clean(text), err=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table on stdout: columns padded by spaces, no lines, so that it can be cut and grepped."""
    cells = [[clean(cell) for cell in row] for row in rows]
    widths = [
        max(len(column), *(len(row[i]) for row in cells)) if cells else len(column) for i, column in enumerate(columns)
    ]
    for row in [list(columns), *cells]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def fields(pairs: Mapping[str, object]) -> None:
    """`name  value` lines on stdout; empty values are left out."""
    width = max(len(name) for name in pairs)
    for name, value in pairs.items():
        if value not in (None, ""):
            click.echo(f"{name.ljust(width)}  {clean(value)}")


def error(problem: ClawError, *, as_json: bool) -> None:
    """An error on stderr: what, why, what to do; or one JSON object."""
    if as_json:
        error_object(problem.exit_code, problem.slug, problem.brief, why=problem.why, hint=problem.hint)
        return
    click.echo(f"error: {clean(problem.brief)}", err=True)
    for label, text in (("why", problem.why), ("hint", problem.hint)):
        for number, part in enumerate(filter(None, str(text).splitlines())):
            click.echo(f"{label if number == 0 else '':>5}{':' if number == 0 else ' '} {clean(part)}", err=True)


def error_object(code: int, slug: str, message: str, *, why: str = "", hint: str = "") -> None:
    """An error as one JSON object on stderr; its fields are in docs/JSON_OUTPUT.md."""
    body = {"messageType": "exit_error", "code": code, "slug": slug, "message": message, "why": why, "hint": hint}
    click.echo(_json(body), err=True)


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was most likely meant."""
    return next(iter(difflib.get_close_matches(word, list(known), 1)), None)


def milliseconds(phases: Mapping[str, Any]) -> str:
    """`slot 2 · restore 31 · ready 1904 ms`."""
    return " · ".join(f"{name} {value:.0f}" for name, value in phases.items()) + (" ms" if phases else "")
