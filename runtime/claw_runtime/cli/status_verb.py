"""`claw-runtime status`."""

import time
from datetime import datetime

import click

from claw_runtime.cli import output
from claw_runtime.tenancy import tenant_id
from claw_runtime.units import format_duration


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
    return answer["tenantId"], answer["state"], answer["poolId"] or "-", endpoint, _generation(answer), _ago(answer)


def _generation(answer: dict) -> object:  # type: ignore[type-arg]
    """What the local tree grew from; without a tree there is nothing to say, since the store may be newer."""
    return "-" if answer["state"] == "cold" else answer["syncStatus"]["generation"] or "-"


def _ago(answer: dict) -> str:  # type: ignore[type-arg]
    """A time of day would make the table wider than a terminal; `status TENANT` and JSON have it."""
    seconds = round(time.time() - datetime.fromisoformat(answer["since"]).timestamp())
    return f"{seconds} s ago" if seconds < 60 else f"{format_duration(seconds)} ago"


def _one(answer: dict) -> None:  # type: ignore[type-arg]
    output.fields(
        {
            "tenant": answer["tenantId"],
            "state": answer["state"],
            "pool": answer["poolId"],
            "endpoint": (answer["endpoints"] or {}).get("http"),
            "container": (answer["containerId"] or "")[:12],
            "grew from": None if (generation := _generation(answer)) == "-" else f"generation {generation}",
            "since": answer["since"],
            "error": answer["syncStatus"]["error"],
        }
    )
