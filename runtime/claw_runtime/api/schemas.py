"""Requests and answers of the HTTP API, in camelCase; docs/JSON_OUTPUT.md documents them as a contract.

Names are those that clients of the boilerhouse API use, so that they work unchanged. An unknown field of a request is
refused, since a misspelt `takeOver` must not pass silently; `metadata` is where a client keeps what is its own.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

Count = Annotated[int, Field(ge=0, le=10_000)]
WAIT_MOST = 600
"""Seconds that a claim may wait for a slot."""


class _Wire(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", from_attributes=True)


class _Request(_Wire):
    """A request's body, without conversions: `true` is no number, and `"5"` is none either."""

    model_config = ConfigDict(strict=True)


class ServicesAnswer(_Wire):
    """Services that do not answer, of `engine` and `store`, with the reason; as of some seconds ago."""

    silent: dict[str, str]


class RecoveryAnswer(_Wire):
    """Of so many `tenants` that the last daemon left on this host, how many are `recovered`; whether its slots are.

    After a reboot, of `toRestart` tenants that this host claims again, how many are `restarted`; for `restartsFailing`
    of the others the last attempt failed.
    """

    tenants: int
    recovered: int
    pools_ready: bool
    to_restart: int
    restarted: int
    restarts_failing: int


# --- tenants ---


class ClaimRequest(_Request):
    """`poolId` may be left out when there is one pool; `wait` seconds for a slot when the pool is full."""

    pool_id: str | None = None
    take_over: bool = False
    wait: Annotated[float, Field(ge=0, le=WAIT_MOST)] = 0.0
    metadata: dict[str, Any] | None = None


class ReleaseRequest(_Request):
    """`sync: false` drops changes since the last commit; `affinity: false` keeps nothing of the tenant on this host."""

    sync: bool = True
    affinity: bool = True


class SyncRequest(_Request):
    """The direction: `upload` the running tenant's state, `download` the store's, or `both`."""

    direction: Literal["upload", "download", "both"] = "both"


class Endpoints(_Wire):
    """Where the tenant's program answers, on this host."""

    http: str
    port: int


class ClaimAnswer(_Wire):
    """`phases` are milliseconds; `tokenFile` is a 0600 file with the workload's generated secret.

    `fellBack` is why the tenant runs its previous image instead of the requested one.
    """

    status: Literal["claimed", "already_claimed"]
    tenant_id: str
    pool_id: str
    container_id: str
    endpoints: Endpoints | None
    source: str
    state: str
    image_digest: str
    generation: int
    phases: dict[str, float]
    token_file: str | None
    fell_back: str | None = None


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
    affinity: Literal["frozen", "parked"] | None


class SyncResult(_Wire):
    """One direction; `note` is why there was nothing to do."""

    direction: Literal["upload", "download"]
    success: bool
    bytes_transferred: int = 0
    files_transferred: int = 0
    errors: list[str] = []
    note: str = ""


class SyncAnswer(_Wire):
    """`generation` is HEAD's after the sync, as far as this host knows it; `reported` as in `ReleaseAnswer`."""

    success: bool
    tenant_id: str
    generation: int
    results: list[SyncResult]
    reported: list[str] = []


class SyncStatus(_Wire):
    """`error` is why a tree is kept on this host, or why a running tenant's last commit failed.

    `unsavedSince` is null unless it failed. `leftOutNames` are the first of `leftOut`, each with its reason.
    """

    state: Literal["idle", "syncing", "error"]
    generation: int
    last_sync: str | None = None
    error: str | None = None
    unsaved_since: str | None = None
    lease_lost: bool = False
    left_out: int = 0
    left_out_names: list[str] = []


class PlainView(_Wire):
    """The generation and the files that the plain view has, how many it left out, and why it is not whole."""

    generation: int
    files: int
    left_out: int
    error: str | None = None


class ContainerAnswer(_Wire):
    """Where a command of the host can run."""

    tenant_id: str
    container_id: str


class RestartAnswer(_Wire):
    """Why the daemon is about to claim the tenant by itself, or `crash-loop`: only a claim by a person starts it again.

    `failures` in a row; `nextAt` is null when the next attempt is due, or there is none.
    """

    reason: str
    failures: int
    next_at: str | None


class StatusAnswer(_Wire):
    """`status` is for boilerhouse clients (`cold`, `warm`, `provisioning`); `state` is claw's own and finer.

    `health` is the result of the last probes of a running workload, `missing` why the last failed one failed.
    `plainView` is null until one was made since the daemon's start. `restarted` is why the daemon claimed the running
    tenant by itself; null after a claim by a person. `url` is its address through the router; null without a router.
    """

    tenant_id: str
    status: Literal["cold", "warm", "provisioning"]
    state: str
    pool_id: str | None
    container_id: str | None
    port: int | None
    endpoints: Endpoints | None
    url: str | None
    health: Literal["healthy", "unhealthy"] | None
    missing: str | None
    since: str | None
    last_activity: str | None
    restart: RestartAnswer | None
    restarted: str | None
    sync_status: SyncStatus
    plain_view: PlainView | None
    image: str | None
    metadata: dict[str, Any] | None


