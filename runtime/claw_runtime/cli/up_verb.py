"""`claw-runtime up`."""

import os
import signal
import socket
import threading
from pathlib import Path
from typing import NoReturn

import click

from claw_runtime.cli import output


@click.command("up")
@click.argument("workloads", nargs=-1, type=click.Path(path_type=Path))
@click.option("--bucket", help="Store: s3://bucket/prefix or file:///directory.  [env: CLAW_BUCKET]")
@click.option("--endpoint", help="URL of the S3 service.  [env: CLAW_S3_ENDPOINT]")
@click.option(
    "--limits",
    type=click.Choice(["enforce", "drop"]),
    help="What to do with a limit that this host cannot enforce.  [env: CLAW_LIMITS]",
)
@click.pass_obj
def command(
    context: output.Context, workloads: tuple[Path, ...], bucket: str | None, endpoint: str | None, limits: str | None
) -> None:
    """Run the daemon: API, pools, object store.

    Serves the API on a Unix socket that only you can open, keeps the pools of the WORKLOADS files full (default: all
    files of the workloads directory), and saves states to the bucket. Without a bucket it starts its own S3 server on
    127.0.0.1. When it ends, waiting slots are removed and tenants' containers go on running; the next `up` takes them
    over.

    \b
    Examples:
      claw-runtime up docs/examples/openclaw/workload.yaml
      claw-runtime up --bucket file:///srv/claw
      CLAW_S3_ACCESS_KEY=... CLAW_S3_SECRET_KEY=... claw-runtime up --bucket s3://states --endpoint https://s3.example.org
    """
    import uvicorn

    from claw_runtime import logs, runtime
    from claw_runtime.api.app import create_app

    logs.configure()
    signal.signal(signal.SIGTERM, _end)
    settings = context.settings(bucket=bucket, endpoint=endpoint, limits=limits)
    with runtime.opened(settings, workloads) as current:
        current.recover()
        listener = _listen(settings.layout.api_socket)
        keeper = threading.Thread(target=current.keep, name="keeper", daemon=True)
        keeper.start()
        app = create_app(current)
        # Its own words about starting and ending are not for operators; ours below are.
        config = uvicorn.Config(app, log_config=None, log_level="warning", access_log=False, lifespan="off")
        output.note(f"claw-runtime is up: {settings.layout.api_socket} · store {current.store.url}")
        try:
            uvicorn.Server(config).run(sockets=[listener])
        finally:
            output.note("claw-runtime ends: waiting slots are removed, tenants' containers go on running")
            current.stopping.set()
            current.poked.set()
            settings.layout.api_socket.unlink(missing_ok=True)
            keeper.join(timeout=30)
            current.pools.drain()


def _end(_number: int, _frame: object) -> NoReturn:
    """SIGTERM ends the daemon as Ctrl-C does, through every `finally`; uvicorn passes it on when it has shut down."""
    raise SystemExit(0)


def _listen(path: Path) -> socket.socket:
    """A Unix socket with mode 0600 from its first moment; a stale one is replaced (the data directory is locked)."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    os.fchmod(listener.fileno(), 0o600)  # Linux gives it to the name; a umask would also reach other threads' files
    listener.bind(str(path))
    listener.listen(128)
    return listener
