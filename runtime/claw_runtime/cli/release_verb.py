"""`claw-runtime release`."""

import click

from claw_runtime.cli import output
from claw_runtime.tenancy import tenant_id
from claw_runtime.units import format_duration, format_size


@click.command("release")
@click.argument("tenant")
@click.option("--no-sync", is_flag=True, help="Drop what changed since the last generation.")
@output.json_option
@click.pass_obj
def command(context: output.Context, tenant: str, no_sync: bool, form: str | None) -> None:
    """Save a tenant's state and give its container back.

    Stops the program (it may finish what it does, within its stop timeout), commits the state as a new generation, and
    destroys the container. If the commit fails, the tree is kept on this host and tried again.

    \b
    Examples:
      claw-runtime release alice
    """
    tenant_id(tenant)
    answer = context.client().post(f"/api/v1/tenants/{tenant}/release", {"sync": not no_sync})
    if output.wants_json(context, form):
        output.emit_json(answer)
        return
    if answer["generation"] is None:
        output.line(f"{tenant} released")
    elif not answer["changed"]:
        output.line(f"{tenant} released: nothing changed since generation {answer['generation']}")
    else:
        size, sent = format_size(answer["bytes"]), format_size(answer["uploadedBytes"])
        output.line(f"{tenant} released: generation {answer['generation']}, {answer['files']} files, {size}")
        output.note(f"  {sent} uploaded in {format_duration(answer['seconds'])}")
    for report in answer["reported"]:
        output.note(f"  note: {report}")
