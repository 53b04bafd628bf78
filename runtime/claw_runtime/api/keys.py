"""Tenants' keys: wrapped anew when the operator's key is another."""

from collections import Counter

from fastapi import APIRouter

from claw_runtime.api import threads
from claw_runtime.api.schemas import RewrapAnswer, RewrapFailure, RewrapRequest
from claw_runtime.daemon.assembly import Runtime
from claw_runtime.tenancy import tenant_id


def routes(runtime: Runtime) -> APIRouter:
    """The endpoints of keys."""
    router = APIRouter(prefix="/api/v1/keys", tags=["keys"])

    @router.post("/rewrap")
    async def rewrap(body: RewrapRequest) -> RewrapAnswer:
        """Wrap tenants' keys with the operator's first key: of those tenants, else of all that have one."""
        who = [tenant_id(tenant) for tenant in body.tenants]
        found = await threads.READERS.run(lambda: list(runtime.keyring.rewrap(who)))
        counts = Counter(one.outcome for one in found)
        runtime.events.record("keys-wrapped", wrapped=counts["wrapped"], failed=counts["failed"])
        failed = [RewrapFailure(tenant_id=one.tenant, why=one.why) for one in found if one.outcome == "failed"]
        return RewrapAnswer(wrapped=counts["wrapped"], current=counts["current"], failed=failed)

    return router
