"""`claw-runtime uninstall`."""

import click

from claw_runtime.cli import installed, output


@click.command("uninstall")
@output.form_option
@click.pass_obj
def command(context: output.Context) -> None:
    """Stop the units of this user and remove them.

    Removes what `install` wrote: units, virtual environments, links. Tenants' states, the data directory, images and
    running containers stay. Release the tenants first if their containers are to end.

    \b
    Examples:
      claw-runtime uninstall
    """
    from claw_runtime.daemon import installing

    current = installing.installation(context.home, context.config)
    installed.removed(context, current, current.installer.uninstall())
