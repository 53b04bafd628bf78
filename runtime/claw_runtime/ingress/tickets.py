"""Tickets: each opens one tenant for one browser, once, within minutes; and the key that signs browsers' cookies."""

import hashlib
import secrets
import threading
from pathlib import Path
from typing import Any, Final

from claw_runtime.errors import InvalidSpec
from claw_runtime.fsutil import write_atomic
from claw_runtime.logs import Secret
from claw_runtime.ports import Clock
from claw_runtime.tenancy import TenantId

LIFETIME: Final = 300.0
"""Seconds in which a ticket can be used."""

MOST: Final = 1000
"""Tickets that wait to be used; the oldest is dropped for a new one."""

_KEY: Final = 32


class Tickets:
    """Tickets of one daemon; the next daemon knows none of them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting = dict[str, tuple[TenantId, float]]()

    def create(self, tenant: TenantId) -> tuple[Secret, float]:
        """A new ticket, and when it expires, in seconds since the epoch."""
        text = Secret(secrets.token_urlsafe(32))
        expires = self._clock.now() + LIFETIME
        with self._lock:
            self._drop()
            while len(self._waiting) >= MOST:
                del self._waiting[next(iter(self._waiting))]
            self._waiting[hashlib.sha256(text.reveal().encode()).hexdigest()] = (tenant, expires)
        return text, expires

    def used(self, sha256: str) -> None:
        """The router let a browser in by the ticket of this digest: it is worth nothing now."""
        with self._lock:
            self._waiting.pop(sha256, None)

    def passes(self) -> list[dict[str, Any]]:
        """The tickets that can be used, as the router reads them."""
        with self._lock:
            self._drop()
            return [
                {"tenant": tenant, "sha256": digest, "expires_at": expires}
                for digest, (tenant, expires) in self._waiting.items()
            ]

    def _drop(self) -> None:
        now = self._clock.now()
        for digest in [digest for digest, (_, expires) in self._waiting.items() if now >= expires]:
            del self._waiting[digest]


def cookie_key(path: Path) -> bytes:
    """The key that signs cookies, made at the first use. A new one ends the sessions of all browsers.

    Raises:
        InvalidSpec: The file holds something else, or cannot be used.
    """
    try:
        if not path.exists():
            write_atomic(path, secrets.token_hex(_KEY).encode())
        text = path.read_text("ascii").strip()
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
        key = bytes.fromhex(text)
    except (OSError, ValueError) as error:
        raise InvalidSpec(
            f"{path}: the key of browsers' sessions cannot be read", why=str(error), hint="remove the file"
        ) from error
    if len(key) != _KEY:
        raise InvalidSpec(
            f"{path}: not a key of browsers' sessions", why=f"it has {len(key)} bytes", hint="remove the file"
        )
    return key
