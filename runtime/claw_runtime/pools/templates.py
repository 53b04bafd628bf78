"""Templates: what the slots of each pool are made from, out of workload files, images, and what an operator set since.

A template's digest covers the image's id and everything that goes into the container, and nothing else. A slot of
another digest is replaced; sizes, hooks, probes and rules of sync act without a new slot.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import structlog

from claw_runtime.errors import ImageMissing, InvalidSpec, UnknownPool
from claw_runtime.pools import scaling
from claw_runtime.ports import Bind, ContainerSpec, Engine, Image, Ledger, PoolRow, Tier
from claw_runtime.seccomp import profiles
from claw_runtime.spec import filters, loader
from claw_runtime.spec import plan as spec_plan
from claw_runtime.spec.loader import Document
from claw_runtime.spec.plan import Pool, Workload
from claw_runtime.tenancy import LABEL_CONTRACT, LABEL_OWNER, LABEL_POOL, LABEL_SLOT, Layout, container_name

log = structlog.get_logger(__name__)


_ALONE = "healthcheck: {test: [CMD, none]}\nvolumes: {state: {target: /state}}\n"
"""What a workload file must say where the image promises nothing; nothing of it matters at an end."""


_PARK: Mapping[Tier, str] = {"entrypoint": "parked", "interpreter": "waiting", "prewarmed": "prewarmed"}
"""What `--park` is given: the former words of the tiers, since images that were built before know no others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotTemplate:
    """What a slot is made from.

    Attributes:
        image: Digest of the image; `image_id` is its id, which containers are made from, since a tag may move.
        digest: A slot that was made from a template of another digest is another slot.
        seccomp: Text of the profile, as it was when the template was made.
        home: HOME of the image's environment.
        dropped: Limits that this host cannot enforce, and that the operator told us to go without.
    """

    workload: Workload
    image: str
    image_id: str
    digest: str
    seccomp: str
    home: str
    dropped: tuple[str, ...] = ()


