"""Routes: the ways through the router to tenants' programs."""

import math
from dataclasses import asdict

from fastapi import APIRouter

from claw_runtime.api import routing
from claw_runtime.api.schemas import OpenAnswer, RouteAnswer
from claw_runtime.api.tenants import Tenant, time
from claw_runtime.daemon.assembly import Runtime
from claw_runtime.ingress.ingress import RouteStatus
from claw_runtime.tenancy import tenant_id


def routes(runtime: Runtime) -> APIRouter:
    """The endpoints of routes."""
    router = routing.router("/api/v1", "routes")

    @router.get("/routes")
    def routes() -> list[RouteAnswer]:
        """All routes, by tenant; 409 if this host has no router."""
        return [RouteAnswer.model_validate(_fields(one)) for one in runtime.ingress.routes()]

    @router.post("/tenants/{tenant}/open")
    def open_(tenant: Tenant) -> OpenAnswer:
        """Make an address that opens the tenant in one browser, once, within five minutes."""
        who = tenant_id(tenant)
        url, expires = runtime.ingress.enter(who)
        return OpenAnswer.model_validate({"tenant_id": who, "url": url, "expires": time(expires)})

    return router


def _fields(one: RouteStatus) -> dict[str, object]:
    seen = one.activity
    return {
        "tenant_id": one.tenant,
        "url": one.url,
        "state": one.rung,
        "address": one.address,
        "fenced": one.fenced,
        "webhooks": list(one.webhooks),
        "clients": {name: value for name, value in asdict(seen).items() if value != math.inf} if seen else None,
    }
