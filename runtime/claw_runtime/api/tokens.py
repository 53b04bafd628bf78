"""Tokens of the API: made, listed and revoked only on the host; the guard refuses these paths over TCP."""

from dataclasses import asdict

from fastapi import APIRouter

from claw_runtime.api import routing
from claw_runtime.api.schemas import NewTokenAnswer, TokenAnswer, TokenRequest
from claw_runtime.api.tenants import time
from claw_runtime.daemon.assembly import Runtime
from claw_runtime.errors import InvalidSpec
from claw_runtime.ports import TokenRow
from claw_runtime.units import duration


def routes(runtime: Runtime) -> APIRouter:
    """The endpoints of tokens."""
    router = routing.router("/api/v1/tokens", "tokens")

    @router.get("")
    def tokens() -> list[TokenAnswer]:
        """All tokens, by name."""
        return [TokenAnswer.model_validate(_fields(row)) for row in runtime.tokens.all()]

    @router.post("", status_code=201)
    def create(body: TokenRequest) -> NewTokenAnswer:
        """Make a token; only this answer contains its text."""
        row, text = runtime.tokens.create(
            body.name, body.scope, tenant=body.tenant_id, lifetime=_lifetime(body.expires_in)
        )
        runtime.events.record("token-created", tenant=row.tenant, name=row.name, scope=row.scope)
        runtime.ingress.changed()
        url = runtime.ingress.base(row.tenant) if row.tenant else None
        if url and row.scope == "link":
            url += f"/{text.reveal()}"
        return NewTokenAnswer.model_validate({**_fields(row), "token": text.reveal(), "url": url})

    @router.delete("/{name}")
    def revoke(name: str) -> TokenAnswer:
        """Revoke a token: its text is invalid from now on. Returns the revoked token."""
        row = runtime.tokens.revoke(name)
        runtime.ingress.changed()
        runtime.events.record("token-revoked", tenant=row.tenant, name=row.name, scope=row.scope)
        return TokenAnswer.model_validate(_fields(row))

    return router


def _lifetime(text: str | None) -> float | None:
    try:
        return duration(text) if text is not None else None
    except ValueError as error:
        raise InvalidSpec("the request is not valid: body.expiresIn", why=str(error), hint="such as 30d") from error


def _fields(row: TokenRow) -> dict[str, object]:
    known = asdict(row)
    return {
        "name": row.name,
        "scope": row.scope,
        "tenant_id": row.tenant,
        "created": time(row.made_at),
        "expires": time(known["expires_at"] or 0.0),
        "last_used": time(known["used_at"] or 0.0),
    }