class SlotTemplates:
    """The workloads of this host.

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
        owner: str,
        documents: Mapping[str, Document],
        drop_limits: bool,
    ) -> None:
        self._engine = engine
        self._ledger = ledger
        self._layout = layout
        self._owner = owner
        self._drop_limits = drop_limits
        self._documents = dict(documents)
        self._gone: dict[str, Document] = {}
        self._rows: dict[str, PoolRow] = {}
        self._planned: dict[tuple[str, str], tuple[Document, Workload]] = {}
        self._current: dict[str, SlotTemplate] = {}
        self._warned: set[tuple[str, ...]] = set()

    # --- which workloads there are ---

    def ids(self) -> Sequence[str]:
        """Pools that are configured, in the order of their files."""
        return list(self._documents)

    def document(self, pool: str) -> Document:
        """The pool's workload file. Raises `UnknownPool`."""
        try:
            return self._documents[pool]
        except KeyError:
            known = ", ".join(self._documents) or "none"
            raise UnknownPool(
                f"there is no pool {pool[:60]!r}",
                why=f"the workloads that are loaded: {known}",
                hint=f"put a workload file with that id into {self._layout.workloads}",
            ) from None

    def put(self, document: Document) -> None:
        """A workload that is new, or has changed.

        Raises:
            InvalidSpec: It and its image do not fit, or its seccomp profile cannot be read; nothing was changed. An
                image that is missing is no reason.
        """
        pool = document.workload.id
        filters.require(document)
        with suppress(ImageMissing):
            image = self._engine.image(self.row(pool).image or document.workload.image)
            spec_plan.make(document, image.labels.get(LABEL_CONTRACT))
        self._documents[pool] = document
        self._gone.pop(pool, None)
        self._current.pop(pool, None)

    def remove(self, pool: str) -> None:
        """A workload that is no more. Tenants that still run in it are released by what it said last."""
        if pool in self._documents:
            self._gone[pool] = self._documents.pop(pool)
        self._current.pop(pool, None)

    # --- what an operator set ---

    def row(self, pool: str) -> PoolRow:
        """What an operator set for the pool, from memory: only `set_row` changes it."""
        if pool not in self._rows:
            self._rows[pool] = self._ledger.pool(pool)
        return self._rows[pool]

    def set_row(self, pool: str, **columns: Any) -> None:
        """Set it, and remember it."""
        self._ledger.set_pool(pool, **columns)
        self._rows[pool] = self._ledger.pool(pool)
        if "image" in columns:
            self._current.pop(pool, None)

    def forget(self, pool: str) -> None:
        """Drop what an operator set for a pool that is no more."""
        self._ledger.drop_pool(pool)
        self._rows.pop(pool, None)
        self._current.pop(pool, None)

    def reference(self, pool: str) -> str:
        """The image that the pool's slots are made from: the operator's, else the file's. Raises `UnknownPool`."""
        return self.row(pool).image or self.document(pool).workload.image

    # --- what slots are made from ---

    def workload(self, pool: str, image_id: str | None = None) -> Workload:
        """What a pool runs: its file over its image's contract; that of one image when the tag may have moved on.

        Raises:
            UnknownPool: No workload of that id is loaded, and none was since the start.
            ImageMissing: The image is not there.
            InvalidSpec: File and contract do not fit.
        """
        return self._with_image(pool, image_id)[0]

    def _with_image(self, pool: str, image_id: str | None) -> tuple[Workload, Image]:
        document = self._gone.get(pool) or self.document(pool)
        reference = self.row(pool).image or document.workload.image
        image = self._engine.image(image_id or reference)
        return self._plan(pool, document, image, reference), image

    def last_workload(self, pool: str, image_id: str | None, proven: str) -> tuple[Workload, Image]:
        """What a tenant that is to end runs, and of which image: as `workload`, but a file that is gone, or that does
        not suit the image any more, keeps nobody from it. What the image promises is enough then.

        Args:
            proven: Id of the image to ask when `image_id` is None and there is no file; empty when none is known.
        """
        try:
            return self._with_image(pool, image_id)
        except (UnknownPool, InvalidSpec) as error:
            if not (image_id or proven):
                raise
            log.warning("a tenant ends by its image's contract alone", pool=pool, why=str(error))
        image = self._engine.image(image_id or proven)
        label = image.labels.get(LABEL_CONTRACT)
        text = f"id: {pool}\nimage: localhost/gone\n{'' if label else _ALONE}"
        made = spec_plan.make(loader.parse(text, Path(f"{pool}.yaml")), label)
        return replace(made, image=image.id, pool=replace(made.pool, affinity_timeout=0.0)), image

    def known(self, pool: str, image: str | None = None) -> SlotTemplate:
        """The template as of the reconciler's last pass: asking Podman for the image would cost each claim 4 ms."""
        self.document(pool)
        found = self._current.get(pool) if image is None else None
        return found or self.now(pool, image)

    def now(self, pool: str, image: str | None = None) -> SlotTemplate:
        """What a slot of the pool is made from now; of another `image`, for one claim, when that is given.

        Raises:
            UnknownPool, ImageMissing, InvalidSpec: As `workload`; also when its seccomp profile cannot be read.
        """
        document = self.document(pool)
        reference = image or self.reference(pool)
        found = self._engine.image(reference)
        workload = self._plan(pool, document, found, reference)
        kept, dropped = self._limits(workload)
        template = SlotTemplate(
            workload=workload,
            image=found.digest,
            image_id=found.id,
            digest="",
            seccomp=profiles.text(workload.seccomp),
            home=found.home,
            dropped=dropped,
        )
        spec = self.container(template, "any", "created", limits=kept)
        text = json.dumps(asdict(spec), sort_keys=True, default=str)
        template = replace(template, digest=hashlib.sha256(text.encode()).hexdigest()[:16])
        # What was changed while the engine was asked must not be hidden by what was found.
        if image is None and self._documents.get(pool) is document and reference == self.reference(pool):
            self._current[pool] = template
        return template

    def _plan(self, pool: str, document: Document, image: Image, reference: str) -> Workload:
        key = (pool, image.id)
        planned = self._planned.get(key)
        if planned is None or planned[0] is not document:
            planned = document, spec_plan.make(document, image.labels.get(LABEL_CONTRACT))
            self._planned[key] = planned
        return replace(planned[1], image=reference, pool=scaling.effective(planned[1].pool, self.row(pool)))

    def seen(self, pool: str) -> SlotTemplate | None:
        """The template as of the reconciler's last pass, if there was one that found the image."""
        return self._current.get(pool)

    def sizes(self, pool: str) -> Pool:
        """The pool's sizes, without asking for its image unless nobody has yet. Raises as `workload`."""
        return self.pool_of(self.known(pool))

    def file_sizes(self, pool: str) -> Pool:
        """The pool's sizes as its file says them. Raises as `workload`."""
        return self._planned[pool, self.known(pool).image_id][1].pool

    def pool_of(self, template: SlotTemplate) -> Pool:
        """The sizes of a template's pool as they hold at this moment."""
        planned = self._planned[template.workload.id, template.image_id][1]
        return scaling.effective(planned.pool, self.row(template.workload.id))

    # --- containers ---

    @property
    def owner_labels(self) -> dict[str, str]:
        """Labels that every container of this runtime carries."""
        return {LABEL_OWNER: self._owner}

    def container(
        self, template: SlotTemplate, slot: str, tier: Tier, *, limits: Mapping[str, Any] | None = None
    ) -> ContainerSpec:
        """What a slot's container is created from; its directories are `binds`."""
        workload = template.workload
        return ContainerSpec(
            name=container_name(workload.id, slot),
            image=template.image_id,
            command=workload.command if tier == "created" else ("--park", _PARK[tier]),
            environment=workload.environment,
            labels={**self.owner_labels, LABEL_SLOT: slot, LABEL_POOL: workload.id},
            binds=_binds(workload, self._layout, slot),
            tmpfs=workload.ephemeral,
            port=workload.port if workload.network == "private" else None,
            network=workload.network,
            read_only=workload.read_only,
            stop_timeout=workload.stop_timeout,
            init=workload.init,
            runtime=workload.runtime,
            seccomp=template.seccomp,
            home=workload.environment.get("HOME", template.home),
            **(self._limits(workload)[0] if limits is None else limits),
        )

    def _limits(self, workload: Workload) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Limits that containers get, and names of those that are dropped.

        Where the pids controller is missing, Podman's own default limit must go as well: no container starts with it.
        """
        limits = {name: value for name, value in asdict(workload.limits).items() if value is not None}
        if not self._drop_limits:
            return limits, ()
        enforceable = self._engine.info(fresh=False).enforceable_limits
        dropped = tuple(sorted(limits.keys() - enforceable))
        if dropped and (workload.id, *dropped) not in self._warned:
            self._warned.add((workload.id, *dropped))
            log.warning("limits dropped: this host cannot enforce them", pool=workload.id, limits=list(dropped))
        kept = {name: value for name, value in limits.items() if name not in dropped}
        return kept if "pids" in enforceable else kept | {"pids": 0}, dropped


def _binds(workload: Workload, layout: Layout, slot: str) -> list[Bind]:
    dirs = layout.slot(slot)
    binds = [Bind(source=dirs.state, target=workload.state_target)]
    if workload.logs_target:
        binds.append(Bind(source=dirs.logs, target=workload.logs_target))
    if workload.values_target:
        binds.append(Bind(source=dirs.values, target=workload.values_target, read_only=True))
    binds += [
        Bind(source=dirs.state / mount.subdirectory, target=mount.target, read_only=mount.read_only)
        for mount in workload.extra_mounts
    ]
    return binds + [Bind(source=bind.source, target=bind.target, read_only=True) for bind in workload.binds]