class FileAnswer(_Wire):
    """One entry of a generation; `mode` octal, `modified` ISO 8601, `kind` plain or sqlite. `quoted` is the exact path,
    as requests take it."""

    path: str
    quoted: str
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


# --- pools, workloads ---


class TierAnswer(_Wire):
    """Slots of one tier: how many are wanted, ready, and being made."""

    wanted: int
    ready: int
    filling: int


class PoolAnswer(_Wire):
    """Slots of one pool, counted; `error` is why the pool is not full, `hint` what to do."""

    id: str
    image: str
    image_digest: str
    min_size: int
    max_size: int
    ready: int
    filling: int
    claimed: int
    queue: int
    tiers: dict[str, TierAnswer]
    drained: bool
    dropped: list[str]
    seccomp: str
    notes: list[str]
    error: str
    hint: str


class ScaleRequest(_Request):
    """Omitted sizes stay unchanged; `targetSize` is another name for `minSize`."""

    min_size: Count | None = None
    max_size: Count | None = None
    warmth: dict[str, Count] | None = None
    target_size: Count | None = None


class RecycleAnswer(_Wire):
    """How many waiting slots are being replaced."""

    id: str
    recycled: int


class Durations(_Wire):
    """Seconds of the last 500 measurements, out of `count` since the daemon's start."""

    count: int
    p50: float
    p95: float
    last: float


class PoolMetricsAnswer(_Wire):
    """Present slots by tier, counts and durations since the daemon's start, and how commits of its tenants go."""

    id: str
    total: int
    available: int
    borrowed: int
    pending: int
    min_size: int
    max_size: int
    queue: int
    slots: dict[str, int]
    claims: dict[str, int]
    failures: dict[str, int]
    claim_seconds: dict[str, Durations]
    fill_seconds: dict[str, Durations]
    left_out: int
    failing_commits: int
    leases_lost: int
    oldest_commit_seconds: float | None


class WorkloadRequest(_Request):
    """A workload: either the text of its file, or its content as JSON."""

    yaml: str | None = None
    document: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.yaml is None) == (self.document is None):
            raise ValueError("give either yaml or document")
        return self


class WorkloadAnswer(_Wire):
    """A workload; fields of `document` that look secret are masked."""

    id: str
    name: str | None
    image: str
    file: str
    document: dict[str, Any]


# --- events, tokens ---


class EventAnswer(_Wire):
    """An event; `detail` depends on `kind`."""

    id: int
    at: str
    kind: str
    tenant_id: str | None
    pool_id: str | None
    detail: dict[str, Any]


class ClientsAnswer(_Wire):
    """What the clients of one tenant do; ages in seconds, null if there was nothing since the router's start."""

    requests: int
    sockets: int
    held: int
    frame_age: float | None = None
    request_age: float | None = None


class RouteAnswer(_Wire):
    """A way through the router. `address` is where the program listens while it runs. `fenced` is true while an
    operation on the tenant holds its requests. `clients` is null while the router does not run."""

    tenant_id: str
    url: str
    state: Literal["active", "frozen", "parked", "cold"]
    address: str | None
    fenced: bool
    webhooks: list[str]
    clients: ClientsAnswer | None


class OpenAnswer(_Wire):
    """An address that admits one browser, once, until it expires."""

    tenant_id: str
    url: str
    expires: str


class TokenRequest(_Request):
    """`expiresIn` is a duration such as `30d`; without it, the token is valid until it is revoked."""

    name: str
    scope: Literal["admin", "tenant", "link"]
    tenant_id: str | None = None
    expires_in: str | None = None


class TokenAnswer(_Wire):
    """A token, without its text."""

    name: str
    scope: Literal["admin", "tenant", "link"]
    tenant_id: str | None
    created: str
    expires: str | None
    last_used: str | None


class NewTokenAnswer(TokenAnswer):
    """A new token with its text; no other answer contains the text.

    `url` is where it reaches its tenant through the router. One of scope `link` is the address's last part, and one of
    scope `tenant` is sent with it. Null without a router, and for scope `admin`.
    """

    token: str
    url: str | None


class RewrapRequest(_Request):
    """The tenants whose keys are to be wrapped again; all if none is given."""

    tenants: list[str] = Field(default_factory=list)


class RewrapFailure(_Wire):
    """A key that was not changed."""

    tenant_id: str
    why: str


class RewrapAnswer(_Wire):
    """How many keys were wrapped again, and how many already used the operator's first key."""

    wrapped: int
    current: int
    failed: list[RewrapFailure]


class Problem(_Wire):
    """RFC 9457; `type` is `urn:claw:<slug>`, `exitCode` what the CLI ends with."""

    type: str
    title: str
    status: int
    detail: str
    hint: str
    exit_code: int
