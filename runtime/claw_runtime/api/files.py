"""Tenants' state in the store: the entries of a generation, and the bytes of one file."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response, StreamingResponse

from claw_runtime.api import routing
from claw_runtime.api.schemas import FileAnswer, FilesAnswer
from claw_runtime.api.tenants import Generation, Tenant, text
from claw_runtime.daemon.assembly import Runtime
from claw_runtime.errors import InvalidSpec
from claw_runtime.formats.manifest import Entry
from claw_runtime.safefs.quoting import quoted, unquoted
from claw_runtime.tenancy import TenantId, tenant_id

QuotedPath = Annotated[str, Query(min_length=1, max_length=1 << 16, description="As `quoted` of a list of files")]
DATES = (-62_135_596_800.0, 253_402_300_799.0)
"""Seconds since the epoch of the first and the last date."""

TYPES = {"f": "file", "d": "directory", "l": "link"}
"""The types of entries in the JSON, by those of a manifest."""


def routes(runtime: Runtime) -> APIRouter:
    """The endpoints of files."""
    router = routing.router("/api/v1/tenants", "files")

    @router.get("/{tenant}/files")
    def files(tenant: Tenant, generation: Generation = None) -> FilesAnswer:
        """The entries of a generation, the newest unless one is named."""
        who = tenant_id(tenant)
        manifest = runtime.repository.generations.manifest(who, generation)
        return FilesAnswer(
            tenant_id=tenant,
            generation=manifest.generation,
            files=[_file_answer(entry) for entry in manifest.entries],
        )

    @router.get(
        "/{tenant}/files/{path:path}",
        response_class=StreamingResponse,
        responses={200: {"content": {"application/octet-stream": {}}}},
    )
    def content(tenant: Tenant, path: str, generation: Generation = None) -> Response:
        """The bytes of one file of a generation, verified."""
        return _content(runtime, tenant_id(tenant), path, generation)

    @router.get(
        "/{tenant}/content",
        response_class=StreamingResponse,
        responses={200: {"content": {"application/octet-stream": {}}}},
    )
    def named(tenant: Tenant, path: QuotedPath, generation: Generation = None) -> Response:
        """The bytes of the file with this quoted path, whatever its name; verified."""
        return _content(runtime, tenant_id(tenant), unquoted_path(path), generation)

    return router


def _content(runtime: Runtime, who: TenantId, path: str, generation: int | None) -> Response:
    pieces = iter(runtime.repository.generations.read(who, path, generation))
    return routing.streamed(pieces, "application/octet-stream")


def unquoted_path(path: str) -> str:
    """The exact path of a quoted one. Raises `InvalidSpec`."""
    try:
        return unquoted(path)
    except ValueError as error:
        raise InvalidSpec(
            f"{path[:200]!r} is not a quoted path", why=str(error), hint="use a path as `sync list` prints it"
        ) from error


def _file_answer(entry: Entry) -> FileAnswer:
    return FileAnswer.model_validate(
        {
            "path": text(entry.path),
            "quoted": quoted(entry.path),
            "type": TYPES[entry.type],
            "size": entry.size,
            "mode": f"{entry.mode:04o}",
            "modified": _modified(entry.mtime_ns / 1e9),
            "sha256": entry.sha256 or None,
            "kind": entry.kind,
            "target": text(entry.target) if entry.target else None,
        }
    )


def _modified(at: float) -> str:
    """A tenant chooses its files' times, also beyond all dates: those are given as the first or last date."""
    return datetime.fromtimestamp(min(max(at, DATES[0]), DATES[1]), UTC).isoformat(timespec="seconds")
