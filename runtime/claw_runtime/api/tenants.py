"""Tenants: claim, release, sync, status."""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response

from claw_runtime.api import routing
from claw_runtime.api.bodies import nested_deeper
from claw_runtime.api.guard import grant_of
from claw_runtime.api.schemas import (
    ClaimAnswer,
    ClaimRequest,
    ContainerAnswer,
    Endpoints,
    ReleaseAnswer,
    ReleaseRequest,
    StatusAnswer,
    SyncAnswer,
    SyncRequest,
    SyncResult,
)
from claw_runtime.api.turns import current
from claw_runtime.api.waiting import in_line
from claw_runtime.daemon.assembly import Runtime
from claw_runtime.errors import ClawError, Conflict, Forbidden, InvalidSpec, NotClaimed, UnknownPool
from claw_runtime.pools.wait_queue import QueuedClaim
from claw_runtime.ports import SlotRow, TenantRow
from claw_runtime.safefs.tree import Skipped
from claw_runtime.state.plain_view import ViewStatus
from claw_runtime.tenancy import TenantId, tenant_id
from claw_runtime.tenants.claim import Claim
from claw_runtime.tenants.commits import CommitRecord, saved_at
from claw_runtime.tenants.liveness import Pulse
from claw_runtime.tenants.restarts import Restart
from claw_runtime.tenants.tenants import Release

Tenant = Annotated[str, Path(description="Tenant id: 1-40 lower-case letters, digits or hyphens")]

Generation = Annotated[int | None, Query(ge=0, lt=1 << 63, description="A generation's number; the newest without")]

METADATA_MOST = 4096
"""Bytes of a claim's metadata, as JSON."""
METADATA_DEPTH = 32

REPORTED_MOST = 100
"""Names in one answer that a commit left out or stored otherwise."""

NO_COMMIT = CommitRecord()

WORDS = {"active": "warm", "claiming": "provisioning", "releasing": "provisioning"}
"""claw's states as the words that boilerhouse clients know; every other state is `cold`."""


def routes(runtime: Runtime) -> APIRouter:
    """The endpoints of tenants."""
    router = routing.router("/api/v1/tenants", "tenants")
    _claims(router, runtime)
    _looking(router, runtime)
    return router


def _claims(router: APIRouter, runtime: Runtime) -> None:
    @router.post("/{tenant}/claim")
    async def claim(tenant: Tenant, request: Request, body: ClaimRequest | None = None) -> ClaimAnswer:
        """Give the tenant a container with its state; a running tenant keeps its container."""
        who, options = tenant_id(tenant), body or ClaimRequest()
        pool = options.pool_id
        if pool is None:
            pool = await current().run(lambda: _pool_of(runtime, who))
        attempt = _claim(runtime, who, pool, options, request)
        return _claim_answer(await in_line(current(), partial(runtime.pools.line, pool), options.wait, attempt))

    @router.post("/{tenant}/release")
    def release(tenant: Tenant, body: ReleaseRequest | None = None) -> ReleaseAnswer:
        """Stop the container, commit the state, give the slot back."""
        options, who = body or ReleaseRequest(), tenant_id(tenant)
        return _release_answer(runtime.tenants.release(who, sync=options.sync, affinity=options.affinity))

    @router.post("/{tenant}/sync")
    def sync(tenant: Tenant, body: SyncRequest | None = None) -> SyncAnswer:
        """Commit the state of a running tenant, which keeps running; for a cold one there is nothing to do."""
        options, who = body or SyncRequest(), tenant_id(tenant)
        return _sync(runtime, who, options.direction)


def _looking(router: APIRouter, runtime: Runtime) -> None:
    @router.get("/{tenant}/status")
    def status(tenant: Tenant) -> StatusAnswer:
        """What this host knows of the tenant; one that was never claimed here is `cold`, its `state` is `unknown`."""
        who = tenant_id(tenant)
        try:
            return StatusAnswer.model_validate(_described(runtime, who))
        except NotClaimed:
            return StatusAnswer.model_validate(_stranger(who))

    @router.get("/{tenant}/container")
    def container(tenant: Tenant) -> ContainerAnswer:
        """The running container, for a command that begins in it within two seconds: no commit pauses it before.

        409 with `Retry-After` while it is paused for a commit, or the tenant is being claimed or released.
        """
        return ContainerAnswer(tenant_id=tenant, container_id=runtime.tenants.enter(tenant_id(tenant)))

    @router.get("/{tenant}")
    def tenant(tenant: Tenant) -> StatusAnswer:
        """The tenant's status; 404 if it was never claimed here."""
        who = tenant_id(tenant)
        return StatusAnswer.model_validate(_described(runtime, who))

    @router.get("", response_model=list[StatusAnswer])
    def tenants() -> Response:
        """All tenants that were ever claimed on this host, by id."""
        # Two queries and no model for each row: a thousand tenants are asked for at every tick of `status -w`.
        slots = {slot.id: slot for slot in runtime.ledger.slots()}
        liveness, commits, restarts, url = runtime.liveness, runtime.commits, runtime.restarts, runtime.ingress.url
        rows = [
            describe(
                row,
                slots.get(row.slot or ""),
                liveness.of(row.id),
                runtime.views.status(row.id),
                commits.shown(row),
                restarts.of(row),
                url(row.id),
            )
            for row in runtime.ledger.tenants()
        ]
        return Response(json.dumps(rows, ensure_ascii=False), media_type="application/json")


