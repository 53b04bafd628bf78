"""A tenant's log: the output of its container, line by line, with the tenant's secrets masked."""

from collections.abc import Iterator
from itertools import islice
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response, StreamingResponse

from claw_runtime.api import routing
from claw_runtime.api.events import moment
from claw_runtime.api.tenants import Tenant
from claw_runtime.api.turns import current
from claw_runtime.daemon.assembly import Runtime
from claw_runtime.errors import ClawError, NotClaimed
from claw_runtime.ports import Lines
from claw_runtime.telemetry.redaction import Redactor
from claw_runtime.tenancy import TenantId, tenant_id

AT_ONCE = 512
"""Lines per piece of a log that is not followed; a followed log sends each line at once."""


def routes(runtime: Runtime) -> APIRouter:
    """The endpoint of logs."""
    router = routing.router("/api/v1/tenants", "logs")

    @router.get("/{tenant}/logs", response_class=StreamingResponse, responses={200: {"content": {"text/plain": {}}}})
    def logs(
        tenant: Tenant,
        follow: Annotated[bool, Query(description="Follow the log until the container ends")] = False,
        tail: Annotated[int | None, Query(ge=0, lt=1 << 31, description="Begin with the last N lines")] = None,
        since: Annotated[str | None, Query(description="A time (2026-01-31T12:00:00Z) or a duration (10m)")] = None,
    ) -> Response:
        """The output lines of the tenant's container, in UTF-8; its secrets are masked."""
        who = tenant_id(tenant)
        begin = moment(since, runtime.clock.now()) if since is not None else None
        lines, redactor = _opened(runtime, who, tail=tail, since=begin, follow=follow)
        current().when_gone(lines.close)  # a thread that waits for a line gets the end
        return routing.Streamed(_told(lines, redactor, 1 if follow else AT_ONCE), "text/plain; charset=utf-8")

    return router


def _opened(
    runtime: Runtime, tenant: TenantId, *, tail: int | None, since: float | None, follow: bool
) -> tuple[Lines, Redactor]:
    """The lines of the tenant's container, running or frozen, and the redactor of its secrets.

    Raises:
        NotClaimed: The tenant has no container.
    """
    row, slot = runtime.tenants.find(tenant)
    if slot is None or slot.container is None:
        raise NotClaimed(
            f"tenant {tenant!r} is not claimed", why=f"its state is {row.state}", hint=f"claw-runtime claim {tenant}"
        )
    redactor = Redactor(runtime.values.secrets_of(tenant, runtime.tenants.occupancy(tenant).workload))
    return runtime.engine.lines(slot.container, tail=tail, since=since, follow=follow), redactor


def _told(lines: Lines, redactor: Redactor, at_once: int) -> Iterator[bytes]:
    """The text in pieces; the lines end when the reader has gone."""
    try:
        while text := b"".join(line + b"\n" for line in redactor.lines(islice(lines, at_once))):
            yield text
    except ClawError:  # the engine went away: the lines are sent, and no status can follow them
        return
    finally:
        lines.close()
