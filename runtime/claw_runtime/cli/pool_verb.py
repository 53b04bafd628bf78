"""`claw-runtime pool`."""

import click

from claw_runtime.cli import output


@click.group("pool")
def command() -> None:
    """Pools of warm slots."""


@command.command("list")
@output.json_option
@click.pass_obj
def list_pools(context: output.Context, form: str | None) -> None:
    """List pools with their slots counted.

    \b
    Examples:
      claw-runtime pool list
    """
    pools = context.client().get("/api/v1/pools")
    if output.wants_json(context, form):
        output.emit_json(pools)
        return
    columns = ("POOL", "READY", "CLAIMED", "MIN", "MAX", "IMAGE")
    output.table(columns, [[p[k] for k in ("id", "ready", "claimed", "minSize", "maxSize", "image")] for p in pools])
    for pool in pools:
        if pool["error"]:
            output.note(f"{pool['id']}: {pool['error']}")
