"""Whose a request is, whether it may come in, and whether it is passed on, waits or is refused."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, cast

import pytest
from claw_runtime.router import door, heads
from claw_runtime.router.door import HELD, HELD_OF_TENANT, UNKNOWN, Gate
from claw_runtime.router.links import Client, Connections
from claw_runtime.router.table import Hook, Pass, Route, Table, digest
from claw_runtime.router.ways import Decision, Refusal, Way

NOW = 1_000_000.0
TOKEN, OTHER, LINK, OLD = b"claw_1", b"claw_2", b"cw_" + b"L" * 43, b"claw_3"


class Waker:
    """Notes who is woken."""

    def __init__(self) -> None:
        self.woken = list[tuple[str, str]]()

    def wake(self, tenant: str, trigger: str) -> None:
        self.woken.append((tenant, trigger))

    def used(self, ticket: str) -> None:
        """Nobody enters here by a ticket."""


def route(tenant: str, **more: Any) -> Route:
    given = {"rung": "active", "address": ("127.0.0.1", 4000), "secret": b"own-" + tenant.encode(), **more}
    return Route(tenant=tenant, **given)


def table(**routes: Route) -> Table:
    passes = [
        Pass(tenant="alice", sha256=digest(TOKEN)),
        Pass(tenant="bob", sha256=digest(OTHER)),
        Pass(tenant="alice", sha256=digest(OLD), expires_at=NOW - 1),
    ]
    link = Pass(tenant="alice", sha256=digest(LINK))
    known = {"alice": route("alice"), "bob": route("bob"), **routes}
    return Table(
        domain=b"claw.example",
        routes=known,
        tokens={one.sha256: one for one in passes},
        links={link.sha256: link},
        key=b"k" * 32,
    )


def gate(given: Table | None = None) -> tuple[Gate, Waker]:
    waker = Waker()
    made = Gate(cast("door.Waker", waker), lambda: NOW)
    made.update(given or table())
    return made, waker


def request(target: str = "/", host: str = "alice.claw.example", method: str = "GET", **fields: str) -> heads.Request:
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    return heads.request("\r\n".join([*lines, "", ""]).encode())


def decided(made: Gate, asked: heads.Request) -> Decision | Awaitable[Decision]:
    return made.decide(asked, Client(made, Connections()))


def way(made: Gate, asked: heads.Request) -> Way:
    found = decided(made, asked)
    assert isinstance(found, Way)
    return found


BEARER = f"Bearer {TOKEN.decode()}"
COMES_IN = {
    "a token by host": {"authorization": BEARER},
    "a token by path": {"target": "/~alice/a?b", "host": "127.0.0.1:8080", "authorization": BEARER},
    "the program's own token": {"authorization": "Bearer own-alice"},
    "a link": {"target": f"/~alice/{LINK.decode()}/a", "host": "localhost"},
    "a cookie": {"cookie": f"x=1; __Host-claw={table().cookie('alice', int(NOW) + 1).decode()}"},
}
STAYS_OUT = {
    "nothing": {},
    "another tenant's token": {"authorization": f"Bearer {OTHER.decode()}"},
    "another tenant's own token": {"authorization": "Bearer own-bob"},
    "an expired token": {"authorization": f"Bearer {OLD.decode()}"},
    "an unknown token": {"authorization": "Bearer claw_9"},
    "an empty token": {"authorization": "Bearer "},
    "another scheme": {"authorization": f"Basic {TOKEN.decode()}"},
    "two tokens": {"authorization": BEARER, "Authorization": BEARER},
    "an unknown host": {"host": "eve.claw.example", "authorization": BEARER},
    "a host of another domain": {"host": "alice.other.example", "authorization": BEARER},
    "a host below a tenant's": {"host": "x.alice.claw.example", "authorization": BEARER},
    "the domain itself": {"host": "claw.example", "authorization": BEARER},
    "a link of another tenant": {"target": f"/~bob/{LINK.decode()}/a"},
    "a link as a token": {"authorization": f"Bearer {LINK.decode()}"},
    "an expired cookie": {"cookie": f"__Host-claw={table().cookie('alice', int(NOW)).decode()}"},
    "another tenant's cookie": {"cookie": f"__Host-claw={table().cookie('bob', int(NOW) + 9).decode()}"},
    "a cookie with another date": {"cookie": f"__Host-claw=alice.9999999999.{'0' * 64}"},
    "two cookies": {
        "cookie": f"__Host-claw={table().cookie('alice', int(NOW) + 1).decode()}; __Host-claw=x",
    },
}


@pytest.mark.parametrize("name", COMES_IN)
def test_a_credential_opens_its_tenant(name: str) -> None:
    """Each kind of credential leads to alice, whose program sees the path without what named and opened her."""
    made, _ = gate()
    found = way(made, request(**COMES_IN[name]))
    assert found.tenant == "alice"
    assert found.first == (b"GET /a?b HTTP/1.1" if "?" in COMES_IN[name].get("target", "") else found.first)
    assert b"~alice" not in found.first
    assert LINK not in found.first


@pytest.mark.parametrize("state", ["active", "cold"])
@pytest.mark.parametrize("name", STAYS_OUT)
def test_everything_else_gets_one_answer(name: str, state: str) -> None:
    """Wrong tenants, tokens and hosts get the very same bytes, and wake nobody."""
    sleeping = route("alice", rung="cold", address=None)
    made, waker = gate(table(**({"alice": sleeping} if state == "cold" else {})))
    assert decided(made, request(**STAYS_OUT[name])) is UNKNOWN
    assert waker.woken == []


def test_the_router_s_credentials_stay_with_it() -> None:
    """A token is replaced by the program's own; claw's cookie goes, other cookies stay."""
    made, _ = gate()
    found = dict(way(made, request(authorization=BEARER)).fields)
    assert found[b"authorization"] == b"Bearer own-alice"
    cookie = table().cookie("alice", int(NOW) + 1).decode()
    found = dict(way(made, request(cookie=f"a=1; __Host-claw={cookie}; b=2")).fields)
    assert found[b"cookie"] == b"a=1; b=2"
    assert b"authorization" not in found
    assert b"cookie" not in dict(way(made, request(cookie=f"__Host-claw={cookie}")).fields)


def test_what_others_said_about_the_client_is_dropped() -> None:
    """Fields by which proxies name clients and users are the router's own."""
    made, _ = gate()
    names = {
        "x_forwarded_for": "1.2.3.4",
        "x_real_ip": "1.2.3.4",
        "forwarded": "for=1.2.3.4",
        "x_forwarded_user": "root",
    }
    found = way(made, request(authorization=BEARER, tailscale_user_login="root", **names))
    assert not [value for _, value in found.fields if b"1.2.3.4" in value or value == b"root"]


