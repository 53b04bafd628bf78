"""`claw-runtime open`."""

import os

import click

from claw_runtime.cli import output
from claw_runtime.cli.arguments import tenant_argument


@click.command("open")
@tenant_argument
@click.option("--print", "only_print", is_flag=True, help="Print the address and start no browser.")
@output.form_option
@click.pass_obj
def command(context: output.Context, tenant: str, *, only_print: bool) -> None:
    """Open a tenant in a browser, through the router.

    Prints an address that works once, within five minutes, and opens it if this host has a desktop. The browser that
    opens it stays admitted for 30 days. Anyone with the address can use it: send it as you would send a password.

    \b
    Examples:
      claw-runtime open alice
      claw-runtime open alice --print
      claw-runtime open alice -o json
    """
    answer = context.client().post(f"/api/v1/tenants/{tenant}/open")
    if output.emitted(context, answer, [answer["url"]]):
        return
    output.line(answer["url"])
    output.note(f"{tenant}: works once, until {answer['expires']}")
    if not only_print and _has_desktop():
        click.launch(answer["url"])


def _has_desktop() -> bool:
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
