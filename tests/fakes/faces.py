"""A real daemon's faces over an in-memory world: the API on a real Unix socket, without Podman and without S3."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import uvicorn
from claw_runtime import settings
from claw_runtime.api.app import create_app
from claw_runtime.cli.up_verb import _listen
from claw_runtime.runtime import Runtime
from fakes.world import World
from structlog.testing import capture_logs


def runtime_of(world: World) -> Runtime:
    """What `runtime.opened` composes, out of a world's parts."""
    layout = world.layout
    return Runtime(
        settings=settings.load({"home": layout.home, "run": layout.run}, environ={}, system_file=layout.home / "none"),
        engine=world.engine,
        store=world.store,
        ledger=world.ledger,
        pools=world.pools,
        claims=world.claims,
        syncing=world.syncing,
        stopping=threading.Event(),
        poked=threading.Event(),
    )


class Api:
    """A client of the API without a server between: the application gets what a server would hand it."""

    def __init__(self, runtime: Runtime) -> None:
        self._transport = httpx.ASGITransport(create_app(runtime), raise_app_exceptions=False)

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send one request and wait for the whole answer."""

        async def send() -> httpx.Response:
            async with httpx.AsyncClient(transport=self._transport, base_url="http://claw") as client:
                return await client.request(method, path, **options)

        return asyncio.run(send())

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.request("POST", path, **options)


@contextmanager
def serving(world: World) -> Iterator[Runtime]:
    """The API on the world's own socket until the block ends, as `up` serves it."""
    runtime = runtime_of(world)
    world.layout.run.mkdir(mode=0o700, parents=True, exist_ok=True)
    listener = _listen(world.layout.api_socket)
    server = uvicorn.Server(uvicorn.Config(create_app(runtime), log_config=None, access_log=False, lifespan="off"))
    server.capture_signals = _no_signals  # type: ignore[method-assign]  # a thread may not set handlers
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="api")
    thread.start()
    try:
        while not server.started:
            time.sleep(0.005)
        with capture_logs():  # a daemon's log is in another process than its caller's output
            yield runtime
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        listener.close()
        world.layout.api_socket.unlink(missing_ok=True)


@contextmanager
def _no_signals() -> Iterator[None]:
    yield
