"""The table names the tenants of this host, where they listen and what opens them, in the form the router reads."""

from pathlib import Path

import pytest
from claw_runtime.errors import InvalidSpec
from claw_runtime.ingress.tickets import LIFETIME, MOST, Tickets, cookie_key
from claw_runtime.router.control import table_of
from claw_runtime.router.table import Hook, Pass, digest
from claw_runtime.tenancy import TenantId
from fakes.clock import FakeClock
from fakes.ingress import Host
from fakes.world import FROZEN, PARKED, WORKLOAD

ALICE, BOB = TenantId("alice"), TenantId("bob")
SILENT = """id: small
image: localhost/small:dev
healthcheck: {test: [CMD, "true"]}
volumes: {state: {target: /state}}
"""


def test_an_active_tenant_has_the_address_of_its_port(host: Host) -> None:
    """Its program listens there, on loopback."""
    claim = host.tenants.claim(ALICE, "small")
    [row] = host.routes.rows()
    assert (row["tenant"], row["rung"], row["address"]) == ("alice", "active", ["127.0.0.1", claim.port])
    assert not row["fenced"]


@pytest.mark.parametrize(("workload", "rung"), [(FROZEN, "frozen"), (PARKED, "parked"), (WORKLOAD, "cold")])
def test_a_released_tenant_has_its_rung_and_no_address(directory: Path, workload: str, rung: str) -> None:
    """A frozen container's port still accepts, so its address would mislead."""
    host = Host(directory, workload)
    host.tenants.claim(ALICE, "small")
    host.tenants.release(ALICE)
    [row] = host.routes.rows()
    assert (row["rung"], row["address"]) == (rung, None)
    host.close()


def test_a_tenant_that_is_being_released_is_fenced(host: Host) -> None:
    """Also after a daemon died within the release: the next one finishes it first."""
    host.tenants.claim(ALICE, "small")
    host.ledger.become(ALICE, "releasing", host.clock.now(), step="commit")
    [row] = host.routes.rows()
    assert row["fenced"]


def test_a_workload_without_a_port_has_no_routes(directory: Path) -> None:
    """Nothing could be passed on to it."""
    host = Host(directory, SILENT)
    host.tenants.claim(ALICE, "small")
    assert host.routes.rows() == []
    host.close()


def test_the_router_reads_the_table(directory: Path) -> None:
    """What the daemon writes is what the router means."""
    hooks = "ingress: {webhooks: [{path: /slack, methods: [GET, POST], body: 1k, rate: 9}]}\n"
    host = Host(directory, WORKLOAD + hooks)
    claim = host.tenants.claim(ALICE, "small")
    _, token = host.tokens.create("bot", "tenant", tenant="alice", lifetime=60.0)
    host.tokens.create("dashboard", "admin")

    table = table_of(host.routes.table())

    route = table.routes["alice"]
    assert route.is_open
    assert route.address == ("127.0.0.1", claim.port)
    assert route.hooks == (Hook(path=b"/slack", methods=frozenset((b"GET", b"POST")), most=1024, rate=9),)
    sha256 = digest(token.reveal().encode())
    assert table.tokens == {sha256: Pass(tenant="alice", sha256=sha256, expires_at=host.clock.now() + 60.0)}
    assert (table.domain, table.key) == (b"claw.example", cookie_key(host.layout.ingress_key))
    host.close()


def test_expired_and_revoked_tokens_are_not_in_the_table(host: Host) -> None:
    """The router could not know of a revocation otherwise."""
    host.tokens.create("brief", "tenant", tenant="alice", lifetime=60.0)
    host.tokens.create("bot", "tenant", tenant="alice")
    assert len(host.routes.table()["tokens"]) == 2
    host.clock.advance(60.0)
    assert len(host.routes.table()["tokens"]) == 1
    host.tokens.revoke("bot")
    assert host.routes.table()["tokens"] == []


def test_only_digests_of_credentials_leave_the_daemon(host: Host) -> None:
    """A table in a core dump of the router opens nothing of the API."""
    _, token = host.tokens.create("bot", "tenant", tenant="alice")
    ticket, _ = host.tickets.create(ALICE)
    said = str(host.routes.table())
    assert token.reveal() not in said
    assert ticket.reveal() not in said


class TestTickets:
    def test_a_ticket_is_gone_after_its_use(self) -> None:
        """The router reports the digest of the one that it took."""
        tickets = Tickets(FakeClock())
        ticket, _ = tickets.create(ALICE)
        [row] = tickets.passes()
        assert (row["tenant"], row["sha256"]) == ("alice", digest(ticket.reveal().encode()))
        tickets.used(row["sha256"])
        assert tickets.passes() == []

    def test_a_ticket_expires(self) -> None:
        """An address in somebody's history opens nothing."""
        clock = FakeClock()
        tickets = Tickets(clock)
        tickets.create(ALICE)
        clock.advance(LIFETIME)
        assert tickets.passes() == []

    def test_their_number_is_bounded(self) -> None:
        """Of many, the oldest are dropped."""
        tickets = Tickets(FakeClock())
        for _ in range(MOST + 1):
            tickets.create(ALICE)
        newest, _ = tickets.create(BOB)
        assert len(tickets.passes()) == MOST
        assert tickets.passes()[-1]["sha256"] == digest(newest.reveal().encode())


class TestKey:
    def test_it_outlives_the_daemon_and_is_private(self, tmp_path: Path) -> None:
        """Sessions of browsers last when the daemon restarts."""
        path = tmp_path / "ingress.key"
        key = cookie_key(path)
        assert len(key) == 32
        assert cookie_key(path) == key
        assert path.stat().st_mode & 0o777 == 0o600

    def test_a_wider_mode_is_narrowed(self, tmp_path: Path) -> None:
        """Whoever reads it can sign a session."""
        path = tmp_path / "ingress.key"
        cookie_key(path)
        path.chmod(0o644)
        cookie_key(path)
        assert path.stat().st_mode & 0o777 == 0o600

    @pytest.mark.parametrize("text", ["", "00", "no hex", "é"])
    def test_what_is_no_key_is_refused(self, tmp_path: Path, text: str) -> None:
        """A short key would sign sessions that somebody can guess."""
        path = tmp_path / "ingress.key"
        path.write_text(text)
        with pytest.raises(InvalidSpec):
            cookie_key(path)
