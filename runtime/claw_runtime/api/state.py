"""A tenant's stored state as a whole: its status, verification, export, import and removal."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import Field

from claw_runtime.api import routing
from claw_runtime.api.guard import grant_of
from claw_runtime.api.problems import problem
from claw_runtime.api.schemas import _Request, _Wire
from claw_runtime.api.tenants import Generation, Tenant, text, time
from claw_runtime.api.turns import ClientGone, current
from claw_runtime.daemon.assembly import Runtime
from claw_runtime.errors import ClawError, Forbidden, NotClaimed
from claw_runtime.formats.head import Head
from claw_runtime.interchange.tar_out import exported
from claw_runtime.state.verify import Isolation, Verified
from claw_runtime.tenancy import TenantId, tenant_id

log = structlog.get_logger(__name__)


class LeaseAnswer(_Wire):
    """The owner who may write the next generation; `ours` if it is this runtime."""

    owner: str
    since: str | None
    ours: bool


class StoredAnswer(_Wire):
    """What the store has of a tenant, and what only this host has.

    `state` is `stored`, `removed` (by a person) or `none`; `local` is the tenant's state on this host, `error` why its
    newest tree is not in the store yet.
    """

    tenant_id: str
    state: str
    generation: int | None
    sealed_at: str | None
    epoch: int | None
    lease: LeaseAnswer | None
    objects: int
    stored_bytes: int
    local: str
    last_sync: str | None
    error: str | None


class TransferAnswer(_Wire):
    """The running commit: `bytes` of files that were read in `seconds`, of about `total` (0 when unknown); all are null
    when there is none."""

    tenant_id: str
    bytes: int | None
    total: int | None
    seconds: float | None


class CollectRequest(_Request):
    """`grace`: minimum age in seconds of an unneeded object; a day by default."""

    dry_run: bool = False
    grace: Annotated[float, Field(ge=0, le=31_536_000)] = 86_400.0


class CollectAnswer(_Wire):
    """`collected` is false when there was nothing to do now; `kept` generations stay, `young` objects wait."""

    tenant_id: str
    collected: bool
    kept: int
    objects: int
    bytes: int
    young: int
    dry_run: bool


class RemoveAnswer(_Wire):
    """What was removed, or would be removed."""

    tenant_id: str
    objects: int
    bytes: int
    dry_run: bool


class ImportRequest(_Request):
    """`source`: a directory or tar of this host, as an absolute path."""

    source: Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^/")]
    replace: bool = False


class ImportAnswer(_Wire):
    """The generation that it became; `reported` names what was left out or changed."""

    tenant_id: str
    generation: int
    files: int
    bytes: int
    reported: list[str]


class IsolationAnswer(_Wire):
    """A comparison of two tenants; no findings is good."""

    tenants: list[str]
    objects: list[int]
    findings: list[str]


def routes(runtime: Runtime) -> APIRouter:
    """The endpoints of states."""
    router = routing.router("/api/v1", "state")
    _looking(router, runtime)
    _moving(router, runtime)
    return router


def _looking(router: APIRouter, runtime: Runtime) -> None:
    @router.get("/tenants/{tenant}/stored")
    def stored(tenant: Tenant) -> StoredAnswer:
        """What is stored, which runtime may write, and what is not stored yet."""
        who = tenant_id(tenant)
        return _stored(runtime, who)

    @router.get("/tenants/{tenant}/transfer")
    def transfer(tenant: Tenant) -> TransferAnswer:
        """Progress of the running commit."""
        who = tenant_id(tenant)
        found, seconds = runtime.repository.transfers.of(who) or (None, None)
        return TransferAnswer(
            tenant_id=who,
            bytes=found.bytes if found else None,
            total=found.total if found else None,
            seconds=seconds,
        )

    @router.get(
        "/tenants/{tenant}/verify",
        response_class=StreamingResponse,
        responses={200: {"content": {"application/x-ndjson": {}}}},
    )
    def verify(tenant: Tenant, generation: Generation = None) -> Response:
        """Read every object again and check its digest: JSON lines of progress, then one with `result` or `problem`."""
        who = tenant_id(tenant)

        def work(report: Callable[[Any], None]) -> dict[str, Any]:
            try:
                done = runtime.verifier.verify(
                    who, generation=generation, report=lambda at: report(asdict(at)), check=current().check
                )
                return {"result": _verified(done)}
            except ClawError as error:
                return {"problem": _document(error)}
            except ClientGone:
                raise
            except Exception as error:
                log.exception("defect", path=f"verify of {who}")
                return {"problem": _document(ClawError("verification failed", why=repr(error)))}

        return routing.Reported(work)

    @router.get("/isolation")
    def isolation(
        one: str, other: str, canary: Annotated[list[str] | None, Query(max_length=20)] = None
    ) -> IsolationAnswer:
        """Whether two tenants share anything that is stored."""
        first, second = tenant_id(one), tenant_id(other)
        return _isolation(runtime.verifier.compare(first, second, canary or (), check=current().check))

    @router.get(
        "/tenants/{tenant}/export",
        response_class=StreamingResponse,
        responses={200: {"content": {"application/x-tar": {}}}},
    )
    def export(tenant: Tenant, generation: Generation = None) -> Response:
        """A generation as a tar."""
        who = tenant_id(tenant)

        document = runtime.repository.generations.manifest(who, generation)
        pieces = exported(runtime.repository, document, _secrets(runtime, who), runtime.events.record)
        return routing.streamed(pieces, "application/x-tar")


def _moving(router: APIRouter, runtime: Runtime) -> None:
    @router.post("/tenants/{tenant}/collect")
    def collect(tenant: Tenant, body: CollectRequest | None = None) -> CollectAnswer:
        """Remove what none of the kept generations needs."""
        who, options = tenant_id(tenant), body or CollectRequest()
        done = runtime.tenants.collect(who, grace=options.grace, dry_run=options.dry_run)
        return CollectAnswer(
            tenant_id=who,
            collected=done is not None,
            kept=done.kept if done else 0,
            objects=done.objects if done else 0,
            bytes=done.bytes if done else 0,
            young=done.young if done else 0,
            dry_run=options.dry_run,
        )

    @router.delete("/tenants/{tenant}/stored")
    def remove(tenant: Tenant, request: Request, *, dry_run: bool = False) -> RemoveAnswer:
        """Permanently remove everything that is stored of the tenant; 409 while it runs."""
        who = tenant_id(tenant)
        if grant_of(request.scope).scope == "tenant":
            raise Forbidden("a tenant's token cannot remove its state", hint="ask the operator")
        done = runtime.purge.clean(who, dry_run=dry_run)
        return RemoveAnswer(tenant_id=who, objects=done.objects, bytes=done.bytes, dry_run=done.dry_run)

    @router.post("/tenants/{tenant}/import")
    def bring(tenant: Tenant, request: Request, body: ImportRequest) -> ImportAnswer:
        """Make a directory or tar of this host the tenant's next generation; 409 while it runs."""
        who = tenant_id(tenant)
        if not grant_of(request.scope).local:
            raise Forbidden(
                "only the host's own user may read host files",
                why="the request came over TCP",
                hint="on the host itself: claw-runtime sync import",
            )
        done, skipped = runtime.interchange.bring(
            who, Path(body.source), replace=body.replace, secrets=_secrets(runtime, who)
        )
        return ImportAnswer(
            tenant_id=who,
            generation=done.number,
            files=done.files,
            bytes=done.bytes,
            reported=[f"{text(one.path)}: {one.reason}" for one in skipped],
        )


