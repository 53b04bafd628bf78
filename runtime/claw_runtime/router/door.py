"""Decides about each request: whose it is, whether it may come in, and whether it is passed on, waits or is refused.

Host and path name the tenant, a credential opens it, and only then its state matters. A wrong tenant, a wrong
credential and an unknown host get one answer, so nobody without a credential learns which tenants exist or sleep.
"""

import asyncio
import math
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final, Literal, Protocol

from claw_runtime.router.entering import PATH, Entrance
from claw_runtime.router.forwarding import CLAIMED, forwarded
from claw_runtime.router.heads import Request
from claw_runtime.router.links import Client
from claw_runtime.router.rates import Rates
from claw_runtime.router.table import Hook, Route, Table, digest
from claw_runtime.router.waiting import is_opened_by_a_person, page
from claw_runtime.router.ways import Decision, Refusal, Traffic, Way, refused

COOKIE: Final = b"__Host-claw"
HELD_OF_TENANT: Final = 8
HELD: Final = 128
HOLD: Final = 30.0
HOLD_SOCKET: Final = 10.0
"""Seconds that a request, or the beginning of a WebSocket, waits for its tenant."""
AGAIN: Final = 2
"""Seconds after which a refused client should come back."""

_PATH: Final = re.compile(rb"/~([a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)(/.*)?")
_LINK: Final = re.compile(rb"/(cw_[A-Za-z0-9_-]{43})(/.*)?")
_BEARER: Final = re.compile(rb"[Bb]earer ([!-~]+)")
_ODD: Final = re.compile(rb"//|/\.\.?(?:/|$)|\\|%(?:2[ef]|5c|00|25)", re.IGNORECASE)
"""What some programs read as another path, such as one above: it is no part of a path that needs no credential."""
_PROBES: Final = frozenset((b"/healthz", b"/readyz", b"/health", b"/ready"))

UNKNOWN: Final = Refusal(
    b"401 Unauthorized",
    ((b"content-type", b"application/problem+json"), (b"cache-control", b"no-store"), (b"www-authenticate", b"Bearer")),
    b'{"title": "no tenant is reached by this address and credential", "status": 401}\n',
)

Trigger = Literal["http", "ws", "hook", "frame"]


