"""Upgrades of pools, and the moves of their tenants."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from claw_runtime.tenancy import TenantId

UpgradeState = Literal["running", "paused", "failed", "aborting", "aborted", "done"]
MoveState = Literal["waiting", "sealing", "trying", "soaking", "returning", "returned", "done", "left"]


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradeRow:
    """The last upgrade of a pool.

    Attributes:
        reference, image: The new image as it was named, and its id, which counts: a name may move on meanwhile.
        canary: The first tenant; empty when nobody ran.
        batch: Tenants in a wave; 0 is 1, 2, 4 and so on.
        soak: Seconds that a tenant is watched before it counts.
        switched: The pool's slots are made from the new image, or are about to be.
        error, hint: Why it stopped, and what to do.
        begun, changed: Seconds since the epoch.
    """

    pool: str
    reference: str
    image: str
    state: UpgradeState = "running"
    canary: str = ""
    batch: int = 0
    soak: float = 0.0
    switched: bool = False
    error: str = ""
    hint: str = ""
    begun: float = 0.0
    changed: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveRow:
    """One tenant's way to the new image.

    Attributes:
        state: What was announced last. `waiting`; `sealing`, `trying`, `soaking`: its state is committed, the new image
            started, watched; `done`; `returning`, `returned`: it failed, and the image and state from before come or
            are back; `left`: it did not run any more when its turn came.
        image: Id of the image that it had.
        generation: Sealed before the new image began.
        ports: That it had on the way, and that must come free.
        down_at: When its program was asked to end, in seconds since the epoch.
        outage: Milliseconds from then until it was ready again.
    """

    pool: str
    tenant: TenantId
    wave: int
    state: MoveState = "waiting"
    image: str = ""
    generation: int = 0
    ports: Sequence[int] = ()
    down_at: float = 0.0
    outage: float = 0.0
    error: str = ""


class UpgradeStore(Protocol):
    """Upgrades, as far as they have come; every change outlives a power failure."""

    def upgrade(self, pool: str) -> UpgradeRow | None: ...

    def upgrades(self) -> Sequence[UpgradeRow]: ...

    def begin(self, row: UpgradeRow, waves: Sequence[Sequence[TenantId]]) -> None:
        """Keep a new upgrade with its waves, and forget the one before: all or nothing."""

    def note(self, pool: str, at: float, **columns: Any) -> None:
        """Write `state`, `switched`, `error`, `hint` of a pool's upgrade, and when."""

    def moves(self, pool: str) -> Sequence[MoveRow]:
        """In the order of waves."""

    def move(self, pool: str, tenant: TenantId) -> MoveRow:
        """One tenant's; it was planned before."""

    def plan(self, pool: str, wave: int, tenants: Sequence[TenantId]) -> None:
        """Let tenants wait for a wave, those that had one before too."""

    def note_move(self, pool: str, tenant: TenantId, **columns: Any) -> None:
        """Write columns of one tenant's move."""