def test_a_hook_needs_no_credential_but_stays_within_its_bounds() -> None:
    """Its path and what is below, its methods, and bodies up to its limit."""
    hooked = route("alice", hooks=(Hook(path=b"/hooks/matrix", most=10),))
    made, _ = gate(table(alice=hooked))
    assert way(made, request("/hooks/matrix", method="POST", content_length="10")).tenant == "alice"
    assert way(made, request("/hooks/matrix/a?b", method="POST")).tenant == "alice"
    for wrong in (
        request("/hooks/matrix", method="POST", content_length="11"),
        request("/hooks/matrix", method="POST", transfer_encoding="chunked"),
        request("/hooks/matrix", method="GET"),
        request("/hooks/matrixx", method="POST"),
        request("/hooks/matrix", host="bob.claw.example", method="POST"),
    ):
        assert decided(made, wrong) is UNKNOWN


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


ASLEEP = {"rung": "cold", "address": None}


def test_a_request_waits_for_its_tenant() -> None:
    """It wakes its tenant once, and is passed on when the table has it."""

    async def test() -> None:
        made, waker = gate(table(alice=route("alice", **ASLEEP)))
        waiting = asyncio.ensure_future(
            cast("Coroutine[Any, Any, Decision]", decided(made, request(authorization=BEARER)))
        )
        await asyncio.sleep(0)
        assert waker.woken == [("alice", "http")]
        made.update(table(alice=route("alice", rung="active", fenced=True)))
        await asyncio.sleep(0)
        assert not waiting.done()
        made.update(table())
        found = await waiting
        assert isinstance(found, Way)
        assert not made.held

    run(test)


