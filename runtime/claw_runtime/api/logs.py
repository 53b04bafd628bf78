"""A tenant's log: what its container printed, line by line, without the tenant's secrets."""

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
"""Lines in one piece of a log that is not followed; one that is followed has each line as it comes."""


class Followers:
    """The logs that are being read, so that a daemon that ends can end them: a followed one never would."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: set[Lines] = set()
        self._ended = False

    def add(self, lines: Lines) -> None:
        """From now on `end` ends these too; at once when it was called already."""
        with self._lock:
            self._open.add(lines)
            ended = self._ended
        if ended:
            lines.close()

    def remove(self, lines: Lines) -> None:
        """They are read, or nobody wants them any more."""
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
        follow: Annotated[bool, Query(description="Go on with what comes, until the container ends")] = False,
        tail: Annotated[int | None, Query(ge=0, description="Begin with the last so many lines")] = None,
        since: Annotated[str | None, Query(description="A time (2026-01-31T12:00:00Z) or a duration (10m)")] = None,
    ) -> StreamingResponse:
        """The lines that the tenant's container printed, in UTF-8; its secrets are masked."""
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
    """The lines of the container that the tenant has, running or frozen, and what takes its secrets out of them.

    Raises:
        NotClaimed: It has none.
    """
    row, slot = runtime.tenants.find(tenant)
    if slot is None or slot.container is None:
        raise NotClaimed(
            f"tenant {tenant!r} is not claimed", why=f"its state is {row.state}", hint=f"claw-runtime claim {tenant}"
        )
    redactor = Redactor(runtime.values.secrets_of(tenant, runtime.tenants.occupancy(tenant).workload))
    return runtime.engine.lines(slot.container, tail=tail, since=since, follow=follow), redactor


async def _told(lines: Lines, redactor: Redactor, at_once: int, followers: Followers) -> AsyncIterator[bytes]:
    """The text in pieces. A reader that goes away ends the lines, and with them the thread that waits for one."""

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
