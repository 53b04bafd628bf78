"""The reconciler: brings each pool to what it should be, again and again, from whatever state it finds.

It looks at what is, never at what happened: slots that nobody can use go, missing ones are made, dead ones are
replaced. A pool is worked on in a thread of its own, so that one that fails, or is slow, delays no other; what fails is
tried again after a pause that doubles.
"""

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from claw_runtime.concurrency import together
from claw_runtime.errors import ClawError, EngineFailed
from claw_runtime.pools import scaling
from claw_runtime.pools.inventory import Inventory
from claw_runtime.pools.slots import Slots
from claw_runtime.pools.templates import SlotTemplate, SlotTemplates
from claw_runtime.pools.timings import Timings
from claw_runtime.ports import Clock, Container, Engine, Ledger, SlotRow, Tier

log = structlog.get_logger(__name__)

FIRST_BACKOFF, LAST_BACKOFF = 2.0, 120.0
"""Seconds between attempts to fill a pool whose slots cannot be made."""

YOUNG = 30.0
"""Seconds after which a slot has shown that it can wait. A tier whose slots die before is filled ever more slowly."""

CENSUS_AGE = 4.0
"""Seconds for which images and containers are taken to be as they were seen. Every claim pokes the reconciler, and need
not cost two questions to the engine."""

WHOLE: Tier | None = None
"""In place of a tier: the trouble is the pool's, not that of one tier."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Why something is not tried again before `retry_at`, of the clock's monotonic seconds."""

    error: str
    hint: str
    pause: float
    retry_at: float


@dataclass(slots=True)
class _Bench:
    """What the reconciler knows of one pool: it is forgotten with the process, and found out again."""

    troubles: dict[Tier | None, Trouble] = field(default_factory=dict)
    pauses: dict[Tier | None, float] = field(default_factory=dict)
    proved: frozenset[tuple[str, Tier]] = frozenset()
    made: dict[str, float] = field(default_factory=dict)
    mapped: str = ""
    thread: threading.Thread | None = None
    again: bool = False


class Census:
    """The containers of one moment, asked for once, by the first pool that needs them."""

    def __init__(self, engine: Engine, ledger: Ledger, labels: Mapping[str, str]) -> None:
        self._engine, self._ledger, self._labels = engine, ledger, labels
        self._lock = threading.Lock()
        self._ready: frozenset[str] | None = None
        self._seen: dict[str, Container] = {}

    def dead(self, row: SlotRow, is_waiting: Callable[[SlotRow, Container | None], bool]) -> bool:
        """Whether a ready slot does not wait as its tier should. One that is younger than the census is alive."""
        with self._lock:
            if self._ready is None:
                ready = frozenset(slot.id for slot in self._ledger.slots() if slot.state == "ready")
                self._seen = {found.id: found for found in self._engine.list(self._labels)}
                self._ready = ready
        return row.id in self._ready and not is_waiting(row, self._seen.get(row.container or ""))


