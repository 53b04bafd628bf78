"""`sync:` of the workload file: where states are stored, what is stored, and when."""

import re
from typing import Annotated, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import Field, field_validator, model_validator

from claw_runtime.spec.shapes import Closed, Duration, Listed, Misplaced, Pattern, Words
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
        description="Where a tenant's objects lie in the bucket; there is one answer.",
    )
    rclone_flags: Words = Field(default=(), description="Read and ignored: nothing here runs rclone.")

    @field_validator("prefix", mode="before")
    @classmethod
    def _check_prefix(cls, value: object) -> object:
        if value != PREFIX:
            raise ValueError(
                f"{str(value)[:80]!r} cannot be: every tenant's objects lie below {PREFIX}, so that no two tenants"
                " and no two versions of this program ever disagree on whose they are; leave it out"
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
    """A part of the container that must be stored. The whole state is, so that a mapping never leaves anything out."""

    path: Annotated[str, Field(min_length=1, max_length=4096)] = Field(
        description="Path in the container, or relative to it."
    )
    pattern: Pattern | None = Field(default=None, description="Which files of it, such as `*.jsonl`. Default: all.")
    direction: Literal["bidirectional", "upload", "download"] = Field(
        default="bidirectional", description="`bidirectional`, `upload` or `download`."
    )
    mode: Literal["sync", "copy"] = Field(default="sync", description="`sync` or `copy`.")


class SyncPolicyFile(Closed):
    """When a state is stored."""

    on_claim: bool = Field(default=True, description="Restore at a claim. Always done, whatever this says.")
    on_release: bool = Field(default=True, description="Store at a release. Always done, whatever this says.")
    manual: bool = Field(default=True, description="Store when asked to. Always possible, whatever this says.")
    interval: Duration | None = Field(
        default=None, description="Store a running tenant's state this often. Default: only at its release."
    )

    @field_validator("interval")
    @classmethod
    def _check_interval(cls, value: float | None) -> float | None:
        if value is not None and value < 1:
            number = f"{value * 1000:g}"
            raise ValueError(f"{number} milliseconds are less than a second: write seconds as {number}s")
        return value


class SyncFile(Closed):
    """Where states are stored, what is stored, and when."""

    sink: SinkFile | None = Field(default=None, description="Object store, when the host's settings name none.")
    mappings: Annotated[tuple[MappingFile, ...], Listed] = Field(
        default=(), description="What must be stored. Everything in the state is, so that these leave nothing out."
    )
    policy: SyncPolicyFile = Field(default=SyncPolicyFile(), description="When it is stored.")
    exclude: Annotated[tuple[Pattern, ...], Listed] = Field(
        default=(),
        description="Patterns, as in .gitignore and relative to the state, of what is not stored, besides the image's.",
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
