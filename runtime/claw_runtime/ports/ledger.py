"""What a host remembers of its slots, tenants and pools."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from claw_runtime.tenancy import TenantId

Tier = Literal["created", "entrypoint", "interpreter", "prewarmed"]
TIERS: tuple[Tier, ...] = ("created", "entrypoint", "interpreter", "prewarmed")
"""How warm a slot waits, coldest first: initialised; or with a process at its start gate (docs/ARCHITECTURE.md)."""
SlotState = Literal["filling", "ready", "claimed"]
TenantState = Literal["cold", "claiming", "active", "releasing", "kept", "frozen", "parked"]

CRASH_LOOP = "crash-loop"
"""A tenant's `restart` when it failed too often in a row: only a person's claim starts it again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotRow:
    """A slot; `made_at` in seconds since the epoch, `port` a port of 127.0.0.1. One that is `filling` is being made, or
    removed: it is nobody's, and after a crash it goes."""

    id: str
    pool: str
    state: SlotState
    template: str
    container: str | None
    port: int | None
    made_at: float
    tier: Tier = "created"


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantRow:
    """A tenant.

    Attributes:
        step: What was announced last (tenants/lifecycle.py).
        source: Where the tree in its slot came from.
        base: The generation that the local tree grew from.
        base_sha256: Digest of its manifest; empty if it has none, or if it is not known.
        epoch: Our last lease's.
        since, seen, synced: Seconds since the epoch of the last change of state, activity and commit; 0 is never.
        image: Reference of an image that it is held to, instead of its pool's; empty when it is held to none.
        trial: 1 while its container is on trial: if that fails, what it wrote is dropped.
        proven: Id of the image with which it last became active, and which its state suits; empty when none is known.
        metadata: JSON that came with the claim, or empty; never obeyed.
        withheld: The rules by which the local tree was restored, when they left something out of it; else empty.
        sealed: Digest of the manifest that the last commit of its claim was about to publish; empty before.
        wanted: Seconds since the epoch of the claim since which it is wanted running; 0 after a release.
        restart: Why the daemon is about to claim it by itself, or `CRASH_LOOP`; empty if it is not.
        restarted: Why the daemon claimed it last; empty after a claim by a person.
        failures: How often in a row its program failed.
    """

    id: TenantId
    state: TenantState
    pool: str | None
    slot: str | None
    step: str
    source: str
    base: int
    epoch: int
    error: str
    since: float
    image: str = ""
    trial: int = 0
    seen: float = 0.0
    synced: float = 0.0
    metadata: str = ""
    proven: str = ""
    withheld: str = ""
    base_sha256: str = ""
    sealed: str = ""
    wanted: float = 0.0
    restart: str = ""
    restarted: str = ""
    failures: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRow:
    """What an operator set for a pool over its workload file; None is nothing. `drained`: no slots, no claims."""

    id: str
    min_size: int | None = None
    max_size: int | None = None
    warmth: Mapping[str, int] | None = None
    image: str | None = None
    drained: bool = False


class Ledger(Protocol):
    """What this host knows of its slots, tenants and pools.

    A change that has returned outlives this process. One that is `durable`, and all before it, outlive a power failure.
    """

    def slots(self, pool: str | None = None) -> Sequence[SlotRow]:
        """All slots, or those of one pool, oldest first."""

    def slot(self, slot: str) -> SlotRow | None: ...

    def add_slot(self, slot: str, pool: str, template: str, made_at: float, tier: Tier = "created") -> None:
        """Announce a slot, before anything of it exists."""

    def slot_ready(self, slot: str, container: str, port: int | None, tenant: TenantId | None = None) -> SlotRow:
        """The slot's container waits, as its tier says: for any claim, or for the tenant that it is given at once.

        The answer is the row as it is then: a moment later a claim may have taken the slot, used it and removed it.
        """

    def take_slot(
        self, pool: str, template: str, tenant: TenantId, tiers: Sequence[Tier] = TIERS[::-1]
    ) -> SlotRow | None:
        """Give the tenant at once the oldest ready slot of the first tier that has one; None when there is none."""

    def retire_slot(self, slot: str) -> bool:
        """ready → filling, so that no claim takes it while it is removed; False when it was not ready any more."""

    def drop_slot(self, slot: str) -> None:
        """Forget a slot, once nothing of it is left."""

    def tenants(self, *states: TenantState, pool: str | None = None) -> Sequence[TenantRow]:
        """Tenants that were ever claimed here, by id: all, or those in one of the states, or of one pool."""

    def tenant(self, tenant: TenantId) -> TenantRow | None: ...

    def begin_claim(self, tenant: TenantId, pool: str, now: float, *, trial: bool = False) -> None:
        """cold, kept, parked or unknown → claiming; why a tree was kept stays until the state changes again."""

    def note(self, tenant: TenantId, *, durable: bool = False, **columns: str | int | float) -> None:
        """Write columns of a tenant's row."""

    def become(
        self,
        tenant: TenantId,
        state: TenantState,
        now: float,
        *,
        step: str = "",
        error: str = "",
        durable: bool = False,
        trial: bool = False,
        proven: str | None = None,
    ) -> None:
        """Change a tenant's state, and what its row says of step and error. A trial ends unless `trial`; `proven` stays
        as it was unless it is given. One that becomes active is wanted from then on, if it was not before, and
        has no `restart` or `restarted` any more."""

    def restarting(self) -> Sequence[TenantRow]:
        """Tenants with a `restart`, but for `CRASH_LOOP`; those that are wanted for longest come first."""

    def boot(self) -> str:
        """The boot of the machine in which this ledger was used last; empty when it is not known."""

    def begin_boot(self, boot: str, tenants: Collection[TenantId], reason: str) -> None:
        """Note, at once and durably, the boot that this ledger is used in now, and this `restart` of these tenants."""

    def pool(self, pool: str) -> PoolRow:
        """What an operator set for a pool."""

    def set_pool(self, pool: str, **columns: Any) -> None:
        """Set `min_size`, `max_size`, `warmth`, `image` or `drained` of a pool; None unsets."""

    def drop_pool(self, pool: str) -> None:
        """Forget what an operator set for a pool."""
