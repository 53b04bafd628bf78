"""`claw-runtime token`."""

from typing import Any

import click

from claw_runtime.cli import output
from claw_runtime.cli.arguments import Tenant


@click.group("token")
def command() -> None:
    """Tokens for the API over TCP, and for tenants' programs through the router."""


@command.command("create")
@click.argument("name")
@click.option(
    "--scope",
    type=click.Choice(["admin", "tenant", "link"]),
    default=None,
    help="All rights, one tenant only, or an address of one tenant; default: tenant if --tenant is given, else admin.",
)
@click.option("--tenant", type=Tenant(), help="The tenant that a token of scope tenant or link is for.")
@click.option("--expires", metavar="DURATION", help="Lifetime, such as 30d; default: until it is revoked.")
@output.form_option
@click.pass_obj
def create(context: output.Context, name: str, scope: str | None, tenant: str | None, expires: str | None) -> None:
    """Make a token and print it; it is never shown again.

    With it, a client may use the API over TCP (`up --listen`): everything except tokens, or one tenant's claim,
    release, sync, status, logs and files. One of scope tenant also reaches the tenant's program through the router
    (CLAW_INGRESS). With --scope link, an address of that program is printed, for WebSocket clients and webhooks that
    can send no header; it opens nothing else. This host stores only the SHA-256 of a token.

    \b
    Examples:
      claw-runtime token create dashboard
      claw-runtime token create alices-bot --tenant alice --expires 30d
      claw-runtime token create alices-phone --tenant alice --scope link
      export BOILERHOUSE_API_URL=http://127.0.0.1:7070/t/$(claw-runtime token create ci)
    """
    scope = scope or ("tenant" if tenant else "admin")
    body = {"name": name, "scope": scope, "tenantId": tenant, "expiresIn": expires}
    answer = context.client().post("/api/v1/tokens", body)
    if output.emitted(context, answer, [answer["name"]]):
        return
    link = scope == "link" and answer["url"]
    output.line(answer["url"] if link else answer["token"])
    for_whom = f"tenant {answer['tenantId']}" if answer["tenantId"] else "all tenants"
    output.note(f"{name}: for {for_whom}, {_until(answer)}; it is not shown again")
    if answer["url"] and not link:
        output.note(f"  {answer['url']}/ takes it as Authorization: Bearer …")
    elif scope == "link" and not link:
        output.note("  this host has no router: set CLAW_INGRESS; then it follows /~TENANT/ in the address")


@command.command("list")
@output.form_option
@click.pass_obj
def list_tokens(context: output.Context) -> None:
    """List tokens: for whom, until when, when last used.

    \b
    Examples:
      claw-runtime token list
    """
    tokens = context.client().get("/api/v1/tokens")
    if output.emitted(context, tokens, [token["name"] for token in tokens]):
        return
    if not tokens:
        output.note("no tokens yet: claw-runtime token create NAME")
        return
    columns = ("NAME", "SCOPE", "TENANT", "CREATED", "EXPIRES", "LAST USED")
    fields = ("name", "scope", "tenantId", "created", "expires", "lastUsed")
    output.table(columns, [[token[field] or "-" for field in fields] for token in tokens])


@command.command("revoke")
@click.argument("name")
@output.form_option
@click.pass_obj
def revoke(context: output.Context, name: str) -> None:
    """Revoke a token immediately.

    \b
    Examples:
      claw-runtime token revoke dashboard
    """
    answer = context.client().delete(f"/api/v1/tokens/{name}")
    if not output.emitted(context, answer, [answer["name"]]):
        output.line(f"{answer['name']} revoked")


def _until(answer: dict[str, Any]) -> str:
    return f"until {answer['expires']}" if answer["expires"] else "until it is revoked"
