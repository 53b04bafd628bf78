"""`sync:` of the workload file: where states are stored, what is stored, and when."""

import re
from typing import Annotated, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import Field, field_validator, model_validator

from claw_runtime.spec.shapes import Closed, Duration, Listed, Misplaced, Pattern, Size, Words
from claw_runtime.tenancy import Keys, TenantId

PREFIX = Keys(TenantId("${tenantId}")).prefix
CONTAINER_ALIASES = ("host.docker.internal", "host.containers.internal")
KEYS = ("access_key_id", "secret_access_key")

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


class SinkFile(Closed):
    """The object store of this workload. The settings of the host win over it."""

    type: Literal["s3"] = Field(description="Kind of store: `s3`.")
    bucket: str = Field(description="Name of the bucket. It must exist.")
    region: str | None = Field(
        default=None, pattern=r"^[a-z0-9-]{1,64}$", description="Region of the bucket. Default: the S3 client's own."
    )
    endpoint: str | None = Field(
        default=None, description="URL of an S3 service other than AWS, as this host reaches it. Default: AWS."
    )
    access_key_id: str | None = Field(
        default=None,
        min_length=1,
        repr=False,
        description="Better as the setting `access_key`: this file is not kept secret.",
    )
    secret_access_key: str | None = Field(
        default=None, min_length=1, repr=False, description="Better as the setting `secret_key`. Needs `access_key_id`."
    )
    prefix: str = Field(
        default=PREFIX,
        json_schema_extra={"const": PREFIX},
        description="Where a tenant's objects are in the bucket; only one value is accepted.",
    )
    rclone_flags: Words = Field(default=(), description="Accepted and ignored: claw does not run rclone.")

    @field_validator("prefix", mode="before")
    @classmethod
    def _check_prefix(cls, value: object) -> object:
        if value != PREFIX:
            raise ValueError(
                f"{str(value)[:80]!r} is not accepted: every tenant's objects are below {PREFIX}; leave it out"
            )
        return value

    @field_validator("bucket")
    @classmethod
    def _check_bucket(cls, value: str) -> str:
        if not _BUCKET.fullmatch(value):
            raise ValueError(f"{value[:80]!r} is not a bucket's name: 3 to 63 lower-case letters, digits, '-' and '.'")
        return value

    @field_validator("endpoint")
    @classmethod
    def _check_endpoint(cls, value: str | None) -> str | None:
        if value is not None:
            parts = _split(value)
            if parts is None or parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
                raise ValueError(f"{value[:80]!r} is not a URL: write it as https://s3.example.org, without keys")
        return value

    @model_validator(mode="after")
    def _check_keys(self) -> "SinkFile":
        if (self.access_key_id is None) != (self.secret_access_key is None):
            have, lack = KEYS if self.secret_access_key is None else KEYS[::-1]
            raise Misplaced(f"{have} without {lack}: name both or neither", have)
        return self


class MappingFile(Closed):
    """What becomes of a part of the state. The first mapping that names a file decides."""

    path: Annotated[str, Field(min_length=1, max_length=4096)] = Field(
        description="File or directory: its path in the container, or relative to the state or to what is around it."
    )
    pattern: Pattern | None = Field(
        default=None, description="Which files of it, as in .gitignore and relative to it. Default: all."
    )
    exclude: Annotated[tuple[Pattern, ...], Listed] = Field(
        default=(), description="Patterns, likewise, of what of these is not stored."
    )
    direction: Literal["bidirectional", "upload", "download"] = Field(
        default="bidirectional",
        description="`bidirectional`; `upload` is stored and not restored at a claim; `download` is restored, and what"
        " the program changes is not stored.",
    )
    mode: Literal["sync", "copy"] = Field(
        default="sync",
        description="`sync`, or `copy`: what the program deletes is kept, and is back at the next claim.",
    )
    plain_view: bool | Literal["all"] = Field(
        default=False,
        description="Whether its files are below `files/` in the bucket too, for other tools: `true` is without"
        " databases, `all` is with them.",
    )
    sink_path: str | None = Field(
        default=None, max_length=512, description="Where below `files/` the plain view is. Default: as in the state."
    )

    @field_validator("pattern")
    @classmethod
    def _check_pattern(cls, value: str | None) -> str | None:
        if value is not None and value.startswith("!"):
            raise ValueError(f"{value[:80]!r} is a negated pattern: use exclude, or a path")
        return value

    @field_validator("sink_path")
    @classmethod
    def _check_sink_path(cls, value: str | None) -> str | None:
        if value is None:
            return None
        steps = value.strip("/").split("/")
        if value.startswith("/") or "\0" in value or any(step in ("", ".", "..") for step in steps):
            raise ValueError(f"{value[:80]!r} is no path below files/: write it as exports/sessions")
        return "/".join(steps)


