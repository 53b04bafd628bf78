"""`claw-runtime version`."""

import click

from claw_runtime import __version__
from claw_runtime.cli import output


@click.command("version")
@output.form_option
@click.pass_obj
def command(context: output.Context) -> None:
    """Print the version.

    \b
    Examples:
      claw-runtime version -o json
    """
    if not output.emitted(context, {"version": __version__}, [__version__]):
        output.line(__version__)
