"""A real daemon's faces over an in-memory world: the API on a real Unix socket, without Podman and without S3."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from socket import socket
from typing import Any

import httpx
from claw_runtime import settings
from claw_runtime.access.tokens import Tokens
from claw_runtime.api import server
from claw_runtime.api.app import create_app
from claw_runtime.concurrency import Workers
from claw_runtime.daemon.assembly import Runtime, services_of
from claw_runtime.daemon.ingress import router_side
from claw_runtime.daemon.routers import Router
from claw_runtime.db.idempotency import SqliteAnswers
from claw_runtime.db.tokens import SqliteTokens
from claw_runtime.db.upgrades import SqliteUpgrades
from claw_runtime.engine.probe import HttpProber
from claw_runtime.interchange.tar_in import Interchange
from claw_runtime.operations.maintenance import Maintenance
from claw_runtime.reserve import Reserve
from claw_runtime.secrets.files import SecretFiles
from claw_runtime.state.verify import Verifier
from claw_runtime.tenants.drives.values import Values
from claw_runtime.tenants.host import limits_of, unexcluded_of
from claw_runtime.tenants.purge import Purge
from claw_runtime.tenants.trees import Trees
from claw_runtime.upgrades.upgrades import Upgrades
from claw_runtime.workloads.registry import Workloads
from claw_runtime.workloads.watcher import WorkloadFiles
from fakes.world import World
from structlog.testing import capture_logs


def runtime_of(world: World, **flags: str) -> Runtime:
    """What `runtime.opened` composes, out of a world's parts; `flags` are settings."""
    layout = world.layout
    chosen = settings.load(
        {"home": layout.home, "run": layout.run, **flags}, environ={}, system_file=layout.home / "none"
    )
    database = world.ledger.database
    chosen.workloads.mkdir(parents=True, exist_ok=True)
    tokens, values = Tokens(SqliteTokens(database), world.clock), Values(SecretFiles(layout), layout)
    side = router_side(chosen, ledger=world.ledger, pools=world.pools, values=values, tokens=tokens, clock=world.clock)
    upgrades = Upgrades(world.host, tenants=world.tenants, store=SqliteUpgrades(database), prober=HttpProber())
    router = Router(chosen.ingress, layout)
    return Runtime(
        settings=chosen,
        engine=world.engine,
        store=world.store,
        ledger=world.ledger,
        pools=world.pools,
        tenants=world.tenants,
        repository=world.repository,
        snapshots=world.snapshots,
        head_recovery=world.head_recovery,
        views=world.views,
        maintenance=Maintenance(world.tenants, world.ledger, world.clock, world.pools.interval),
        verifier=Verifier(world.store, world.repository),
        purge=Purge(world.store, world.repository, Trees(layout), world.tenants.still, world.events.record),
        interchange=Interchange(
            world.repository,
            layout,
            world.tenants.still,
            world.events.record,
            selection=partial(unexcluded_of, world.host),
            limits=partial(limits_of, world.host),
        ),
        keyring=world.keyring,
        events=world.events,
        files=WorkloadFiles(world.pools, chosen.workloads),
        recovery=world.recovery,
        restarts=world.restarts,
        port_watch=world.port_watch,
        liveness=world.liveness,
        commits=world.commits,
        upgrades=upgrades,
        workloads=Workloads(world.pools, world.ledger, chosen.workloads, world.events.record),
        tokens=tokens,
        answers=SqliteAnswers(database),
        values=values,
        clock=world.clock,
        stopping=threading.Event(),
        poked=world.poked,
        reserve=Reserve(layout.reserve),
        ingress=side.ingress(world.tenants, world.events.record, thaws=Workers("thaw", 0), claims=Workers("wake", 0)),
        services=services_of(world.engine, world.store, router, world.clock),
        router=router,
    )


class Api:
    """A client of the API without a server between: the application gets what a server would hand it.

    Args:
        local: As if the requests came through the Unix socket; else they come over TCP.
    """

    def __init__(self, runtime: Runtime, *, local: bool = True) -> None:
        application = create_app(runtime)
        place = (str(runtime.settings.layout.api_socket), None) if local else ("127.0.0.1", 7070)

        async def placed(scope: Any, receive: Any, send: Any) -> None:
            await application({**scope, "server": place}, receive, send)

        self._base = "http://claw" if local else "http://127.0.0.1:7070"
        self._transport = httpx.ASGITransport(placed, raise_app_exceptions=False)

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send one request and wait for the whole answer."""

        async def send() -> httpx.Response:
            async with httpx.AsyncClient(transport=self._transport, base_url=self._base) as client:
                return await client.request(method, path, **options)

        return asyncio.run(send())

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.request("POST", path, **options)


def client(world: World, timeout: float = 120) -> httpx.Client:
    """A client of the API's Unix socket, with a limit for a loaded host. It loads no certificates: that takes 20 ms."""
    transport = httpx.HTTPTransport(uds=str(world.layout.api_socket), verify=False)
    return httpx.Client(transport=transport, base_url="http://claw", timeout=timeout)


@contextmanager
def serving(world: World) -> Iterator[Runtime]:
    """The API on the world's own socket until the block ends, as `up` serves it."""
    with _served(runtime_of(world), world) as (runtime, _):
        yield runtime


@contextmanager
def listening(world: World) -> Iterator[tuple[Runtime, str]]:
    """The same, and over TCP too; the base URL, which opens nothing without a token."""
    with _served(runtime_of(world, listen="127.0.0.1:0"), world) as (runtime, sockets):
        yield runtime, f"http://{server.shown(sockets[1].getsockname())}"


@contextmanager
def _served(runtime: Runtime, world: World) -> Iterator[tuple[Runtime, list[socket]]]:
    world.layout.run.mkdir(mode=0o700, parents=True, exist_ok=True)
    sockets = [server.listen_at(world.layout.api_socket)]
    if runtime.settings.listen:
        sockets.append(server.listen_on(runtime.settings.listen))
    serves = server.server(runtime)
    serves.capture_signals = _no_signals  # type: ignore[method-assign]  # a thread may not set handlers
    thread = threading.Thread(target=serves.run, kwargs={"sockets": sockets}, name="api")
    thread.start()
    try:
        while not serves.started:
            time.sleep(0.005)
        with capture_logs():  # a daemon's log is in another process than its caller's output
            yield runtime, sockets
    finally:
        serves.should_exit = True
        thread.join(timeout=10)
        for listener in sockets:
            listener.close()
        world.layout.api_socket.unlink(missing_ok=True)


@contextmanager
def _no_signals() -> Iterator[None]:
    yield
