"""What all parts of `tenants` share, and what one tenant has on this host."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property

from claw_runtime.concurrency import Workers
from claw_runtime.errors import ClawError
from claw_runtime.pools.pools import Pools
from claw_runtime.ports import (
    LIVE,
    Clock,
    Container,
    ContainerState,
    Engine,
    Fence,
    Image,
    Ledger,
    NoFence,
    SlotRow,
    TenantRow,
)
from claw_runtime.spec.parts import SyncLimits
from claw_runtime.spec.plan import Workload
from claw_runtime.state.rules.selection import Selection, unexcluded
from claw_runtime.telemetry.events import Observer
from claw_runtime.tenancy import Layout, TenantId


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What all parts of `tenants` share on this host.

    Attributes:
        workers: Do in the background what ends tenants, which may stop a program and commit its tree; by default at
            once.
        restarts: Claim in the background what the daemon claims by itself.
        fence: Holds the requests of a tenant's clients while its container is ended or replaced.
        boot: Returns the machine's present boot; empty when it is not known.
    """

    engine: Engine
    ledger: Ledger
    pools: Pools
    layout: Layout
    clock: Clock
    observer: Observer
    workers: Workers = field(default_factory=lambda: Workers("end", 0))
    restarts: Workers = field(default_factory=lambda: Workers("restart", 0))
    fence: Fence = field(default_factory=NoFence)
    boot: Callable[[], str] = lambda: ""

    def look(self, row: TenantRow) -> "Occupancy":
        """What the tenant of this row has here; each part is looked up when it is needed."""
        return Occupancy(row=row, host=self)


def logins_of(host: Host, tenant: TenantId) -> tuple[str, ...]:
    """Patterns of the channels' logins in a tenant's state: of what it ran here last, else of every workload."""
    return tuple(dict.fromkeys(login for workload in _workloads_of(host, tenant) for login in workload.logins))


def unexcluded_of(host: Host, tenant: TenantId) -> Selection:
    """All names but those that the workload excludes: what the tenant ran here last, else what every workload
    excludes."""
    return unexcluded(_workloads_of(host, tenant))


def limits_of(host: Host, tenant: TenantId) -> SyncLimits:
    """How large a state may be, by what the tenant ran here last, else by the workload that allows most; no time."""
    limits = [one.sync_limits for one in _workloads_of(host, tenant)]
    return SyncLimits(size=_most([one.size for one in limits]), files=_most([one.files for one in limits]))


def _most(bounds: Sequence[int | None]) -> int | None:
    known = [one for one in bounds if one is not None]
    return max(known) if known and len(known) == len(bounds) else None


def _workloads_of(host: Host, tenant: TenantId) -> list[Workload]:
    """What the tenant ran here last, else every workload of this host whose image is here."""
    row = host.ledger.tenant(tenant)
    if row is not None and row.pool:
        with suppress(ClawError):
            return [host.look(row).workload]
    found = list[Workload]()
    for pool in host.pools.ids():
        with suppress(ClawError):
            found.append(host.pools.workload(pool))
    return found


@dataclass(frozen=True, kw_only=True)
class Occupancy:
    """What a tenant has on this host, for one operation.

    Each part is looked up once, when it is first needed; an operation passes its occupancy on. It does not show what
    the operation itself does to the container: code that needs that calls `Host.look` again.

    Attributes:
        row: The tenant's row as the operation found it.
    """

    row: TenantRow
    host: Host = field(repr=False, compare=False)

    @cached_property
    def slot(self) -> SlotRow | None:
        """The tenant's slot, if it has one."""
        return self.host.ledger.slot(self.row.slot) if self.row.slot else None

    @cached_property
    def container(self) -> Container | None:
        """The tenant's container; None when it has none, or the engine no longer has it. Raises as `Engine.inspect`."""
        return self.host.engine.inspect(self.slot.container) if self.slot and self.slot.container else None

    @property
    def state(self) -> ContainerState | None:
        """The state of its container."""
        return self.container.state if self.container else None

    @property
    def is_live(self) -> bool:
        """Whether its container runs or is paused."""
        return self.state in LIVE

    @cached_property
    def _plan(self) -> tuple[Workload, Image]:
        found = self.container
        image_id = found.image_id if found else None
        return self.host.pools.last_workload(self.row.pool or "", image_id, self.row.proven)

    @property
    def workload(self) -> Workload:
        """What its container runs, or would run. Raises as `Pools.last_workload`."""
        return self._plan[0]

    @property
    def image(self) -> Image:
        """The image of its container, or the image that a new container would run."""
        return self._plan[1]
