"""Commands of another tool's command line, `sync:list` and so on, under the names and with the options that it had.

They are not in any help; scripts that were written for boilerhouse go on working. Where its commands were told which
bucket to look into, ours ask the daemon, which knows: such options and variables are named once, and have no effect.
"""

import copy
import os
from collections.abc import Mapping
from typing import Any

import click

from claw_runtime.cli import output

PREFIX = "sync:"
VERBS = ("list", "cat", "verify", "clean")
OPTIONS: Mapping[str, tuple[str, ...]] = {
    "bucket": ("-b", "--bucket"),
    "endpoint": ("-e", "--minio-endpoint"),
    "access_key": ("--minio-access-key",),
    "secret_key": ("--minio-secret-key",),
}
VARIABLES = ("MINIO_ENDPOINT", "MINIO_ACCESS_KEY", "MINIO_SECRET_KEY", "MINIO_BUCKET")


def alias(name: str) -> click.Command | None:
    """The command of that name; None when it never was one."""
    from claw_runtime.cli.sync_verb import command

    verb = name.removeprefix(PREFIX)
    if not name.startswith(PREFIX) or verb not in VERBS:
        return None
    original = command.commands[verb]
    made = copy.copy(original)
    made.name, made.hidden, made.callback = name, True, _calling(original)
    ignored = [click.Option(["ignored_" + key, *words], hidden=True) for key, words in OPTIONS.items()]
    made.params = [*original.params, *ignored]
    return made


def _calling(original: click.Command) -> Any:
    def callback(**options: Any) -> Any:
        told = [OPTIONS[key][-1] for key in OPTIONS if options.pop(f"ignored_{key}") is not None]
        told += [variable for variable in VARIABLES if os.environ.get(variable)]
        if told:
            output.note(f"{', '.join(told)} had no effect: the daemon uses its own store")
        output.note(f"use claw-runtime sync {original.name}")
        return click.get_current_context().invoke(original.callback, **options) if original.callback else None

    return callback
