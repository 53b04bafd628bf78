"""The OpenAPI 3.1 description that `GET /openapi.json` returns and docs/openapi.json holds.

The framework describes paths, bodies and answers. This module adds the rest: that every error is a problem, which
header makes a request safe to repeat, and how a token is sent.
"""

from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from claw_runtime.api.idempotency import UNKEPT
from claw_runtime.api.schemas import Problem

ABOUT = """\
Claim a container with its state for a tenant, look at it, save it, release it; keep the pools that they come from.

On the Unix socket no token is asked for. Over TCP send one as `Authorization: Bearer …`, or begin the path with
`/t/<token>`. Bodies are JSON. See docs/API.md.
"""
KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "A repeated key gets the same answer for a day, and nothing is done twice",
    "schema": {"type": "string", "maxLength": 255},
}
PROBLEM = {
    "description": "A problem (RFC 9457)",
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
}


def operation_id(route: APIRoute) -> str:
    """`tenants_claim`, `tenants_list`, `pools_show`, …: for generated clients, whose functions are named so."""
    noun = str(route.tags[0])
    verb = {noun.removesuffix("s"): "show", noun: "list"}.get(route.name, route.name)
    return f"{noun}_{verb}"


def complete(app: FastAPI) -> None:
    """Complete this application's description."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _completed(plain())
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _completed(document: dict[str, Any]) -> dict[str, Any]:
    document["info"]["description"] = ABOUT
    components = document["components"]
    for invented in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(invented, None)
    components["schemas"]["Problem"] = Problem.model_json_schema(by_alias=True)
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{}, {"token": []}]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            operation["responses"].pop("422", None)
            operation["responses"]["default"] = PROBLEM
            if method != "get" and not UNKEPT.fullmatch(path):
                operation.setdefault("parameters", []).append(KEY)
    return document
