"""Pools: slots made ahead, level-triggered.

A slot is a container that is created and initialised but not started (about 4 MB): no code of the image and no byte
of a tenant is in it before its one claim, and starting it takes milliseconds (measured: docs/BENCHMARKS.md). A slot
is used once, by one tenant, and destroyed.
"""

import hashlib
import json
import secrets
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import structlog

from claw_runtime.errors import ClawError, ImageMissing, PoolExhausted, UnknownPool
from claw_runtime.ports import Bind, Clock, ContainerSpec, Engine, Image, Ledger, SlotRow
from claw_runtime.spec import plan as spec_plan
from claw_runtime.spec.loader import Document
from claw_runtime.spec.plan import Workload
from claw_runtime.tenancy import LABEL_CONTRACT, LABEL_OWNER, LABEL_POOL, LABEL_SLOT, Layout, TenantId, container_name
from claw_runtime.treewalk import remove_tree

log = structlog.get_logger(__name__)

FIRST_BACKOFF, LAST_BACKOFF = 2.0, 120.0
"""Seconds between attempts to fill a pool whose slots cannot be made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStatus:
    """One pool now; `error` says why it is not full."""

    id: str
    image: str
    min_size: int
    max_size: int
    ready: int
    filling: int
    claimed: int
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a slot is made from: a ready slot whose recipe has another digest is replaced. `image` is its digest."""

    workload: Workload
    image: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A tenant's slot: `warm` when it was made ahead, `cold` when it was made for this claim."""

    slot: SlotRow
    recipe: Recipe
    source: Literal["warm", "cold"]


