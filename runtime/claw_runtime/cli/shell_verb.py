"""`claw-runtime shell`."""

import sys

import click

from claw_runtime.cli import output, running
from claw_runtime.cli.arguments import live_argument


@click.command("shell")
@live_argument
@click.option("-s", "--shell", default="/bin/sh", show_default=True, help="Program to run.")
@click.pass_obj
def command(context: output.Context, tenant: str, shell: str) -> None:
    """Open a shell in a tenant's container.

    \b
    Examples:
      claw-runtime shell alice
      claw-runtime shell alice -s bash
    """
    from claw_runtime.engine.command import exec_argv

    container = running.container_of(context, tenant)
    tty = sys.stdin.isatty() and sys.stdout.isatty()
    running.become(exec_argv(container, [shell], interactive=True, tty=tty, detach=False))
