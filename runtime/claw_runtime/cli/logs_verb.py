"""`claw-runtime logs`."""

import click

from claw_runtime.cli import output, running


@click.command("logs")
@click.argument("tenant")
@click.option("-f", "--follow", is_flag=True, help="Go on printing.")
@click.option("--tail", type=click.IntRange(0), help="Only the last lines.")
@click.option("--since", help="Only what is newer: 10m, 2h, or a date.")
@click.pass_obj
def command(context: output.Context, tenant: str, follow: bool, tail: int | None, since: str | None) -> None:
    """Print the log of a tenant's container.

    \b
    Examples:
      claw-runtime logs alice --tail 20
      claw-runtime logs alice -f
    """
    from claw_runtime.engine.command import logs_argv

    running.become(logs_argv(running.container_of(context, tenant), follow=follow, tail=tail, since=since))
