"""Pools: slots made ahead, and the claim's way to one of them.

A claim takes the warmest slot that waits; without one it makes one on the spot; without room it may wait in line. The
rest of the room: pools/reconciler.py fills pools, pools/slots.py makes a slot, pools/templates.py says from what.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import structlog

from claw_runtime.errors import ClawError, InvalidSpec, UnknownPool
from claw_runtime.pools import adoption, scaling
from claw_runtime.pools.allocation import Allocation, Allocator
from claw_runtime.pools.inventory import Inventory
from claw_runtime.pools.reconciler import FIRST_BACKOFF, Reconciler
from claw_runtime.pools.slots import Slots
from claw_runtime.pools.status import PoolMetrics, PoolStatus, by_tier
from claw_runtime.pools.templates import SlotTemplate, SlotTemplates
from claw_runtime.pools.timings import Timings
from claw_runtime.pools.wait_queue import QueuedClaim
from claw_runtime.ports import TIERS, Clock, Engine, Image, Ledger, PoolRow, SlotRow
from claw_runtime.spec import filters
from claw_runtime.spec.loader import Document
from claw_runtime.spec.plan import Pool, Workload
from claw_runtime.tenancy import LABEL_POOL, LABEL_SLOT, Layout, TenantId

__all__ = ["FIRST_BACKOFF", "Allocation", "PoolMetrics", "PoolStatus", "Pools", "SlotTemplate"]

log = structlog.get_logger(__name__)

LAST_FILL = 10.0
"""Seconds that slots under way may take when the daemon ends."""


class Pools:
    """The slots of all workloads on this host.

    Args:
        templates: What slots are made from; every change of a workload goes through `put` and `remove` here.
        poke: Called when the reconciler has something to do.
        notes: What others have to say of a pool, for its status.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        ledger: Ledger,
        layout: Layout,
        clock: Clock,
        templates: SlotTemplates,
        poke: Callable[[], None] = lambda: None,
        notes: Callable[[str], Sequence[str]] = lambda _pool: (),
    ) -> None:
        self._engine = engine
        self._ledger = ledger
        self._layout = layout
        self._templates = templates
        self._poke = poke
        self._notes = notes
        self._slots = Slots(engine=engine, ledger=ledger, layout=layout, clock=clock, templates=self._templates)
        self._timings = Timings()
        self._inventories: dict[str, Inventory] = {}
        self._lock = threading.Lock()
        self._reconciler = Reconciler(
            engine=engine,
            ledger=ledger,
            clock=clock,
            templates=self._templates,
            slots=self._slots,
            inventory=self._inventory,
            timings=self._timings,
        )
        self._allocator = Allocator(ledger=ledger, templates=self._templates, slots=self._slots, timings=self._timings)
        self._file_problems: Mapping[str, ClawError] = {}

    def _inventory(self, pool: str) -> Inventory:
        found = self._inventories.get(pool)
        if found is None:
            with self._lock:
                found = self._inventories.setdefault(pool, Inventory(pool, self._slots, self._ledger))
        return found

    # --- workloads ---

    @property
    def owner_labels(self) -> dict[str, str]:
        """Labels that every container of this runtime carries."""
        return self._templates.owner_labels

    def ids(self) -> Sequence[str]:
        """Pools that are configured, in the order of their files."""
        return self._templates.ids()

    def document(self, pool: str) -> Document:
        """The pool's workload file. Raises `UnknownPool`."""
        return self._templates.document(pool)

    def template(self, pool: str, image: str | None = None) -> SlotTemplate:
        """What a slot of the pool is made from now, or of another image. Raises as `workload`."""
        return self._templates.known(pool, image)

    def workload(self, pool: str, image_id: str | None = None) -> Workload:
        """What a pool runs; what it runs of another image when its tag may have moved on (`SlotTemplates.workload`)."""
        return self._templates.workload(pool, image_id)

    def last_workload(self, pool: str, image_id: str | None, proven: str) -> tuple[Workload, Image]:
        """What a tenant that is to end runs, and of which image (`SlotTemplates.last_workload`)."""
        return self._templates.last_workload(pool, image_id, proven)

    def interval(self, pool: str) -> float | None:
        """Seconds between two commits of a running tenant; None is none, also for a pool whose file is gone."""
        try:
            return self.document(pool).workload.sync.policy.interval
        except UnknownPool:
            return None

    def sizes(self, pool: str) -> Pool:
        """The pool's sizes and timeouts as they hold. Raises as `workload`."""
        return self._templates.sizes(pool)

    def check(self, pool: str) -> None:
        """Whether claims of the pool can begin. Raises `UnknownPool`, `ImageMissing`, `InvalidSpec`, as `workload`."""
        self._templates.known(pool)

    # --- a claim's slot ---

    def take(
        self,
        pool: str,
        tenant: TenantId,
        *,
        wait: float = 0.0,
        image: str | None = None,
        fresh: bool = False,
        gone: Callable[[], bool] = lambda: False,
        first: QueuedClaim | None = None,
    ) -> Allocation:
        """A slot for a tenant's one claim: the warmest that waits, else one made now, else the next that comes.

        Args:
            wait: Seconds to wait in line, first come first served, when the pool is full.
            image: Of this image instead of the pool's.
            fresh: A new one, although others wait: those that this claim had did not start.
            gone: Whether the caller has gone; the claim then leaves the line.
            first: The claim's own place in line (`line`), which is first: take a slot now or refuse.

        Raises:
            UnknownPool: There is no such pool.
            PoolExhausted: As many slots as `max_size` exist and none is ready, or the pool is drained;
                `facts["retry_after"]` is seconds, and `facts["in_use"]` is set unless the pool is drained.
            ImageMissing, EngineFailed, EngineUnavailable: No slot could be made.
        """
        return self._allocator.take(
            self._inventory(pool), tenant, wait=wait, image=image, fresh=fresh, gone=gone, first=first
        )

    @contextmanager
    def line(self, pool: str, wake: Callable[[], None]) -> Iterator[QueuedClaim]:
        """A place at the end of the pool's line until the block ends, for a claim that waits without a thread.

        Args:
            wake: Called, in any thread, when the place is first and a slot may have come.

        Raises:
            UnknownPool: There is no such pool.
            PoolExhausted: The line is full.
        """
        inventory = self._inventory(pool)
        with inventory.queue.enter(wake=wake) as queued:
            if queued is None:
                raise self._allocator.line_full(inventory)
            yield queued

    def refuse_drained(self, pool: str) -> None:
        """Raises `PoolExhausted` when an operator has drained the pool."""
        self._allocator.refuse_drained(pool)

    def queued(self, pool: str) -> int:
        """Claims that wait for a slot of the pool."""
        return len(self._inventory(pool).queue)

    def is_crowded(self, pool: str) -> bool:
        """Whether claims wait for a slot of the pool and there is no room for one."""
        if not len(self._inventory(pool).queue):
            return False
        try:
            return len(self._inventory(pool).rows()) >= self._templates.sizes(pool).max_size
        except ClawError:
            return False

    def start(self, slot: SlotRow) -> None:
        """Start the slot for its tenant: its container, or the process that waits in it (`Slots.start`)."""
        self._slots.start(slot)

    def destroy(self, slot: str) -> None:
        """Remove a slot, even a tenant's; claims that wait in line are woken. Safe to repeat after any crash."""
        row = self._ledger.slot(slot)
        if row:
            self._inventory(row.pool).destroy(slot)
        else:
            self._slots.destroy(slot)

    def retire(self, slot: SlotRow) -> bool:
        """Destroy a slot that waits; False when a tenant has it by now, or something else works on it."""
        return self._inventory(slot.pool).retire(slot.id)

    def observe(self, pool: str, source: str, seconds: float) -> None:
        """Count a claim that is done, and what it took."""
        self._timings.add(pool, "claim", source, seconds)

    # --- what an operator says ---

    def put(self, document: Document) -> None:
        """Take a workload that is new or has changed; its slots follow.

        Raises:
            InvalidSpec: It and its image do not fit; nothing was changed.
        """
        self._templates.put(document)
        self._changed(document.workload.id)

    def remove(self, pool: str, *, forget: bool = True) -> None:
        """Take a workload away: its slots go, no claim begins, its tenants run until they are released.

        Args:
            forget: What an operator set for it goes as well.
        """
        self._templates.remove(pool)
        if forget:
            self._templates.forget(pool)
        self._changed(pool)

    def report(self, problems: Mapping[str, ClawError]) -> None:
        """Show these problems of workload files in the status of their pools, which work as before."""
        self._file_problems = problems

    def scale(
        self,
        pool: str,
        *,
        min_size: int | None = None,
        max_size: int | None = None,
        warmth: Mapping[str, int] | None = None,
    ) -> PoolStatus:
        """Change a pool's sizes, until they are changed again; None leaves one as it is.

        `min_size` alone makes its difference in the coldest tiers. Tenants are never touched.

        Raises:
            UnknownPool, ImageMissing: There is no such pool, or its image is not there.
            InvalidSpec: More would wait than there may be, or in a tier that the image does not offer.
        """
        workload, row = self._templates.known(pool).workload, self._templates.row(pool)
        for tier in TIERS:
            if (warmth or {}).get(tier) and tier not in workload.tiers:
                raise InvalidSpec(
                    f"no slot of pool {pool!r} can wait as {tier}",
                    why=f"the image {workload.image} offers {', '.join(workload.tiers)}",
                    hint="leave that tier out, or set another image",
                )
        columns = scaling.changed(
            self._templates.file_sizes(pool), row, min_size=min_size, max_size=max_size, warmth=warmth
        )
        if columns:
            self._templates.set_row(pool, **columns)
            self._changed(pool)
        return self.show(pool)

    def drain_pool(self, pool: str) -> PoolStatus:
        """Take a pool out of use: no slot waits, no claim begins; its tenants continue. Raises `UnknownPool`."""
        return self._set_drained(pool, True)

    def undrain(self, pool: str) -> PoolStatus:
        """Take a pool into use again. Raises `UnknownPool`."""
        return self._set_drained(pool, False)

    def _set_drained(self, pool: str, drained: bool) -> PoolStatus:
        self._templates.document(pool)
        self._templates.set_row(pool, drained=drained)
        self._changed(pool)
        return self.show(pool)

    def recycle(self, pool: str) -> int:
        """Replace all slots that wait; how many there were. Raises `UnknownPool`, `EngineFailed`."""
        self._templates.document(pool)
        self._reconciler.forgive(pool)
        return self._reconciler.empty(pool, after_each=self._poke)

    def set_image(self, pool: str, image: str | None) -> PoolStatus:
        """Make slots from this image, whatever the file says; None is the file's again. Tenants keep what they have.

        Raises:
            UnknownPool, ImageMissing: There is no such pool, or no such image.
            InvalidSpec: The workload and this image do not fit.
        """
        self._templates.now(pool, image or self._templates.document(pool).workload.image)
        self._templates.set_row(pool, image=image)
        self._changed(pool)
        return self.show(pool)

    def _changed(self, pool: str) -> None:
        self._reconciler.forgive(pool)
        self._inventory(pool).queue.notify()
        self._poke()

    # --- keeping ---

    def keep(self) -> None:
        """One pass over all pools, in this thread: drop slots that nobody can use, make missing ones."""
        self._reconciler.keep()

    def tick(self) -> None:
        """Begin a pass over all pools, and wait for none of them."""
        self._reconciler.tick()

    def rest(self) -> None:
        """End the passes that are under way; half-made slots are removed."""
        self._reconciler.stop(LAST_FILL)

    def drain(self) -> None:
        """The end: make no more slots, and destroy those that no tenant has; tenants' containers are left alone."""
        self.rest()
        for pool in {row.pool for row in self._ledger.slots()}:
            self._reconciler.empty(pool)

    def recover(self) -> None:
        """After a start: keep ready slots that still wait, remove everything that no row explains."""
        labels, is_waiting = self.owner_labels, self._slots.is_waiting
        adoption.recover(
            self._engine,
            self._ledger,
            self._layout,
            labels,
            is_waiting=is_waiting,
            retire=self.retire,
        )

    def map_images(self) -> None:
        """Make the keep-id mapping of every image now, not at a claim; an image that is missing waits in `status`."""
        for pool in self.ids():
            try:
                self._engine.map_image(self._templates.reference(pool))
            except ClawError as error:
                log.warning("image is not ready", pool=pool, error=str(error), hint=error.hint)

    # --- what is there ---

    def status(self) -> Sequence[PoolStatus]:
        """All pools now, without asking the engine."""
        return [self.show(pool) for pool in self.ids()]

    def show(self, pool: str) -> PoolStatus:
        """One pool now. Raises `UnknownPool`."""
        document, row, template = self._templates.document(pool), self._templates.row(pool), self._templates.seen(pool)
        size = self._templates.pool_of(template) if template else None
        rows = self._inventory(pool).rows()
        states = [slot.state for slot in rows]
        error, hint = self._trouble(pool)
        return PoolStatus(
            id=pool,
            image=self._templates.reference(pool),
            image_digest=template.image if template else "",
            min_size=size.min_size if size else document.workload.pool.min_size,
            max_size=size.max_size if size else document.workload.pool.max_size,
            ready=states.count("ready"),
            filling=states.count("filling"),
            claimed=states.count("claimed"),
            tiers=by_tier(rows, size),
            drained=row.drained,
            error=error,
            hint=hint,
            notes=(*_notes(template, row, size), *self._notes(pool)),
            dropped=template.dropped if template else (),
            seccomp=filters.profile(document),
            queue=len(self._inventory(pool).queue),
        )

    def _trouble(self, pool: str) -> tuple[str, str]:
        if problem := self._file_problems.get(pool):
            return str(problem), problem.hint
        troubles = self._reconciler.troubles(pool)
        return (troubles[0].error, troubles[0].hint) if troubles else ("", "")

    def metrics(self, pool: str) -> PoolMetrics:
        """What was measured since the daemon began.

        Raises:
            UnknownPool: There is none.
            EngineUnavailable: The memory of its slots could not be asked for.
        """
        self._templates.document(pool)
        rows = self._inventory(pool).rows()
        ready = {row.id: row.tier for row in rows if row.state == "ready"}
        memory = dict.fromkeys(TIERS, 0)
        for usage in self._engine.stats({**self.owner_labels, LABEL_POOL: pool}):
            if tier := ready.get(usage.container.labels.get(LABEL_SLOT, "")):
                memory[tier] += usage.memory
        return PoolMetrics(
            slots={tier: list(ready.values()).count(tier) for tier in TIERS},
            claimed=sum(row.state == "claimed" for row in rows),
            claims=self._timings.counts(pool, "claim"),
            claim_seconds=self._timings.durations(pool, "claim"),
            fill_seconds=self._timings.durations(pool, "fill"),
            failures=self._timings.counts(pool, "failure"),
            memory=memory,
            queue=len(self._inventory(pool).queue),
        )


def _notes(template: SlotTemplate | None, row: PoolRow, size: Pool | None) -> tuple[str, ...]:
    if template is None or size is None:
        return ()
    offered = template.workload.tiers
    notes = [
        f"no slot waits as {tier}: the image offers {', '.join(offered)}"
        for tier, count in scaling.counts_by_tier(size).items()
        if count and tier not in offered
    ]
    if row.min_size is not None and row.min_size > size.min_size:
        notes.append(f"{size.min_size} slots wait, not {row.min_size}: max_size is {size.max_size}")
    return tuple(notes)
