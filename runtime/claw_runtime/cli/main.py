"""`claw-runtime`: the group, its global options, and how errors leave the process.

Verbs load only when they are called, so that `--help` and completion stay quick (`HELP` holds their first lines; a
test compares it with the verbs themselves).
"""

import importlib
import re
import sys
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import click

from claw_runtime import __version__
from claw_runtime.cli import output
from claw_runtime.errors import ClawError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

VERBS: Mapping[str, tuple[str, str]] = {
    "up": ("up", "Run the daemon: API, pools, object store."),
    "claim": ("claim", "Give a tenant a container with its state."),
    "status": ("status", "Show tenants: claimed or not, where, why."),
    "exec": ("exec", "Run a command in a tenant's container."),
    "shell": ("shell", "Open a shell in a tenant's container."),
    "logs": ("logs", "Print the log of a tenant's container."),
    "cp": ("cp", "Copy files into a tenant's container, or out of it."),
    "port": ("port", "Show which host port maps to which container port."),
    "open": ("open", "Open a tenant in a browser, through the router."),
    "route": ("route", "Routes through the router to tenants' programs."),
    "release": ("release", "Save a tenant's state and give its container back."),
    "pool": ("pool", "Pools of warm slots."),
    "upgrade": ("upgrade", "Move a pool and its tenants to another image."),
    "sync": ("sync", "Tenants' state in the object store."),
    "snapshot": ("snapshot", "Generations of a tenant's state: list, pin, restore."),
    "image": ("image", "Build, load, inspect and verify images."),
    "router": ("router", "Run the router, the one address of all tenants, in the foreground."),
    "s3": ("s3", "The S3 server that comes with claw."),
    "token": ("token", "Tokens for the API over TCP, and for tenants' programs through the router."),
    "install": ("install", "Install claw as systemd units of this user."),
    "upgrade-self": ("upgrade_self", "Replace the installed claw by another version."),
    "uninstall": ("uninstall", "Stop the units of this user and remove them."),
    "config": ("config", "Workload files: check and explain them."),
    "doctor": ("doctor", "Check this host and report what to fix."),
    "completion": ("completion", "Print the script that completes verbs, tenants and pools."),
    "version": ("version", "Print the version."),
}
"""Verb → module of claw_runtime.cli and first line of its help, in the order of a tenant's life."""


class LazyGroup(click.Group):
    """Loads a verb's module when it is called, and lists verbs without loading any."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name.startswith("sync:"):
            return importlib.import_module("claw_runtime.cli.aliases").alias(cmd_name)  # type: ignore[no-any-return]
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"claw_runtime.cli.{VERBS[cmd_name][0]}_verb").command
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem[str]]":
        from click.shell_completion import CompletionItem

        verbs = [CompletionItem(name, help=told) for name, (_, told) in VERBS.items() if name.startswith(incomplete)]
        return verbs + (click.Command.shell_complete(self, ctx, incomplete) if incomplete.startswith("-") else [])

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, first_line) for name, (_, first_line) in VERBS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            if close := output.closest(args[0], VERBS):
                raise click.UsageError(f"{error.message} Did you mean {close!r}?", ctx) from error
            raise


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--home", type=click.Path(path_type=Path), help="Data directory.  [env: CLAW_HOME]")
@click.option("--config", type=click.Path(path_type=Path), help="Settings file.  [env: CLAW_CONFIG]")
@output.form_option
@click.version_option(__version__, prog_name="claw-runtime")
@click.pass_obj
def command(context: output.Context, home: Path | None, config: Path | None) -> None:
    """Many people's private assistants on one Linux machine.

    Each tenant gets a hardened rootless container out of a warm pool, with its own state, which is saved as versioned
    generations in an object store.

    \b
    Examples:
      claw-runtime doctor
      claw-runtime up &
      claw-runtime claim alice
      claw-runtime release alice
    """
    context.home, context.config = home, config


def main(argv: list[str] | None = None) -> None:
    """Entry point of the programs `claw-runtime` and `claw`; always ends the process."""
    arguments = sys.argv[1:] if argv is None else argv
    context = output.Context()
    output.hold_closed()
    if PurePath(sys.argv[0]).name == "boilerhouse":
        context.form = importlib.import_module("claw_runtime.cli.aliases").default_form(sys.argv[0], arguments)
    code: Any = 1
    try:
        code = command.main(arguments, prog_name="claw-runtime", standalone_mode=False, obj=context)
    except click.exceptions.Exit as done:
        code = done.exit_code
    except click.UsageError as error:
        if context.form in ("json", "yaml") or _asked_for_data(arguments):
            output.error_object(2, "usage", error.format_message())
        else:
            error.show()
        code = 2
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        code = 130
    except ClawError as error:
        output.error(error, context.form)
        code = error.exit_code
        output.drop()
    sys.exit(code if isinstance(code, int) else 0)


def _asked_for_data(arguments: list[str]) -> bool:
    """Whether a line that could not be read asks for JSON or YAML."""
    ours = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return re.search(r"(^| )(-o ?|--output[= ])(json|yaml)( |$)", " ".join(ours)) is not None