def _stored(runtime: Runtime, tenant: TenantId) -> StoredAnswer:
    head = runtime.repository.generations.head(tenant)
    objects, size = runtime.repository.generations.weight(tenant)
    try:
        row, _ = runtime.tenants.find(tenant)
    except NotClaimed:
        row = None
    return StoredAnswer(
        tenant_id=tenant,
        state="none" if head is None else "removed" if head.deleted else "stored" if head.manifest else "none",
        generation=head.generation if head and head.manifest else None,
        sealed_at=head.sealed_at if head else None,
        epoch=head.epoch if head else None,
        lease=_lease(runtime, head),
        objects=objects,
        stored_bytes=size,
        local=row.state if row else "unknown",
        last_sync=time(row.synced) if row else None,
        error=(runtime.commits.shown(row).why or row.error or None) if row else None,
    )


def _lease(runtime: Runtime, head: Head | None) -> LeaseAnswer | None:
    if head is None or head.owner is None:
        return None
    return LeaseAnswer(owner=head.owner, since=head.lease, ours=head.owner == runtime.repository.runtime_id)


def _secrets(runtime: Runtime, tenant: TenantId) -> list[tuple[str, str]]:
    """What to look for in an export, which must not fail because a secret file cannot be read."""
    try:
        return runtime.values.all_of(tenant)
    except (ClawError, OSError) as error:
        log.warning("an export or import is not searched for secrets", tenant=tenant, why=str(error))
        return []


def _verified(done: Verified) -> dict[str, Any]:
    return {
        "tenantId": done.tenant,
        "generations": list(done.generations),
        "objects": done.objects,
        "bytes": done.bytes,
        "files": done.files,
        "damaged": list(done.damaged),
    }


def _isolation(done: Isolation) -> IsolationAnswer:
    return IsolationAnswer(tenants=list(done.tenants), objects=list(done.objects), findings=list(done.findings))


def _document(error: ClawError) -> Any:
    return json.loads(bytes(problem(error).body))
