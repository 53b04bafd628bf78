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
    snapshots,
    state,
    tenants,
    tokens,
    upgrades,
    workloads,
)
from claw_runtime.api.guard import Guard, hosts_of
from claw_runtime.api.idempotency import Idempotent
from claw_runtime.daemon.assembly import Runtime


def create_app(runtime: Runtime, followers: logs.Followers | None = None) -> ASGIApp:
    """The API of one runtime behind its guard; `followers` are the logs that a server shutdown must end."""
    settings = runtime.settings
    remembering = Idempotent(create_api(runtime, followers), runtime.answers, runtime.clock)
    return Guard(
        remembering,
        socket=str(settings.layout.api_socket),
        tokens=runtime.tokens,
        hosts=hosts_of(settings.listen, settings.allow_hosts),
        origins=settings.allow_origins,
    )


def create_api(runtime: Runtime, followers: logs.Followers | None = None) -> FastAPI:
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
    app.include_router(logs.routes(runtime, followers or logs.Followers()))
    for noun in (tenants, files, snapshots, state, pools, upgrades, workloads, events, tokens, keys):
        app.include_router(noun.routes(runtime))
    return app


def _probes(runtime: Runtime) -> APIRouter:
    router = APIRouter(tags=["probes"])

    @router.get("/livez")
    async def livez() -> dict[str, str]:
        """Whether the process answers."""
        return {"status": "ok", "version": __version__}

    @router.get("/readyz")
    def readyz() -> dict[str, Any]:
        """Whether the engine and the object store answer too."""
        runtime.engine.info()
        next(iter(runtime.store.list(".claw-ready/")), None)
        return {"status": "ok", "store": runtime.store.url, "pools": len(runtime.pools.ids())}

    return router
