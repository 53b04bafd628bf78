"""Who may ask the API: a socket for its owner, a token over TCP, and nothing that a web page could make (threat T12).

Each control has a test that fails when the control is taken away.
"""

import asyncio
import hashlib
import os
import signal
import socket
import stat
from pathlib import Path
from typing import Any

import httpx
import pytest
from claw_runtime.api import server
from claw_runtime.api.app import create_app
from claw_runtime.api.guard import BODY_MOST, hosts_of
from claw_runtime.cli import main as cli
from claw_runtime.daemon.assembly import Runtime
from claw_runtime.db.tokens import SqliteTokens
from claw_runtime.errors import InvalidSpec, PortTaken
from claw_runtime.logs import mask
from claw_runtime.ports import TokenRow
from fakes.faces import Api, listening, runtime_of
from fakes.world import World
from structlog.testing import capture_logs

TENANTS = "/api/v1/tenants"
CLAIM = f"{TENANTS}/alice/claim"


@pytest.fixture
def runtime(world: World) -> Runtime:
    return runtime_of(
        world, listen="127.0.0.1:7070", allow_hosts="api.example.org", allow_origins="https://console.example.org"
    )


@pytest.fixture
def admin(runtime: Runtime) -> str:
    """The text of a token for everything."""
    return runtime.tokens.create("admin", "admin")[1].reveal()


@pytest.fixture
def alices(runtime: Runtime) -> str:
    """The text of a token for alice."""
    return runtime.tokens.create("alices", "tenant", tenant="alice")[1].reveal()


@pytest.fixture
def tcp(runtime: Runtime) -> Api:
    return Api(runtime, local=False)


