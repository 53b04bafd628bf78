"""`claw-runtime release`."""

import click

from claw_runtime.cli import output
from claw_runtime.cli.arguments import Tenant
from claw_runtime.units import format_duration, format_size

STAYS = {"frozen": "its container stays, frozen, for a while", "parked": "its tree stays on this host for a while"}


@click.command("release")
@click.argument("tenant", type=Tenant("active", "frozen", "kept"))
@click.option("--no-sync", is_flag=True, help="Discard changes since the last generation.")
@click.option("--no-affinity", is_flag=True, help="Keep nothing of the tenant on this host.")
@output.form_option
@click.pass_obj
def command(context: output.Context, tenant: str, no_sync: bool, no_affinity: bool) -> None:
    """Save a tenant's state and give its container back.

    Stops the program, which may finish its work within its stop timeout, and commits the state as a new generation.
    Then destroys the container, or keeps it frozen for this tenant's next claim if the pool is configured so. If the
    commit fails, the tree is kept on this host and the commit is retried.

    \b
    Examples:
      claw-runtime release alice
      claw-runtime release alice --no-affinity
    """
    body = {"sync": not no_sync, "affinity": not no_affinity}
    answer = context.client().post(f"/api/v1/tenants/{tenant}/release", body)
    if output.emitted(context, answer, [answer["tenantId"]]):
        return
    if answer["generation"] is None:
        output.line(f"{tenant} released")
    elif not answer["changed"]:
        output.line(f"{tenant} released: nothing changed since generation {answer['generation']}")
    else:
        size, sent = format_size(answer["bytes"]), format_size(answer["uploadedBytes"])
        files = output.counted(answer["files"], "file")
        output.line(f"{tenant} released: generation {answer['generation']}, {files}, {size}")
        output.note(f"  {sent} uploaded in {format_duration(answer['seconds'])}")
    if stays := STAYS.get(answer["affinity"]):
        output.note(f"  {stays}")
    for report in answer["reported"]:
        output.note(f"  note: {report}")
