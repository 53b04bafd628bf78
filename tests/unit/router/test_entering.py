"""A ticket lets one browser in, once; its cookie is good for pages of that tenant and for no other tenant's."""

from dataclasses import replace
from typing import Any, cast

import pytest
from claw_runtime.router import door, heads
from claw_runtime.router.control import table_of
from claw_runtime.router.door import UNKNOWN, Gate
from claw_runtime.router.entering import SESSION
from claw_runtime.router.links import Client, Connections
from claw_runtime.router.table import Hook, Pass, Route, Table, digest
from claw_runtime.router.ways import Refusal, Way

NOW = 1_000_000.0
TICKET, LATE, BOBS = b"T" * 43, b"L" * 43, b"B" * 43
ROUTES = {
    name: Route(
        tenant=name,
        rung="active",
        address=("127.0.0.1", 4000),
        secret=b"own/+ " + name.encode(),
        hooks=(Hook(path=b"/hook"),),
    )
    for name in ("alice", "bob")
}
TICKETS = (
    Pass(tenant="alice", sha256=digest(TICKET), expires_at=NOW + 1),
    Pass(tenant="alice", sha256=digest(LATE), expires_at=NOW),
    Pass(tenant="bob", sha256=digest(BOBS), expires_at=NOW + 1),
)
TABLE = Table(domain=b"claw.example", routes=ROUTES, tickets={one.sha256: one for one in TICKETS}, key=b"k" * 32)


class Waker:
    """Notes which tickets were used, and who is woken."""

    def __init__(self) -> None:
        self.tickets, self.woken = list[str](), list[str]()

    def wake(self, tenant: str, trigger: str) -> None:
        del trigger
        self.woken.append(tenant)

    def used(self, ticket: str) -> None:
        self.tickets.append(ticket)


def gate(table: Table = TABLE) -> tuple[Gate, Waker]:
    waker = Waker()
    made = Gate(cast("door.Waker", waker), lambda: NOW)
    made.update(table)
    return made, waker


def decided(made: Gate, target: str, host: str = "alice.claw.example", method: str = "GET", **fields: str) -> Any:
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    request = heads.request("\r\n".join([*lines, "", ""]).encode())
    return made.decide(request, Client(made, Connections()))


def enter(made: Gate, ticket: bytes = TICKET, **more: str) -> Any:
    return decided(made, f"/_claw/enter?ticket={ticket.decode()}", **more)


def fields(answer: Refusal) -> dict[bytes, bytes]:
    return dict(answer.fields)


def test_a_ticket_gives_a_cookie_and_leads_to_the_page(caplog: pytest.LogCaptureFixture) -> None:
    """With the program's own token where no server sees it; the cookie opens the tenant as long as it says."""
    made, waker = gate()
    answer = enter(made)
    assert answer.status == b"303 See Other"
    assert fields(answer)[b"location"] == b"/#token=own%2F%2B%20alice"
    assert fields(answer)[b"cache-control"] == b"no-store"
    name, _, rest = fields(answer)[b"set-cookie"].partition(b"=")
    value, *attributes = rest.split(b"; ")
    assert name == b"__Host-claw"
    assert {b"Path=/", b"Secure", b"HttpOnly", b"SameSite=Lax", b"Max-Age=%d" % SESSION} == set(attributes)
    assert TABLE.is_cookie(value, "alice", NOW + SESSION - 1)
    assert not TABLE.is_cookie(value, "alice", NOW + SESSION)
    assert isinstance(decided(made, "/", cookie=f"__Host-claw={value.decode()}"), Way)
    assert waker.tickets == [digest(TICKET)]
    assert TICKET.decode() not in caplog.text


def test_a_ticket_works_once() -> None:
    """Also before the daemon has heard of its use, and after it sent a table that still has it."""
    made, waker = gate()
    enter(made)
    assert enter(made) == UNKNOWN
    made.update(TABLE)
    assert enter(made) == UNKNOWN
    assert len(waker.tickets) == 1


def test_used_tickets_are_forgotten_with_the_table() -> None:
    """The router's memory does not grow with every visit."""
    made, _ = gate()
    enter(made)
    made.update(replace(TABLE, tickets={}))
    assert not made._entrance._used


