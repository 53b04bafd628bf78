"""Activity: what happened to tenants and pools."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query

from claw_runtime.api import routing
from claw_runtime.api.schemas import EventAnswer
from claw_runtime.daemon.assembly import Runtime
from claw_runtime.errors import InvalidSpec
from claw_runtime.units import duration


def routes(runtime: Runtime) -> APIRouter:
    """The endpoint of events; its URL, `activity`, is the one that boilerhouse clients know."""
    router = routing.router("/api/v1", "activity")

    @router.get("/activity")
    def activity(
        tenant: str | None = None,
        pool: str | None = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        since: Annotated[str | None, Query(description="A time (2026-01-31T12:00:00Z) or a duration (10m)")] = None,
        after: Annotated[int, Query(ge=0, lt=1 << 63, description="An event's id: only later events")] = 0,
    ) -> list[EventAnswer]:
        """The newest matching events, oldest first; the last ten thousand are kept."""
        begin = moment(since, runtime.clock.now()) if since is not None else 0.0
        found = runtime.events.newest(limit, tenant=tenant, pool=pool, since=begin, after=after)
        return [
            EventAnswer(
                id=event.id,
                at=datetime.fromtimestamp(event.at, UTC).isoformat(timespec="milliseconds"),
                kind=event.kind,
                tenant_id=event.tenant,
                pool_id=event.pool,
                detail=dict(event.detail),
            )
            for event in found
        ]

    return router


def moment(text: str, now: float) -> float:
    """Seconds since the epoch of a time, or of a duration before now; 0 for any before it. Raises `InvalidSpec`."""
    try:
        return max(0.0, now - duration(text))
    except ValueError:
        pass
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        hint = "write a time such as 2026-01-31T12:00:00Z, or a duration such as 10m"
        raise InvalidSpec("the request is not valid: query.since", why=f"it is {text[:60]!r}", hint=hint) from error
    return max(0.0, (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp())
