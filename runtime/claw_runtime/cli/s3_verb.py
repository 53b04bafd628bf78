"""`claw-runtime s3`."""

import signal
import threading

import click

from claw_runtime.cli import output


@click.group("s3")
def command() -> None:
    """The S3 server that comes with claw."""


@command.command("up")
@click.pass_obj
def up(context: output.Context) -> None:
    """Run the S3 server (SeaweedFS) in the foreground, on 127.0.0.1.

    Keys are made at the first start and kept in a 0600 file. `claw-runtime up` starts it by itself when no bucket is
    configured; this is for looking into the store with other tools, for several daemons on one host, and for the unit
    claw-s3. A server that ends or hangs is started again.

    \b
    Examples:
      claw-runtime s3 up
    """
    from claw_runtime.daemon import notifying, stores

    manager = notifying.manager()
    server = stores.seaweedfs(context.settings())
    with stores.serving(server), notifying.telling(manager, server.answers, lambda: f"serves {server.endpoint}"):
        output.line(f"s3://{stores.BUCKET} at {server.endpoint}")
        output.note(f"keys in {server.credentials}")
        stopped = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stopped.set())
        stopped.wait()
