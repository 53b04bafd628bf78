"""`claw-runtime status`."""

import click

from claw_runtime.cli import output
from claw_runtime.tenancy import tenant_id


@click.command("status")
@click.argument("tenant", required=False)
@output.json_option
@click.pass_obj
def command(context: output.Context, tenant: str | None, form: str | None) -> None:
    """Show tenants: claimed or not, where, why.

    \b
    Examples:
      claw-runtime status
      claw-runtime status alice -o json
    """
    if tenant is not None:
        answer = context.client().get(f"/api/v1/tenants/{tenant_id(tenant)}/status")
        if output.wants_json(context, form):
            output.emit_json(answer)
        else:
            _one(answer)
        return
    answers = context.client().get("/api/v1/tenants")
    if output.wants_json(context, form):
        output.emit_json(answers)
    elif answers:
        output.table(
            ("TENANT", "STATE", "POOL", "ENDPOINT", "GENERATION", "SINCE"), [_row(answer) for answer in answers]
        )
    else:
        output.note("no tenants yet: claw-runtime claim TENANT")


def _row(answer: dict) -> tuple[object, ...]:  # type: ignore[type-arg]
    endpoint = (answer["endpoints"] or {}).get("http", "-")
    generation = answer["syncStatus"]["generation"] or "-"
    return answer["tenantId"], answer["state"], answer["poolId"] or "-", endpoint, generation, answer["since"]


def _one(answer: dict) -> None:  # type: ignore[type-arg]
    output.fields(
        {
            "tenant": answer["tenantId"],
            "state": answer["state"],
            "pool": answer["poolId"],
            "endpoint": (answer["endpoints"] or {}).get("http"),
            "container": (answer["containerId"] or "")[:12],
            "grew from": f"generation {answer['syncStatus']['generation']}",
            "since": answer["since"],
            "error": answer["syncStatus"]["error"],
        }
    )
