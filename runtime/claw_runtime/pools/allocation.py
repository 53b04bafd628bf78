"""How a claim gets its slot: the warmest that waits, else one created on the spot, else its turn in the queue."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Literal

import structlog

from claw_runtime.errors import PoolExhausted
from claw_runtime.pools.inventory import Inventory
from claw_runtime.pools.slots import Slots
from claw_runtime.pools.templates import SlotTemplate, SlotTemplates
from claw_runtime.pools.timings import Timings
from claw_runtime.pools.wait_queue import LONGEST, QueuedClaim
from claw_runtime.ports import Ledger, SlotRow, Tier
from claw_runtime.tenancy import TenantId

log = structlog.get_logger(__name__)

WAIT_FOR_COMING = 3.0
"""Seconds that every claim waits for a slot that is being created or removed at that moment, whatever it asked for."""

RETRY_AFTER = 5
"""Seconds after which a refused claim may try again, when nothing more exact is known."""

SlotSource = Literal["created", "entrypoint", "interpreter", "prewarmed", "cold"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """A tenant's slot: `source` is its tier, or `cold` when it was made for this claim."""

    slot: SlotRow
    template: SlotTemplate
    source: SlotSource


class Allocator:
    """Gives slots to claims; `Pools.take` says how."""

    def __init__(self, *, ledger: Ledger, templates: SlotTemplates, slots: Slots, timings: Timings) -> None:
        self._ledger = ledger
        self._templates = templates
        self._slots = slots
        self._timings = timings

    def take(
        self,
        inventory: Inventory,
        tenant: TenantId,
        *,
        wait: float,
        image: str | None,
        fresh: bool,
        gone: Callable[[], bool],
        first: QueuedClaim | None = None,
    ) -> Allocation:
        """A slot of this inventory, as `Pools.take`."""
        pool = inventory.pool
        template = self._templates.known(pool, image)
        self.refuse_drained(pool)
        if (first or not len(inventory.queue)) and (taken := self._try(inventory, template, tenant, image, fresh)):
            return taken
        if first:
            raise self.full(inventory)
        until = time.monotonic() + max(wait, WAIT_FOR_COMING if inventory.coming() else 0.0)
        with inventory.queue.enter(gone) as queued:
            if queued is None:
                raise self.line_full(inventory)
            while queued.wait_turn(until):
                self.refuse_drained(pool)
                if taken := self._try(inventory, self._templates.known(pool, image), tenant, image, fresh):
                    return taken
                if wait <= 0 and not inventory.coming():
                    break
        raise self.full(inventory)

    def _try(
        self, inventory: Inventory, template: SlotTemplate, tenant: TenantId, image: str | None, fresh: bool
    ) -> Allocation | None:
        """A slot without waiting for others; None when there is neither one nor room for one."""
        while True:
            if not fresh and (slot := self._take_waiting(inventory, template, tenant)):
                return Allocation(slot=slot, template=template, source=slot.tier)
            newer = self._templates.now(inventory.pool, image)
            if newer.digest != template.digest:
                template = newer
                continue
            if made := inventory.make(template, partial(_if_room, self._templates.pool_of(template).max_size), tenant):
                return Allocation(slot=made, template=template, source="cold")
            if not inventory.retire_other("" if fresh else template.digest):
                return None

    def _take_waiting(self, inventory: Inventory, template: SlotTemplate, tenant: TenantId) -> SlotRow | None:
        while slot := self._ledger.take_slot(inventory.pool, template.digest, tenant):
            if self._slots.still_waits(slot):
                return slot
            log.warning("slot removed", pool=inventory.pool, slot=slot.id, tier=slot.tier, why="it no longer waits")
            self._timings.add(inventory.pool, "failure", slot.tier)
            inventory.destroy(slot.id)
        return None

    def refuse_drained(self, pool: str) -> None:
        """Raises `PoolExhausted` when an operator has drained the pool."""
        if self._templates.row(pool).drained:
            raise PoolExhausted(
                f"pool {pool!r} takes no claims",
                why="an operator drained it",
                hint=f"claw-runtime pool undrain {pool}",
                retry_after=RETRY_AFTER,
            )

    def full(self, inventory: Inventory) -> PoolExhausted:
        """The refusal of a claim that found no slot."""
        most = self._templates.sizes(inventory.pool).max_size
        hint = "release a tenant, raise pool.max_size, or let the claim wait"
        return self._refused(inventory, f"all {most} slots are in use (pool.max_size)", hint)

    def line_full(self, inventory: Inventory) -> PoolExhausted:
        """The refusal of a claim that would wait."""
        hint = "claim again later, release tenants, or raise pool.max_size"
        return self._refused(inventory, f"{LONGEST} claims already wait for one of its slots", hint)

    def _refused(self, inventory: Inventory, why: str, hint: str) -> PoolExhausted:
        fills = [spent.p50 for spent in self._timings.durations(inventory.pool, "fill").values()]
        coming = inventory.coming() and fills
        return PoolExhausted(
            f"pool {inventory.pool!r} is full",
            why=why,
            hint=hint,
            in_use=True,
            retry_after=max(1, ceil(min(fills))) if coming else RETRY_AFTER,
        )


def _if_room(most: int, rows: Sequence[SlotRow]) -> Tier | None:
    return "created" if len(rows) < most else None
