"""A tenant's log: the output of its container, line by line, with the tenant's secrets masked."""

import threading
from collections.abc import AsyncIterator
from itertools import islice
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from claw_runtime.api import threads
from claw_runtime.api.events import moment
from claw_runtime.api.tenants import Tenant
from claw_runtime.daemon.assembly import Runtime
from claw_runtime.errors import ClawError, NotClaimed
from claw_runtime.ports import Lines
from claw_runtime.telemetry.redaction import Redactor
from claw_runtime.tenancy import TenantId, tenant_id

AT_ONCE = 512
"""Lines per piece of a log that is not followed; a followed log sends each line at once."""


class Followers:
    """The logs that are being read, so that a shutdown can end them: a followed log never ends by itself."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: set[Lines] = set()
        self._ended = False

    def add(self, lines: Lines) -> None:
        """Add a log that `end` will end; end it at once if `end` was called already."""
        with self._lock:
            self._open.add(lines)
            ended = self._ended
        if ended:
            lines.close()

    def remove(self, lines: Lines) -> None:
        """Remove a log that was read to its end or whose reader is gone."""
        with self._lock:
            self._open.discard(lines)
        lines.close()

    def end(self) -> None:
        """End all of them."""
        with self._lock:
            self._ended = True
            left = list(self._open)
        for lines in left:
            lines.close()


def routes(runtime: Runtime, followers: Followers) -> APIRouter:
    """The endpoint of logs."""
    router = APIRouter(prefix="/api/v1/tenants", tags=["logs"])

    @router.get("/{tenant}/logs", response_class=StreamingResponse, responses={200: {"content": {"text/plain": {}}}})
    async def logs(
        tenant: Tenant,
        follow: Annotated[bool, Query(description="Follow the log until the container ends")] = False,
        tail: Annotated[int | None, Query(ge=0, description="Begin with the last N lines")] = None,
        since: Annotated[str | None, Query(description="A time (2026-01-31T12:00:00Z) or a duration (10m)")] = None,
    ) -> StreamingResponse:
        """The output lines of the tenant's container, in UTF-8; its secrets are masked."""
        who = tenant_id(tenant)
        begin = moment(since, runtime.clock.now()) if since is not None else None

        lines, redactor = await threads.FOLLOWERS.run(
            lambda: _opened(runtime, who, tail=tail, since=begin, follow=follow)
        )
        followers.add(lines)
        text = _told(lines, redactor, 1 if follow else AT_ONCE, followers)
        return StreamingResponse(text, media_type="text/plain; charset=utf-8")

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


async def _told(lines: Lines, redactor: Redactor, at_once: int, followers: Followers) -> AsyncIterator[bytes]:
    """The text in pieces. A reader that disconnects ends the lines, and the thread that waits for one."""

    def piece() -> bytes:
        try:
            return b"".join(line + b"\n" for line in redactor.lines(islice(lines, at_once)))
        except ClawError:  # the engine went away: what was told is told, and a status cannot follow it
            return b""

    try:
        while text := await threads.FOLLOWERS.run(piece, leave=True):
            yield text
    finally:
        followers.remove(lines)
