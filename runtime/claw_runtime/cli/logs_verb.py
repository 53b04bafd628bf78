"""`claw-runtime logs`."""

import codecs
import re
import sys
from collections.abc import Iterable

import click

from claw_runtime.cli import output
from claw_runtime.cli.arguments import Tenant
from claw_runtime.errors import NotClaimed

_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")


@click.command("logs")
@click.argument("tenant", type=Tenant("active", "frozen"))
@click.option("-f", "--follow", is_flag=True, help="Keep printing until the container ends.")
@click.option("-n", "--tail", type=click.IntRange(0), metavar="LINES", help="Only the last lines.")
@click.option("--since", metavar="WHEN", help="Only newer lines: 10m, 2h, or a date such as 2026-11-20T07:00:00Z.")
@click.pass_obj
def command(context: output.Context, tenant: str, follow: bool, tail: int | None, since: str | None) -> None:
    """Print the log of a tenant's container.

    Secrets that the runtime handed out are masked. A pipe gets the bytes as they are, a terminal no control characters.
    Ends when the container does; after that, and for log files of the program itself, look into the tenant's own
    directory, which the error names.

    \b
    Examples:
      claw-runtime logs alice --tail 20
      claw-runtime logs alice -f --since 10m
    """
    try:
        pieces = context.client().stream(
            f"/api/v1/tenants/{tenant}/logs", follow=follow or None, tail=tail, since=since
        )
        (_show if sys.stdout.isatty() else _pass_on)(pieces)
    except NotClaimed as error:
        raise _with_saved(context, tenant, error) from error


def _pass_on(pieces: Iterable[bytes]) -> None:
    for piece in pieces:
        output.raw(piece)


def _show(pieces: Iterable[bytes]) -> None:
    """Print whole lines without control characters; colours are removed, since a partial log may not reset them."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    rest = ""
    for piece in pieces:
        *lines, rest = (rest + decoder.decode(piece)).split("\n")
        for line in lines:
            _print(line)
    if rest:
        _print(rest)


def _print(line: str) -> None:
    text = _COLOUR.sub("", line.removesuffix("\r"))
    output.line(text.expandtabs())


def _with_saved(context: output.Context, tenant: str, error: NotClaimed) -> NotClaimed:
    """The same error, with the place of an ended container's log files."""
    from claw_runtime.tenancy import TenantId

    saved = context.settings().layout.logs(TenantId(tenant))
    if not saved.is_dir():
        return error
    return NotClaimed(
        error.brief,
        why=f"{error.why}; its container's log was removed with it",
        hint=f"log files of its program: {saved}",
    )