class Reconciler:
    """Passes over the pools of one host. `inventory` gives the slots of a pool."""

    def __init__(
        self,
        *,
        engine: Engine,
        ledger: Ledger,
        clock: Clock,
        templates: SlotTemplates,
        slots: Slots,
        inventory: Callable[[str], Inventory],
        timings: Timings,
    ) -> None:
        self._engine = engine
        self._ledger = ledger
        self._clock = clock
        self._templates = templates
        self._slots = slots
        self._inventory = inventory
        self._timings = timings
        self._lock = threading.Lock()
        self._benches: dict[str, _Bench] = {}
        self._looked_at = -CENSUS_AGE

    # --- passes ---

    def keep(self) -> None:
        """One pass over all pools, one after another, in this thread."""
        census = self._census()
        for pool in self._pools():
            self._pass(pool, census)

    def tick(self) -> None:
        """Begin a pass over every pool, each in its own thread; one that is under way is repeated when it ends."""
        now, census = self._clock.monotonic(), None
        if now - self._looked_at >= CENSUS_AGE:
            self._looked_at, census = now, self._census()
        for pool in self._pools():
            bench = self._bench(pool)
            with self._lock:
                if bench.thread is not None:
                    bench.again = True
                    continue
                bench.thread = threading.Thread(
                    target=self._passes, args=(pool, bench, census), name=f"reconciler-{pool}", daemon=True
                )
                bench.thread.start()

    def stop(self, timeout: float) -> None:
        """End what is under way; what takes longer than `timeout` seconds is left to the next start."""
        self._slots.stopping.set()
        threads = [bench.thread for bench in list(self._benches.values()) if bench.thread]
        deadline = self._clock.monotonic() + timeout
        for thread in threads:
            thread.join(max(0.0, deadline - self._clock.monotonic()))
        if not any(thread.is_alive() for thread in threads):
            self._slots.stopping.clear()

    def _passes(self, pool: str, bench: _Bench, census: Census | None) -> None:
        while True:
            bench.again = False
            try:
                self._pass(pool, census)
            except Exception:
                log.exception("the reconciler failed: internal error", pool=pool)
            with self._lock:
                if not bench.again or self._slots.stopping.is_set():
                    bench.thread = None
                    return
            census = None

    def _pools(self) -> Sequence[str]:
        """Pools that are configured, then removed ones that still have unneeded slots."""
        known = self._templates.ids()
        left = {row.pool for row in self._ledger.slots() if row.state != "claimed"}
        return [*known, *sorted(left - set(known))]

    def _census(self) -> Census:
        return Census(self._engine, self._ledger, self._templates.owner_labels)

    def _bench(self, pool: str) -> _Bench:
        return self._benches.setdefault(pool, _Bench())

    # --- one pool ---

    def _pass(self, pool: str, census: Census | None) -> None:
        """Bring one pool to what it should be; without a census what was seen last is taken to be so still."""
        bench = self._bench(pool)
        if not self._due(bench, WHOLE):
            return
        try:
            if pool not in self._templates.ids() or self._templates.row(pool).drained:
                self.empty(pool)
                bench.troubles.clear()
                return
            template = self._templates.now(pool) if census else self._templates.known(pool)
            if template.image_id != bench.mapped:  # 7 to 11 s for a large image, and never in a claim
                self._engine.map_image(template.workload.image)
                bench.mapped = template.image_id
            self._sweep(pool, template, census)
        except (ClawError, OSError) as error:
            self._failed(pool, WHOLE, error)
            return
        bench.troubles.pop(WHOLE, None)
        bench.pauses.pop(WHOLE, None)
        self._fill(pool, template)

    def empty(self, pool: str, after_each: Callable[[], None] = lambda: None) -> int:
        """Destroy all slots of a pool that no tenant has; how many there were."""
        inventory, count = self._inventory(pool), 0
        for row in inventory.rows():
            if inventory.retire(row.id):
                count += 1
                after_each()
        return count

    def _sweep(self, pool: str, template: SlotTemplate, census: Census | None) -> None:
        inventory = self._inventory(pool)
        rows = inventory.rows()
        surplus = scaling.surplus(rows, template.digest, self._templates.pool_of(template))
        ready = [row for row in rows if row.state == "ready"]
        dead = [row for row in ready if census.dead(row, self._slots.is_waiting)] if census else []
        self._judge(pool, rows, dead)
        for row in rows:
            if row in dead:
                why = "it no longer waits"
            elif row.state == "filling":
                why = "it was left unfinished"
            elif row in surplus:
                why = "it is not needed" if row.template == template.digest else "its image or workload has changed"
            else:
                continue
            if inventory.retire(row.id):
                log.info("slot removed", pool=pool, slot=row.id, tier=row.tier, why=why)

    def _judge(self, pool: str, rows: Sequence[SlotRow], dead: Sequence[SlotRow]) -> None:
        """Replace at once what died once; what dies young again and again is a trouble of its tier."""
        bench, now = self._bench(pool), self._clock.monotonic()
        bench.made = {row.id: bench.made[row.id] for row in rows if row.id in bench.made}
        young = {row.id for row in rows if now - bench.made.get(row.id, -YOUNG) < YOUNG}
        for row in rows:
            if row.state == "claimed" or (row not in dead and row.id not in young):
                bench.pauses.pop(row.tier, None)
        for row in {row.tier: row for row in dead}.values():
            if row.id not in young or row.tier not in bench.pauses:
                bench.pauses[row.tier] = FIRST_BACKOFF / 2
                self._timings.add(pool, "failure", row.tier)
            else:
                why = self._slots.last_words(row.container or "")
                hint = "check the image, and this host's memory: claw-runtime doctor"
                error = EngineFailed(
                    f"slots of tier {row.tier} end within {YOUNG:.0f} s of their creation", why=why, hint=hint
                )
                self._failed(pool, row.tier, error)

    def _fill(self, pool: str, template: SlotTemplate) -> None:
        """Make what is missing: one of a tier first, since what cannot be made once need not be tried n times."""
        bench = self._bench(pool)
        while self._make(
            pool, template, also_skip={tier for digest, tier in bench.proved if digest == template.digest}
        ):
            pass
        lacking = len(self._missing(self._inventory(pool).rows(), pool, template, ()))
        together(min(lacking, template.workload.pool.fill_concurrency), lambda: self._make_all(pool, template))

    def _make_all(self, pool: str, template: SlotTemplate) -> None:
        while self._make(pool, template):
            pass

    def _make(self, pool: str, template: SlotTemplate, also_skip: Collection[Tier] = ()) -> bool:
        """Make the next missing slot, if one is missing; a failure is noted, and its tier is left alone for a while."""
        bench, start = self._bench(pool), self._clock.monotonic()
        chosen: list[Tier] = []

        def choose(rows: Sequence[SlotRow]) -> Tier | None:
            chosen.extend(self._missing(rows, pool, template, also_skip)[:1])
            return chosen[0] if chosen else None

        try:
            row = self._inventory(pool).make(template, choose)
        except (ClawError, OSError) as error:
            if self._slots.stopping.is_set():
                return False
            self._failed(pool, chosen[0] if chosen else WHOLE, error)
            return True
        if row is None:
            return False
        bench.troubles.pop(row.tier, None)
        bench.made[row.id] = self._clock.monotonic()
        bench.proved = frozenset(
            {(template.digest, row.tier), *(one for one in bench.proved if one[0] == template.digest)}
        )
        spent = self._clock.monotonic() - start
        self._timings.add(pool, "fill", row.tier, spent)
        log.info("slot ready", pool=pool, slot=row.id, tier=row.tier, seconds=round(spent, 3))
        return True

    def _missing(
        self, rows: Sequence[SlotRow], pool: str, template: SlotTemplate, also_skip: Collection[Tier]
    ) -> list[Tier]:
        if self._slots.stopping.is_set() or self._templates.row(pool).drained:
            return []
        bench = self._bench(pool)
        skip = {tier for tier in list(bench.troubles) if tier and not self._due(bench, tier)}
        skip |= {tier for tier in scaling.counts_by_tier(template.workload.pool) if tier not in template.workload.tiers}
        return scaling.missing(rows, template.digest, self._templates.pool_of(template), skip | {*also_skip})

    # --- trouble ---

    def troubles(self, pool: str) -> list[Trouble]:
        """What keeps the pool from being full, the whole pool's first."""
        found = dict(self._bench(pool).troubles)
        return [found[tier] for tier in sorted(found, key=lambda tier: tier or "")]

    def forgive(self, pool: str) -> None:
        """Try again at once: somebody has changed something."""
        self._bench(pool).troubles.clear()
        self._bench(pool).pauses.clear()

    def _due(self, bench: _Bench, tier: Tier | None) -> bool:
        trouble = bench.troubles.get(tier)
        return trouble is None or self._clock.monotonic() >= trouble.retry_at

    def _failed(self, pool: str, tier: Tier | None, error: ClawError | OSError) -> None:
        bench, hint = self._bench(pool), getattr(error, "hint", "")
        pause = min(LAST_BACKOFF, bench.pauses.get(tier, FIRST_BACKOFF / 2) * 2)
        bench.pauses[tier] = pause
        bench.troubles[tier] = Trouble(
            error=str(error), hint=hint, pause=pause, retry_at=self._clock.monotonic() + pause
        )
        self._timings.add(pool, "failure", tier or "pool")
        log.warning(
            "pool is not full", pool=pool, tier=tier or "all", error=str(error), hint=hint, retry_in=f"{pause:.0f} s"
        )
