"""Daemon and router talk over their real socket: a request that waits gets its tenant, or a reason."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from claw_runtime.errors import EngineFailed
from claw_runtime.router import heads
from claw_runtime.router.control import Control
from claw_runtime.router.door import UNKNOWN, Gate
from claw_runtime.router.links import Client, Connections
from claw_runtime.router.ways import Decision, Refusal, Way
from claw_runtime.tenancy import TenantId
from fakes.ingress import Host
from fakes.router import until
from fakes.world import FROZEN, PARKED, WORKLOAD

ALICE = TenantId("alice")


class Router:
    """A real gate and its conversation, on an event loop in a thread; connections of clients are left out."""

    def __init__(self, path: Path, now: Callable[[], float]) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.control = Control()
        self.gate = self.control.gate = Gate(self.control, now)
        self._do(self.control.listen(path)).result(10)

    def _do(self, work: Coroutine[Any, Any, Any]) -> "Future[Any]":
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def ask(self, target: str, host: str = "alice.claw.example", **fields: str) -> "Future[Decision]":
        """What becomes of a request."""
        lines = [f"GET {target} HTTP/1.1", f"Host: {host}", *(f"{name}: {value}" for name, value in fields.items())]
        request = heads.request("\r\n".join([*lines, "", ""]).encode())

        async def decide() -> Decision:
            found = self.gate.decide(request, Client(self.gate, Connections()))
            return found if isinstance(found, Way | Refusal) else await found

        return self._do(decide())

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.control.close)
        self._do(asyncio.sleep(0.05)).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()


@pytest.fixture
def token(host: Host) -> str:
    """It opens alice, who was here."""
    host.tenants.claim(ALICE, "small")
    host.tenants.release(ALICE)
    return host.tokens.create("bot", "tenant", tenant="alice")[1].reveal()


@pytest.fixture
def router(host: Host, token: str) -> Iterator[Router]:
    del token
    made = joined(host)
    yield made
    host.link.close()
    made.close()


def joined(host: Host) -> Router:
    made = Router(host.layout.router_socket, host.clock.now)
    host.threads_of_it = host.ingress.run(host.stopping)
    until(lambda: made.gate.table.routes)
    return made


@pytest.mark.parametrize("workload", [FROZEN, PARKED, WORKLOAD], ids=("frozen", "parked", "cold"))
def test_a_request_for_a_sleeping_tenant_gets_its_way(directory: Path, workload: str) -> None:
    """It waits at the router while the daemon claims; the way leads to the new container's port."""
    host = Host(directory, workload)
    host.tenants.claim(ALICE, "small")
    host.tenants.release(ALICE)
    token = host.tokens.create("bot", "tenant", tenant="alice")[1].reveal()
    router = joined(host)

    way = router.ask("/a", authorization=f"Bearer {token}").result(20)

    row = host.ledger.tenant(ALICE)
    assert row is not None
    slot = host.ledger.slot(row.slot or "")
    assert slot is not None
    assert isinstance(way, Way)
    assert way.address == ("127.0.0.1", slot.port)
    host.link.close()
    router.close()
    host.close()


def test_without_a_credential_nobody_is_woken(host: Host, router: Router) -> None:
    """And a stranger learns nothing."""
    assert router.ask("/").result(20) == UNKNOWN
    assert router.ask("/", host="eve.claw.example").result(20) == UNKNOWN
    assert host.row_state("alice") == "cold"


def test_a_failed_wake_is_told_to_who_waits(host: Host, token: str, router: Router) -> None:
    """With the reason's name, and when to come back."""

    def failing(*_: object, **__: object) -> None:
        raise EngineFailed("podman broke")

    host.wakes._tenants.claim = failing  # type: ignore[method-assign, assignment]
    answer = router.ask("/", authorization=f"Bearer {token}").result(20)
    assert isinstance(answer, Refusal)
    assert answer.status.startswith(b"503")
    assert b"engine-failed" in answer.content
    assert (b"retry-after", b"2") in answer.fields


def test_who_comes_within_a_release_is_served_after_it(host: Host, token: str, router: Router) -> None:
    """No request reaches a program that ends, and none is lost."""
    host.tenants.claim(ALICE, "small")
    host.ingress.changed()
    until(lambda: router.gate.table.routes["alice"].is_open)
    real, waiting = host.engine.stop, []

    def stop(*args: Any, **named: Any) -> Any:
        waiting.append(router.ask("/", authorization=f"Bearer {token}"))
        until(lambda: router.gate.held["alice"])
        assert not waiting[0].done()
        return real(*args, **named)

    host.engine.stop = stop  # type: ignore[method-assign]
    host.tenants.release(ALICE)
    assert isinstance(waiting[0].result(20), Way)
    assert host.heard("alice").split().count("released") == 2


def test_a_new_token_opens_and_a_revoked_one_does_not(host: Host, router: Router) -> None:
    """As soon as the daemon has said so."""
    host.tenants.claim(ALICE, "small")
    _, text = host.tokens.create("phone", "link", tenant="alice")
    host.ingress.changed()
    target = f"/~alice/{text.reveal()}/a"
    until(lambda: isinstance(router.ask(target, host="claw.example").result(20), Way))
    host.tokens.revoke("phone")
    host.ingress.changed()
    until(lambda: router.ask(target, host="claw.example").result(20) == UNKNOWN)
    assert [row["tenant"] for row in host.routes.rows()] == ["alice"]  # the tenant is there; its token is not


def test_a_ticket_works_once_for_both_sides(host: Host, router: Router) -> None:
    """The daemon hears of its use and leaves it out of the next table."""
    url, _ = host.ingress.enter(ALICE)
    target = url.removeprefix("https://alice.claw.example")
    until(lambda: router.gate.table.tickets)
    answer = router.ask(target).result(20)
    assert isinstance(answer, Refusal)
    assert answer.status == b"303 See Other"
    until(lambda: not host.tickets.passes())
    assert router.ask(target).result(20) == UNKNOWN


def test_a_router_works_on_without_its_daemon(host: Host, token: str, router: Router) -> None:
    """By its last table; who has to wait gets the tenant when the next daemon is there."""
    host.link.close()
    host.stopping.set()
    for thread in host.threads_of_it:
        thread.join(10)
    waiting = router.ask("/", authorization=f"Bearer {token}")
    until(lambda: router.gate.held["alice"])
    host.stopping.clear()
    host.threads_of_it = host.ingress.run(host.stopping)
    assert isinstance(waiting.result(20), Way)
