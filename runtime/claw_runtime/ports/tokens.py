"""Tokens of the API."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRow:
    """A token: `sha256` of its text, its one tenant unless its scope is `admin`, times in seconds since the epoch
    (`expires_at` None is never, `used_at` None is not yet). Scope `link` is for the router alone."""

    id: str
    name: str
    sha256: str
    scope: Literal["admin", "tenant", "link"]
    tenant: str | None
    made_at: float
    expires_at: float | None = None
    used_at: float | None = None


class TokenStore(Protocol):
    """Tokens that outlive the daemon."""

    def all(self) -> Sequence[TokenRow]: ...

    def add(self, row: TokenRow) -> bool:
        """False when the name is taken."""

    def used(self, token: str, at: float) -> None:
        """Note the time of the last use of the token with this id."""

    def remove(self, name: str) -> bool:
        """False when there is none of that name."""
