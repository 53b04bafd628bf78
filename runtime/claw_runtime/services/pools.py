"""Pools: slots made ahead, and the claim's way to one of them.

A claim takes the warmest slot that waits; without one it makes one on the spot; without room it may wait in line. What
is ahead of that is the keeper's (keeper.py), what a slot is, is in slots.py, and what it is made from in recipes.py.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import ceil
from typing import Any, Literal

import structlog

from claw_runtime.errors import ClawError, PoolExhausted
from claw_runtime.ports import TIERS, Clock, Engine, Ledger, SlotRow, Tier
from claw_runtime.services import sizes
from claw_runtime.services.keeper import FIRST_BACKOFF, Keeper, is_waiting
from claw_runtime.services.line import LONGEST
from claw_runtime.services.measures import Durations, Measures
from claw_runtime.services.recipes import Recipe, Recipes
from claw_runtime.services.shelf import Shelf
from claw_runtime.services.slots import Slots
from claw_runtime.spec.loader import Document
from claw_runtime.spec.plan import Pool, Workload
from claw_runtime.tenancy import LABEL_SLOT, Layout, TenantId
from claw_runtime.treewalk import remove_tree

__all__ = ["FIRST_BACKOFF", "PoolMetrics", "PoolStatus", "Pools", "Recipe", "Taken"]

log = structlog.get_logger(__name__)

GRACE = 3.0
"""Seconds that every claim waits for a slot that is being made or removed at that moment, whatever it asked for."""

RETRY_AFTER = 5
"""Seconds after which a refused claim may try again, when nothing tells better."""

LAST_FILL = 10.0
"""Seconds that slots under way may take when the daemon ends."""

Source = Literal["slot", "parked", "waiting", "prewarmed", "cold"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TierStatus:
    """Slots of one tier: how many shall wait, how many do."""

    wanted: int
    ready: int
    filling: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStatus:
    """One pool now.

    Attributes:
        image: Reference that slots are made from; `image_digest` is its digest, empty before it was found.
        min_size, max_size: As they hold, whatever the file says.
        ready, filling, claimed: Slots of all tiers.
        tiers: By tier.
        drained: An operator took it out of use.
        error, hint: Why it is not full, and what to do; empty when it is.
        notes: What is not as the workload file says, though nothing fails.
        dropped: Limits that this host cannot enforce and that were left out.
        queue: Claims that wait for a slot.
    """

    id: str
    image: str
    image_digest: str = ""
    min_size: int
    max_size: int
    ready: int
    filling: int
    claimed: int
    tiers: Mapping[Tier, TierStatus] = field(default_factory=dict)
    drained: bool = False
    error: str = ""
    hint: str = ""
    notes: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    queue: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolMetrics:
    """What was measured since the daemon began.

    Attributes:
        slots: Waiting slots by tier.
        claimed: Slots that are tenants'.
        claims: Claims by source.
        claim_seconds: By source; `fill_seconds` by tier.
        failures: By tier, and `pool` for those of all of it.
        queue: Claims that wait for a slot.
    """

    slots: Mapping[str, int]
    claimed: int
    claims: Mapping[str, int]
    claim_seconds: Mapping[str, Durations]
    fill_seconds: Mapping[str, Durations]
    failures: Mapping[str, int]
    queue: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A tenant's slot: `source` is its tier, or `cold` when it was made for this claim."""

    slot: SlotRow
    recipe: Recipe
    source: Source


