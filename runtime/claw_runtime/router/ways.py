"""What becomes of a request: it goes to a tenant, or the router answers it; and what a tenant's clients do."""

import json
from collections import Counter
from dataclasses import dataclass, field
from http import HTTPStatus

from claw_runtime.router.heads import Field


@dataclass(slots=True, eq=False)
class Traffic:
    """What one tenant's clients do, in seconds of the event loop's clock.

    Attributes:
        requests: Requests in progress, also those that wait.
        sockets: WebSockets that are open.
        frame_at: When a client last sent a frame with data.
        request_at: When the last request ended.
        holders: Whose WebSockets are open: digests of their credentials.
    """

    requests: int = 0
    sockets: int = 0
    frame_at: float | None = None
    request_at: float | None = None
    holders: Counter[str] = field(default_factory=Counter)

    @property
    def is_open(self) -> bool:
        """Whether a request or a WebSocket is open."""
        return bool(self.requests or self.sockets)


@dataclass(frozen=True, slots=True)
class Way:
    """Where a request goes, and what its head says there.

    Attributes:
        first: The first line.
        fields: All but those about the body and the connection.
        holder: The digest of the credentials that it came with.
    """

    tenant: str
    address: tuple[str, int]
    first: bytes
    fields: tuple[Field, ...]
    traffic: Traffic
    holder: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer of the router itself, with its length. The connection ends after it unless the body is known to be
    empty."""

    status: bytes
    fields: tuple[Field, ...] = ()
    content: bytes = b""


Decision = Way | Refusal


def refused(status: int, why: str) -> Refusal:
    """An answer of the router itself."""
    content = json.dumps({"status": status, "detail": why}).encode() + b"\n"
    fields = ((b"content-type", b"application/problem+json"), (b"cache-control", b"no-store"))
    return Refusal(b"%d %s" % (status, HTTPStatus(status).phrase.encode()), fields, content)
