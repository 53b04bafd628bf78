"""What the router knows: the tenants of this host, and by what a request proves that it may reach one.

The daemon gives it whole at each change. Without a daemon, the router uses the last one.
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

Rung = Literal["active", "frozen", "parked", "cold"]

TOKEN: Final = b"claw_"
"""With what tokens of the API begin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """A path that anybody may call, such as a webhook that its caller signs.

    Attributes:
        path: It and everything below it.
        most: Bytes of a body.
        rate: Requests a minute.
    """

    path: bytes
    methods: frozenset[bytes] = frozenset((b"POST",))
    most: int = 1 << 20
    rate: int = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A tenant.

    Attributes:
        address: Where its program listens; None while it has no container.
        secret: The program's own token, which its clients may present, and others get from the router; may be empty.
        fenced: Whether requests wait although it is there.
    """

    tenant: str
    rung: Rung
    address: tuple[str, int] | None = None
    secret: bytes = b""
    fenced: bool = False
    hooks: tuple[Hook, ...] = ()

    @property
    def open_at(self) -> tuple[str, int] | None:
        """Where a request can be sent now; None if it must wait."""
        return self.address if self.rung == "active" and not self.fenced else None

    @property
    def is_open(self) -> bool:
        """Whether a request can be sent to it now."""
        return self.open_at is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """A token or a link that opens one tenant; `expires_at` in seconds since the epoch."""

    tenant: str
    sha256: str
    expires_at: float | None = None

    def holds(self, now: float) -> bool:
        return self.expires_at is None or now < self.expires_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Everything.

    Attributes:
        domain: The name below which each tenant has one; empty without one.
        routes: By tenant.
        tokens: Passes of programs, by digest; `links`: those in paths; `tickets`: those that let one browser in, once.
        key: Signs cookies.
        proxies: Addresses of the proxies in front of the router.
    """

    domain: bytes = b""
    routes: Mapping[str, Route] = field(default_factory=dict)
    tokens: Mapping[str, Pass] = field(default_factory=dict)
    links: Mapping[str, Pass] = field(default_factory=dict)
    tickets: Mapping[str, Pass] = field(default_factory=dict)
    key: bytes = b""
    proxies: frozenset[bytes] = frozenset()

    def of_host(self, host: bytes) -> str:
        """The tenant that a `Host` names; empty if none can be meant."""
        name = host.rsplit(b":", 1)[0] if not host.endswith(b"]") else host
        tenant, _, domain = name.partition(b".")
        return tenant.decode("ascii", "replace") if self.domain and domain == self.domain else ""

    def opens(self, passes: Mapping[str, Pass], secret: bytes, tenant: str, now: float) -> bool:
        """Whether this secret is a pass of that tenant. Each answer takes as long."""
        found = passes.get(digest(secret))
        same = hmac.compare_digest((found.tenant if found else "").encode(), tenant.encode())
        return found is not None and same and found.holds(now)

    def is_secret(self, secret: bytes, tenant: str) -> bool:
        """Whether this is the token of that tenant's program."""
        route = self.routes.get(tenant)
        right = route.secret if route else b""
        return hmac.compare_digest(digest(secret), digest(right)) and bool(right)

    def cookie(self, tenant: str, until: int) -> bytes:
        """A cookie that opens a tenant for browsers until then, in seconds since the epoch."""
        told = b"%s.%d" % (tenant.encode(), until)
        return told + b"." + hmac.digest(self.key, told, "sha256").hex().encode()

    def is_cookie(self, cookie: bytes, tenant: str, now: float) -> bool:
        """Whether this cookie opens that tenant now."""
        name, _, rest = cookie.partition(b".")
        until, _, _ = rest.partition(b".")
        seconds = int(until) if until.isdigit() and len(until) < 16 else 0
        right = self.cookie(tenant, seconds)
        return hmac.compare_digest(cookie, right) and bool(self.key) and name == tenant.encode() and now < seconds


def digest(secret: bytes) -> str:
    """The form in which passes are known."""
    return hashlib.sha256(secret).hexdigest()
