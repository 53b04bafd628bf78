"""What a host remembers of its object store, so that it notices when the store lost something."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from claw_runtime.tenancy import TenantId


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownHead:
    """A tenant's HEAD as this host last read or wrote it.

    Attributes:
        generation: 0 before the first commit.
        sha256: Digest of its manifest; empty if it named none, or if the digest is not known.
        epoch: Of the last lease.
    """

    generation: int
    sha256: str
    epoch: int


class StoreMemory(Protocol):
    """What this host remembers of its object store; outlives the process."""

    def store(self) -> str:
        """Id of the store that the tenants' states are in; empty if none is known yet."""

    def set_store(self, store: str, url: str, *, forget: bool = False) -> None:
        """Remember the store; with `forget`, no HEAD or lease of the previous one any more."""

    def is_empty(self) -> bool:
        """Whether no generation of any tenant is remembered."""

    def head(self, tenant: TenantId) -> KnownHead | None:
        """The tenant's HEAD; None if this host never read one."""

    def remember(self, tenant: TenantId, head: KnownHead) -> None:
        """Remember a HEAD, unless the remembered one is newer."""

    def replace(self, tenant: TenantId, head: KnownHead) -> None:
        """Remember this HEAD even if the remembered one is newer, because a person accepted it."""

    def hold(self, tenant: TenantId) -> None:
        """Remember, before it is acquired, that this host may hold the tenant's lease."""

    def let_go(self, tenant: TenantId) -> None:
        """Forget that, once the lease has ended."""

    def held(self) -> Sequence[TenantId]:
        """The tenants whose lease this host may hold, by id."""
