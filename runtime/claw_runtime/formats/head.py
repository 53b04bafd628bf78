"""HEAD as bytes: the one mutable object of a tenant, which names its current generation and its writer.

docs/STATE_FORMAT.md documents the format byte by byte; `state/lease/heads.py` swaps it.
"""

import hashlib
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from claw_runtime.errors import RestoreFailed
from claw_runtime.ports import Clock
from claw_runtime.tenancy import Keys, TenantId

VERSION: Final = 1


class HeadRefused(RestoreFailed):
    """HEAD is missing, unreadable, or older than this host remembers it; exit code and slug are those of its base.

    Nothing on this host is obsolete in this case: it may have the newest copy.
    """


_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The content of HEAD.

    Attributes:
        generation: 0 until the first commit; then `manifest` (its key) and `sha256` (of that object) are set.
        epoch: Grows by one with every acquisition.
        owner: The runtime that holds the tenant, or None.
        commit_id: Random for every write, so that a writer recognises its own.
        lease: When the owner acquired it, ISO 8601 in UTC, or None; a record, never compared.
        sealed_at: When the generation was sealed, likewise.
        deleted: A person removed everything that was stored: `generation` then only continues the numbering.
        given_up: Highest generation above this one that a person gave up, because it is damaged; 0 is none.
    """

    generation: int
    manifest: str | None
    sha256: str | None
    epoch: int
    owner: str | None
    commit_id: str
    lease: str | None
    sealed_at: str | None
    deleted: bool = False
    given_up: int = 0

    @property
    def highest(self) -> int:
        """Highest generation that may be in the store while this is HEAD: a writer that died leaves the next one."""
        return max(self.generation + 1, self.given_up)

    def is_at(self, generation: int, sha256: str) -> bool:
        """Whether it names this generation: number and digest of the manifest, or the number if no digest is known."""
        return self.generation == generation and sha256 in ("", self.sha256 or "")


UNCLAIMED: Final = Head(
    generation=0, manifest=None, sha256=None, epoch=0, owner=None, commit_id="", lease=None, sealed_at=None
)


def new_commit_id() -> str:
    return secrets.token_hex(16)


def timestamp(clock: Clock) -> str:
    return datetime.fromtimestamp(clock.now(), UTC).isoformat(timespec="milliseconds")


def released(head: Head) -> Head:
    """The same generation without an owner."""
    return replace(head, owner=None, lease=None, commit_id=new_commit_id())


def buried(head: Head, clock: Clock) -> Head:
    """A tombstone after this HEAD, under a new epoch."""
    return replace(
        released(head),
        generation=head.generation + 1,
        manifest=None,
        sha256=None,
        epoch=head.epoch + 1,
        sealed_at=timestamp(clock),
        deleted=True,
    )


def encode(head: Head) -> bytes:
    document = {
        "v": VERSION,
        "generation": head.generation,
        "manifest": head.manifest,
        "sha256": head.sha256,
        "epoch": head.epoch,
        "owner": head.owner,
        "commit_id": head.commit_id,
        "lease": head.lease and {"since": head.lease},
        "sealed_at": head.sealed_at,
        **({"deleted": True} if head.deleted else {}),
        **({"given_up": head.given_up} if head.given_up > head.generation else {}),
    }
    return json.dumps({**document, "check": _check(document)}, indent=1).encode() + b"\n"


def _check(document: Mapping[str, Any]) -> str:
    """A digest of the rest: without it, a bit error of a read would be written back permanently."""
    told = {name: value for name, value in document.items() if name != "check"}
    return hashlib.sha256(json.dumps(told, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]


def decode(data: bytes, tenant: TenantId) -> Head:
    """Read a HEAD object.

    Raises:
        HeadRefused: The object is damaged, has an unknown version, or names an object of another tenant.
    """
    try:
        head = _head(json.loads(data))
        _check_names(head, tenant)
    except (ValueError, KeyError, TypeError) as error:
        raise HeadRefused(
            f"HEAD of tenant {tenant} is not valid",
            why=str(error) or type(error).__name__,
            hint=f"nothing was started or removed; to rebuild HEAD: claw-runtime snapshot recover {tenant}",
            tenant=tenant,
        ) from error
    return head


def _head(document: Any) -> Head:
    if document["v"] != VERSION:
        raise ValueError(f"its format version is {document['v']!r}, this program reads {VERSION}")
    if document.get("check", (expected := _check(document))) != expected:
        raise ValueError("it differs from what was written")
    lease = document["lease"]
    return Head(
        generation=_number(document["generation"]),
        manifest=_text(document["manifest"]),
        sha256=_text(document["sha256"]),
        epoch=_number(document["epoch"]),
        owner=_text(document["owner"]),
        commit_id=_text(document["commit_id"]) or "",
        lease=lease and _text(lease["since"]),
        sealed_at=_text(document["sealed_at"]),
        deleted=document.get("deleted") is True,
        given_up=_number(document.get("given_up", 0)),
    )


def _check_names(head: Head, tenant: TenantId) -> None:
    digest = head.sha256 or ""
    own = _DIGEST.fullmatch(digest) is not None and head.manifest == Keys(tenant).manifest(head.generation, digest)
    if not (own if head.generation and not head.deleted else head.manifest is None and not digest):
        raise ValueError("its manifest does not belong to its generation and tenant")


def _number(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise TypeError(f"a number is expected, not {value!r}"[:200])
    return value


def _text(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"a text is expected, not {value!r}"[:200])
    return value