class Waker(Protocol):
    """The daemon, as far as the router needs it."""

    def wake(self, tenant: str, trigger: Trigger) -> None:
        """Ask for the tenant; the table tells when it is there, and `failed` why it is not."""

    def used(self, ticket: str) -> None:
        """Say that the ticket of this digest let a browser in."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that may come in: for whom, with which path, and by what it proved so.

    Attributes:
        hook: The path that needs no credential, if it proved so by that.
        holder: The digest of its credentials.
    """

    tenant: str
    target: bytes
    by: Literal["token", "secret", "link", "cookie", "hook"]
    hook: Hook | None
    holder: str


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why a tenant did not wake, and after how many seconds a client should come back."""

    why: str
    again: int


class Gate:
    """The door of one host; used by the event loop alone.

    Args:
        now: Seconds since the epoch.
    """

    def __init__(self, waker: Waker, now: Callable[[], float]) -> None:
        self._waker, self._now = waker, now
        self.table = Table()
        self.traffic = dict[str, Traffic]()
        self.held = Counter[str]()
        self._changed = dict[str, asyncio.Event]()
        self._failed = dict[str, _Failure]()
        self._rates = Rates()
        self._asleep = dict[str, frozenset[str]]()
        self._entrance = Entrance(COOKIE)
        self._knows = self._ended = False

    # --- the daemon's side ---

    def update(self, table: Table) -> None:
        """Use another table; those that wait look again."""
        before, self.table, self._knows = self.table, table, True
        self._entrance.update(table)
        self._rates.update(table)
        self._note_sleep(before)
        for tenant in [name for name, one in self.traffic.items() if name not in table.routes and not one.is_open]:
            del self.traffic[tenant]
        for tenant, event in list(self._changed.items()):
            if before.routes.get(tenant) != table.routes.get(tenant):
                event.set()

    def failed(self, tenant: str, why: str, again: float) -> None:
        """A wake failed: those that wait are refused."""
        self._failed[tenant] = _Failure(why, max(1, round(again)))
        if event := self._changed.get(tenant):
            event.set()

    def end(self) -> None:
        """The router ends: nothing waits any more."""
        self._ended = True
        for event in self._changed.values():
            event.set()

    def _note_sleep(self, before: Table) -> None:
        """Remember the holders of WebSockets of each tenant that fell asleep, until it is there again."""
        routes = self.table.routes
        for tenant in [one for one in self._asleep if one not in routes or routes[one].is_open]:
            del self._asleep[tenant]
        for tenant, traffic in self.traffic.items():
            was = before.routes.get(tenant)
            if was is not None and was.is_open and tenant in routes and not routes[tenant].is_open:
                self._asleep[tenant] = frozenset(traffic.holders)

    # --- requests ---

    def decide(self, request: Request, client: Client) -> Decision | Awaitable[Decision]:
        """As `links.Door`."""
        if not self._knows:  # nobody's credential is wrong yet
            return _later("the router has just started")
        if request.target.partition(b"?")[0] == PATH:
            return self._enter(request)
        asked = self._asked(request)
        route = self.table.routes.get(asked.tenant) if asked else None
        if asked is None or route is None:
            return UNKNOWN
        if asked.hook and (seconds := self._rates.wait(asked.tenant, asked.hook, self._now())):
            return _told(refused(429, "too many requests come to this address"), math.ceil(seconds))
        if at := route.open_at:
            return self._way(request, client, asked, route, at)
        if asked.target.partition(b"?")[0] in _PROBES and request.method in (b"GET", b"HEAD"):
            return _probed(route)
        if self._ended:
            return _later("the router restarts")
        if route.rung in ("parked", "cold") and is_opened_by_a_person(request):
            self._waker.wake(asked.tenant, "http")
            failure = self._failed.pop(asked.tenant, _Failure("", AGAIN))
            return page(asked.tenant, failure.why, failure.again)
        if self.held[asked.tenant] >= HELD_OF_TENANT or self.held.total() >= HELD:
            return _later("too many requests wait for this tenant")
        return self._wait(request, client, asked)

    def _enter(self, request: Request) -> Refusal:
        entered = self._entrance.enter(request, self.table, self._now())
        if entered is None:
            return UNKNOWN
        answer, ticket = entered
        self._waker.used(ticket)
        return answer

    async def _wait(self, request: Request, client: Client, asked: Asked) -> Decision:
        tenant = asked.tenant
        self.held[tenant] += 1
        self._failed.pop(tenant, None)
        event = self._changed.setdefault(tenant, asyncio.Event())
        returns = request.websocket and asked.holder in self._asleep.get(tenant, ())
        trigger: Trigger = "hook" if asked.by == "hook" else "ws" if request.websocket else "http"
        seen = self.table.routes.get(tenant)
        if not returns:  # a program that connects again by itself would keep its tenant awake for ever
            self._waker.wake(tenant, trigger)
        try:
            async with asyncio.timeout(HOLD_SOCKET if request.websocket else HOLD):
                while True:
                    route = self.table.routes.get(tenant)
                    if route is None:
                        return UNKNOWN
                    if at := route.open_at:
                        return self._way(request, client, asked, route, at)
                    if returns and route.rung != "active":
                        return _later("the tenant sleeps, and a WebSocket that was there before does not wake it")
                    if failure := self._failed.get(tenant):
                        return _told(refused(503, failure.why), failure.again)
                    if route != seen and not returns:  # it may have been open for a moment, which ends a wake
                        seen = route
                        self._waker.wake(tenant, trigger)
                    if self._ended:
                        return _later("the router restarts")
                    event.clear()
                    await event.wait()
        except TimeoutError:
            return _later("the tenant takes longer to wake than a request can wait")
        finally:
            self.held[tenant] -= 1
            if not self.held[tenant]:
                del self.held[tenant]
                self._changed.pop(tenant, None)

    async def again(self, way: Way) -> Decision:
        """As `links.Door`."""
        route = self.table.routes.get(way.tenant)
        if route is not None and (at := route.open_at) and at != way.address:
            return replace(way, address=at)
        return _later("the tenant cannot be reached")

    def poke(self, tenant: str) -> None:
        """As `links.Door`."""
        route = self.table.routes.get(tenant)
        if route is not None and not route.is_open:
            self._waker.wake(tenant, "frame")

    def _asked(self, request: Request) -> Asked | None:
        """Whose the request is, if it may come in. Everything is looked at, whatever is wrong."""
        table, now = self.table, self._now()
        path, mark, query = request.target.partition(b"?")
        tenant, link, target = table.of_host(request.host), b"", request.target
        if named := _PATH.fullmatch(path):
            tenant, path = named[1].decode("ascii"), named[2] or b"/"
            if found := _LINK.fullmatch(path):
                link, path = found[1], found[2] or b"/"
            target = path + mark + query
        bearer = _BEARER.fullmatch(request.field(b"authorization") or b"")
        secret, cookie = bearer[1] if bearer else b"", _cookie(request)
        hook = self._hook(request, tenant, path)
        proofs = (
            ("token", table.opens(table.tokens, secret, tenant, now)),
            ("secret", table.is_secret(secret, tenant)),
            ("link", table.opens(table.links, link, tenant, now)),
            ("cookie", table.is_cookie(cookie, tenant, now) and _is_of_its_own_page(request)),
            ("hook", hook is not None),
        )
        by = next((name for name, proved in proofs if proved), None)
        holder = digest(b"\n".join((secret, link, cookie)))
        return Asked(tenant, target, by, hook if by == "hook" else None, holder) if by and tenant else None  # type: ignore[arg-type]

    def _hook(self, request: Request, tenant: str, path: bytes) -> Hook | None:
        route = self.table.routes.get(tenant)
        for hook in route.hooks if route else ():
            if path == hook.path or (path.startswith(hook.path.rstrip(b"/") + b"/") and not _ODD.search(path)):
                size = request.framing
                return hook if request.method in hook.methods and isinstance(size, int) and size <= hook.most else None
        return None

    def _way(self, request: Request, client: Client, asked: Asked, route: Route, at: tuple[str, int]) -> Way:
        fields = [(b"host", request.host)]
        for name, value in request.fields:
            if CLAIMED.fullmatch(name) or (name == b"authorization" and asked.by == "token"):
                continue
            if name == b"cookie" and (kept := _without_ours(value)) != value:
                if kept:
                    fields.append((name, kept))
                continue
            fields.append((name, value))
        if asked.by == "token" and route.secret:
            fields.append((b"authorization", b"Bearer " + route.secret))
        fields += forwarded(client.peer, request, self.table.proxies)
        traffic = self.traffic.setdefault(asked.tenant, Traffic())
        first = request.method + b" " + asked.target + b" HTTP/1.1"
        return Way(asked.tenant, at, first, tuple(fields), traffic, asked.holder)


def _cookie(request: Request) -> bytes:
    found = [
        value
        for name, text in request.fields
        if name == b"cookie"
        for key, _, value in (one.strip().partition(b"=") for one in text.split(b";"))
        if key == COOKIE
    ]
    return found[0] if len(found) == 1 else b""


def _is_of_its_own_page(request: Request) -> bool:
    """Whether a browser sends it for a page of this address, or opens it for a person.

    Pages of other tenants have names below the same domain, so browsers send the cookie with their requests too.
    """
    origin = request.field(b"origin")
    if origin is not None and origin.partition(b"://")[2].lower() != request.host.lower():
        return False
    if request.field(b"sec-fetch-site") in (None, b"same-origin", b"none"):
        return True
    opened = request.field(b"sec-fetch-mode") == b"navigate" and request.field(b"sec-fetch-dest") == b"document"
    return opened and request.method in (b"GET", b"HEAD")


def _without_ours(text: bytes) -> bytes:
    kept = [one for one in text.split(b";") if one.strip().partition(b"=")[0] != COOKIE]
    return b";".join(kept).strip()


def _later(why: str) -> Refusal:
    return _told(refused(503, why), AGAIN)


def _told(refusal: Refusal, again: int) -> Refusal:
    """With the seconds after which the client should come back."""
    return Refusal(refusal.status, (*refusal.fields, (b"retry-after", b"%d" % again)), refusal.content)


def _probed(route: Route) -> Refusal:
    """A look at a tenant that sleeps; it does not wake it."""
    fields = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"))
    return Refusal(b"200 OK", fields, b'{"status": "asleep", "state": "%s"}\n' % route.rung.encode())
