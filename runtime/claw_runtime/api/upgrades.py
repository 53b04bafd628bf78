"""Upgrades of a pool's tenants to another image; docs/UPGRADE.md documents the answers."""

from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Response
from pydantic import Field

from claw_runtime.api import routing
from claw_runtime.api.schemas import _Request, _Wire
from claw_runtime.daemon.assembly import Runtime
from claw_runtime.ports import MoveRow
from claw_runtime.upgrades.plan import Plan
from claw_runtime.upgrades.upgrades import SOAK, UpgradeProgress

SOAK_MOST = 3600
"""Maximum seconds for which a tenant may be watched."""


class UpgradeRequest(_Request):
    """`batch` tenants go together (0: one, two, four and so on), each watched for `soak` seconds."""

    image: Annotated[str, Field(min_length=1, max_length=500)]
    canary: str | None = None
    batch: Annotated[int, Field(ge=0, le=10_000)] = 0
    soak: Annotated[float, Field(ge=0, le=SOAK_MOST)] = SOAK
    dry_run: bool = False


class PlanAnswer(_Wire):
    """What an upgrade would do; `running` counts tenants by the digest of the image that they run."""

    pool_id: str
    image: str
    image_id: str
    image_digest: str
    now: str
    canary: str | None
    waves: list[list[str]]
    already: list[str]
    resting: list[str]
    later: int
    running: dict[str, int]
    batch: int
    soak: float


class MoveAnswer(_Wire):
    """One tenant's move; `generation` was sealed before the new image started, `outageMs` lasted until it was ready."""

    tenant_id: str
    wave: int
    state: Literal["waiting", "sealing", "trying", "soaking", "returning", "returned", "done", "left"]
    image_before: str | None
    generation: int
    outage_ms: float
    error: str


class UpgradeAnswer(_Wire):
    """Progress of the pool's last upgrade."""

    pool_id: str
    image: str
    image_id: str
    state: Literal["running", "paused", "failed", "aborting", "aborted", "done"]
    canary: str | None
    batch: int
    soak: float
    switched: bool
    begun: str
    changed: str
    tenants: list[MoveAnswer]
    error: str
    hint: str


def routes(runtime: Runtime) -> APIRouter:
    """The endpoints of upgrades."""
    router = routing.router("/api/v1/pools/{pool}/upgrade", "upgrades")
    upgrades = runtime.upgrades

    @router.post("", status_code=202)
    def begin(pool: str, body: UpgradeRequest, response: Response) -> UpgradeAnswer | PlanAnswer:
        """Begin an upgrade, or report what it would do; it continues without the client."""
        if body.dry_run:
            response.status_code = 200
            return _plan(upgrades.plan(pool, body.image, canary=body.canary, batch=body.batch, soak=body.soak))
        return _progress(upgrades.start(pool, body.image, canary=body.canary, batch=body.batch, soak=body.soak))

    @router.get("")
    def upgrade(pool: str) -> UpgradeAnswer:
        """Progress of the pool's last upgrade."""
        return _progress(upgrades.progress(pool))

    @router.post("/resume", status_code=202)
    def resume(pool: str) -> UpgradeAnswer:
        """Resume an upgrade that failed, or that the end of the daemon interrupted."""
        return _progress(upgrades.resume(pool))

    @router.post("/abort", status_code=202)
    def abort(pool: str) -> UpgradeAnswer:
        """End an upgrade: tenants on trial go back, all others stay unchanged."""
        return _progress(upgrades.abort(pool))

    return router


def _plan(plan: Plan) -> PlanAnswer:
    return PlanAnswer(
        pool_id=plan.pool,
        image=plan.reference,
        image_id=plan.image,
        image_digest=plan.digest,
        now=plan.now,
        canary=plan.canary or None,
        waves=[list(wave) for wave in plan.waves],
        already=list(plan.already),
        resting=list(plan.resting),
        later=plan.later,
        running=dict(plan.running),
        batch=plan.batch,
        soak=plan.soak,
    )


def _progress(progress: UpgradeProgress) -> UpgradeAnswer:
    upgrade = progress.upgrade
    return UpgradeAnswer(
        pool_id=upgrade.pool,
        image=upgrade.reference,
        image_id=upgrade.image,
        state=upgrade.state,
        canary=upgrade.canary or None,
        batch=upgrade.batch,
        soak=upgrade.soak,
        switched=upgrade.switched,
        begun=_time(upgrade.begun),
        changed=_time(upgrade.changed),
        tenants=[_move(move) for move in progress.moves],
        error=upgrade.error,
        hint=upgrade.hint,
    )


def _move(move: MoveRow) -> MoveAnswer:
    return MoveAnswer(
        tenant_id=move.tenant,
        wave=move.wave,
        state=move.state,
        image_before=move.image or None,
        generation=move.generation,
        outage_ms=round(move.outage, 1),
        error=move.error,
    )


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