@pytest.fixture
def local(runtime: Runtime) -> Api:
    return Api(runtime)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def refused(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The problem, which must be of that status."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    body: dict[str, Any] = answer.json()
    return body


class TestSocket:
    def test_only_its_owner_can_open_it(self, tmp_path: Path) -> None:
        """The socket has mode 0600 whatever the umask, and a stale one is replaced."""
        before = os.umask(0)
        try:
            for _ in range(2):
                listener = server.listen_at(tmp_path / "api.sock")
                mode = (tmp_path / "api.sock").stat().st_mode
                listener.close()
        finally:
            os.umask(before)

        assert (stat.S_ISSOCK(mode), stat.S_IMODE(mode)) == (True, 0o600)

    def test_its_user_may_do_everything(self, local: Api) -> None:
        """No token is asked for there, also for making tokens."""
        assert local.get("/livez").status_code == 200
        assert local.post("/api/v1/tokens", json={"name": "x", "scope": "admin"}).status_code == 201

    @pytest.mark.parametrize("place", [("/other.sock", None), ("", None), None, ("127.0.0.1", 0), ("127.0.0.1", None)])
    def test_nothing_else_counts_as_it(self, runtime: Runtime, place: object) -> None:
        """A connection that came through anything but this very socket needs a token."""
        guarded = create_app(runtime)

        async def elsewhere(scope: Any, receive: Any, send: Any) -> None:
            await guarded({**scope, "server": place}, receive, send)

        api = Api(runtime, local=False)
        api._transport = httpx.ASGITransport(elsewhere)

        refused(api.get("/livez"), 401)


class TestToken:
    PATHS = (
        "/livez",
        "/readyz",
        "/openapi.json",
        TENANTS,
        f"{TENANTS}/alice/status",
        "/api/v1/pools",
        "/",
        "/t/",
        "/t",
    )

    @pytest.mark.parametrize("path", PATHS)
    def test_nothing_is_told_without_one(self, tcp: Api, path: str) -> None:
        """Every address over TCP is 401 without a token, also those that are none."""
        answer = tcp.get(path)

        refused(answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer"

    def test_nothing_is_done_without_one(self, tcp: Api, world: World) -> None:
        """A claim without a token is refused before anything is looked at."""
        refused(tcp.post(CLAIM, json={}), 401)
        refused(tcp.post(CLAIM, content=b"{", headers={"content-type": "text/plain"}), 401)

        assert world.ledger.tenants() == []

    def test_a_bearer_token_opens(self, tcp: Api, admin: str) -> None:
        """As a header, in whatever case the scheme is written."""
        for header in (f"Bearer {admin}", f"bearer {admin}", f"BEARER  {admin}"):
            assert tcp.get(TENANTS, headers={"Authorization": header}).status_code == 200

    def test_the_beginning_of_the_path_opens(self, tcp: Api, admin: str) -> None:
        """A client that knows only a base URL needs no header."""
        assert tcp.get(f"/t/{admin}{TENANTS}").json() == []
        assert tcp.post(f"/t/{admin}{CLAIM}", json={"poolId": "small"}).status_code == 200
        assert tcp.get(f"/t/{admin}{TENANTS}/alice/status").json()["status"] == "warm"

    @pytest.mark.parametrize(
        "header", ["", "Bearer", "Bearer ", "Basic {}", "{}", "Token {}", "Bearer {}x", "Bearer x{}", "Bearer {} {}"]
    )
    def test_other_headers_do_not(self, tcp: Api, admin: str, header: str) -> None:
        """Another scheme, a token with something beside it, none at all."""
        refused(tcp.get(TENANTS, headers={"Authorization": header.replace("{}", admin)}), 401)

    def test_two_headers_do_not(self, tcp: Api, admin: str) -> None:
        """Nobody chooses between two."""
        refused(tcp.get(TENANTS, headers=[("Authorization", f"Bearer {admin}"), ("Authorization", "Bearer x")]), 401)

    @pytest.mark.parametrize("where", ["?token={}", "?access_token={}"])
    def test_a_query_does_not(self, tcp: Api, admin: str, where: str) -> None:
        """A token is never taken from where proxies write it into their logs as a matter of course."""
        refused(tcp.get(TENANTS + where.replace("{}", admin)), 401)

    def test_a_cookie_does_not(self, tcp: Api, admin: str) -> None:
        """A browser has nothing to send along by itself."""
        refused(tcp.get(TENANTS, headers={"Cookie": f"token={admin}"}), 401)

    def test_a_revoked_one_does_not(self, tcp: Api, runtime: Runtime, admin: str) -> None:
        """At once, also on a connection that is open."""
        assert tcp.get(TENANTS, headers=bearer(admin)).status_code == 200

        runtime.tokens.revoke("admin")

        refused(tcp.get(TENANTS, headers=bearer(admin)), 401)

    def test_no_log_and_no_answer_repeats_it(self, tcp: Api, admin: str, world: World) -> None:
        """Neither the token nor a wrong one in its place is in any line of the log or any problem."""
        wrong = "claw_deadbeef_" + "W" * 43
        told = []
        with capture_logs() as logged:
            for text in (admin, wrong):
                told.append(tcp.get(f"/t/{text}/nowhere").text)
                told.append(tcp.post(f"/t/{text}{TENANTS}/BAD/claim", json={}).text)
                told.append(tcp.get(f"/t/{text}{TENANTS}/bob/files").text)
                told.append(tcp.get("/nowhere", headers=bearer(text)).text)
            world.engine.fail("start", ZeroDivisionError("oops"))
            told.append(tcp.post(f"/t/{admin}{CLAIM}", json={}).text)

        assert logged
        assert not any(text[-43:] in f"{told} {logged}" for text in (admin, wrong))

    def test_a_token_that_was_shown_is_masked_wherever_it_turns_up(self, world: World) -> None:
        """Also one that was made under an earlier daemon: from its first use on no log line can hold it."""
        text = "claw_0badcafe_" + "T" * 43
        digest = hashlib.sha256(text.encode()).hexdigest()
        row = TokenRow(id="0badcafe", name="old", sha256=digest, scope="admin", tenant=None, made_at=1.0)
        SqliteTokens(world.ledger.database).add(row)

        assert Api(runtime_of(world, listen="127.0.0.1:1"), local=False).get(f"/t/{text}/livez").status_code == 200

        assert text not in mask(f"something says {text}")


class TestScope:
    OWN = (
        ("GET", ""),
        ("GET", "/status"),
        ("POST", "/claim"),
        ("POST", "/sync"),
        ("POST", "/release"),
        ("GET", "/files"),
    )
    OTHERS = (
        ("GET", TENANTS),
        ("GET", f"{TENANTS}/"),
        ("GET", f"{TENANTS}/bob"),
        ("GET", f"{TENANTS}/alice2/status"),
        ("GET", f"{TENANTS}/alic/status"),
        ("POST", f"{TENANTS}/bob/claim"),
        ("POST", f"{TENANTS}/bob/release"),
        ("POST", f"{TENANTS}/alice%2F..%2Fbob/claim"),
        ("GET", f"{TENANTS}/bob/files/alice"),
        ("GET", f"{TENANTS}/bob/logs"),
        ("GET", "/api/v1/pools"),
        ("POST", "/api/v1/pools"),
        ("POST", "/api/v1/pools/small/drain"),
        ("DELETE", "/api/v1/pools/small"),
        ("GET", "/api/v1/workloads/small"),
        ("PUT", "/api/v1/workloads/small"),
        ("GET", "/api/v1/activity?tenant=alice"),
        ("GET", "/readyz"),
        ("GET", "/openapi.json"),
        ("GET", "/api/v1/tokens"),
        ("POST", "/api/v1/tokens"),
        ("DELETE", "/api/v1/tokens/admin"),
        ("GET", "/api/v1/something-new"),
    )

    def test_a_tenants_token_does_all_of_its_own(self, tcp: Api, alices: str) -> None:
        """Claim, look, sync, release, and read the state of the one tenant that it is for."""
        done = [
            tcp.request(method, f"{TENANTS}/alice{rest}", headers=bearer(alices), json={} if method == "POST" else None)
            for method, rest in self.OWN[2:]
        ]

        assert [answer.status_code for answer in done[:3]] == [200, 200, 200]
        for method, rest in self.OWN[:2]:
            assert tcp.request(method, f"{TENANTS}/alice{rest}", headers=bearer(alices)).status_code == 200
        assert tcp.get("/livez", headers=bearer(alices)).status_code == 200

    @pytest.mark.parametrize(("method", "path"), OTHERS)
    def test_and_nothing_else(self, tcp: Api, alices: str, world: World, method: str, path: str) -> None:
        """Other tenants, pools, workloads, activity, tokens, and whatever is yet to be written, are 403."""
        answer = tcp.request(method, path, headers=bearer(alices), json={} if method != "GET" else None)

        # A slash inside an id is no part of an address of its own tenant's either, and finds nothing there.
        if "%2F" in path:
            assert answer.status_code in (403, 404, 422)
        else:
            refused(answer, 403)
        assert world.ledger.tenants() == []

    def test_it_takes_nothing_from_another_runtime(self, tcp: Api, alices: str) -> None:
        """To fence another host is an operator's decision."""
        refused(tcp.post(CLAIM, json={"takeOver": True}, headers=bearer(alices)), 403)

    @pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
    def test_no_token_makes_tokens(self, tcp: Api, admin: str, method: str) -> None:
        """A stolen admin token cannot make itself a successor, nor see or revoke the others."""
        path = "/api/v1/tokens" + ("/admin" if method == "DELETE" else "")

        body = {"name": "next", "scope": "admin"} if method == "POST" else None

        refused(tcp.request(method, path, json=body, headers=bearer(admin)), 403)


class TestHost:
    @pytest.mark.parametrize(
        "host", ["127.0.0.1:7070", "127.0.0.1", "localhost:1", "[::1]:7070", "LOCALHOST", "api.example.org"]
    )
    def test_our_names_are_answered(self, tcp: Api, admin: str, host: str) -> None:
        """Loopback by any of its names, and what the operator allows; a port says nothing, proxies change it."""
        assert tcp.get("/livez", headers={**bearer(admin), "Host": host}).status_code == 200

    @pytest.mark.parametrize(
        "host",
        [
            "evil.example.org",
            "localhost.evil.org",
            "127.0.0.1.evil.org",
            "evil.org:7070",
            "",
            "api.example.org.",
            "127.0.0.1@evil.org",
            "a b",
            "0.0.0.0",
            "[::1",
            "127.0.0.1:x",
        ],
    )
    def test_other_names_are_refused(self, tcp: Api, admin: str, host: str) -> None:
        """A page that made its own name mean 127.0.0.1 (DNS rebinding) sends that name, and is refused."""
        refused(tcp.get("/livez", headers={**bearer(admin), "Host": host}), 403)

    def test_two_hosts_are_refused(self, tcp: Api, admin: str) -> None:
        """Nobody chooses between two."""
        headers = [("Host", "127.0.0.1"), ("Host", "evil.org"), ("Authorization", f"Bearer {admin}")]

        refused(tcp.get("/livez", headers=headers), 403)

    @pytest.mark.parametrize(
        ("listen", "expected"),
        [
            (("127.0.0.1", 1), {"127.0.0.1", "localhost", "::1", "a"}),
            (("::1", 1), {"127.0.0.1", "localhost", "::1", "a"}),
            (("192.0.2.7", 1), {"192.0.2.7", "a"}),
            (("0.0.0.0", 1), {"127.0.0.1", "localhost", "::1", "a"}),
            (None, {"a"}),
        ],
    )
    def test_names_of_an_address(self, listen: tuple[str, int] | None, expected: set[str]) -> None:
        """An address that other machines reach is not called localhost; all addresses together have no name."""
        assert hosts_of(listen, ["a"]) == expected


class TestOrigin:
    @pytest.mark.parametrize("origin", ["https://evil.example.org", "null", "http://127.0.0.1:7070", "file://", ""])
    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_a_foreign_page_is_refused(self, tcp: Api, local: Api, admin: str, origin: str, method: str) -> None:
        """A request that a browser made for a page is refused, with a good token and on the socket alike."""
        for api in (tcp, local):
            headers = {**bearer(admin), "Origin": origin}
            body = {} if method == "POST" else None
            refused(
                api.request(
                    method, f"{TENANTS}/alice/{'claim' if body == {} else 'status'}", headers=headers, json=body
                ),
                403,
            )

    def test_an_allowed_one_is_not(self, tcp: Api, admin: str) -> None:
        """The operator's own console may ask, with a token."""
        page = {"Origin": "https://console.example.org"}

        assert tcp.get(TENANTS, headers={**bearer(admin), **page}).status_code == 200
        refused(tcp.get(TENANTS, headers=page), 401)

    def test_no_page_may_read(self, tcp: Api, admin: str) -> None:
        """There is no CORS: no answer, also not to a preflight, invites another origin."""
        page = {"Origin": "https://console.example.org", "Access-Control-Request-Method": "POST"}
        answers = [tcp.get(TENANTS, headers={**bearer(admin), **page}), tcp.request("OPTIONS", CLAIM, headers=page)]

        assert not any(name.startswith("access-control-") for answer in answers for name in answer.headers)
        assert answers[1].status_code == 401

    def test_answers_are_neither_kept_nor_guessed_at(self, tcp: Api, admin: str) -> None:
        """No cache keeps an answer, no browser takes it for a page, no link tells the address that holds a token."""
        for answer in (tcp.get(TENANTS, headers=bearer(admin)), tcp.get(TENANTS)):
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"


class TestForm:
    KINDS = (
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "",
        "text/json",
        "application/jsonx",
        "application/json; charset=utf-7",
        "application/json, text/plain",
    )

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("body", [b"{}", b""])
    def test_json_only(self, local: Api, world: World, kind: str, body: bytes) -> None:
        """What a form or a page could send without asking is 415, also without a body, and nothing is done."""
        refused(local.post(CLAIM, content=body, headers={"content-type": kind}), 415)
        assert world.ledger.tenants() == []

    def test_a_body_without_a_type_is_refused(self, local: Api) -> None:
        """JSON that is not called JSON is not read as JSON."""
        refused(local.post(CLAIM, content=b"{}"), 415)

    @pytest.mark.parametrize(
        "kind", ["application/json", "application/json; charset=utf-8", "Application/JSON;charset=UTF-8"]
    )
    def test_json_in_every_spelling(self, local: Api, kind: str) -> None:
        """Case and a charset of UTF-8 do no harm."""
        assert local.post(CLAIM, content=b"{}", headers={"content-type": kind}).status_code == 200

    def test_no_body_needs_no_type(self, local: Api) -> None:
        """Where nothing needs to be said, nothing need be sent."""
        assert local.post(CLAIM).status_code == 200
        assert local.post(f"{TENANTS}/alice/release").status_code == 200

    @pytest.mark.parametrize("announced", [True, False])
    def test_a_long_body_is_refused(self, local: Api, announced: bool) -> None:
        """More than a megabyte is 413, whether its length is announced or found out."""
        body = b'{"metadata": {"a": "' + b"x" * BODY_MOST + b'"}}'

        def pieces() -> Any:
            async def told() -> Any:
                for start in range(0, len(body), 1 << 16):
                    yield body[start : start + (1 << 16)]

            return told()

        headers = {"content-type": "application/json"}

        refused(local.post(CLAIM, content=body if announced else pieces(), headers=headers), 413)

    def test_an_endless_body_is_not_read_to_its_end(self, runtime: Runtime) -> None:
        """The API stops reading soon after the limit."""
        read = 0

        async def receive() -> dict[str, Any]:
            nonlocal read
            read += 1 << 16
            return {"type": "http.request", "body": b"x" * (1 << 16), "more_body": True}

        async def send(_message: object) -> None:
            pass

        scope = {
            "type": "http",
            "method": "POST",
            "path": CLAIM,
            "raw_path": CLAIM.encode(),
            "query_string": b"",
            "headers": [(b"content-type", b"application/json")],
            "server": (str(runtime.settings.layout.api_socket), None),
        }
        asyncio.run(create_app(runtime)(scope, receive, send))  # type: ignore[arg-type]

        assert read <= BODY_MOST + (1 << 17)


class TestListening:
    def test_over_real_sockets(self, world: World) -> None:
        """The Unix socket needs no token, TCP does, and they are one API."""
        with listening(world) as (runtime, url):
            text = runtime.tokens.create("x", "admin")[1].reveal()
            path = str(runtime.settings.layout.api_socket)
            with httpx.Client(transport=httpx.HTTPTransport(uds=path), base_url="http://claw") as near:
                assert near.get("/api/v1/tenants").json() == []
            assert httpx.get(f"{url}/livez").status_code == 401
            assert httpx.get(f"{url}/livez", headers=bearer(text)).status_code == 200
            assert httpx.get(f"{url}/t/{text}/livez").json()["status"] == "ok"

    def test_a_proxys_headers_change_nothing(self, world: World) -> None:
        """Nobody becomes local by saying so."""
        with listening(world) as (runtime, url):
            path = str(runtime.settings.layout.api_socket)
            headers = {"X-Forwarded-For": path, "X-Forwarded-Host": path, "Forwarded": f"for={path}"}

            assert httpx.get(f"{url}/livez", headers=headers).status_code == 401

    @pytest.mark.parametrize("address", [("0.0.0.0", 7070), ("192.0.2.1", 7070), ("::", 7070)])
    def test_other_machines_only_when_said_so(self, address: tuple[str, int]) -> None:
        """An address beyond loopback needs a flag of its own, and the refusal says what is at stake."""
        with pytest.raises(InvalidSpec, match="reached from other machines") as caught:
            server.check_reach(address, expose=False)

        assert "--expose" in caught.value.hint
        server.check_reach(address, expose=True)

    def test_up_asks_before_anything_is_made(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """`up` on an address beyond loopback ends at once, however the address was given."""
        monkeypatch.setenv("CLAW_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("CLAW_RUN", str(tmp_path / "run"))
        before = signal.getsignal(signal.SIGTERM)
        try:
            for words, variable in ((["up", "--listen", "0.0.0.0:0"], ""), (["up"], "[::]:0")):
                monkeypatch.setenv("CLAW_LISTEN", variable)
                with pytest.raises(SystemExit) as ended:
                    cli.main(words)
                assert (ended.value.code, "--expose" in capsys.readouterr().err) == (16, True)
        finally:
            signal.signal(signal.SIGTERM, before)

        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("address", [("127.0.0.1", 1), ("127.9.9.9", 1), ("::1", 1), None])
    def test_loopback_needs_no_flag(self, address: tuple[str, int] | None) -> None:
        """Every address of loopback, and none at all, is fine."""
        assert server.check_reach(address, expose=False) is None  # type: ignore[func-returns-value]

    def test_a_taken_port_is_told(self) -> None:
        """An address that another process has is an error with a code of its own."""
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()

            with pytest.raises(PortTaken, match="cannot listen"):
                server.listen_on(other.getsockname())