def _claim(
    runtime: Runtime, tenant: TenantId, pool: str, body: ClaimRequest, request: Request
) -> Callable[[QueuedClaim | None], Claim]:
    if body.take_over and grant_of(request.scope).scope == "tenant":
        raise Forbidden("a tenant's token cannot take it from another runtime", hint="ask the operator")
    metadata, gone = _metadata(body.metadata), current().gone
    return lambda first: runtime.tenants.claim(
        tenant, pool, take_over=body.take_over, metadata=metadata, gone=gone, first=first
    )


def _metadata(given: dict[str, Any] | None) -> str:
    """A claim's metadata as stored. Raises `InvalidSpec` for metadata that no client could read again."""
    if given is None:
        return ""
    if nested_deeper(given, METADATA_DEPTH):
        raise InvalidSpec(
            "the request is not valid: body.metadata",
            why=f"it is nested deeper than {METADATA_DEPTH} levels",
            hint="send a flatter object",
        )
    try:
        text = json.dumps(given, ensure_ascii=False, allow_nan=False)
        size = len(text.encode())
    except ValueError as error:  # a number that JSON does not have, or half a character
        raise InvalidSpec("the request is not valid: body.metadata", why=str(error), hint="send plain JSON") from error
    if size > METADATA_MOST:
        raise InvalidSpec("the request is not valid: body.metadata", why=f"it has more than {METADATA_MOST} bytes")
    return text


def _pool_of(runtime: Runtime, tenant: TenantId) -> str:
    """The pool of a claim that names none: where the tenant runs, else the only one."""
    with suppress(NotClaimed):
        row, _ = runtime.tenants.find(tenant)
        if row.state == "active" and row.pool:
            return row.pool
    pools = runtime.pools.ids()
    if len(pools) == 1:
        return pools[0]
    raise UnknownPool(
        "no pool was named", why=f"the pools here: {', '.join(pools) or 'none'}", hint="name one with --pool"
    )


def _sync(runtime: Runtime, tenant: TenantId, direction: str) -> SyncAnswer:
    row, _ = runtime.tenants.find(tenant)
    if row.state == "kept" and direction != "download":
        with suppress(ClawError):  # the row tells why it is still kept
            runtime.tenants.release(tenant)
        row, _ = runtime.tenants.find(tenant)
    if row.state != "active":
        return _sync_of_a_still_one(row, direction)
    if direction == "download":
        raise Conflict(
            f"nothing is downloaded for {tenant!r} while it runs",
            why="its local tree is newer than the store and would be overwritten",
            hint="release it and claim it again: every claim restores the newest generation",
        )
    done = runtime.tenants.sync(tenant)
    results = [
        SyncResult(
            direction="upload",
            success=True,
            bytes_transferred=done.uploaded_bytes,
            files_transferred=done.files if done.created else 0,
            note="" if done.created else "nothing has changed since the last commit",
        )
    ]
    if direction == "both":
        results.append(SyncResult(direction="download", success=True, note="the running tenant has the newest state"))
    return SyncAnswer(
        success=True, tenant_id=tenant, generation=done.number, results=results, reported=_reported(done.reported)
    )


def _sync_of_a_still_one(row: TenantRow, direction: str) -> SyncAnswer:
    """A sync of a tenant without a running container: everything is in the store unless an upload failed."""
    directions = ("upload", "download") if direction == "both" else (direction,)
    kept = row.state == "kept"
    busy = row.state in ("claiming", "releasing")
    if busy:
        raise Conflict(
            f"tenant {row.id!r} cannot be synced now", why=f"it is {row.state}", hint="ask again", retry_after=1
        )
    notes = {
        "upload": "the tenant is not running: everything that it wrote is stored",
        "download": "the tenant is not running: its next claim restores the newest generation",
    }
    results = [
        SyncResult.model_validate(
            {
                "direction": one,
                "success": not (kept and one == "upload"),
                "errors": [row.error] if kept and one == "upload" else [],
                "note": "" if kept and one == "upload" else notes[one],
            }
        )
        for one in directions
    ]
    return SyncAnswer(
        success=all(result.success for result in results), tenant_id=row.id, generation=row.base, results=results
    )


