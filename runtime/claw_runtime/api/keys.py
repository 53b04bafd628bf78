"""Tenants' keys: wrapped again after a change of the operator's key."""

from collections import Counter

from fastapi import APIRouter

from claw_runtime.api import routing
from claw_runtime.api.schemas import RewrapAnswer, RewrapFailure, RewrapRequest
from claw_runtime.daemon.assembly import Runtime
from claw_runtime.tenancy import tenant_id


def routes(runtime: Runtime) -> APIRouter:
    """The endpoints of keys."""
    router = routing.router("/api/v1/keys", "keys")

    @router.post("/rewrap")
    def rewrap(body: RewrapRequest) -> RewrapAnswer:
        """Wrap the keys of these tenants, or of all that have one, with the operator's first key."""
        who = [tenant_id(tenant) for tenant in body.tenants]
        found = list(runtime.keyring.rewrap(who))
        counts = Counter(one.outcome for one in found)
        runtime.events.record("keys-wrapped", wrapped=counts["wrapped"], failed=counts["failed"])
        failed = [RewrapFailure(tenant_id=one.tenant, why=one.why) for one in found if one.outcome == "failed"]
        return RewrapAnswer(wrapped=counts["wrapped"], current=counts["current"], failed=failed)

    return router
