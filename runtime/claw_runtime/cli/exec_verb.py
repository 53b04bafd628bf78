"""`claw-runtime exec`."""

import sys

import click

from claw_runtime.cli import output, running


@click.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("-d", "--detach", is_flag=True, help="Leave it running and answer at once.")
@click.argument("tenant")
@click.argument("argv", nargs=-1, required=True, metavar="[--] COMMAND...", type=click.UNPROCESSED)
@click.pass_obj
def command(context: output.Context, detach: bool, tenant: str, argv: tuple[str, ...]) -> None:
    """Run a command in a tenant's container.

    The exit code is the command's own; 125 is Podman's, 126 not executable, 127 not found.

    \b
    Examples:
      claw-runtime exec alice -- openclaw --version
      echo hello | claw-runtime exec alice -- tee /state/workspace/hello.txt
    """
    from claw_runtime.engine.command import exec_argv

    arguments = argv[1:] if argv[0] == "--" else argv
    tty = not detach and sys.stdin.isatty() and sys.stdout.isatty()
    container = running.container_of(context, tenant)
    running.become(exec_argv(container, arguments, interactive=not detach, tty=tty, detach=detach))
