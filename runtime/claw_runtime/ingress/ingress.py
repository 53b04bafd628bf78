"""What this host does for requests to tenants: the public face of the room, for the daemon and the API."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog

from claw_runtime.errors import Conflict, NotClaimed
from claw_runtime.ingress.activity import Activity
from claw_runtime.ingress.addresses import Addresses
from claw_runtime.ingress.link import RouterLink
from claw_runtime.ingress.routes import Routes
from claw_runtime.ingress.tickets import Tickets
from claw_runtime.ingress.wakes import Wakes
from claw_runtime.ports import Clock
from claw_runtime.tenancy import TenantId

log = structlog.get_logger(__name__)

PAUSE: Final = 0.5
"""Seconds between two looks at tenants whose wake waits for another operation."""

SWEEP: Final = 2.0
"""Seconds between two looks for changes that nobody reported: each makes the whole table."""

REPORT: Final = 5.0
"""Seconds between two questions for tenants' activity."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteStatus:
    """One tenant's route, for a person.

    Attributes:
        address: Where its program listens, `127.0.0.1:port`; None while it has no container.
        fenced: Whether requests wait although it is there.
        activity: Its clients; None without a router.
    """

    tenant: TenantId
    url: str
    rung: str
    address: str | None
    fenced: bool
    webhooks: tuple[str, ...]
    activity: Activity | None


class Ingress:
    """The router's other half.

    Args:
        addresses: None if this host has no router: nothing is done then.
    """

    def __init__(
        self,
        *,
        addresses: Addresses | None,
        link: RouterLink,
        routes: Routes,
        wakes: Wakes,
        tickets: Tickets,
        clock: Clock,
    ) -> None:
        self.addresses, self.link, self.wakes = addresses, link, wakes
        self._routes, self._tickets, self._clock = routes, tickets, clock

    # --- background ---

    def run(self, stopping: threading.Event) -> Sequence[threading.Thread]:
        """Talk with the router in threads until `stopping`."""
        if self.addresses is None:
            return []
        works: Mapping[str, Callable[[], None]] = {
            "router": lambda: self.link.run(stopping, self._hear),
            "routes": lambda: self._keep(stopping),
        }
        threads = [threading.Thread(target=work, name=name, daemon=True) for name, work in works.items()]
        for thread in threads:
            thread.start()
        return threads

    def _keep(self, stopping: threading.Event) -> None:
        asked = swept = self._clock.monotonic()
        while not stopping.is_set():
            changed = self.link.changed.wait(PAUSE)
            self.link.changed.clear()
            if stopping.is_set():
                break
            try:
                self.wakes.look()
                if changed or self._clock.monotonic() - swept >= SWEEP:
                    swept = self._clock.monotonic()
                    self.link.push()
            except Exception:
                log.exception("internal error while telling the router what changed; retrying")
            if self._clock.monotonic() - asked >= REPORT:
                asked = self._clock.monotonic()
                self.link.ask()
        self.link.close()

    def _hear(self, said: Mapping[str, Any]) -> None:
        if "wake" in said:
            self.wakes.want(TenantId(str(said["wake"]["tenant"])), str(said["wake"]["trigger"]))
        if "used" in said:
            self._tickets.used(str(said["used"]))

    def changed(self) -> None:
        """Something of tenants, workloads or tokens changed."""
        self.link.changed.set()

    # --- for people ---

    def enter(self, tenant: TenantId) -> tuple[str, float]:
        """An address that opens the tenant in one browser, once, and when it expires, in seconds since the epoch.

        Raises:
            Conflict: This host has no router, none is running, or tenants have no names of their own.
            NotClaimed: The tenant has no route here.
        """
        addresses = self._must()
        base = addresses.browser(tenant)
        if base is None:
            raise Conflict(
                f"tenant {tenant!r} has no name of its own",
                why=f"clients know the router as {addresses.host}, and a number has no names below it",
                hint="set CLAW_INGRESS_URL to an address with a name, such as https://claw.example.org",
            )
        if not self.link.is_connected:
            raise Conflict("the router is not running", hint="ask again in a few seconds", retry_after=2)
        if all(row["tenant"] != tenant for row in self._routes.rows()):
            raise NotClaimed(
                f"tenant {tenant!r} has no route here",
                why="it was never claimed on this host, or its workload publishes no port",
                hint=f"claw-runtime claim {tenant}",
            )
        ticket, expires = self._tickets.create(tenant)
        self.link.push()
        return f"{base}/_claw/enter?ticket={ticket.reveal()}", expires

    def routes(self) -> Sequence[RouteStatus]:
        """Every route, by tenant. Raises `Conflict` if this host has no router."""
        addresses = self._must()
        here = self.link.is_connected
        return [
            RouteStatus(
                tenant=row["tenant"],
                url=addresses.shown(row["tenant"]),
                rung=row["rung"],
                address=":".join(map(str, row["address"])) if row["address"] else None,
                fenced=row["fenced"],
                webhooks=tuple(hook["path"] for hook in row["hooks"]),
                activity=self.link.activity(row["tenant"]) if here else None,
            )
            for row in sorted(self._routes.rows(), key=lambda row: str(row["tenant"]))
        ]

    def url(self, tenant: str) -> str | None:
        """The address to show for a tenant; None without a router."""
        return self.addresses.shown(tenant) if self.addresses else None

    def base(self, tenant: str) -> str | None:
        """The base address of a tenant for programs; None without a router."""
        return self.addresses.program(tenant) if self.addresses else None

    def _must(self) -> Addresses:
        if self.addresses is None:
            raise Conflict(
                "this host has no router",
                why="no address is set at which it would listen",
                hint="set CLAW_INGRESS=127.0.0.1:8080 for the daemon and start it again",
            )
        return self.addresses
