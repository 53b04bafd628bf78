"""`claw-runtime router`."""

import click

from claw_runtime.cli import output
from claw_runtime.errors import InvalidSpec, NotReady

_END = 30.0
"""Seconds within which a router ends: longer than its last requests may take."""


@click.command("router")
@click.option("--end", is_flag=True, help="End the router of this run directory. Requests under way have 10 s to end.")
@click.pass_obj
def command(context: output.Context, *, end: bool) -> None:
    """Run the router, the one address of all tenants, in the foreground.

    `claw-runtime up` starts it by itself where CLAW_INGRESS is set, and replaces one that does not answer. This is for
    other service managers, and for looking at it. It serves tenants that run also while there is no daemon. It ends on
    SIGTERM: it accepts no new connection, and requests under way have 10 s to end.

    \b
    Examples:
      CLAW_INGRESS=127.0.0.1:8080 claw-runtime router
      claw-runtime router --end
    """
    from claw_runtime import logs
    from claw_runtime.daemon import home, routers
    from claw_runtime.router import presence

    settings = context.settings()
    if end:
        there = presence.present(settings.layout.router_lock)
        if there is None:
            output.note("no router runs")
        elif not there.end(within=_END):
            raise NotReady("the router does not end", why=f"process {there.pid} runs on", hint=f"kill -9 {there.pid}")
        return
    if settings.ingress is None:
        raise InvalidSpec(
            "no address is set for the router",
            why="it listens where the setting `ingress` says",
            hint="set CLAW_INGRESS=127.0.0.1:8080, for the daemon as well",
        )
    logs.configure()
    home.make_directories(settings.layout)
    routers.run(settings.ingress, settings.layout)
