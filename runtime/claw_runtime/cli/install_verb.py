"""`claw-runtime install`."""

from pathlib import Path

import click

from claw_runtime.cli import installed, output


@click.command("install")
@click.option("--from", "source", type=click.Path(path_type=Path), help="Source tree, or directory with wheels.")
@click.option("--print", "only_print", is_flag=True, help="Print the files that it would write, and write nothing.")
@click.option("--digest", hidden=True, help="An environment that is built already.")
@output.form_option
@click.pass_obj
def command(context: output.Context, source: Path | None, only_print: bool, digest: str | None) -> None:
    """Install claw as systemd units of this user.

    Makes a virtual environment in the user's data directory, writes the units claw, claw-podman and claw-s3, starts
    them, and links `claw` and `claw-runtime` into ~/.local/bin. There is no claw-s3 if another store is configured,
    and a claw-router only if `ingress` is set. It needs no root if the packages are installed. It can be repeated:
    tenants keep running, and edited units stay.

    The daemon reads ~/.config/claw/runtime.toml and ~/.config/claw/claw.env; variables of this shell are not kept.

    \b
    Examples:
      claw-runtime install --print
      claw-runtime install
    """
    from claw_runtime.daemon import environments, installing

    current = installing.installation(context.home, context.config)
    if only_print:
        installed.show(context, current.installer.plan())
        return
    current.installer.check()
    environments.need_host()
    found = environments.built(digest) if digest else environments.found(source, current.paths.environments)
    if not current.installer.is_built(found):
        output.note("the environment of claw is being built, which takes some minutes the first time")
    installed.report(context, current, current.installer.install(found))
