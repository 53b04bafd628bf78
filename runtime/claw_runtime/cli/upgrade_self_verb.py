"""`claw-runtime upgrade-self`."""

import sys
from pathlib import Path

import click

from claw_runtime.cli import output, running


@click.command("upgrade-self")
@click.option("--from", "source", type=click.Path(path_type=Path), help="Source tree, or directory with wheels.")
@output.form_option
@click.pass_obj
def command(context: output.Context, source: Path | None) -> None:
    """Replace the installed claw by another version.

    Builds the new version's environment beside the old one, then lets the new version write its units and restart the
    daemon. Tenants keep running, and no connection to them is lost. If the new daemon does not start, the previous one
    runs again.

    \b
    Examples:
      claw-runtime upgrade-self --from ~/claw
    """
    from claw_runtime.daemon import environments, installing
    from claw_runtime.errors import Conflict

    current = installing.installation(context.home, context.config)
    if current.installer.installed_home() is None:
        raise Conflict(
            "claw is not installed for this user", why="there is nothing to replace", hint="claw-runtime install"
        )
    current.installer.check()
    environments.need_host()
    found = environments.found(source, current.paths.environments)
    output.note("the new version's environment is being built; the daemon runs meanwhile")
    venv = current.installer.prepare(found)
    options = [f"--home={context.home}"] if context.home else []
    options += [f"--config={context.config}"] if context.config else []
    sys.stderr.flush()
    running.become(
        [str(venv / "bin" / "claw-runtime"), *options, "-o", context.form, "install", f"--digest={found.digest}"]
    )