class SyncPolicyFile(Closed):
    """When a state is stored."""

    on_claim: bool = Field(default=True, description="Restore at a claim. Always done, whatever this says.")
    on_release: bool = Field(default=True, description="Store at a release. Always done, whatever this says.")
    manual: bool = Field(default=True, description="Store when asked to. Always possible, whatever this says.")
    interval: Duration | None = Field(
        default=None, description="Store a running tenant's state this often. Default: only at its release."
    )
    on_mass_delete: Literal["pin", "refuse"] = Field(
        default="pin",
        description="When most files of a state are gone at once: `pin` stores that and keeps the generation before for"
        " a week, `refuse` does not store it.",
    )

    @field_validator("interval")
    @classmethod
    def _check_interval(cls, value: float | None) -> float | None:
        if value is not None and value < 1:
            number = f"{value * 1000:g}"
            raise ValueError(f"{number} milliseconds are less than a second: write seconds as {number}s")
        return value


class RetentionFile(Closed):
    """Which generations of a state are kept; pinned ones always are."""

    keep_last: int = Field(default=20, ge=1, le=10_000, description="The newest ones. Default: 20.")
    hourly: int = Field(default=24, ge=0, le=10_000, description="The last of each of so many hours. Default: 24.")
    daily: int = Field(default=14, ge=0, le=10_000, description="The last of each of so many days. Default: 14.")


class SyncLimitsFile(Closed):
    """Limits on the size of one state. A commit that is more is refused, and the tree is kept."""

    size: Size | None = Field(default=1 << 40, gt=0, description="Bytes of all files, with their holes. Default: 1t.")
    files: int | None = Field(default=2_000_000, ge=1, description="Files, directories and links. Default: 2000000.")
    time: Duration | None = Field(default=7200.0, gt=0, description="Time for reading it at a commit. Default: 2h.")


class SyncFile(Closed):
    """Where states are stored, what is stored, and when."""

    sink: SinkFile | None = Field(default=None, description="Object store, when the host's settings name none.")
    mappings: Annotated[tuple[MappingFile, ...], Listed] = Field(
        default=(),
        description="How parts of the state are stored and restored. Default: all of it is both stored and restored.",
    )
    rest: Literal["store", "ignore"] = Field(
        default="store",
        description="Whether files that no mapping names are stored and restored: `store` or `ignore`.",
    )
    policy: SyncPolicyFile = Field(default=SyncPolicyFile(), description="When it is stored.")
    retention: RetentionFile = Field(default=RetentionFile(), description="Which generations to keep.")
    limits: SyncLimitsFile = Field(default=SyncLimitsFile(), description="Limits on the size of one state.")
    exclude: Annotated[tuple[Pattern, ...], Listed] = Field(
        default=(),
        description="Patterns, as in .gitignore and relative to the state, of what is not stored, besides the image's.",
    )
    logins: Annotated[tuple[Pattern, ...], Listed] = Field(
        default=(),
        description="Patterns, likewise, of channels' logins, besides the image's: copies for other tenants lack them.",
    )


def endpoint(file: SinkFile) -> str | None:
    """The endpoint as this host reaches it: a name that only containers have for the host is its loopback."""
    parts = _split(file.endpoint) if file.endpoint else None
    if parts is None or parts.hostname not in CONTAINER_ALIASES:
        return file.endpoint
    return parts._replace(netloc="127.0.0.1" + (f":{parts.port}" if parts.port else "")).geturl()


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  (raises when it is not a number)
    except ValueError:
        return None
    return parts
