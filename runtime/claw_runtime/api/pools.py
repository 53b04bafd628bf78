"""Pools: their slots and sizes, and operations on them."""

from fastapi import APIRouter

from claw_runtime.api import routing
from claw_runtime.api.schemas import (
    PoolAnswer,
    PoolMetricsAnswer,
    RecycleAnswer,
    ScaleRequest,
    WorkloadAnswer,
    WorkloadRequest,
)
from claw_runtime.api.workloads import answer, text_of
from claw_runtime.daemon.assembly import Runtime
from claw_runtime.errors import InvalidSpec


def routes(runtime: Runtime) -> APIRouter:
    """The endpoints of pools."""
    router = routing.router("/api/v1/pools", "pools")
    _looking(router, runtime)
    _being(router, runtime)
    _changing(router, runtime)
    return router


def _looking(router: APIRouter, runtime: Runtime) -> None:
    @router.get("")
    def pools() -> list[PoolAnswer]:
        """All pools with their slots counted."""
        return [PoolAnswer.model_validate(pool) for pool in runtime.pools.status()]

    @router.get("/{pool}")
    def pool(pool: str) -> PoolAnswer:
        """One pool."""
        return PoolAnswer.model_validate(runtime.pools.show(pool))

    @router.get("/{pool}/metrics")
    def metrics(pool: str) -> PoolMetricsAnswer:
        """Counts and durations of one pool."""
        status, measured = runtime.pools.show(pool), runtime.pools.metrics(pool)
        commits = runtime.commits.figures(runtime.ledger.tenants(pool=pool))
        return PoolMetricsAnswer.model_validate(
            {
                "id": pool,
                "total": status.ready + status.filling + status.claimed,
                "available": status.ready,
                "borrowed": status.claimed,
                "pending": status.filling,
                "min_size": status.min_size,
                "max_size": status.max_size,
                "queue": measured.queue,
                "slots": measured.slots,
                "claims": measured.claims,
                "failures": measured.failures,
                "claim_seconds": measured.claim_seconds,
                "fill_seconds": measured.fill_seconds,
                "left_out": commits.left_out,
                "failing_commits": commits.failing,
                "leases_lost": commits.leases_lost,
                "oldest_commit_seconds": commits.oldest,
            }
        )


def _being(router: APIRouter, runtime: Runtime) -> None:
    @router.post("", status_code=201)
    def create(body: WorkloadRequest) -> PoolAnswer:
        """Add a workload and its pool; as `PUT /api/v1/workloads/{id}`, but the id must be new."""
        document = runtime.workloads.put(text_of(body), new=True)
        runtime.poked.set()
        return PoolAnswer.model_validate(runtime.pools.show(document.workload.id))

    @router.delete("/{pool}")
    def remove(pool: str) -> WorkloadAnswer:
        """Remove a pool and its workload; refused while its tenants hold slots or trees. Returns the removed pool."""
        document = runtime.workloads.remove(pool)
        runtime.poked.set()
        return answer(document)


def _changing(router: APIRouter, runtime: Runtime) -> None:
    def changed(pool: str) -> PoolAnswer:
        runtime.poked.set()
        return PoolAnswer.model_validate(runtime.pools.show(pool))

    @router.put("/{pool}", operation_id="pools_set")
    @router.patch("/{pool}", operation_id="pools_change")
    @router.post("/{pool}/scale", operation_id="pools_scale")
    def scale(pool: str, body: ScaleRequest) -> PoolAnswer:
        """Override sizes of the workload file, also over restarts of the daemon. Omitted sizes stay unchanged."""
        if body.min_size is not None and body.target_size is not None:
            raise InvalidSpec("the request is not valid: body", why="minSize and targetSize are the same setting")
        least = body.min_size if body.min_size is not None else body.target_size
        runtime.pools.scale(pool, min_size=least, max_size=body.max_size, warmth=body.warmth)
        runtime.events.record("pool-scaled", pool=pool, min_size=least, max_size=body.max_size, warmth=body.warmth)
        return changed(pool)

    @router.post("/{pool}/drain")
    def drain(pool: str) -> PoolAnswer:
        """Remove waiting slots and refuse claims until `undrain`; tenants' containers stay."""
        runtime.pools.drain_pool(pool)
        runtime.events.record("pool-drained", pool=pool)
        return changed(pool)

    @router.post("/{pool}/undrain")
    def undrain(pool: str) -> PoolAnswer:
        """Fill the pool again and accept claims."""
        runtime.pools.undrain(pool)
        runtime.events.record("pool-undrained", pool=pool)
        return changed(pool)

    @router.post("/{pool}/recycle")
    def recycle(pool: str) -> RecycleAnswer:
        """Replace every waiting slot by a new one."""
        count = runtime.pools.recycle(pool)
        runtime.events.record("pool-recycled", pool=pool, slots=count)
        runtime.poked.set()
        return RecycleAnswer(id=pool, recycled=count)
