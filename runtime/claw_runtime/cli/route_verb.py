"""`claw-runtime route`."""

from typing import Any

import click

from claw_runtime.cli import output
from claw_runtime.units import format_duration


@click.group("route")
def command() -> None:
    """Routes through the router to tenants' programs."""


@command.command("list")
@output.form_option
@click.pass_obj
def list_routes(context: output.Context) -> None:
    """List routes: address, state, and what clients do.

    A tenant that rests is claimed when a request comes. CLIENTS counts open requests and WebSockets; QUIET is the time
    since a client sent something.

    \b
    Examples:
      claw-runtime route list
      claw-runtime route list -o json
    """
    routes = context.client().get("/api/v1/routes")
    if output.emitted(context, routes, [route["url"] for route in routes]):
        return
    if not routes:
        output.note("no routes yet: claw-runtime claim TENANT")
        return
    output.table(("TENANT", "STATE", "ADDRESS", "PROGRAM", "CLIENTS", "QUIET"), [_row(route) for route in routes])
    if routes[0]["clients"] is None:
        output.note("the router is not running")


def _row(route: dict[str, Any]) -> list[object]:
    seen = route["clients"]
    state = f"{route['state']}, held" if route["fenced"] else route["state"]
    clients = "-" if seen is None else seen["requests"] + seen["sockets"]
    ages = [age for age in (seen["frameAge"], seen["requestAge"]) if age is not None] if seen else []
    quiet = format_duration(round(min(ages))) if ages else "-"
    return [route["tenantId"], state, route["url"], route["address"] or "-", clients, quiet]
