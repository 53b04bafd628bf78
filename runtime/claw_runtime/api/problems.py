"""Errors as RFC 9457 problem+json: one form for every refusal."""

import re

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from claw_runtime.api.schemas import Problem
from claw_runtime.api.turns import ClientGone
from claw_runtime.errors import ClawError, InvalidSpec, InvalidTenantId, Unauthorized
from claw_runtime.tenancy import tenant_id

log = structlog.get_logger(__name__)

COME_AGAIN = 5
"""Seconds of Retry-After if the error does not give them (`facts["retry_after"]`)."""

IN_FULL = re.compile(
    r"/api/v1/tenants/(.*)/(claim|release|status|container|sync|logs|files|snapshots|stored|verify|export|import|collect)"
)


def add_handlers(app: FastAPI) -> None:
    """Answer every error of this application as a problem."""
    app.add_exception_handler(ClawError, _claw_problem)
    app.add_exception_handler(RequestValidationError, _request_problem)
    app.add_exception_handler(HTTPException, _http_problem)
    app.add_exception_handler(ClientGone, lambda *_: Response(status_code=499))  # nobody reads it
    app.add_exception_handler(Exception, _defect)


def problem(error: ClawError, status: int | None = None) -> JSONResponse:
    """An error as problem+json; with another HTTP status than its class's, if one is given."""
    status = status or error.http_status
    body = Problem(
        type=f"urn:claw:{error.slug}",
        title=error.brief,
        status=status,
        detail=error.why,
        hint=error.hint,
        exit_code=error.exit_code,
    )
    headers = {}
    if status == 503 or "retry_after" in error.facts:
        headers["Retry-After"] = str(max(1, round(error.facts.get("retry_after") or COME_AGAIN)))
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(body.model_dump(by_alias=True), status, headers, media_type="application/problem+json")


async def _claw_problem(request: Request, error: Exception) -> JSONResponse:  # in the loop, where refusals are counted
    assert isinstance(error, ClawError)  # noqa: S101 - registered for this class only
    request.scope["claw.refusals"].note(request.scope, error)
    return problem(error, error.facts.get("status"))


def _request_problem(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this class only
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return problem(InvalidSpec(f"the request is not valid: {place}", why=first["msg"], hint="see docs/API.md"))


def _http_problem(request: Request, error: Exception) -> JSONResponse:
    """Refusals of the framework: an unknown path or method, an unreadable body, a tenant id with a slash."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class only
    path: str = request.scope["path"]
    if error.status_code == 404 and (found := IN_FULL.fullmatch(path)):
        try:
            tenant_id(found[1])
        except InvalidTenantId as invalid:
            return problem(invalid)
    if error.status_code == 400:
        return problem(InvalidSpec("the request is not valid: body", why=str(error.detail), hint="send JSON in UTF-8"))
    unknown = ClawError(
        f"{request.method} {path[:200]} is not part of the API",
        why=str(error.detail),
        hint="GET /openapi.json lists the API",
    )
    return problem(unknown, error.status_code)


def _defect(request: Request, error: Exception) -> JSONResponse:
    log.error("defect", path=request.url.path, exc_info=error)
    return problem(
        ClawError(
            "internal error",
            why=f"{type(error).__name__}: {error}",
            hint="the daemon's log has the details; nothing was deleted",
        )
    )
