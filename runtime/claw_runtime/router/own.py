"""The router's own address, by which it shows that it lives; every other request is the door's."""

from collections.abc import Awaitable
from typing import Final

from claw_runtime.router.door import Gate
from claw_runtime.router.heads import Request
from claw_runtime.router.links import Client
from claw_runtime.router.ways import Decision, Refusal, Way

HEALTH: Final = b"/_claw/healthz"
NAME: Final = b"x-claw-router"
"""The field that tells one router's answer from that of any other server at its address."""


class Own:
    """As `links.Door`: the router's own address before those of tenants.

    Args:
        name: Of this router (`presence.Presence.name`).
    """

    def __init__(self, gate: Gate, name: str) -> None:
        self._gate = gate
        fields = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"), (NAME, name.encode()))
        self._well = Refusal(b"200 OK", fields, b'{"status": "ok"}\n')

    def decide(self, request: Request, client: Client) -> Decision | Awaitable[Decision]:
        """As `links.Door`."""
        if request.target.partition(b"?")[0] == HEALTH and request.method in (b"GET", b"HEAD"):
            return self._well
        return self._gate.decide(request, client)

    def again(self, way: Way) -> Awaitable[Decision]:
        """As `links.Door`."""
        return self._gate.again(way)

    def poke(self, tenant: str) -> None:
        """As `links.Door`."""
        self._gate.poke(tenant)
