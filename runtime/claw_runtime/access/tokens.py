"""Tokens: who may use the API over TCP, and for what; and who reaches a tenant through the router.

A token is `claw_<id>_<secret>`: 8 hex digits that identify it and 32 random bytes that prove it. Only the SHA-256 of
the whole text is stored. Slow hashes protect secrets that people choose; 256 random bits cannot be guessed even with a
fast hash, and a slow one would only let attackers use up CPU time. All tokens are held in memory, since every request
over TCP needs them; only this daemon changes them.

A token of scope `tenant` also reaches its tenant's program through the router. One of scope `link` does nothing else:
it is a part of an address, for clients that can send no header, so logs of others may show it.
"""

import hashlib
import hmac
import re
import secrets
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import structlog

from claw_runtime.concurrency import Workers
from claw_runtime.errors import Conflict, InvalidSpec, StateMissing
from claw_runtime.logs import Secret
from claw_runtime.ports import Clock, TokenRow, TokenStore
from claw_runtime.tenancy import TenantId, tenant_id

log = structlog.get_logger(__name__)

Scope = Literal["admin", "tenant", "link"]
FORM = re.compile(r"claw_([0-9a-f]{8})_([A-Za-z0-9_-]{43})")
NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")

LONGEST = 100 * 365.25 * 86_400
"""Seconds: dates end."""

USE_NOTED = 60.0
"""Seconds between two notes of a token's last use, so that not every request writes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """The identity and rights of a request. Scope `tenant` is limited to `tenant`; `local` came through the socket."""

    name: str
    scope: Literal["admin", "tenant"]
    tenant: TenantId | None = None
    local: bool = False


LOCAL = Grant(name="socket", scope="admin", local=True)
"""Only the daemon's own user can open the 0600 socket."""


class Tokens:
    """The tokens of one host.

    Args:
        workers: Save the times of tokens' last uses, so that no request waits for the disk; at once without them.
    """

    def __init__(self, store: TokenStore, clock: Clock, workers: Workers | None = None) -> None:
        self._store = store
        self._clock = clock
        self._workers = workers or Workers("tokens", 0)
        self._lock = threading.Lock()
        self._rows = {row.id: row for row in store.all()}

    def create(
        self, name: str, scope: Scope, *, tenant: str | None = None, lifetime: float | None = None
    ) -> tuple[TokenRow, Secret]:
        """Make a token; only the answer contains its text: `claw_<id>_<secret>`, or `cw_<secret>` of scope `link`.

        Args:
            lifetime: Seconds until it expires; None: it never expires.

        Raises:
            InvalidSpec: The name is of another form, scope and tenant do not fit, or `lifetime` is over 100 years.
            InvalidTenantId: `tenant` is not a tenant id.
            Conflict: A token of that name exists.
        """
        if not NAME.fullmatch(name):
            raise InvalidSpec(
                f"not a name for a token: {name[:60]!r}",
                why="a name is 1-64 of a-z 0-9 . _ - and begins and ends with a letter or digit",
                hint="name it after its user, such as 'dashboard'",
            )
        if (scope == "admin") != (tenant is None):
            hint = (
                "choose --scope tenant, or leave the tenant out"
                if scope == "admin"
                else "name the tenant (--tenant alice)"
            )
            raise InvalidSpec(f"scope {scope!r} and tenant {tenant!r} do not fit", hint=hint)
        if lifetime is not None and lifetime > LONGEST:
            raise InvalidSpec(
                "the token's lifetime is too long",
                why="it is more than 100 years",
                hint="leave out the lifetime for a token that does not expire",
            )
        now = self._clock.now()
        public = secrets.token_hex(4)
        text = Secret(f"{'cw' if scope == 'link' else f'claw_{public}'}_{secrets.token_urlsafe(32)}")
        row = TokenRow(
            id=public,
            name=name,
            sha256=_digest(text.reveal()),
            scope=scope,
            tenant=tenant_id(tenant) if tenant is not None else None,
            made_at=now,
            expires_at=now + lifetime if lifetime is not None else None,
        )
        with self._lock:
            if not self._store.add(row):
                raise Conflict(
                    f"a token {name!r} exists already",
                    hint=f"choose another name, or revoke that token: claw-runtime token revoke {name}",
                )
            self._rows[public] = row
        return row, text

    def check(self, text: str) -> Grant | None:
        """The grant of a token's text; None when the token is unknown or expired.

        Wall-clock time decides, since an expiry is a date.
        """
        found = FORM.fullmatch(text)
        row = self._rows.get(found[1]) if found else None
        # The digest is compared even when no token has this id, so that the time reveals nothing about ids.
        right = hmac.compare_digest(_digest(text), row.sha256 if row else _digest(""))
        if row is None or not right or (row.expires_at is not None and self._clock.now() >= row.expires_at):
            return None
        if row.scope == "link":
            return None
        self._note(row)
        return Grant(name=row.name, scope=row.scope, tenant=TenantId(row.tenant) if row.tenant else None)

    def _note(self, row: TokenRow) -> None:
        now = self._clock.now()
        if row.used_at is not None and abs(now - row.used_at) < USE_NOTED:
            return
        with self._lock:
            if row.id not in self._rows:
                return
            self._rows[row.id] = replace(row, used_at=now)
        self._workers.offer(row.id, lambda: self._save_use(row, now))

    def _save_use(self, row: TokenRow, now: float) -> None:
        try:
            self._store.used(row.id, now)
        except Exception as error:  # noqa: BLE001 - a full disk must lock nobody out, who may make room
            log.warning("a token's last use was not saved", name=row.name, error=str(error))

    def all(self) -> Sequence[TokenRow]:
        """Every token, by name."""
        with self._lock:
            return sorted(self._rows.values(), key=lambda row: row.name)

    def revoke(self, name: str) -> TokenRow:
        """Revoke a token: its text is invalid from now on. Raises `StateMissing`."""
        with self._lock:
            row = next((row for row in self._rows.values() if row.name == name), None)
            if row is None or not self._store.remove(name):
                known = ", ".join(sorted(row.name for row in self._rows.values())) or "none"
                raise StateMissing(f"there is no token {name[:60]!r}", why=f"the tokens here: {known}")
            del self._rows[row.id]
        return row


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