class Pools:
    """The slots of all workloads on this host.

    Args:
        owner: Id of this runtime; containers carry it, so that two runtimes under one user leave each other alone.
        documents: Pool id → workload file; what an image promises is read from the image when it is there.
        drop_limits: Go on without a limit that this host cannot enforce, with a warning; else it is an error.
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
    ) -> None:
        self._engine = engine
        self._ledger = ledger
        self._layout = layout
        self._clock = clock
        self._owner = owner
        self._documents = documents
        self._drop_limits = drop_limits
        self._planned: dict[tuple[str, str], Workload] = {}
        self._current: dict[str, Recipe] = {}
        self._warned: set[str] = set()
        self._making = threading.Lock()
        self._retry_at: dict[str, float] = {}
        self._backoff: dict[str, float] = {}
        self._errors: dict[str, str] = {}

    @property
    def owner_labels(self) -> dict[str, str]:
        """Labels that every container of this runtime carries."""
        return {LABEL_OWNER: self._owner}

    def ids(self) -> Sequence[str]:
        """Pools that are configured, in the order of their files."""
        return list(self._documents)

    def workload(self, pool: str, image_id: str | None = None) -> Workload:
        """What a pool runs: its file over its image's contract; that of one image id when the tag may have moved on.

        Raises:
            UnknownPool: No workload of that id is loaded.
            ImageMissing: The image is not there.
            InvalidSpec: File and contract do not fit.
        """
        return self._plan(pool, self._engine.image(image_id or self._document(pool).workload.image))

    def _document(self, pool: str) -> Document:
        try:
            return self._documents[pool]
        except KeyError:
            known = ", ".join(self._documents) or "none"
            raise UnknownPool(
                f"there is no pool {pool[:60]!r}",
                why=f"the workloads that are loaded: {known}",
                hint=f"put a workload file with that id into {self._layout.workloads} and start 'up' again",
            ) from None

    def _plan(self, pool: str, image: Image) -> Workload:
        key = (pool, image.id)
        if key not in self._planned:
            self._planned[key] = spec_plan.make(self._document(pool), image.labels.get(LABEL_CONTRACT))
        return self._planned[key]

    def check(self, pool: str) -> None:
        """Whether claims of the pool can begin. Raises `UnknownPool`, `ImageMissing`, `InvalidSpec`, as `workload`."""
        self._known(pool)

    def _known(self, pool: str) -> Recipe:
        """The recipe as of the keeper's last pass: asking Podman for the image would cost each claim 4 ms."""
        return self._current.get(pool) or self._recipe(pool)

    def _recipe(self, pool: str) -> Recipe:
        """What a slot of the pool is made from now."""
        image = self._engine.image(self._document(pool).workload.image)
        workload = self._plan(pool, image)
        text = json.dumps({"image": image.id, "workload": asdict(workload)}, sort_keys=True, default=str)
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        self._current[pool] = Recipe(workload=workload, image=image.digest, digest=digest)
        return self._current[pool]

    def status(self) -> Sequence[PoolStatus]:
        """All pools now."""
        return [self._status(pool) for pool in self._documents]

    def _status(self, pool: str) -> PoolStatus:
        file = self._document(pool).workload
        states = [slot.state for slot in self._ledger.slots(pool)]
        counts: dict[str, Any] = {state: states.count(state) for state in ("ready", "filling", "claimed")}
        return PoolStatus(
            id=pool,
            image=file.image,
            min_size=file.pool.min_size,
            max_size=file.pool.max_size,
            error=self._errors.get(pool, ""),
            **counts,
        )

    def take(self, pool: str, tenant: TenantId) -> Taken:
        """A slot for a tenant's one claim: a ready one, else one made now.

        Raises:
            PoolExhausted: As many slots as `max_size` exist and none is ready.
            ImageMissing, EngineFailed, EngineUnavailable: No slot could be made.
        """
        recipe = self._known(pool)
        if slot := self._ledger.take_slot(pool, recipe.digest, tenant):
            return Taken(slot=slot, recipe=recipe, source="warm")
        with self._making:
            recipe = self._recipe(pool)
            if slot := self._ledger.take_slot(pool, recipe.digest, tenant):
                return Taken(slot=slot, recipe=recipe, source="warm")
            most = recipe.workload.pool.max_size
            slots = self._ledger.slots(pool)
            if len(slots) >= most and not any(self._retire(slot.id, recipe=recipe.digest) for slot in slots):
                raise PoolExhausted(
                    f"pool {pool!r} is full",
                    why=f"all {most} slots are in use (pool.max_size)",
                    hint="release a tenant, or raise pool.max_size in the workload file",
                )
            self._make(recipe)
            slot = self._ledger.take_slot(pool, recipe.digest, tenant)
        if slot is None:
            raise PoolExhausted(f"pool {pool!r} lost its new slot to another claim", hint="claim again")
        return Taken(slot=slot, recipe=recipe, source="cold")

    def keep(self) -> None:
        """One pass over all pools: drop slots that nobody can use, make missing ones. Errors wait in `status`."""
        for pool in self._documents:
            if self._clock.monotonic() < self._retry_at.get(pool, 0.0):
                continue
            try:
                self._keep(pool)
            except (ClawError, OSError) as error:
                hint = getattr(error, "hint", "")
                wait = min(LAST_BACKOFF, self._backoff.get(pool, FIRST_BACKOFF / 2) * 2)
                self._backoff[pool] = wait
                self._retry_at[pool] = self._clock.monotonic() + wait
                self._errors[pool] = str(error)
                log.warning("pool is not full", pool=pool, error=str(error), hint=hint, retry_in=f"{wait:.0f} s")
            else:
                self._backoff.pop(pool, None)
                self._errors.pop(pool, None)

    def _keep(self, pool: str) -> None:
        recipe = self._recipe(pool)
        sizes = recipe.workload.pool
        for slot in self._ledger.slots(pool):
            with self._making:
                if self._retire(slot.id, recipe=recipe.digest):
                    log.info("slot replaced", pool=pool, slot=slot.id)
        while True:
            with self._making:
                slots = self._ledger.slots(pool)
                ready = sum(slot.state == "ready" for slot in slots)
                if ready >= sizes.min_size or len(slots) >= sizes.max_size:
                    return
                self._make(recipe)

    def _retire(self, slot: str, *, recipe: str = "") -> bool:
        """Destroy a slot that is nobody's, unless it waits and is of this recipe; a claim that was first keeps it.

        Only with `_making` held: then nobody is making a slot, and one that is filling was left behind by an error.
        """
        now = self._ledger.slot(slot)
        if now is None or (now.state == "ready" and now.recipe == recipe):
            return False
        if now.state != "filling" and not self._ledger.retire_slot(slot):
            return False
        self.destroy(slot)
        return True

    def _make(self, recipe: Recipe) -> None:
        slot, workload = secrets.token_hex(6), recipe.workload
        self._ledger.add_slot(slot, workload.id, recipe.digest, self._clock.now())
        try:
            container = self._engine.create(self._container(workload, slot))
            self._engine.initialize(container)
            seen = self._engine.inspect(container)
        except Exception:
            self.destroy(slot)
            raise
        self._ledger.slot_ready(slot, container, seen.host_port if seen else None)
        log.info("slot ready", pool=workload.id, slot=slot)

    def _container(self, workload: Workload, slot: str) -> ContainerSpec:
        return ContainerSpec(
            name=container_name(workload.id, slot),
            image=workload.image,
            command=workload.command,
            environment=workload.environment,
            labels={**self.owner_labels, LABEL_SLOT: slot, LABEL_POOL: workload.id},
            binds=[*self._slot_binds(workload, slot), *_host_binds(workload)],
            tmpfs=workload.ephemeral,
            port=workload.port if workload.network == "private" else None,
            network=workload.network,
            read_only=workload.read_only,
            stop_timeout=workload.stop_timeout,
            **self._limits(workload),
        )

    def _limits(self, workload: Workload) -> dict[str, Any]:
        limits = {name: value for name, value in asdict(workload.limits).items() if value is not None}
        if self._drop_limits:
            enforceable = self._engine.info().enforceable_limits
            dropped = sorted(limits.keys() - enforceable)
            if dropped and workload.id not in self._warned:
                log.warning("limits dropped: this host cannot enforce them", pool=workload.id, limits=dropped)
                self._warned.add(workload.id)
            limits = {name: value for name, value in limits.items() if name in enforceable}
        return limits

    def _slot_binds(self, workload: Workload, slot: str) -> list[Bind]:
        dirs = self._layout.slot(slot)
        binds = [Bind(source=dirs.state, target=workload.state_target)]
        if workload.logs_target:
            binds.append(Bind(source=dirs.logs, target=workload.logs_target))
        if workload.values_target:
            binds.append(Bind(source=dirs.values, target=workload.values_target, read_only=True))
        for directory in (dirs.state, dirs.logs, dirs.values):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return binds

    def destroy(self, slot: str) -> None:
        """Remove a slot's container, then its directories, then its row: safe to repeat after any crash."""
        row = self._ledger.slot(slot)
        name = (row.container if row else None) or (container_name(row.pool, slot) if row else None)
        if name:
            self._engine.remove(name)
        remove_tree(self._layout.slot_root(slot))
        remove_tree(self._layout.slot(slot).values)
        self._ledger.drop_slot(slot)

    def drain(self) -> None:
        """Destroy the slots that are nobody's; tenants' containers are left alone."""
        for slot in self._ledger.slots():
            with self._making:
                self._retire(slot.id)

    def recover(self) -> None:
        """After a start: keep ready slots whose container still waits, remove everything that no row explains.

        Claimed slots are the tenants' (services/claims.py).
        """
        containers = {c.labels.get(LABEL_SLOT, ""): c for c in self._engine.list(self.owner_labels)}
        for slot in self._ledger.slots():
            found = containers.pop(slot.id, None)
            waiting = slot.state == "ready" and found is not None and found.state == "initialized"
            if slot.state != "claimed" and not waiting:
                log.info("slot removed", slot=slot.id, pool=slot.pool, was=slot.state)
                self.destroy(slot.id)
        for orphan in containers.values():
            log.warning("container removed: no slot of the ledger", container=orphan.name)
            self._engine.remove(orphan.id)

    def map_images(self) -> None:
        """Make the keep-id mapping of every image now, not at a claim; an image that is missing waits in `status`."""
        for document in self._documents.values():
            try:
                self._engine.map_image(document.workload.image)
            except ImageMissing as error:
                log.warning("image is missing", image=document.workload.image, hint=error.hint)


def _host_binds(workload: Workload) -> list[Bind]:
    return [Bind(source=bind.source, target=bind.target, read_only=True) for bind in workload.binds]
