"""Every way claw-runtime can fail, one class each, in one table.

Each class has its own exit code (documented in docs/CLI.md) and the HTTP status that the API answers with.
A message says what happened (`brief`), why (`why`) and what to do (`hint`); facts are attributes, so that callers
never parse text. Nothing else may be imported here.

    ClawError 1
    ├── NotClaimed 10            ├── InvalidSpec 16         ├── StoreDenied 22        ├── UploadFailed 28
    ├── TenantLocked 11          ├── NotReady 17            ├── BucketMissing 23      ├── Fenced 29
    ├── PoolExhausted 12         ├── InvalidTenantId 18     ├── StoreDishonest 24     ├── DaemonUnreachable 30
    ├── VerifyMismatch 13        ├── UnknownPool 19         ├── PortTaken 25          ├── DaemonRunning 31
    ├── EngineUnavailable 14     ├── ImageMissing 20        ├── DiskFull 26           ├── BuildFailed 32
    ├── StoreUnavailable 15      ├── StorageUnusable 21     ├── RestoreFailed 27      ├── EngineFailed 33
    └── StateMissing 34          └── Unauthorized 35        └── Forbidden 36          └── Conflict 37
    └── HookFailed 38            └── UpgradeFailed 39      └── Busy 40            └── NoUserSession 41
    └── UnitFailed 42            └── NotLingering 43       └── InstallFailed 44      └── EngineUnsupported 45
    └── HostUnsupported 46
"""

from typing import Any, ClassVar


class ClawError(Exception):
    """Something went wrong that a person can act on.

    Args:
        brief: What happened, in one line without a full stop.
        why: The cause, as far as it is known.
        hint: What to do about it.
        facts: Values behind the message, kept as attributes of `facts`.
    """

    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500
    slug: ClassVar[str] = "error"

    def __init__(self, brief: str, *, why: str = "", hint: str = "", **facts: Any) -> None:
        super().__init__(brief)
        self.brief = brief
        self.why = why
        self.hint = hint
        self.facts = facts

    def __str__(self) -> str:
        return f"{self.brief}: {self.why}" if self.why else self.brief


class NotClaimed(ClawError):
    """The tenant holds no container."""

    exit_code, http_status, slug = 10, 404, "not-claimed"


class TenantLocked(ClawError):
    """Another runtime, or another operation here, holds the tenant."""

    exit_code, http_status, slug = 11, 409, "tenant-locked"


class PoolExhausted(ClawError):
    """The pool is at its maximum size."""

    exit_code, http_status, slug = 12, 503, "pool-exhausted"


class VerifyMismatch(ClawError):
    """Bytes do not match their digest, or an image does not match its contract."""

    exit_code, http_status, slug = 13, 500, "verify-mismatch"


class EngineUnavailable(ClawError):
    """Podman is missing, or does not answer."""

    exit_code, http_status, slug = 14, 503, "engine-unavailable"


class StoreUnavailable(ClawError):
    """The object store cannot be reached, or answered with a server error."""

    exit_code, http_status, slug = 15, 503, "store-unavailable"


class InvalidSpec(ClawError):
    """A workload file, setting or contract is not valid."""

    exit_code, http_status, slug = 16, 422, "invalid-spec"


class NotReady(ClawError):
    """The workload did not become ready in time, or ended."""

    exit_code, http_status, slug = 17, 504, "not-ready"


class InvalidTenantId(ClawError):
    """The tenant id is not of the allowed form."""

    exit_code, http_status, slug = 18, 422, "invalid-tenant-id"


class UnknownPool(ClawError):
    """No workload of that name is loaded."""

    exit_code, http_status, slug = 19, 404, "unknown-pool"


class ImageMissing(ClawError):
    """The image is not in Podman's store."""

    exit_code, http_status, slug = 20, 409, "image-missing"


class StorageUnusable(ClawError):
    """Podman's storage driver copies every layer for every container (vfs)."""

    exit_code, http_status, slug = 21, 503, "storage-unusable"


class StoreDenied(ClawError):
    """The object store refused the keys or their rights."""

    exit_code, http_status, slug = 22, 502, "store-denied"


class BucketMissing(ClawError):
    """The bucket does not exist."""

    exit_code, http_status, slug = 23, 502, "bucket-missing"