def test_a_sleeping_tenant_is_not_woken_by_it() -> None:
    """The page that follows wakes it, which may take longer than a redirection should."""
    made, waker = gate(replace(TABLE, routes={"alice": Route(tenant="alice", rung="cold", secret=b"x")}))
    assert enter(made).status == b"303 See Other"
    assert waker.woken == []


def test_a_program_without_a_token_gets_none() -> None:
    """Its page is opened as it is."""
    made, _ = gate(replace(TABLE, routes={"alice": replace(ROUTES["alice"], secret=b"")}))
    assert fields(enter(made))[b"location"] == b"/"


REFUSED: dict[str, dict[str, Any]] = {
    "expired": {"ticket": LATE},
    "another tenant's": {"ticket": BOBS},
    "unknown": {"ticket": b"U" * 43},
    "short": {"ticket": b"T" * 42},
    "empty": {"ticket": b""},
    "on another tenant's name": {"host": "bob.claw.example"},
    "on the domain itself": {"host": "claw.example"},
    "on an unknown name": {"host": "eve.claw.example"},
    "by POST": {"method": "POST", "content_length": "0"},
    "by HEAD": {"method": "HEAD"},
}


@pytest.mark.parametrize("name", REFUSED)
def test_any_other_ticket_gets_the_one_answer(name: str) -> None:
    """As for an unknown tenant; and the right one still works."""
    made, waker = gate()
    assert enter(made, **REFUSED[name]) == UNKNOWN
    assert waker.tickets == []
    assert enter(made).status == b"303 See Other"


COOKIE = f"__Host-claw={TABLE.cookie('alice', int(NOW) + 9).decode()}"
PAGES = {
    "a page of its own": {"origin": "https://alice.claw.example", "sec_fetch_site": "same-origin"},
    "typed by a person": {"sec_fetch_site": "none", "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"},
    "a link elsewhere": {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"},
    "a browser that tells nothing": {},
}
FOREIGN: dict[str, dict[str, Any]] = {
    "another tenant's page": {"origin": "https://bob.claw.example"},
    "a page of nowhere": {"origin": "null"},
    "an image on another tenant's page": {"sec_fetch_site": "same-site", "sec_fetch_mode": "no-cors"},
    "a frame": {"sec_fetch_site": "same-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "iframe"},
    "a form": {
        "method": "POST",
        "content_length": "0",
        "sec_fetch_site": "same-site",
        "sec_fetch_mode": "navigate",
        "sec_fetch_dest": "document",
    },
    "a WebSocket of another tenant's page": {
        "origin": "https://bob.claw.example",
        "connection": "upgrade",
        "upgrade": "websocket",
        "sec_websocket_version": "13",
        "sec_websocket_key": "AAAAAAAAAAAAAAAAAAAAAA==",
    },
}


@pytest.mark.parametrize("name", PAGES)
def test_a_cookie_counts_for_pages_of_its_tenant(name: str) -> None:
    """And for a person that opens the address."""
    assert isinstance(decided(gate()[0], "/", cookie=COOKIE, **PAGES[name]), Way)


@pytest.mark.parametrize("name", FOREIGN)
def test_a_cookie_does_not_count_for_other_pages(name: str) -> None:
    """Tenants share a domain, so browsers send the cookie with what another tenant's page asks for."""
    assert decided(gate()[0], "/", cookie=COOKIE, **FOREIGN[name]) == UNKNOWN


@pytest.mark.parametrize("end", ["/../v1", "/%2e%2e/v1", "/a/..", "/.", "//v1", "/a%2f..%2fv1", "/a\\..\\v1", "/%252e"])
def test_a_webhook_opens_no_path_beside_it(end: str) -> None:
    """Programs read such paths in other ways, and no credential stands before them."""
    try:
        found = decided(gate()[0], f"/hook{end}", method="POST", content_length="0")
    except heads.BadHead:
        return
    assert found == UNKNOWN


@pytest.mark.parametrize("end", ["", "/", "/a", "/a.b/..c", "/%20x", "/a?b=../.."])
def test_a_webhook_opens_what_is_below_it(end: str) -> None:
    """Ordinary names, and whatever comes after the path."""
    assert isinstance(decided(gate()[0], f"/hook{end}", method="POST", content_length="0"), Way)


def test_the_daemon_may_send_no_tickets() -> None:
    """A table of before has none."""
    assert table_of({"domain": "", "routes": [], "tokens": [], "links": [], "key": ""}).tickets == {}
