"""The API and the command line show the ways to tenants, and make addresses that admit one browser."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import parse_qs, urlsplit

import click
import pytest
from claw_runtime.api.idempotency import UNKEPT
from claw_runtime.cli import main as cli
from claw_runtime.ingress.addresses import addresses
from claw_runtime.router.control import table_of
from claw_runtime.router.table import digest
from claw_runtime.tenancy import TenantId
from fakes.faces import Api, runtime_of, serving
from fakes.router import FakeRouter, until
from fakes.world import WORKLOAD, World

ALICE = TenantId("alice")
FLAGS = {"ingress": "127.0.0.1:8080", "ingress_url": "https://claw.example"}
ROW = {"tenant": "alice", "requests": 1, "sockets": 2, "held": 0, "frame_age": None, "request_age": 5.0}


@pytest.fixture
def world() -> Iterator[World]:
    """One with a webhook and alice, in a short directory, since a socket's path is."""
    with TemporaryDirectory(prefix="r") as directory:
        made = World(Path(directory), workload=f"{WORKLOAD}ingress: {{webhooks: [{{path: /slack}}]}}\n")
        made.layout.run.mkdir(parents=True, exist_ok=True)
        made.tenants.claim(ALICE, "small")
        yield made
        made.close()


@pytest.fixture
def router(world: World) -> Iterator[FakeRouter]:
    made = FakeRouter(world.layout.router_socket)
    made.rows = lambda: [ROW]
    yield made
    made.close()


def test_without_a_router_the_answer_says_how_to_have_one(world: World) -> None:
    """An error with a setting, not an empty list."""
    api = Api(runtime_of(world))
    for said in (api.get("/api/v1/routes"), api.post("/api/v1/tenants/alice/open")):
        assert said.status_code == 409
        assert "CLAW_INGRESS" in said.json()["detail"] + str(said.json())
    assert api.get("/api/v1/tenants/alice").json()["url"] is None


def test_a_router_that_does_not_run_admits_nobody(world: World) -> None:
    """An address that leads nowhere is not given; the routes are known all the same."""
    api = Api(runtime_of(world, **FLAGS))
    assert api.post("/api/v1/tenants/alice/open").status_code == 409
    [route] = api.get("/api/v1/routes").json()
    assert (route["clients"], route["state"], route["webhooks"]) == (None, "active", ["/slack"])


def test_a_name_is_needed_for_pages(world: World) -> None:
    """Paths below one address would share cookies and storage between tenants."""
    api = Api(runtime_of(world, ingress="127.0.0.1:8080", ingress_url="http://192.0.2.1:8080"))
    said = api.post("/api/v1/tenants/alice/open")
    assert said.status_code == 409
    assert "CLAW_INGRESS_URL" in str(said.json())
    assert api.get("/api/v1/routes").json()[0]["url"] == "http://192.0.2.1:8080/~alice"


def test_its_answer_is_not_kept(world: World) -> None:
    """The ledger holds no ticket, whatever key a client sends."""
    assert UNKEPT.fullmatch("/api/v1/tenants/alice/open")
    assert not UNKEPT.fullmatch("/api/v1/tenants/alice/claim")
    del world


class TestServed:
    @pytest.fixture(autouse=True)
    def served(self, world: World, router: FakeRouter, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """A daemon with a router, which the command line finds."""
        for name in ("CLAW_CONFIG", "DISPLAY", "WAYLAND_DISPLAY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("CLAW_HOME", str(world.layout.home))
        monkeypatch.setenv("CLAW_RUN", str(world.layout.run))
        with serving(world) as runtime:
            chosen = replace(runtime.settings, ingress=("127.0.0.1", 8080), ingress_url="https://claw.example")
            runtime.ingress.addresses = addresses(chosen)
            threads = runtime.ingress.run(runtime.stopping)
            until(lambda: router.tables and runtime.ingress.link.activity("alice").sockets)
            yield
            runtime.stopping.set()
            router.close()
            for thread in threads:
                thread.join(10)

    def run(self, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main(list(words))
        told = capsys.readouterr()
        return int(ended.value.code or 0), told.out, told.err

    def test_the_address_has_a_ticket_that_the_router_knows(
        self, router: FakeRouter, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """By the time that a person can open it; and it stands alone on stdout."""
        code, out, err = self.run(capsys, "open", "alice")
        found = urlsplit(out.strip())
        assert (code, found.netloc, found.path) == (0, "alice.claw.example", "/_claw/enter")
        [ticket] = parse_qs(found.query)["ticket"]
        until(lambda: table_of(router.tables[-1]).tickets)
        assert list(table_of(router.tables[-1]).tickets) == [digest(ticket.encode())]
        assert ticket not in err

    def test_a_stranger_is_not_opened(self, capsys: pytest.CaptureFixture[str]) -> None:
        """A misspelt name gives no address."""
        code, out, err = self.run(capsys, "open", "alicf")
        assert (code, out, "no route" in err) == (10, "", True)

    def test_a_desktop_opens_it(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        """Only there, and not when a script asks."""
        opened: list[str] = []
        monkeypatch.setattr(click, "launch", opened.append)
        self.run(capsys, "open", "alice")
        assert opened == []
        monkeypatch.setenv("DISPLAY", ":0")
        self.run(capsys, "open", "alice", "--print")
        self.run(capsys, "open", "alice", "-o", "json")
        assert opened == []
        _, out, _ = self.run(capsys, "open", "alice")
        assert opened == [out.strip()]

    def test_routes_show_what_clients_do(self, capsys: pytest.CaptureFixture[str]) -> None:
        """In a table for people and as JSON for programs."""
        code, out, _ = self.run(capsys, "route", "list")
        assert code == 0
        assert [
            word for word in ("alice", "active", "https://alice.claw.example", "127.0.0.1:") if word not in out
        ] == []
        [route] = json.loads(self.run(capsys, "route", "list", "-o", "json")[1])
        assert route["clients"] == {"requests": 1, "sockets": 2, "held": 0, "frameAge": None, "requestAge": 5.0}

    def test_the_status_has_the_address(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Of one tenant and in the list."""
        assert "https://alice.claw.example" in self.run(capsys, "status", "alice")[1]
        [row] = json.loads(self.run(capsys, "status", "-o", "json")[1])
        assert row["url"] == "https://alice.claw.example"
