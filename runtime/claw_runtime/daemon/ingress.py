"""Composes the daemon's side of the router in two steps: tenants need its fences, and its wakes need tenants."""

from dataclasses import dataclass

from claw_runtime.access.tokens import Tokens
from claw_runtime.concurrency import Workers
from claw_runtime.ingress.addresses import Addresses, addresses
from claw_runtime.ingress.conversation import Conversation
from claw_runtime.ingress.ingress import Ingress
from claw_runtime.ingress.link import RouterLink
from claw_runtime.ingress.routes import Routes
from claw_runtime.ingress.tickets import Tickets, cookie_key
from claw_runtime.ingress.wakes import Wakes
from claw_runtime.pools.pools import Pools
from claw_runtime.ports import Clock, Ledger
from claw_runtime.settings import Settings
from claw_runtime.telemetry.events import Recorder
from claw_runtime.tenants.drives.values import Values
from claw_runtime.tenants.tenants import Tenants


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterSide:
    """What is there before tenants' services are: `link` is also their fence."""

    addresses: Addresses | None
    routes: Routes
    tickets: Tickets
    link: RouterLink
    ledger: Ledger
    clock: Clock

    def ingress(self, tenants: Tenants, record: Recorder, *, thaws: Workers, claims: Workers) -> Ingress:
        """All of it, with the services that wakes call."""
        wakes = Wakes(tenants, self.ledger, self.link, self.clock, record=record, thaws=thaws, claims=claims)
        return Ingress(
            addresses=self.addresses,
            link=self.link,
            routes=self.routes,
            wakes=wakes,
            tickets=self.tickets,
            clock=self.clock,
        )


def router_side(
    settings: Settings, *, ledger: Ledger, pools: Pools, values: Values, tokens: Tokens, clock: Clock
) -> RouterSide:
    """The first step. Raises `InvalidSpec`: the key of browsers' sessions cannot be read."""
    ours, tickets, layout = addresses(settings), Tickets(clock), settings.layout
    routes = Routes(
        ledger=ledger,
        pools=pools,
        values=values,
        tokens=tokens,
        tickets=tickets,
        clock=clock,
        base={
            "domain": ours.domain if ours else "",
            "key": cookie_key(layout.ingress_key).hex() if ours else "",
            "proxies": list(settings.ingress_proxies),
        },
    )
    link = RouterLink(Conversation(layout.router_socket), routes, clock)
    return RouterSide(addresses=ours, routes=routes, tickets=tickets, link=link, ledger=ledger, clock=clock)
