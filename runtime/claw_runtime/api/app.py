"""The HTTP API. Handlers are plain functions, run in threads: argument → service → answer, nothing else."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any

import structlog
from fastapi import FastAPI, Path, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException

from claw_runtime import __version__
from claw_runtime.api.schemas import (
    ClaimAnswer,
    ClaimRequest,
    Endpoints,
    FileAnswer,
    FilesAnswer,
    PoolAnswer,
    Problem,
    ReleaseAnswer,
    ReleaseRequest,
    StatusAnswer,
    SyncStatus,
)
from claw_runtime.errors import ClawError, InvalidSpec, InvalidTenantId, UnknownPool
from claw_runtime.manifest import Entry
from claw_runtime.ports import SlotRow, TenantRow
from claw_runtime.runtime import Runtime
from claw_runtime.services.claims import Claim, Release
from claw_runtime.tenancy import tenant_id

log = structlog.get_logger(__name__)

Tenant = Annotated[str, Path(description="Tenant id: 1-40 lower-case letters, digits or hyphens")]

TYPES = {"f": "file", "d": "directory", "l": "link"}


def create_app(runtime: Runtime) -> FastAPI:
    """The API of one runtime."""
    app = FastAPI(title="claw-runtime", version=__version__, docs_url=None, redoc_url=None)
    app.add_exception_handler(ClawError, _claw_problem)
    app.add_exception_handler(RequestValidationError, _request_problem)
    app.add_exception_handler(HTTPException, _http_problem)
    app.add_exception_handler(Exception, _defect)
    _probes(app, runtime)
    _tenants(app, runtime)
    _states(app, runtime)

    @app.get("/api/v1/pools")
    def pools() -> list[PoolAnswer]:
        """All pools with their slots counted."""
        return [PoolAnswer.model_validate(pool) for pool in runtime.pools.status()]

    return app


def _probes(app: FastAPI, runtime: Runtime) -> None:
    @app.get("/livez")
    def livez() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok", "version": __version__}

    @app.get("/readyz")
    def readyz() -> dict[str, Any]:
        """The engine and the object store answer too."""
        runtime.engine.info()
        next(iter(runtime.store.list(".claw-ready/")), None)
        return {"status": "ok", "store": runtime.store.url, "pools": len(runtime.pools.ids())}


def _tenants(app: FastAPI, runtime: Runtime) -> None:
    @app.post("/api/v1/tenants/{tenant}/claim", response_model_by_alias=True)
    def claim(tenant: Tenant, body: ClaimRequest) -> ClaimAnswer:
        """Give the tenant a container with its state; the same one while it runs."""
        pool = body.pool_id or _only_pool(runtime)
        return _claim_answer(runtime.claims.claim(tenant_id(tenant), pool, take_over=body.take_over))

    @app.post("/api/v1/tenants/{tenant}/release")
    def release(tenant: Tenant, body: ReleaseRequest) -> ReleaseAnswer:
        """Stop the container, commit the state, destroy the slot."""
        return _release_answer(runtime.claims.release(tenant_id(tenant), sync=body.sync))

    @app.get("/api/v1/tenants/{tenant}/status")
    def status(tenant: Tenant) -> StatusAnswer:
        """What this host knows of the tenant."""
        return _status_answer(*runtime.claims.find(tenant_id(tenant)))

    @app.get("/api/v1/tenants")
    def tenants() -> list[StatusAnswer]:
        """All tenants that were ever claimed on this host."""
        return [_status_answer(*runtime.claims.find(row.id)) for row in runtime.ledger.tenants()]


def _states(app: FastAPI, runtime: Runtime) -> None:
    @app.get("/api/v1/tenants/{tenant}/files")
    def files(tenant: Tenant, generation: int | None = None) -> FilesAnswer:
        """The entries of a generation, the newest unless one is named."""
        manifest = runtime.syncing.manifest(tenant_id(tenant), generation)
        return FilesAnswer(
            tenant_id=tenant,
            generation=manifest.generation,
            files=[_file_answer(entry) for entry in manifest.entries],
        )

    @app.get("/api/v1/tenants/{tenant}/files/{path:path}")
    def content(tenant: Tenant, path: str, generation: int | None = None) -> StreamingResponse:
        """The bytes of one file of a generation, verified."""
        pieces = runtime.syncing.read(tenant_id(tenant), path, generation)
        return StreamingResponse(_begun(pieces), media_type="application/octet-stream")


def _begun(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The first piece is fetched before the answer begins, so that an error is still an error and not half a file."""
    first = next(pieces, b"")

    def rest() -> Iterator[bytes]:
        yield first
        yield from pieces

    return rest()


