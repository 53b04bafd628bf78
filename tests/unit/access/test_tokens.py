"""Tokens: their text is shown once and kept nowhere, and opens what it is for until it expires or is revoked."""

import hashlib
import hmac
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from claw_runtime.access import tokens
from claw_runtime.access.tokens import FORM, Tokens
from claw_runtime.cli import main as cli
from claw_runtime.db.database import Database
from claw_runtime.db.tokens import SqliteTokens
from claw_runtime.errors import Conflict, DiskFull, InvalidSpec, InvalidTenantId, StateMissing
from claw_runtime.ingress.addresses import addresses
from claw_runtime.router import door
from claw_runtime.router.table import digest
from fakes.clock import FakeClock
from fakes.faces import Api, runtime_of, serving
from fakes.world import World


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(tmp_path / "ledger.sqlite")
    yield made
    made.close()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def known(database: Database, clock: FakeClock) -> Tokens:
    return Tokens(SqliteTokens(database), clock)


class TestCreating:
    def test_a_token_opens_what_it_is_for(self, known: Tokens) -> None:
        """The text that `create` gives stands for its name, scope and tenant."""
        _, admin = known.create("dashboard", "admin")
        _, alices = known.create("alices-bot", "tenant", tenant="alice")

        one, other = known.check(admin.reveal()), known.check(alices.reveal())

        assert one is not None
        assert other is not None
        assert (one.name, one.scope, one.tenant, one.local) == ("dashboard", "admin", None, False)
        assert (other.name, other.scope, other.tenant, other.local) == ("alices-bot", "tenant", "alice", False)

    def test_its_text_is_long_and_never_twice_the_same(self, known: Tokens) -> None:
        """256 random bits behind a prefix that scanners of leaked secrets can know."""
        texts = {known.create(f"t{n}", "admin")[1].reveal() for n in range(20)}

        assert len({text[-43:] for text in texts}) == 20
        assert all(FORM.fullmatch(text) for text in texts)

    def test_at_rest_there_is_only_a_digest(self, known: Tokens, tmp_path: Path) -> None:
        """Neither the token nor its secret part is in any file; its SHA-256 is."""
        text = known.create("dashboard", "admin")[1].reveal()

        stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())

        assert text.encode() not in stored
        assert text[-43:].encode() not in stored
        assert hashlib.sha256(text.encode()).hexdigest().encode() in stored

    def test_it_shows_itself_to_nobody(self, known: Tokens) -> None:
        """Its box is masked in texts, so that no log holds it."""
        row, box = known.create("dashboard", "admin")

        assert box.reveal() not in f"{box} {box!r} {row}"

    @pytest.mark.parametrize("name", ["", "-", "A", "a b", "a/b", "a\n", "é", "a" * 65, "a-", "../x"])
    def test_names_have_one_form(self, known: Tokens, name: str) -> None:
        """A name that would be odd in an address or a table is refused."""
        with pytest.raises(InvalidSpec, match="not a name for a token"):
            known.create(name, "admin")

    @pytest.mark.parametrize(("scope", "tenant"), [("tenant", None), ("link", None), ("admin", "alice")])
    def test_scope_and_tenant_fit(self, known: Tokens, scope: str, tenant: str | None) -> None:
        """A token for one tenant names it, one for all names none: nobody gets an admin's by leaving something out."""
        with pytest.raises(InvalidSpec, match="do not fit"):
            known.create("x", scope, tenant=tenant)  # type: ignore[arg-type]

    def test_a_tenant_is_a_tenant_id(self, known: Tokens) -> None:
        """A token for what is no tenant id is refused."""
        with pytest.raises(InvalidTenantId):
            known.create("x", "tenant", tenant="../alice")

    def test_a_name_is_taken_once(self, known: Tokens) -> None:
        """Two tokens of one name could not be told apart at `revoke`; the first stays good."""
        text = known.create("dashboard", "admin")[1].reveal()

        with pytest.raises(Conflict, match="a token"):
            known.create("dashboard", "admin")

        assert known.check(text) is not None


