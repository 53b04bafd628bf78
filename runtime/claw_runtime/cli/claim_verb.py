"""`claw-runtime claim`."""

from typing import Any

import click

from claw_runtime.cli import output
from claw_runtime.cli.arguments import Duration, Object, Pool, tenant_argument


@click.command("claim")
@tenant_argument
@click.option(
    "-p",
    "--pool",
    type=Pool(),
    envvar="CLAW_POOL",
    help="Pool to claim from; optional when there is only one.  [env: CLAW_POOL]",
)
@click.option(
    "--take-over", is_flag=True, help="Take the tenant from another runtime, whose next commit is then refused."
)
@click.option(
    "--wait",
    type=Duration(),
    default=0.0,
    metavar="SECONDS",
    help="When the pool is full, wait this long (30, 2m) for a free container.",
)
@click.option("--metadata", type=Object(), metavar="JSON", help="An object that status shows; it has no other effect.")
@output.form_option
@click.pass_obj
def command(
    context: output.Context,
    tenant: str,
    pool: str | None,
    take_over: bool,
    wait: float,
    metadata: dict[str, Any] | None,
) -> None:
    """Give a tenant a container with its state.

    Returns when the workload is ready. Reports where the container came from (the warmest available), where the
    state came from, and the milliseconds of each step. A tenant that is claimed already keeps its container (exit code
    0). A full pool is exit code 12.

    \b
    Examples:
      claw-runtime claim alice
      claw-runtime claim alice --pool openclaw --wait 30 -o json
      claw-runtime claim alice --metadata '{"plan": "gold"}'
    """
    body = {"poolId": pool, "takeOver": take_over, "wait": wait, "metadata": metadata}
    answer = context.client().post(f"/api/v1/tenants/{tenant}/claim", body)
    if output.emitted(context, answer, [answer["tenantId"]]):
        return
    endpoint = (answer["endpoints"] or {}).get("http", "no port")
    done = answer["status"].replace("_", " ")
    output.line(f"{tenant} {done}: {endpoint} ({answer['source']}, {_state(answer)})")
    if answer["phases"]:
        output.note(f"  {output.milliseconds(answer['phases'])}")
    if why := answer.get("fellBack"):
        output.note(f"  the new image failed, so it runs the previous one: {why}")
    if answer["tokenFile"]:
        output.note(f"  token in {answer['tokenFile']}")


def _state(answer: dict[str, Any]) -> str:
    """The state's generation and where it came from."""
    generation = f"generation {answer['generation']}" if answer["generation"] else "no state yet"
    if answer["status"] == "already_claimed":
        return generation  # where it came from is long ago
    words = {
        "empty": "no state yet",
        "restored": f"{generation} restored",
        "tree": f"{generation} was still here",
        "frozen": f"{generation} was still here",
        "kept": "a tree that is not saved yet",
    }
    return words.get(answer["state"], generation)