def _only_pool(runtime: Runtime) -> str:
    pools = runtime.pools.ids()
    if len(pools) == 1:
        return pools[0]
    raise UnknownPool(
        "no pool was named", why=f"the pools here: {', '.join(pools) or 'none'}", hint="name one with --pool"
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
        image_digest=claim.image,
        generation=claim.generation,
        phases=claim.phases,
        token_file=str(claim.token_file) if claim.token_file else None,
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
        reported=[f"{_text(skipped.path)}: {skipped.reason}" for skipped in done.reported] if done else [],
    )


def _status_answer(row: TenantRow, slot: SlotRow | None) -> StatusAnswer:
    words = {"active": "warm", "claiming": "provisioning", "releasing": "provisioning"}
    port = slot.port if slot and row.state == "active" else None
    syncing = "syncing" if row.state == "releasing" else "error" if row.state == "kept" else "idle"
    return StatusAnswer.model_validate(
        {
            "tenant_id": row.id,
            "status": words.get(row.state, "cold"),
            "state": row.state,
            "pool_id": row.pool,
            "container_id": slot.container if slot else None,
            "port": port,
            "endpoints": _endpoints(port),
            "since": datetime.fromtimestamp(row.since, UTC).isoformat(timespec="seconds"),
            "sync_status": SyncStatus.model_validate(
                {"state": syncing, "generation": row.base, "error": row.error or None}
            ),
        }
    )


def _text(name: str) -> str:
    """A tenant's name for a file, whose bytes need not be UTF-8, as text that JSON can hold."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _file_answer(entry: Entry) -> FileAnswer:
    return FileAnswer.model_validate(
        {
            "path": _text(entry.path),
            "type": TYPES[entry.type],
            "size": entry.size,
            "mode": f"{entry.mode:04o}",
            "modified": datetime.fromtimestamp(entry.mtime_ns / 1e9, UTC).isoformat(timespec="seconds"),
            "sha256": entry.sha256 or None,
            "kind": entry.kind,
            "target": _text(entry.target) if entry.target else None,
        }
    )


def problem(error: ClawError, status: int | None = None) -> JSONResponse:
    """An error as RFC 9457 problem+json; with another HTTP status than its class's, if one is given."""
    status = status or error.http_status
    body = Problem(
        type=f"urn:claw:{error.slug}",
        title=error.brief,
        status=status,
        detail=error.why,
        hint=error.hint,
        exit_code=error.exit_code,
    )
    headers = {"Retry-After": "5"} if status == 503 else {}
    return JSONResponse(body.model_dump(by_alias=True), status, headers, media_type="application/problem+json")


def _claw_problem(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ClawError)  # noqa: S101 - registered for this class only
    log.info("refused", path=request.url.path, error=str(error), slug=error.slug)
    return problem(error)


def _request_problem(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this class only
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return problem(InvalidSpec(f"the request is not valid: {place}", why=first["msg"], hint="see docs/JSON_OUTPUT.md"))


def _http_problem(request: Request, error: Exception) -> JSONResponse:
    """What the framework refuses: an unknown address or method, an unreadable body, a tenant id with a slash in it."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class only
    path: str = request.scope["path"]
    if error.status_code == 404 and (found := re.fullmatch(r"/api/v1/tenants/(.*)/(claim|release|status|files)", path)):
        try:
            tenant_id(found[1])
        except InvalidTenantId as invalid:
            return problem(invalid)
    if error.status_code == 400:
        return problem(InvalidSpec("the request is not valid: body", why=str(error.detail), hint="send JSON in UTF-8"))
    unknown = ClawError(
        f"{request.method} {path[:200]} is not part of the API",
        why=str(error.detail),
        hint="GET /openapi.json tells what is",
    )
    return problem(unknown, error.status_code)


def _defect(request: Request, error: Exception) -> JSONResponse:
    log.error("defect", path=request.url.path, exc_info=error)
    return problem(
        ClawError(
            "claw-runtime made a mistake",
            why=f"{type(error).__name__}: {error}",
            hint="the daemon's log has the details; nothing was deleted",
        )
    )
