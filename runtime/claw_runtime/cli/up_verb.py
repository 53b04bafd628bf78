"""`claw-runtime up`."""

import gc
import signal
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from claw_runtime.cli import output
from claw_runtime.fsutil import open_files

if TYPE_CHECKING:
    from socket import socket

    from claw_runtime.daemon.assembly import Runtime


OPEN_FILES = 65_536
"""Files that the daemon may have open, if this user may: one daemon serves all tenants."""


@click.command("up")
@click.argument("workloads", nargs=-1, type=click.Path(path_type=Path))
@click.option("--bucket", help="Store: s3://bucket/prefix or file:///directory.  [env: CLAW_BUCKET]")
@click.option("--endpoint", help="URL of the S3 service.  [env: CLAW_S3_ENDPOINT]")
@click.option(
    "--limits",
    type=click.Choice(["enforce", "drop"]),
    help="What to do with a limit that this host cannot enforce.  [env: CLAW_LIMITS]",
)
@click.option("--listen", metavar="ADDRESS:PORT", help="Serve the API over TCP too, for tokens.  [env: CLAW_LISTEN]")
@click.option(
    "--expose", is_flag=True, help="Allow --listen on an address that other machines can reach. There is no TLS."
)
@click.option(
    "--accept-store", is_flag=True, help="Use this store although the tenants' states are in another one; needed once."
)
@click.pass_obj
def command(
    context: output.Context,
    workloads: tuple[Path, ...],
    bucket: str | None,
    endpoint: str | None,
    limits: str | None,
    listen: str | None,
    expose: bool,
    accept_store: bool,
) -> None:
    """Run the daemon: API, pools, object store.

    Serves the API on a Unix socket that only you can open, keeps the pools of the WORKLOADS files full (default: all
    files of the workloads directory), and saves states to the bucket. Without a bucket it starts its own S3 server on
    127.0.0.1. When it ends, it removes waiting slots, and tenants' containers keep running; the next `up` takes them
    over.

    It refuses a store that is not the one of the last start, such as an empty directory where no disk is mounted, until
    `--accept-store` confirms the new one.

    Over TCP, the API answers only requests with a token (`claw-runtime token create`).

    \b
    Examples:
      claw-runtime up docs/examples/openclaw/workload.yaml
      claw-runtime up --listen 127.0.0.1:7070
      claw-runtime up --bucket file:///srv/claw
      CLAW_S3_ACCESS_KEY=... CLAW_S3_SECRET_KEY=... claw-runtime up --bucket s3://states --endpoint https://s3.example.org
    """
    from claw_runtime import logs
    from claw_runtime.api import server
    from claw_runtime.daemon import assembly, notifying

    logs.configure()
    manager = notifying.manager()
    open_files(OPEN_FILES)
    signal.signal(signal.SIGTERM, _end)
    settings = context.settings(bucket=bucket, endpoint=endpoint, limits=limits, listen=listen)
    server.check_reach(settings.listen, expose=expose)
    with assembly.opened(settings, workloads, accept_store=accept_store) as current:
        listeners = [server.listen_at(settings.layout.api_socket)]
        ours = server.identity(settings.layout.api_socket)
        if settings.listen:
            listeners.append(server.listen_on(settings.listen))
        worker = current.start()
        _tell(current, listeners[1:], expose=expose)
        # What is loaded by now stays. Each full collection would look at it again: 80 ms without an answer (measured).
        gc.freeze()
        try:
            with notifying.of_daemon(manager, current) as life:
                server.server(current, life.end).run(sockets=listeners)
        finally:
            output.note("claw-runtime is stopping: waiting slots are removed, tenants' containers keep running")
            current.stopping.set()
            current.poked.set()
            if server.identity(settings.layout.api_socket) == ours:  # a name that another process took is not ours
                settings.layout.api_socket.unlink(missing_ok=True)
            worker.join(timeout=30)
            current.pools.drain()


def _tell(current: "Runtime", listeners: "list[socket]", *, expose: bool) -> None:
    """Print one line about what is running, and warnings about its address."""
    from claw_runtime.api import server

    addresses = [server.shown(listener.getsockname()[:2]) for listener in listeners]
    places = " · ".join([str(current.settings.layout.api_socket), *(f"http://{address}" for address in addresses)])
    if ingress := current.settings.ingress:
        places += f" · router {server.shown(ingress)}"
    output.note(f"claw-runtime is up: {places} · store {current.store.url}")
    if addresses and not current.tokens.all():
        output.note("  no token exists yet: claw-runtime token create NAME")
    if addresses and expose:
        output.note("  warning: plain HTTP that other machines may reach; put a TLS proxy in front of it")


def _end(_number: int, _frame: object) -> NoReturn:
    """SIGTERM ends the daemon as Ctrl-C does, through every `finally`; uvicorn passes it on when it has shut down."""
    raise SystemExit(0)
