"""What an upgrade would do: who runs what, who goes first, who follows with whom; nothing is touched here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from claw_runtime.errors import Conflict, ImageMissing
from claw_runtime.ports import LIVE, Container, Engine, TenantRow
from claw_runtime.tenancy import LABEL_POOL, TenantId
from claw_runtime.tenants.tenants import Host


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What an upgrade would do.

    Attributes:
        reference, image, digest: The new image: as it was named, its id, and the digest of its manifest.
        now: The image that the pool's slots are made from.
        canary: The tenant that goes first; empty when nobody has to move.
        waves: Tenants that go together, the canary's wave first.
        already: Tenants that run it.
        resting: Frozen and parked tenants, whose rest ends.
        later: How many more are known here and do not run; they meet the image at their next claim.
        running: Image digest, or id of one that is gone → how many tenants run it.
        batch, soak: As asked for.
    """

    pool: str
    reference: str
    image: str
    digest: str
    now: str
    canary: str
    waves: tuple[tuple[TenantId, ...], ...]
    already: tuple[TenantId, ...]
    resting: tuple[TenantId, ...]
    later: int
    running: Mapping[str, int]
    batch: int
    soak: float


def make(host: Host, pool: str, reference: str, *, canary: str | None, batch: int, soak: float) -> Plan:
    """Plan an upgrade.

    Raises:
        UnknownPool, ImageMissing: There is no such pool; there is no such image here, and none is ever pulled.
        InvalidSpec: Workload file and image do not fit.
        Conflict: The pool is drained, or the canary has no container to move.
    """
    template, status = host.pools.template(pool, reference), host.pools.show(pool)
    if status.drained:
        raise Conflict(
            f"pool {pool!r} is drained",
            why="it accepts no claims, so no tenant could be started again",
            hint=f"claw-runtime pool undrain {pool}",
        )
    running = runs(host, pool)
    moving = [row for row, found in running if found.image_id != template.image_id]
    rows = host.ledger.tenants(pool=pool)
    first = _canary(moving, canary, pool)
    order = sorted((row for row in moving if row.id != first), key=lambda row: (-row.seen, row.id))
    resting = tuple(row.id for row in rows if row.state in ("frozen", "parked"))
    images = [_digest(host.engine, found.image_id) for _, found in running]
    return Plan(
        pool=pool,
        reference=reference,
        image=template.image_id,
        digest=template.image,
        now=status.image,
        canary=first,
        waves=((TenantId(first),), *in_waves([row.id for row in order], batch)) if first else (),
        already=tuple(row.id for row, found in running if found.image_id == template.image_id),
        resting=resting,
        later=len(rows) - len(running) - len(resting),
        running={digest: images.count(digest) for digest in dict.fromkeys(images)},
        batch=batch,
        soak=soak,
    )


def runs(host: Host, pool: str) -> list[tuple[TenantRow, Container]]:
    """The pool's active tenants whose container lives, with it; one question to the engine for all."""
    containers = {found.id: found for found in host.engine.list({**host.pools.owner_labels, LABEL_POOL: pool})}
    slots = {slot.id: slot.container for slot in host.ledger.slots(pool)}
    pairs = [(row, containers.get(slots.get(row.slot or "") or "")) for row in host.ledger.tenants("active", pool=pool)]
    return [(row, found) for row, found in pairs if found is not None and found.state in LIVE]


def in_waves(tenants: Sequence[TenantId], batch: int, *, done: int = 0) -> list[tuple[TenantId, ...]]:
    """Tenants in waves of `batch`; of 1, 2, 4 and so on when that is 0, continuing after `done` such waves."""
    waves: list[tuple[TenantId, ...]] = []
    left = list(tenants)
    while left:
        size = batch or 2 ** (done + len(waves))
        waves.append(tuple(left[:size]))
        left = left[size:]
    return waves


def _canary(moving: Sequence[TenantRow], wanted: str | None, pool: str) -> str:
    """The one that was active last by default: if something is wrong, it shows there first."""
    if wanted is None:
        return max(moving, key=lambda row: (row.seen, row.id)).id if moving else ""
    if wanted not in {row.id for row in moving}:
        raise Conflict(
            f"tenant {wanted!r} cannot be the canary",
            why=f"it does not run in pool {pool!r}, or already runs that image",
            hint=f"choose a running tenant: {', '.join(row.id for row in moving[:5]) or 'there is none'}",
        )
    return wanted


def _digest(engine: Engine, image: str) -> str:
    try:
        return engine.image(image).digest
    except ImageMissing:
        return image