def _endpoints(port: int | None) -> Endpoints | None:
    return Endpoints(http=f"http://127.0.0.1:{port}", port=port) if port else None


def _claim_answer(claim: Claim) -> ClaimAnswer:
    return ClaimAnswer(
        status="already_claimed" if claim.already else "claimed",
        tenant_id=claim.tenant,
        pool_id=claim.pool,
        container_id=claim.container,
        endpoints=_endpoints(claim.port),
        source=claim.source,
        state=claim.state,
        image_digest=claim.image,
        generation=claim.generation,
        phases=claim.phases,
        token_file=str(claim.token_file) if claim.token_file else None,
        fell_back=claim.fell_back or None,
    )


def _release_answer(release: Release) -> ReleaseAnswer:
    done = release.generation
    return ReleaseAnswer(
        tenant_id=release.tenant,
        generation=done.number if done else None,
        changed=done.created if done else False,
        files=done.files if done else 0,
        bytes=done.bytes if done else 0,
        uploaded_bytes=done.uploaded_bytes if done else 0,
        seconds=round(done.seconds, 3) if done else 0.0,
        reported=_reported(done.reported) if done else [],
        affinity=release.affinity,
    )


def _reported(skipped: Sequence[Skipped]) -> list[str]:
    """What a commit left out or stored otherwise; a tenant can make a million such names, and the first ones do."""
    told = [f"{text(one.path)}: {one.reason}" for one in skipped[:REPORTED_MOST]]
    return [*told, f"and {len(skipped) - len(told)} more"] if len(skipped) > len(told) else told


def _described(runtime: Runtime, tenant: TenantId) -> dict[str, Any]:
    row, slot = runtime.tenants.find(tenant)
    pulse, view = runtime.liveness.of(tenant), runtime.views.status(tenant)
    url = runtime.ingress.url(tenant)
    return describe(row, slot, pulse, view, runtime.commits.shown(row), runtime.restarts.of(row), url)


def describe(
    row: TenantRow,
    slot: SlotRow | None,
    pulse: Pulse | None = None,
    view: ViewStatus | None = None,
    commits: CommitRecord = NO_COMMIT,
    restart: Restart | None = None,
    url: str | None = None,
) -> dict[str, Any]:
    """A tenant's `StatusAnswer` in plain JSON types."""
    probed = pulse if pulse and row.state == "active" and pulse.slot == row.slot else None
    port = slot.port if slot and row.state == "active" else None
    fails = row.state == "active" and (commits.late or commits.failures > 0)
    syncing = "syncing" if row.state == "releasing" else "error" if fails or row.state == "kept" else "idle"
    return {
        "tenantId": row.id,
        "status": WORDS.get(row.state, "cold"),
        "state": row.state,
        "poolId": row.pool,
        "containerId": slot.container if slot else None,
        "port": port,
        "endpoints": {"http": f"http://127.0.0.1:{port}", "port": port} if port else None,
        "url": url,
        "health": None if probed is None else "healthy" if probed.healthy else "unhealthy",
        "missing": probed.why or None if probed else None,
        "since": time(row.since),
        "lastActivity": time(row.seen),
        "restart": {
            "reason": restart.reason,
            "failures": restart.failures,
            "nextAt": time(restart.at) if restart.at else None,
        }
        if restart
        else None,
        "restarted": (row.restarted or None) if row.state == "active" else None,
        "syncStatus": {
            "state": syncing,
            "generation": row.base,
            "lastSync": time(row.synced),
            "error": (commits.why if fails else row.error) or None,
            "unsavedSince": time(saved_at(row)) if fails else None,
            "leaseLost": fails and commits.lease_lost,
            "leftOut": commits.left_out,
            "leftOutNames": list(commits.names),
        },
        "plainView": {
            "generation": view.generation,
            "files": view.files,
            "leftOut": view.left_out,
            "error": view.error or None,
        }
        if view
        else None,
        "image": row.image or None,
        "metadata": json.loads(row.metadata) if row.metadata else None,
    }


def _stranger(tenant: TenantId) -> dict[str, Any]:
    """The status of an unknown tenant: `cold`, not an error, for clients that know only cold and warm."""
    return {
        **describe(
            TenantRow(
                id=tenant, state="cold", pool=None, slot=None, step="", source="", base=0, epoch=0, error="", since=0.0
            ),
            None,
        ),
        "state": "unknown",
    }


def time(at: float) -> str | None:
    """Seconds since the epoch as ISO 8601 in UTC; None for never."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds") if at else None


def text(name: str) -> str:
    """A tenant's file name, which need not be UTF-8, as text that JSON can hold."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
