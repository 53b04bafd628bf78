"""Tenants' state in the store: what is in a generation, and the bytes of one file of it."""

from collections.abc import Iterator
from datetime import UTC, datetime

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from claw_runtime.api.schemas import FileAnswer, FilesAnswer
from claw_runtime.api.tenants import Tenant, text
from claw_runtime.manifest import Entry
from claw_runtime.runtime import Runtime
from claw_runtime.tenancy import tenant_id

TYPES = {"f": "file", "d": "directory", "l": "link"}


def routes(runtime: Runtime) -> APIRouter:
    """The endpoints of files."""
    router = APIRouter(prefix="/api/v1/tenants", tags=["files"])

    @router.get("/{tenant}/files")
    def files(tenant: Tenant, generation: int | None = None) -> FilesAnswer:
        """The entries of a generation, the newest unless one is named."""
        manifest = runtime.syncing.manifest(tenant_id(tenant), generation)
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
    def content(tenant: Tenant, path: str, generation: int | None = None) -> StreamingResponse:
        """The bytes of one file of a generation, verified."""
        pieces = runtime.syncing.read(tenant_id(tenant), path, generation)
        return StreamingResponse(_begun(pieces), media_type="application/octet-stream")

    return router


def _begun(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The first piece is fetched before the answer begins, so that an error is still an error and not half a file."""
    first = next(pieces, b"")

    def rest() -> Iterator[bytes]:
        yield first
        yield from pieces

    return rest()


def _file_answer(entry: Entry) -> FileAnswer:
    return FileAnswer.model_validate(
        {
            "path": text(entry.path),
            "type": TYPES[entry.type],
            "size": entry.size,
            "mode": f"{entry.mode:04o}",
            "modified": datetime.fromtimestamp(entry.mtime_ns / 1e9, UTC).isoformat(timespec="seconds"),
            "sha256": entry.sha256 or None,
            "kind": entry.kind,
            "target": text(entry.target) if entry.target else None,
        }
    )
