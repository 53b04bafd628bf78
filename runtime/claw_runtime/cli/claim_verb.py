"""`claw-runtime claim`."""

import click

from claw_runtime.cli import output
from claw_runtime.tenancy import tenant_id


@click.command("claim")
@click.argument("tenant")
@click.option(
    "-p", "--pool", envvar="CLAW_POOL", help="Pool to claim from; needless when there is one.  [env: CLAW_POOL]"
)
@click.option(
    "--take-over", is_flag=True, help="Take the tenant from another runtime, whose next commit is then refused."
)
@output.json_option
@click.pass_obj
def command(context: output.Context, tenant: str, pool: str | None, take_over: bool, form: str | None) -> None:
    """Give a tenant a container with its state.

    Answers when the workload is ready. A tenant that is claimed already keeps its container (exit code 0).

    \b
    Examples:
      claw-runtime claim alice
      claw-runtime claim alice --pool openclaw -o json
    """
    tenant_id(tenant)
    body = {"poolId": pool, "takeOver": take_over}
    answer = context.client().post(f"/api/v1/tenants/{tenant}/claim", body)
    if output.wants_json(context, form):
        output.emit_json(answer)
        return
    endpoint = (answer["endpoints"] or {}).get("http", "-")
    generation = f"generation {answer['generation']}" if answer["generation"] else "no state yet"
    output.line(f"{tenant} {answer['status'].replace('_', ' ')}: {endpoint} ({answer['source']}, {generation})")
    if answer["phases"]:
        output.note(f"  {output.milliseconds(answer['phases'])}")
    if answer["tokenFile"]:
        output.note(f"  token in {answer['tokenFile']}")
