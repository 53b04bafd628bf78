"""`claw-runtime exec`."""

import os
import sys

import click

from claw_runtime.cli import output, running
from claw_runtime.cli.arguments import live_argument


@click.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("-d", "--detach", is_flag=True, help="Leave it running and return immediately.")
@click.option("-i", "--interactive", is_flag=True, help="Forward standard input; only needed with --detach.")
@click.option(
    "-t/-T", "--tty/--no-tty", default=None, help="Use a terminal; default: if input and output are terminals."
)
@click.option(
    "-e",
    "--env",
    multiple=True,
    metavar="NAME[=VALUE]",
    help="Set a variable; without a value, copy it from your environment.",
)
@click.option("-w", "--workdir", metavar="DIRECTORY", help="Working directory; default: the image's.")
@live_argument
@click.argument("argv", nargs=-1, required=True, metavar="[--] COMMAND...", type=click.UNPROCESSED)
@click.pass_obj
def command(
    context: output.Context,
    detach: bool,
    interactive: bool,
    tty: bool | None,
    env: tuple[str, ...],
    workdir: str | None,
    tenant: str,
    argv: tuple[str, ...],
) -> None:
    """Run a command in a tenant's container.

    Options of claw come before the tenant; everything after it belongs to the command. The exit code is that of the
    command; 125 is Podman's, 126 not executable, 127 not found. While a commit pauses the container, or the tenant is
    being claimed or released, it waits up to 5 s.

    \b
    Examples:
      claw-runtime exec alice -- openclaw --version
      claw-runtime exec -w /state/workspace -e LANG=C alice -- ls -la
      echo hello | claw-runtime exec alice -- tee /state/workspace/hello.txt
    """
    from claw_runtime.engine.command import exec_argv

    arguments = argv[1:] if argv[0] == "--" else argv
    if not arguments:
        raise click.UsageError("Missing argument 'COMMAND...'.")
    if detach:  # else Podman leaves what watches over the command in the caller's systemd unit, and it ends with that
        os.environ.pop("INVOCATION_ID", None)
    on_terminal = not detach and sys.stdin.isatty() and sys.stdout.isatty()
    running.become(
        exec_argv(
            running.container_of(context, tenant),
            arguments,
            interactive=interactive or not detach,
            tty=on_terminal if tty is None else tty,
            detach=detach,
            environment=env,
            directory=workdir,
        )
    )