class StoreDishonest(ClawError):
    """The object store accepts conditional writes and ignores their condition."""

    exit_code, http_status, slug = 24, 502, "store-dishonest"


class PortTaken(ClawError):
    """A port that is needed is held by another process."""

    exit_code, http_status, slug = 25, 409, "port-taken"


class DiskFull(ClawError):
    """There is no room on the local disk."""

    exit_code, http_status, slug = 26, 507, "disk-full"


class RestoreFailed(ClawError):
    """A tenant's state could not be restored whole, or HEAD or the store is not the known one; nothing was started."""

    exit_code, http_status, slug = 27, 500, "restore-failed"


class UploadFailed(ClawError):
    """A tenant's state could not be committed; the local tree is kept."""

    exit_code, http_status, slug = 28, 502, "upload-failed"


class Fenced(ClawError):
    """Another runtime took the tenant over; this one may no longer write."""

    exit_code, http_status, slug = 29, 409, "fenced"


class DaemonUnreachable(ClawError):
    """No daemon answers on the API socket."""

    exit_code, http_status, slug = 30, 503, "daemon-unreachable"


class DaemonRunning(ClawError):
    """Another daemon already serves this data directory, or uses this run directory."""

    exit_code, http_status, slug = 31, 409, "daemon-running"


class BuildFailed(ClawError):
    """An image could not be built or loaded."""

    exit_code, http_status, slug = 32, 500, "build-failed"


class EngineFailed(ClawError):
    """Podman refused or failed an operation."""

    exit_code, http_status, slug = 33, 500, "engine-failed"


class StateMissing(ClawError):
    """Nothing of that name is stored: no such generation, or no such file in it."""

    exit_code, http_status, slug = 34, 404, "state-missing"


class Unauthorized(ClawError):
    """The API cannot authenticate the request: its token is missing, unknown, expired or revoked."""

    exit_code, http_status, slug = 35, 401, "unauthorized"


class Forbidden(ClawError):
    """The request's token lacks the right, or the request came through a foreign page or host name."""

    exit_code, http_status, slug = 36, 403, "forbidden"


class Conflict(ClawError):
    """The request conflicts with the present state: a name is in use, or another request is in progress."""

    exit_code, http_status, slug = 37, 409, "conflict"


class HookFailed(ClawError):
    """A hook of the workload file failed in the tenant's container."""

    exit_code, http_status, slug = 38, 502, "hook-failed"


class UpgradeFailed(ClawError):
    """A tenant did not become ready with the new image; it has its previous image and state."""

    exit_code, http_status, slug = 39, 500, "upgrade-failed"


class Busy(ClawError):
    """Too many requests of this kind are in progress, of this tenant or token or of all."""

    exit_code, http_status, slug = 40, 429, "busy"


class NoUserSession(ClawError):
    """No systemd user manager answers for this user."""

    exit_code, http_status, slug = 41, 503, "no-user-session"


class UnitFailed(ClawError):
    """Systemd refused a unit, or a unit did not become ready."""

    exit_code, http_status, slug = 42, 502, "unit-failed"


class NotLingering(ClawError):
    """The user's units would end at its logout: lingering is off, and only root can switch it on."""

    exit_code, http_status, slug = 43, 409, "not-lingering"


class InstallFailed(ClawError):
    """An installation could not be completed; a repeated one continues."""

    exit_code, http_status, slug = 44, 500, "install-failed"


class EngineUnsupported(ClawError):
    """Podman is older or newer than the versions that claw works with."""

    exit_code, http_status, slug = 45, 503, "engine-unsupported"


class HostUnsupported(ClawError):
    """The kernel of this host runs without what an installation needs, such as cgroup v2."""

    exit_code, http_status, slug = 46, 503, "host-unsupported"


def table() -> dict[int, type[ClawError]]:
    """Exit code → class, for every class of this module."""
    classes: list[type[ClawError]] = [ClawError, *ClawError.__subclasses__()]
    return {cls.exit_code: cls for cls in classes}


def by_slug(slug: str) -> type[ClawError]:
    """The class that an API problem's `type` names; `ClawError` for an unknown one."""
    return next((cls for cls in table().values() if cls.slug == slug), ClawError)
