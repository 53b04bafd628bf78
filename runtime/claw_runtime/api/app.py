"""The HTTP API: authorization (guard.py), repeated requests (idempotency.py), and the handlers.

Handlers hold no logic: argument → service → answer, in threads.
"""

from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.types import ASGIApp

from claw_runtime import __version__
from claw_runtime.api import (
    description,
    events,
    files,
    keys,
    logs,
    pools,
    problems,
    routes,
    snapshots,
    state,
    tenants,
    tokens,
    upgrades,
    workloads,
)
from claw_runtime.api.guard import Guard, hosts_of
from claw_runtime.api.idempotency import Idempotent
from claw_runtime.api.readiness import Readiness
from claw_runtime.api.schemas import RecoveryAnswer, ServicesAnswer
from claw_runtime.api.turns import Lanes
from claw_runtime.daemon.assembly import NOTHING, Runtime


def create_app(runtime: Runtime, lanes: Lanes | None = None) -> ASGIApp:
    """The API of one runtime behind its guard; a server's shutdown ends the reading requests of `lanes`."""
    settings = runtime.settings
    remembering = Idempotent(create_api(runtime), runtime.answers, runtime.clock)
    return Guard(
        remembering,
        socket=str(settings.layout.api_socket),
        tokens=runtime.tokens,
        hosts=hosts_of(settings.listen, settings.allow_hosts),
        origins=settings.allow_origins,
        lanes=lanes,
    )


def create_api(runtime: Runtime) -> FastAPI:
    """The API behind its guard."""
    app = FastAPI(
        title="claw-runtime",
        version=__version__,
        docs_url=None,  # a page that would load scripts from elsewhere
        redoc_url=None,
        generate_unique_id_function=description.operation_id,
    )
    problems.add_handlers(app)
    description.complete(app)
    app.include_router(_probes(runtime))
    for noun in (logs, tenants, files, snapshots, state, pools, upgrades, workloads, events, routes, tokens, keys):
        app.include_router(noun.routes(runtime))
    return app


def _probes(runtime: Runtime) -> APIRouter:
    router = APIRouter(tags=["probes"])

    def look() -> None:
        runtime.engine.info()
        next(iter(runtime.store.list(NOTHING)), None)

    readiness = Readiness(look)

    @router.get("/livez")
    async def livez() -> dict[str, str]:
        """Whether the process answers."""
        return {"status": "ok", "version": __version__}

    @router.get("/readyz")
    async def readyz() -> dict[str, Any]:
        """Whether the engine and the object store answer too, within five seconds."""
        await readiness.check()
        return {
            "status": "ok",
            "store": runtime.store.url,
            "pools": len(runtime.pools.ids()),
            "recovery": RecoveryAnswer.model_validate(runtime.recovered()).model_dump(by_alias=True),
        }

    @router.get("/api/v1/recovery")
    async def recovery() -> RecoveryAnswer:
        """How far the recovery of what the last daemon left has come."""
        return RecoveryAnswer.model_validate(runtime.recovered())

    @router.get("/api/v1/services")
    async def services() -> ServicesAnswer:
        """Which services this daemon does without just now."""
        return ServicesAnswer(silent=dict(runtime.services.silent()))

    return router