def test_a_tenant_that_was_there_for_a_moment_is_asked_for_again() -> None:
    """Awake and held again before the request could go on: the daemon did what it was asked for, and waits."""

    async def test() -> None:
        made, waker = gate(table(alice=route("alice", **ASLEEP)))
        waiting = asyncio.ensure_future(
            cast("Coroutine[Any, Any, Decision]", decided(made, request(authorization=BEARER)))
        )
        await asyncio.sleep(0)
        made.update(table())
        made.update(table(alice=route("alice", fenced=True)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert waker.woken == [("alice", "http")] * 2
        made.update(table())
        assert isinstance(await waiting, Way)

    run(test)


def test_a_wake_that_fails_refuses_those_that_wait() -> None:
    """They get its reason and when to come back; the next one tries again."""

    async def test() -> None:
        made, waker = gate(table(alice=route("alice", **ASLEEP)))
        for number in (1, 2):
            waiting = asyncio.ensure_future(
                cast("Coroutine[Any, Any, Decision]", decided(made, request(authorization=BEARER)))
            )
            await asyncio.sleep(0)
            assert len(waker.woken) == number
            made.failed("alice", "restore-failed", 4.2)
            found = await waiting
            assert isinstance(found, Refusal)
            assert found.status.startswith(b"503 ")
            assert (b"retry-after", b"4") in found.fields

    run(test)


def test_only_so_many_requests_wait() -> None:
    """Beyond a tenant's share, and beyond that of all, they are refused at once."""

    async def test() -> None:
        names = [f"t{number}" for number in range(HELD // HELD_OF_TENANT + 1)]
        known = table(**{name: route(name, **ASLEEP) for name in names})
        made, _ = gate(known)
        tasks = []
        for name in names[:-1]:
            asked = request(host=f"{name}.claw.example", authorization=f"Bearer own-{name}")
            for _ in range(HELD_OF_TENANT):
                tasks.append(asyncio.ensure_future(cast("Coroutine[Any, Any, Decision]", decided(made, asked))))
            await asyncio.sleep(0)
            found = decided(made, asked)
            assert isinstance(found, Refusal)
            assert found.status.startswith(b"503 ")
        last = request(host=f"{names[-1]}.claw.example", authorization=f"Bearer own-{names[-1]}")
        assert isinstance(decided(made, last), Refusal)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert not made.held

    run(test)


@pytest.mark.parametrize("path", ["/healthz", "/readyz?x=1"])
def test_a_probe_wakes_nobody(path: str) -> None:
    """The router answers for a tenant that sleeps, to those who may know of it."""
    made, waker = gate(table(alice=route("alice", rung="frozen")))
    found = decided(made, request(path, authorization=BEARER))
    assert isinstance(found, Refusal)
    assert found.status == b"200 OK"
    assert b"frozen" in found.content
    assert waker.woken == []


def test_a_hook_has_its_rate() -> None:
    """Each path for itself: beyond the requests of a minute it is refused, and told when to come back."""
    hooks = (Hook(path=b"/a", rate=2), Hook(path=b"/b", rate=1))
    now = [NOW]
    made = Gate(cast("door.Waker", Waker()), lambda: now[0])
    made.update(table(alice=route("alice", hooks=hooks)))
    for path in ("/a", "/a/x", "/b"):
        assert isinstance(decided(made, request(path, method="POST")), Way)
    found = decided(made, request("/a", method="POST"))
    assert isinstance(found, Refusal)
    assert found.status == b"429 Too Many Requests"
    assert (b"retry-after", b"30") in found.fields
    assert isinstance(decided(made, request("/a", method="POST", authorization=BEARER)), Way)
    now[0] += 30
    assert isinstance(decided(made, request("/a", method="POST")), Way)
    now[0] -= 3600
    assert isinstance(decided(made, request("/a", method="POST")), Refusal)
    made.update(table(alice=route("alice", hooks=hooks)))
    assert isinstance(decided(made, request("/a", method="POST")), Refusal)


PERSON = {"sec_fetch_mode": "navigate", "accept": "text/html,*/*"}


def test_a_person_sees_a_page_while_the_tenant_starts() -> None:
    """It loads itself again without a script, wakes the tenant, and says why a tenant does not start."""
    made, waker = gate(table(alice=route("alice", **ASLEEP)))
    found = decided(made, request(authorization=BEARER, **PERSON))
    assert isinstance(found, Refusal)
    assert found.status == b"503 Service Unavailable"
    assert b'<meta http-equiv="refresh" content="2">' in found.content
    assert dict(found.fields)[b"cache-control"] == b"no-store"
    assert waker.woken == [("alice", "http")]
    made.failed("alice", "restore-failed: <b>", 7.0)
    found = decided(made, request(authorization=BEARER, **PERSON))
    assert isinstance(found, Refusal)
    assert b'content="7"' in found.content
    assert b"restore-failed: &lt;b&gt;" in found.content
    assert b"<script" not in found.content


@pytest.mark.parametrize(
    ("method", "fields", "rung"),
    [
        ("GET", {"accept": "text/html"}, "cold"),
        ("GET", {"sec_fetch_mode": "navigate", "accept": "application/json"}, "cold"),
        ("POST", PERSON, "cold"),
        ("GET", PERSON, "frozen"),
    ],
)
def test_programs_and_quick_wakes_get_no_page(method: str, fields: dict[str, str], rung: str) -> None:
    """They wait: a frozen tenant is there in milliseconds, and a program reads no page."""

    async def test() -> None:
        made, _ = gate(table(alice=route("alice", rung=rung, address=None)))
        waiting = asyncio.ensure_future(
            cast("Coroutine[Any, Any, Decision]", decided(made, request(method=method, authorization=BEARER, **fields)))
        )
        await asyncio.sleep(0)
        assert made.held["alice"] == 1
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)

    run(test)


SOCKET = {"connection": "Upgrade", "upgrade": "websocket", "sec_websocket_key": "x"}


def test_a_socket_that_was_there_before_does_not_wake_its_tenant_again() -> None:
    """Clients connect again by themselves. Another holder, a request, or a tenant that comes back is let in."""

    async def asked(made: Gate, **fields: str) -> Decision | None:
        task = asyncio.ensure_future(cast("Coroutine[Any, Any, Decision]", decided(made, request(**fields))))
        await asyncio.sleep(0)
        found = task.result() if task.done() else None
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return found

    async def test() -> None:
        made, waker = gate()
        opened = way(made, request(authorization=BEARER, **SOCKET))
        opened.traffic.sockets, opened.traffic.holders[opened.holder] = 1, 1
        made.update(table(alice=route("alice", fenced=True)))
        found = await asked(made, authorization=BEARER, **SOCKET)
        assert (found, waker.woken) == (None, [])
        opened.traffic.sockets = 0
        opened.traffic.holders.clear()
        made.update(table(alice=route("alice", **ASLEEP)))
        found = await asked(made, authorization=BEARER, **SOCKET)
        assert isinstance(found, Refusal)
        assert (b"retry-after", b"2") in found.fields
        assert waker.woken == []
        await asked(made, authorization="Bearer own-alice", **SOCKET)
        assert waker.woken == [("alice", "ws")]
        await asked(made, authorization=BEARER)
        assert waker.woken == [("alice", "ws"), ("alice", "http")]
        made.update(table())
        made.update(table(alice=route("alice", **ASLEEP)))
        await asked(made, authorization=BEARER, **SOCKET)
        assert len(waker.woken) == 3

    run(test)


def test_a_probe_by_path_wakes_nobody() -> None:
    """What names the tenant is no part of the probe's path."""
    made, waker = gate(table(alice=route("alice", rung="parked", address=None)))
    found = decided(made, request("/~alice/healthz", host="127.0.0.1", authorization=BEARER))
    assert isinstance(found, Refusal)
    assert (found.status, waker.woken) == (b"200 OK", [])
