"""Aliases for boilerhouse commands, `sync:list` and so on, with the same names and options.

No help lists them; scripts for boilerhouse keep working. Its commands had options for the bucket. claw asks the daemon
instead: such options and variables have no effect, and one message names them.
"""

import copy
import os
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import click

from claw_runtime.cli import output

NAME = "boilerhouse"
"""A link of this name to the program makes the verbs in `PRINT_JSON` answer in JSON, as that program does."""

PRINT_JSON = ("claim", "status")
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
    """The command of that name; None if boilerhouse had no such command."""
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


def default_form(program: str, arguments: Sequence[str]) -> str:
    """The form of an answer for a program of that path, where the command line sets none."""
    verb = next((word for word in arguments if not word.startswith("-")), "")
    return "json" if PurePath(program).name == NAME and verb in PRINT_JSON else "text"


def _calling(original: click.Command) -> Any:
    def callback(**options: Any) -> Any:
        told = [OPTIONS[key][-1] for key in OPTIONS if options.pop(f"ignored_{key}") is not None]
        told += [variable for variable in VARIABLES if os.environ.get(variable)]
        if told:
            output.note(f"{', '.join(told)} had no effect: the daemon uses its own store")
        output.note(f"use claw-runtime sync {original.name}")
        return click.get_current_context().invoke(original.callback, **options) if original.callback else None

    return callback
