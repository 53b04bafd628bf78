"""`claw-runtime port`."""

import re

import click

from claw_runtime.cli import output, running
from claw_runtime.cli.arguments import live_argument
from claw_runtime.errors import StateMissing

_PUBLISHED = re.compile(r"([0-9]+)/([a-z]+) -> (.+):([0-9]+)")


@click.command("port")
@live_argument
@click.argument("container_port", required=False, metavar="[PORT]", type=click.IntRange(1, 65535))
@output.form_option
@click.pass_obj
def command(context: output.Context, tenant: str, container_port: int | None) -> None:
    """Show which host port maps to which container port.

    \b
    Examples:
      claw-runtime port alice
      curl "http://$(claw-runtime port alice 18789)/healthz"
    """
    from claw_runtime.engine.command import port_argv

    lines = running.answer(port_argv(running.container_of(context, tenant))).decode().splitlines()
    found = [
        {"containerPort": int(match[1]), "protocol": match[2], "hostAddress": match[3], "hostPort": int(match[4])}
        for match in map(_PUBLISHED.fullmatch, lines)
        if match and container_port in (None, int(match[1]))
    ]
    if container_port is not None and not found:
        raise StateMissing(
            f"{tenant} publishes no port {container_port}",
            why=f"it publishes {', '.join(line.split('/')[0] for line in lines) or 'none'}",
            hint=f"claw-runtime port {tenant}",
        )
    hosts = [f"{one['hostAddress']}:{one['hostPort']}" for one in found]
    if output.emitted(context, found, hosts):
        return
    for one, host in zip(found, hosts, strict=True):
        output.line(host if container_port else f"{one['containerPort']}/{one['protocol']} -> {host}")
