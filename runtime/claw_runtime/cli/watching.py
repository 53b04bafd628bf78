"""A table that is refreshed: in place on a terminal, otherwise line by line with the changed rows.

It changes no terminal mode, so nothing must be restored at the end; the last table stays visible.
"""

import shutil
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from claw_runtime.cli import output
from claw_runtime.errors import DaemonUnreachable

Row = dict[str, Any]


def watch(
    context: output.Context,
    ask: Callable[[], list[Row]],
    columns: Sequence[str],
    row: Callable[[Row], Sequence[object]],
    *,
    key: Callable[[Row], str],
    interval: float,
    least: Sequence[int] = (),
) -> None:
    """Show the answer of `ask` every `interval` seconds until Ctrl-C, which counts as success.

    If the daemon stops meanwhile, this waits for it; a missing daemon at the beginning is an error.

    Args:
        row: The cells of one answer.
        key: The identifier of one answer.
        least: Cells that each column gets from the beginning where lines are appended; none by default.
    """
    try:
        if context.form == "text" and sys.stdout.isatty():
            _in_place(ask, columns, row, interval)
        else:
            _appending(context, ask, columns, row, key, interval, least or [0] * len(columns))
    except KeyboardInterrupt:
        if sys.stdout.isatty():
            output.line("")  # behind the ^C that the terminal showed


def _in_place(
    ask: Callable[[], list[Row]], columns: Sequence[str], row: Callable[[Row], Sequence[object]], interval: float
) -> None:
    answers = ask()
    lost = ""
    drawn = 0
    while True:
        width, height = shutil.get_terminal_size()
        lines = output.table_lines(
            columns, [row(one) for one in answers], width=width, colour=output.coloured(sys.stdout)
        )
        foot = [line for line in (lost, *(() if answers else ("no tenants",))) if line]
        room = max(1, height - 1 - len(foot))
        if len(lines) > room:
            foot = [f"… and {len(lines) - room + 1} more", *foot]
            lines = lines[: room - 1]
        drawn = _draw([*lines, *foot], drawn)
        time.sleep(interval)
        try:
            answers, lost = ask(), ""
        except DaemonUnreachable as error:
            lost = f"{output.clean(error.brief)}: waiting for it"[:width]


def _draw(lines: list[str], drawn: int) -> int:
    """Overwrite the last table of `drawn` lines; returns the number of new lines."""
    up = f"\x1b[{drawn}F" if drawn else ""
    sys.stdout.write(up + "".join(f"{line}\x1b[K\n" for line in lines) + "\x1b[J")
    sys.stdout.flush()
    return len(lines)


def _appending(
    context: output.Context,
    ask: Callable[[], list[Row]],
    columns: Sequence[str],
    row: Callable[[Row], Sequence[object]],
    key: Callable[[Row], str],
    interval: float,
    least: Sequence[int],
) -> None:
    def seen(one: Row) -> object:
        # A person sees cells; the last one tells how long ago, and that something else is new is not to be seen.
        return [str(cell) for cell in row(one)[:-1]] if context.form == "text" else one

    shown: dict[str, object] = {}
    widths: list[int] | None = None
    answers = ask()
    while True:
        changed = [one for one in answers if shown.get(key(one)) != seen(one)]
        shown = {key(one): seen(one) for one in answers}
        if context.form == "text":
            widths = _append_rows(columns, [row(one) for one in changed], widths, least)
        for one in changed if context.form != "text" else ():
            output.emitted(context, one, [key(one)])
        sys.stdout.flush()
        time.sleep(interval)
        try:
            answers = ask()
        except DaemonUnreachable as error:
            output.note(f"{error.brief}: waiting for it")


def _append_rows(
    columns: Sequence[str], rows: Sequence[Sequence[object]], widths: list[int] | None, least: Sequence[int]
) -> list[int] | None:
    """Print rows below those that are there, and return the columns' widths; None before the first row.

    The heading comes before the first row, and again above rows that need wider columns than it had.
    """
    if not rows:
        return widths
    lines, needed = output.aligned(columns, rows, least=least if widths is None else widths)
    # Nothing stands behind the last column, so it may grow.
    for text in lines if widths is None or needed[:-1] != widths[:-1] else lines[1:]:
        output.line(text)
    return needed
