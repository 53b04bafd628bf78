"""Requests and answers of the HTTP API, in camelCase; docs/JSON_OUTPUT.md documents them as a contract.

Names are those that clients of the boilerhouse API use, so that they work unchanged.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class _Wire(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", from_attributes=True)


class ClaimRequest(_Wire):
    """`poolId` may be left out when there is one pool."""

    pool_id: str | None = None
    take_over: bool = False


class ReleaseRequest(_Wire):
    """`sync: false` drops what changed since the last commit."""

    sync: bool = True


class Endpoints(_Wire):
    """Where the tenant's program answers, on this host."""

    http: str
    port: int


class ClaimAnswer(_Wire):
    """`phases` are milliseconds; `tokenFile` is a 0600 file with the workload's generated secret."""

    status: Literal["claimed", "already_claimed"]
    tenant_id: str
    pool_id: str
    container_id: str
    endpoints: Endpoints | None
    source: str
    image_digest: str
    generation: int
    phases: dict[str, float]
    token_file: str | None


class ReleaseAnswer(_Wire):
    """`generation` is the one that was sealed, or the unchanged one before it; sizes in bytes, `seconds` of the commit.

    `reported` names what was found in the tree and could not be stored as a plain file (a socket, a torn database).
    """

    status: Literal["released"] = "released"
    tenant_id: str
    generation: int | None
    changed: bool
    files: int
    bytes: int
    uploaded_bytes: int
    seconds: float
    reported: list[str]


class SyncStatus(_Wire):
    """`error` says why a tree is kept on this host."""

    state: Literal["idle", "syncing", "error"]
    generation: int
    error: str | None = None


class StatusAnswer(_Wire):
    """`status` is the word boilerhouse clients know (`cold`, `warm`, `provisioning`); `state` is ours and finer."""

    tenant_id: str
    status: Literal["cold", "warm", "provisioning"]
    state: str
    pool_id: str | None
    container_id: str | None
    port: int | None
    endpoints: Endpoints | None
    since: str
    sync_status: SyncStatus


class PoolAnswer(_Wire):
    """Slots of one pool, counted; `error` says why it is not full."""

    id: str
    image: str
    min_size: int
    max_size: int
    ready: int
    filling: int
    claimed: int
    error: str


class FileAnswer(_Wire):
    """One entry of a generation; `mode` octal, `modified` ISO 8601, `kind` plain or sqlite."""

    path: str
    type: Literal["file", "directory", "link"]
    size: int
    mode: str
    modified: str
    sha256: str | None
    kind: str
    target: str | None


class FilesAnswer(_Wire):
    """The entries of a tenant's generation, in the order of their paths."""

    tenant_id: str
    generation: int
    files: list[FileAnswer]


class Problem(_Wire):
    """RFC 9457; `type` is `urn:claw:<slug>`, `exitCode` what the CLI ends with."""

    type: str
    title: str
    status: int
    detail: str
    hint: str
    exit_code: int
