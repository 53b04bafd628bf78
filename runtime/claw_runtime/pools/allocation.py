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
from claw_runtime.pools.wait_queue import LONGEST
from claw_runtime.ports import Ledger, SlotRow, Tier
from claw_runtime.tenancy import TenantId

log = structlog.get_logger(__name__)

WAIT_FOR_COMING = 3.0
"""Seconds that every claim waits for a slot that is being created or removed at that moment, whatever it asked for."""

RETRY_AFTER = 5
"""Seconds after which a refused claim may try again, when nothing more exact is known."""

Source = Literal["created", "entrypoint", "interpreter", "prewarmed", "cold"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """A tenant's slot: `source` is its tier, or `cold` when it was made for this claim."""

    slot: SlotRow
    recipe: SlotTemplate
    source: Source


class Allocator:
    """Gives slots to claims; `Pools.take` says how."""

    def __init__(self, *, ledger: Ledger, recipes: SlotTemplates, slots: Slots, measures: Timings) -> None:
        self._ledger = ledger
        self._recipes = recipes
        self._slots = slots
        self._measures = measures

    def take(
        self, shelf: Inventory, tenant: TenantId, *, wait: float, image: str | None, gone: Callable[[], bool]
    ) -> Allocation:
        """A slot of this shelf, as `Pools.take`."""
        pool = shelf.pool
        recipe = self._recipes.known(pool, image)
        self.refuse_drained(pool)
        if not len(shelf.line) and (taken := self._try(shelf, recipe, tenant, image)):
            return taken
        until = time.monotonic() + max(wait, WAIT_FOR_COMING if shelf.coming() else 0.0)
        with shelf.line.enter(gone) as queued:
            if queued is None:
                raise self._full(shelf, f"{LONGEST} claims already wait for one of its slots")
            while queued.wait_turn(until):
                self.refuse_drained(pool)
                if taken := self._try(shelf, self._recipes.known(pool, image), tenant, image):
                    return taken
                if wait <= 0 and not shelf.coming():
                    break
        most = self._recipes.pool_of(recipe).max_size
        raise self._full(shelf, f"all {most} slots are in use (pool.max_size)")

    def _try(self, shelf: Inventory, recipe: SlotTemplate, tenant: TenantId, image: str | None) -> Allocation | None:
        """A slot without waiting for others; None when there is neither one nor room for one."""
        while True:
            if slot := self._take_waiting(shelf, recipe, tenant):
                return Allocation(slot=slot, recipe=recipe, source=slot.tier)
            fresh = self._recipes.now(shelf.pool, image)
            if fresh.digest != recipe.digest:
                recipe = fresh
                continue
            if made := shelf.make(recipe, partial(_if_room, self._recipes.pool_of(recipe).max_size), tenant):
                return Allocation(slot=made, recipe=recipe, source="cold")
            if not shelf.retire_other(recipe.digest):
                return None

    def _take_waiting(self, shelf: Inventory, recipe: SlotTemplate, tenant: TenantId) -> SlotRow | None:
        while slot := self._ledger.take_slot(shelf.pool, recipe.digest, tenant):
            if slot.tier == "created" or self._slots.waits(slot.id):
                return slot
            log.warning(
                "slot removed", pool=shelf.pool, slot=slot.id, tier=slot.tier, why="its process no longer waits"
            )
            self._measures.add(shelf.pool, "failure", slot.tier)
            shelf.destroy(slot.id)
        return None

    def refuse_drained(self, pool: str) -> None:
        """Raises `PoolExhausted` when an operator has drained the pool."""
        if self._recipes.row(pool).drained:
            raise PoolExhausted(
                f"pool {pool!r} takes no claims",
                why="an operator drained it",
                hint=f"claw-runtime pool undrain {pool}",
                retry_after=RETRY_AFTER,
            )

    def _full(self, shelf: Inventory, why: str) -> PoolExhausted:
        fills = [spent.p50 for spent in self._measures.durations(shelf.pool, "fill").values()]
        coming = shelf.coming() and fills
        return PoolExhausted(
            f"pool {shelf.pool!r} is full",
            why=why,
            hint="release a tenant, raise pool.max_size, or let the claim wait",
            retry_after=max(1, ceil(min(fills))) if coming else RETRY_AFTER,
        )


def _if_room(most: int, rows: Sequence[SlotRow]) -> Tier | None:
    return "created" if len(rows) < most else None
