"""`claw-runtime version`."""

import click

from claw_runtime import __version__
from claw_runtime.cli import output


@click.command("version")
@output.json_option
@click.pass_obj
def command(context: output.Context, form: str | None) -> None:
    """Print the version.

    \b
    Examples:
      claw-runtime version -o json
    """
    if output.wants_json(context, form):
        output.emit_json({"version": __version__})
    else:
        output.line(__version__)