class Pools:
    """The slots of all workloads on this host.

    Args:
        owner: Id of this runtime; containers carry it, so that two runtimes under one user leave each other alone.
        documents: Pool id → workload file; what an image promises is read from the image when it is there.
        drop_limits: Go on without a limit that this host cannot enforce, with a warning; else it is an error.
        poke: Called when the keeper has something to do.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        ledger: Ledger,
        layout: Layout,
        clock: Clock,
        owner: str,
        documents: Mapping[str, Document],
        drop_limits: bool = False,
        poke: Callable[[], None] = lambda: None,
    ) -> None:
        self._engine = engine
        self._ledger = ledger
        self._layout = layout
        self._poke = poke
        self._drop_limits = drop_limits
        self._recipes = Recipes(
            engine=engine, ledger=ledger, layout=layout, owner=owner, documents=documents, drop_limits=drop_limits
        )
        self._slots = Slots(engine=engine, ledger=ledger, layout=layout, clock=clock, recipes=self._recipes)
        self._measures = Measures()
        self._shelves: dict[str, Shelf] = {}
        self._shelving = threading.Lock()
        self._keeper = Keeper(
            engine=engine,
            ledger=ledger,
            clock=clock,
            recipes=self._recipes,
            slots=self._slots,
            shelf=self._shelf,
            measures=self._measures,
        )

    def _shelf(self, pool: str) -> Shelf:
        found = self._shelves.get(pool)
        if found is None:
            with self._shelving:
                found = self._shelves.setdefault(pool, Shelf(pool, self._slots, self._ledger))
        return found

    # --- workloads ---

    @property
    def owner_labels(self) -> dict[str, str]:
        """Labels that every container of this runtime carries."""
        return self._recipes.owner_labels

    def ids(self) -> Sequence[str]:
        """Pools that are configured, in the order of their files."""
        return self._recipes.ids()

    def document(self, pool: str) -> Document:
        """The pool's workload file. Raises `UnknownPool`."""
        return self._recipes.document(pool)

    def recipe(self, pool: str, image: str | None = None) -> Recipe:
        """What a slot of the pool is made from now, or of another image. Raises as `workload`."""
        return self._recipes.known(pool, image)

    def workload(self, pool: str, image_id: str | None = None) -> Workload:
        """What a pool runs; what it runs of another image when its tag may have moved on (`Recipes.workload`)."""
        return self._recipes.workload(pool, image_id)

    def sizes(self, pool: str) -> Pool:
        """The pool's sizes and timeouts as they hold. Raises as `workload`."""
        return self._recipes.sizes(pool)

    def check(self, pool: str) -> None:
        """Whether claims of the pool can begin. Raises `UnknownPool`, `ImageMissing`, `InvalidSpec`, as `workload`."""
        self._recipes.known(pool)

    # --- a claim's slot ---

    def take(self, pool: str, tenant: TenantId, *, wait: float = 0.0, image: str | None = None) -> Taken:
        """A slot for a tenant's one claim: the warmest that waits, else one made now, else the next that comes.

        Args:
            wait: Seconds to wait in line, first come first served, when the pool is full.
            image: Of this image instead of the pool's.

        Raises:
            UnknownPool: There is no such pool.
            PoolExhausted: As many slots as `max_size` exist and none is ready, or the pool is drained;
                `facts["retry_after"]` is seconds.
            ImageMissing, EngineFailed, EngineUnavailable: No slot could be made.
        """
        recipe = self._recipes.known(pool, image)
        self._refuse_drained(pool)
        shelf = self._shelf(pool)
        if not len(shelf.line) and (taken := self._try(shelf, recipe, tenant, image)):
            return taken
        until = time.monotonic() + max(wait, GRACE if shelf.coming() else 0.0)
        with shelf.line.place() as place:
            if place is None:
                raise self._full(pool, f"{LONGEST} claims already wait for a slot")
            while place.turn(until):
                self._refuse_drained(pool)
                if taken := self._try(shelf, self._recipes.known(pool, image), tenant, image):
                    return taken
                if wait <= 0 and not shelf.coming():
                    break
        most = self._recipes.pool_of(recipe).max_size
        raise self._full(pool, f"all {most} slots are in use (pool.max_size)")

    def _try(self, shelf: Shelf, recipe: Recipe, tenant: TenantId, image: str | None) -> Taken | None:
        """A slot without waiting for others; None when there is neither one nor room for one."""
        while True:
            if slot := self._take_waiting(shelf, recipe, tenant):
                return Taken(slot=slot, recipe=recipe, source=slot.tier)
            fresh = self._recipes.now(shelf.pool, image)
            if fresh.digest != recipe.digest:
                recipe = fresh
                continue
            if made := shelf.make(recipe, partial(_if_room, self._recipes.pool_of(recipe).max_size), tenant):
                return Taken(slot=made, recipe=recipe, source="cold")
            if not shelf.retire_other(recipe.digest):
                return None

    def _take_waiting(self, shelf: Shelf, recipe: Recipe, tenant: TenantId) -> SlotRow | None:
        while slot := self._ledger.take_slot(shelf.pool, recipe.digest, tenant):
            if slot.tier == "slot" or self._slots.waits(slot.id):
                return slot
            log.warning("slot removed", pool=shelf.pool, slot=slot.id, tier=slot.tier, why="it does not wait any more")
            self._measures.add(shelf.pool, "failure", slot.tier)
            shelf.destroy(slot.id)
        return None

    def _refuse_drained(self, pool: str) -> None:
        if self._recipes.row(pool).drained:
            raise PoolExhausted(
                f"pool {pool!r} takes no claims",
                why="an operator drained it",
                hint=f"claw-runtime pool undrain {pool}",
                retry_after=RETRY_AFTER,
            )

    def _full(self, pool: str, why: str) -> PoolExhausted:
        fills = [spent.p50 for spent in self._measures.durations(pool, "fill").values()]
        coming = self._shelf(pool).coming() and fills
        return PoolExhausted(
            f"pool {pool!r} is full",
            why=why,
            hint="release a tenant, raise pool.max_size, or let the claim wait",
            retry_after=max(1, ceil(min(fills))) if coming else RETRY_AFTER,
        )

    def begin(self, slot: SlotRow) -> None:
        """Let the slot's tenant in: start its container, or ring at its door (`Slots.begin`)."""
        self._slots.begin(slot)

    def destroy(self, slot: str) -> None:
        """Remove a slot, whoever has it; claims that wait in line hear of it. Safe to repeat after any crash."""
        row = self._ledger.slot(slot)
        if row:
            self._shelf(row.pool).destroy(slot)
        else:
            self._slots.destroy(slot)

    def observe(self, pool: str, source: str, seconds: float) -> None:
        """Count a claim that is done, and what it took."""
        self._measures.add(pool, "claim", source, seconds)

    # --- keeping ---

    def keep(self) -> None:
        """One pass over all pools, in this thread: drop slots that nobody can use, make missing ones."""
        self._keeper.keep()

    def tick(self) -> None:
        """Begin a pass over all pools, and wait for none of them."""
        self._keeper.tick()

    def drain(self) -> None:
        """The end: make no more slots, and destroy those that are nobody's; tenants' containers are left alone."""
        self._keeper.stop(LAST_FILL)
        for pool in {row.pool for row in self._ledger.slots()}:
            self._keeper.empty(pool)

    def recover(self) -> None:
        """After a start: keep ready slots that still wait, remove everything that no row explains.

        Claimed slots are the tenants' (services/claims.py).
        """
        containers = {found.labels.get(LABEL_SLOT, ""): found for found in self._engine.list(self.owner_labels)}
        for slot in self._ledger.slots():
            found = containers.pop(slot.id, None)
            adopted = slot.state == "ready" and is_waiting(slot, found, self._slots.waits)
            if slot.state != "claimed" and not adopted:
                log.info("slot removed", slot=slot.id, pool=slot.pool, was=slot.state)
                self.destroy(slot.id)
        for orphan in containers.values():
            log.warning("container removed: no slot of the ledger", container=orphan.name)
            self._engine.remove(orphan.id)
        self._remove_strays()

    def _remove_strays(self) -> None:
        """Directories of slots that no row explains; not one that holds a tree, which may be a tenant's only copy."""
        known = {slot.id for slot in self._ledger.slots()}
        for root in self._layout.slots.glob("*"):
            if root.name in known:
                continue
            tree = self._layout.slot(root.name).state
            if any(path.is_file() or path.is_symlink() for path in tree.rglob("*")):
                log.warning(
                    "a tree without a slot is left alone", path=str(tree), hint="move it away if nobody needs it"
                )
                continue
            remove_tree(root)
        for values in self._layout.slot("any").values.parent.glob("*"):
            if values.name not in known:
                remove_tree(values)

    def map_images(self) -> None:
        """Make the keep-id mapping of every image now, not at a claim; an image that is missing waits in `status`."""
        for pool in self.ids():
            try:
                self._engine.map_image(self._recipes.reference(pool))
            except ClawError as error:
                log.warning("image is not ready", pool=pool, error=str(error), hint=error.hint)

    # --- what is there ---

    def status(self) -> Sequence[PoolStatus]:
        """All pools now, without asking the engine."""
        return [self._status(pool) for pool in self.ids()]

    def _status(self, pool: str) -> PoolStatus:
        document, row = self._recipes.document(pool), self._recipes.row(pool)
        recipe = self._recipes.seen(pool)
        size = self._recipes.pool_of(recipe) if recipe else None
        rows = self._shelf(pool).rows()
        states = [slot.state for slot in rows]
        counts: dict[str, Any] = {state: states.count(state) for state in ("ready", "filling", "claimed")}
        troubles = self._keeper.troubles(pool)
        return PoolStatus(
            id=pool,
            image=self._recipes.reference(pool),
            image_digest=recipe.image if recipe else "",
            min_size=size.min_size if size else document.workload.pool.min_size,
            max_size=size.max_size if size else document.workload.pool.max_size,
            tiers=_tiers(rows, size),
            drained=row.drained,
            error=troubles[0].error if troubles else "",
            hint=troubles[0].hint if troubles else "",
            dropped=recipe.dropped if recipe else (),
            queue=len(self._shelf(pool).line),
            **counts,
        )

    def metrics(self, pool: str) -> PoolMetrics:
        """What was measured. Raises `UnknownPool`."""
        self._recipes.document(pool)
        rows = self._shelf(pool).rows()
        return PoolMetrics(
            slots={tier: sum(row.tier == tier and row.state == "ready" for row in rows) for tier in TIERS},
            claimed=sum(row.state == "claimed" for row in rows),
            claims=self._measures.counts(pool, "claim"),
            claim_seconds=self._measures.durations(pool, "claim"),
            fill_seconds=self._measures.durations(pool, "fill"),
            failures=self._measures.counts(pool, "failure"),
            queue=len(self._shelf(pool).line),
        )


def _if_room(most: int, rows: Sequence[SlotRow]) -> Tier | None:
    return "slot" if len(rows) < most else None


def _tiers(rows: Sequence[SlotRow], size: Pool | None) -> dict[Tier, TierStatus]:
    wanted = sizes.counts_by_tier(size) if size else {}
    return {
        tier: TierStatus(
            wanted=wanted.get(tier, 0),
            ready=sum(row.tier == tier and row.state == "ready" for row in rows),
            filling=sum(row.tier == tier and row.state == "filling" for row in rows),
        )
        for tier in TIERS
    }