class TestLinks:
    def test_a_link_opens_nothing_of_the_api(self, known: Tokens) -> None:
        """Logs of others may show it, so it is worth as little as possible."""
        row, text = known.create("phone", "link", tenant="alice")

        assert (row.scope, row.tenant, row.sha256) == ("link", "alice", digest(text.reveal().encode()))
        assert known.check(text.reveal()) is None
        assert known.check(f"claw_{row.id}_{text.reveal()[-43:]}") is None

    def test_the_router_knows_its_form(self, known: Tokens) -> None:
        """It finds it in a path, after the tenant's name."""
        for number in range(20):
            _, text = known.create(f"phone-{number}", "link", tenant="alice")
            assert door._LINK.fullmatch(f"/{text.reveal()}/".encode())

    def test_it_is_revoked_as_any_other(self, known: Tokens, database: Database, clock: FakeClock) -> None:
        """The next daemon does not know it either."""
        known.create("phone", "link", tenant="alice")
        assert [row.scope for row in Tokens(SqliteTokens(database), clock).all()] == ["link"]
        known.revoke("phone")
        assert Tokens(SqliteTokens(database), clock).all() == []


class TestChecking:
    def test_every_other_text_opens_nothing(self, known: Tokens) -> None:
        """One character more, less, or other, another token's half, and things that are no tokens."""
        first = known.create("a", "admin")[1].reveal()
        second = known.create("b", "admin")[1].reveal()
        wrong = [first[:-1], first + "A", first[:-1] + ("A" if first[-1] != "A" else "B"), first.upper(), f" {first}"]
        wrong += [
            first[:14] + second[14:],
            second[:14] + first[14:],
            "",
            "claw_",
            "x" * 57,
            "claw_00000000_" + "A" * 43,
        ]
        wrong += [first + "\n", first.replace("claw_", "claw-", 1), "\udcff" * 57]

        assert [text for text in wrong if known.check(text) is not None] == []

    def test_digests_are_compared_in_constant_time(self, known: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
        """Every answer, also for an id that nobody has, comes out of one `compare_digest` of two SHA-256."""
        text = known.create("a", "admin")[1].reveal()
        compared: list[tuple[str, str]] = []
        real = hmac.compare_digest

        def watched(one: str, other: str) -> bool:
            compared.append((one, other))
            return real(one, other)

        monkeypatch.setattr(tokens.hmac, "compare_digest", watched)  # type: ignore[attr-defined]
        for candidate in (text, text[:-1] + "-", "claw_00000000_" + "A" * 43, "nonsense"):
            compared.clear()
            known.check(candidate)
            assert [(len(one), len(other)) for one, other in compared] == [(64, 64)]

    def test_it_ends_when_it_expires(self, known: Tokens, clock: FakeClock) -> None:
        """Until the last moment it is good, from then on it is not."""
        text = known.create("a", "admin", lifetime=3600.0)[1].reveal()
        clock.sleep(3599)
        assert known.check(text) is not None

        clock.sleep(1)

        assert known.check(text) is None

    def test_it_ends_when_it_is_revoked(self, known: Tokens, database: Database, clock: FakeClock) -> None:
        """At once, and for every later daemon."""
        text = known.create("a", "admin")[1].reveal()

        known.revoke("a")

        assert known.check(text) is None
        assert Tokens(SqliteTokens(database), clock).check(text) is None
        with pytest.raises(StateMissing):
            known.revoke("a")

    def test_it_outlives_the_daemon(self, known: Tokens, database: Database, clock: FakeClock) -> None:
        """The next daemon knows it, with its scope."""
        text = known.create("a", "tenant", tenant="alice")[1].reveal()

        grant = Tokens(SqliteTokens(database), clock).check(text)

        assert grant is not None
        assert (grant.scope, grant.tenant) == ("tenant", "alice")

    def test_its_last_use_is_noted_to_the_minute(
        self, known: Tokens, database: Database, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A busy token writes once a minute, and `list` knows when it was used."""
        row, text = known.create("a", "admin")
        assert known.all()[0].used_at is None
        writes: list[float] = []
        real = SqliteTokens.used
        monkeypatch.setattr(SqliteTokens, "used", lambda self, t, at: (writes.append(at), real(self, t, at)))

        for _ in range(100):
            known.check(text.reveal())
        first = clock.now()
        clock.sleep(61)
        known.check(text.reveal())

        assert writes == [first, first + 61]
        assert Tokens(SqliteTokens(database), clock).all()[0].used_at == first + 61
        assert known.all()[0].id == row.id


@pytest.mark.parametrize("error", [DiskFull("no room"), sqlite3.OperationalError("disk I/O error")])
def test_a_full_disk_locks_nobody_out(world: World, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """A token opens the API although the time of its use cannot be written: a release may be what makes room."""
    runtime = runtime_of(world, listen="127.0.0.1:7070")
    _, text = runtime.tokens.create("ops", "admin")

    def failing(*_: object) -> None:
        raise error

    monkeypatch.setattr(runtime.tokens._store, "used", failing)

    said = Api(runtime, local=False).get(
        "/api/v1/tenants", headers={"Authorization": f"Bearer {text.reveal()}", "Host": "127.0.0.1:7070"}
    )

    assert said.status_code == 200, said.text


class TestCommandLine:
    @pytest.fixture
    def home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
        """A served world that the command line finds."""
        world = World(tmp_path)
        for name in ("CLAW_CONFIG", "CLAW_RUN"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("CLAW_HOME", str(world.layout.home))
        monkeypatch.setenv("CLAW_RUN", str(world.layout.run))
        with serving(world) as runtime:
            world.runtime = runtime  # type: ignore[attr-defined]
            yield world
        world.close()

    def run(self, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main(list(words))
        told = capsys.readouterr()
        return int(ended.value.code or 0), told.out, told.err

    def test_create_prints_the_token_alone(self, home: World, capsys: pytest.CaptureFixture[str]) -> None:
        """Stdout is the token and nothing else, so that it can be put into a variable; what it is goes to stderr."""
        code, out, err = self.run(capsys, "token", "create", "bot", "--tenant", "alice", "--expires", "30d")

        assert code == 0
        assert FORM.fullmatch(out.removesuffix("\n"))
        assert "tenant alice" in err
        grant = home.runtime.tokens.check(out.strip())  # type: ignore[attr-defined]
        assert (grant.scope, grant.tenant) == ("tenant", "alice")

    def test_a_link_is_printed_as_an_address(
        self, home: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is what a client is configured with; without a router there is only its token."""
        runtime = home.runtime  # type: ignore[attr-defined]
        words = ("--scope", "link", "--tenant", "alice")
        code, out, err = self.run(capsys, "token", "create", "early", *words)
        assert (code, out.startswith("cw_"), "CLAW_INGRESS" in err) == (0, True, True)

        chosen = replace(runtime.settings, ingress=("127.0.0.1", 8080), ingress_url="https://claw.example")
        monkeypatch.setattr(runtime.ingress, "addresses", addresses(chosen))
        code, out, _ = self.run(capsys, "token", "create", "phone", *words)
        assert (code, out.startswith("https://claw.example/~alice/cw_")) == (0, True)
        code, out, err = self.run(capsys, "token", "create", "bot", "--tenant", "alice")
        assert (code, out.startswith("claw_"), "https://claw.example/~alice/" in err) == (0, True, True)

    def test_list_never_shows_a_token(self, home: World, capsys: pytest.CaptureFixture[str]) -> None:
        """The list has name, scope and times; no form of it has the text."""
        _, out, _ = self.run(capsys, "token", "create", "dashboard")
        secret = out.strip()[-43:]

        for form in ("text", "json"):
            code, listed, err = self.run(capsys, "token", "list", "-o", form)
            assert (code, "dashboard" in listed, secret in listed + err) == (0, True, False)
        assert json.loads(self.run(capsys, "token", "list", "-o", "json")[1])[0]["scope"] == "admin"

    def test_revoke_ends_it(self, home: World, capsys: pytest.CaptureFixture[str]) -> None:
        """What was revoked opens nothing; revoking it again is an error with a code of its own."""
        _, out, _ = self.run(capsys, "token", "create", "dashboard")

        assert self.run(capsys, "token", "revoke", "dashboard")[0] == 0
        assert home.runtime.tokens.check(out.strip()) is None  # type: ignore[attr-defined]
        code, _, err = self.run(capsys, "token", "revoke", "dashboard")
        assert (code, "no token 'dashboard'" in err) == (34, True)

    def test_a_duration_that_is_none(self, home: World, capsys: pytest.CaptureFixture[str]) -> None:
        """A lifetime without a unit is refused, and no token is made."""
        code, _, err = self.run(capsys, "token", "create", "dashboard", "--expires", "soon")

        assert (code, "30d" in err) == (16, True)
        assert self.run(capsys, "token", "list", "-o", "json")[1].strip() == "[]"
