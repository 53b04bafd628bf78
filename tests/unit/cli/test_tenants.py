"""Claim, release, status, logs and pools on the command line: their options, forms and pictures."""

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from claw_runtime.cli import arguments, watching
from claw_runtime.errors import DaemonUnreachable, Fenced, NotClaimed, StoreUnavailable
from claw_runtime.ports import TenantState
from claw_runtime.tenancy import TenantId
from fakes.terminal import Call, Result
from fakes.world import World

pytest_plugins = ["fakes.terminal_fixtures"]
pytestmark = pytest.mark.world(filled=True, served=True)


class TestForms:
    @pytest.mark.parametrize(
        ("words", "names"),
        [
            (("status",), ["alice", "bob"]),
            (("status", "alice"), ["alice"]),
            (("claim", "alice"), ["alice"]),
            (("release", "alice", "--no-sync"), ["alice"]),
            (("pool", "list"), ["small"]),
            (("pool", "show", "small"), ["small"]),
            (("pool", "metrics", "small"), ["small"]),
            (("pool", "drain", "small"), ["small"]),
            (("pool", "recycle", "small"), ["small"]),
            (("pool", "scale", "small", "--max", "5"), ["small"]),
            (("version",), None),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
    )
    def test_every_answer_in_every_form(
        self, claw: Call, world: World, words: tuple[str, ...], names: list[str] | None
    ) -> None:
        """An answer is JSON, the same as YAML, and its identifiers one a line; nothing else is on stdout."""
        claw("claim", "alice")
        claw("claim", "bob")

        named = claw(*words, "-o", "name")
        claw("claim", "alice")
        as_yaml = claw(*words, "-o", "yaml")
        claw("claim", "alice")
        as_json = claw("-o", "json", *words)

        assert (named.code, as_yaml.code, as_json.code) == (0, 0, 0)
        assert names is None or named.out.splitlines() == names
        assert as_yaml.out.startswith("---\n")
        told = yaml.safe_load(as_yaml.out)
        assert type(told) is type(as_json.json)
        one, other = (found[0] if isinstance(found, list) else found for found in (told, as_json.json))
        assert list(one) == list(other)

    @pytest.mark.parametrize("form", ["json", "yaml"])
    def test_errors_are_one_object_for_programs(self, claw: Call, world: World, form: str) -> None:
        """Who asks for JSON or YAML gets an error as one JSON object, with what to do."""
        for line in (("claim", "alice", "-p", "large"), ("claim", "Alice"), ("status", "nobody"), ("claim",)):
            result = claw(*line, "-o", form)

            assert result.out == ""
            assert result.error["messageType"] == "exit_error"
            assert result.error["code"] == result.code
            assert result.code == 2 or result.error["hint"]

    def test_errors_are_text_beside_names(self, claw: Call, world: World) -> None:
        """`-o name` is for loops that a person writes: errors stay text."""
        assert claw("status", "nobody", "-o", "name").err.startswith("error: ")


class TestClaim:
    def test_wait_in_a_full_pool(self, claw: Call, world: World) -> None:
        """A full pool is 12 at once, and with `--wait` after that time; the pool's line is told to operators."""
        for tenant in ("a", "b", "c"):
            claw("claim", tenant)

        assert claw("claim", "d").code == 12
        begun = time.monotonic()
        assert claw("claim", "d", "--wait", "0.2").code == 12
        assert time.monotonic() - begun < 30

    @pytest.mark.parametrize("wait", ["-1", "soon", "1x", "700"])
    def test_waits_that_are_none(self, claw: Call, world: World, wait: str) -> None:
        """What is no time to wait is refused, and nothing is claimed."""
        assert claw("claim", "alice", "--wait", wait).code in (2, 16)
        assert claw("status").out == ""

    def test_metadata_is_shown_again(self, claw: Call, world: World) -> None:
        """What comes with a claim is in the tenant's status, as it came."""
        claw("claim", "alice", "--metadata", '{"plan": "gold", "n": [1]}')

        assert claw("status", "alice", "-o", "json").json["metadata"] == {"plan": "gold", "n": [1]}
        assert 'metadata   {"plan": "gold", "n": [1]}' in claw("status", "alice").out

    @pytest.mark.parametrize("text", ["{", "[]", '"x"', "plan=gold"])
    def test_metadata_is_an_object(self, claw: Call, text: str) -> None:
        """What is no JSON object is wrong usage, before anything is sent."""
        assert claw("claim", "alice", "--metadata", text).code == 2

    def test_where_the_state_came_from(self, claw: Call, world: World) -> None:
        """The line of a claim says what the container was and which generation is in it."""
        claw("claim", "alice")
        world.write("alice", {"colour": "blue"})
        claw("release", "alice", "--no-affinity")

        assert claw("claim", "alice").out.endswith("(created, generation 1 restored)\n")
        assert claw("claim", "alice").out.endswith("(active, generation 1)\n")


class TestStatus:
    @pytest.fixture(autouse=True)
    def tenants(self, claw: Call, world: World) -> None:
        """alice has a container, bob had one."""
        claw("claim", "alice")
        claw("claim", "bob")
        claw("release", "bob", "--no-affinity")

    def test_states_are_the_ledgers(self) -> None:
        """The states that `--state` takes are those that a tenant can be in."""
        assert set(arguments.STATES) == set(TenantState.__args__)

    @pytest.mark.parametrize(
        ("options", "names"),
        [
            (("--state", "active"), ["alice"]),
            (("--state", "cold"), ["bob"]),
            (("-s", "cold", "-s", "active"), ["alice", "bob"]),
            (("--pool", "small"), ["alice", "bob"]),
            (("--pool", "large"), []),
            (("alice", "--state", "cold"), []),
        ],
    )
    def test_filters(self, claw: Call, options: tuple[str, ...], names: list[str]) -> None:
        """Only tenants in those states, or of that pool; none is no error."""
        assert claw("status", *options, "-o", "name") == Result(0, "".join(f"{name}\n" for name in names), "")

    def test_nobody_like_that(self, claw: Call) -> None:
        """Without a match there is no table, and the person is told."""
        assert claw("status", "--state", "kept") == Result(0, "", "no such tenants\n")

    def test_names_that_are_left_out(self, claw: Call, world: World) -> None:
        """Below the table, in the tenant's own status, and at a push: how many, and the first ones with the reason."""
        for number in range(7):
            os.mkfifo(world.state("alice") / f"pipe-{number}")
        told = "pipe-0: not a file, directory or link"
        pushed = claw("sync", "push", "alice")
        assert pushed.err.splitlines()[0] == f"  note: {told}"
        assert len(pushed.err.splitlines()) == 7

        assert claw("status").err.startswith(f"alice: 7 names left out or stored otherwise: {told}; ")
        one = claw("status", "alice")
        assert re.search(
            rf"^saved +\S+, .* ago; 7 names left out or stored otherwise: {told}; .*; and 2 more$",
            one.out,
            re.MULTILINE,
        )
        assert one.err == ""
        assert "small: 7 names left out or stored otherwise" in claw("pool", "metrics", "small").err

    def test_commits_that_fail(self, claw: Call, world: World) -> None:
        """Since when nothing was saved, and why; that another runtime has the tenant is said as such."""
        row, _ = world.tenants.find(TenantId("alice"))
        world.commits.failed(row, StoreUnavailable("the store is down"))
        assert re.fullmatch(r"alice: not saved for .*: the store is down\n", claw("status").err)
        found = claw("status", "alice").out
        assert re.search(r"^error +not saved for .*: the store is down$", found, re.MULTILINE)
        assert claw("sync", "status", "alice").err == "alice: not stored yet: the store is down\n"

        world.commits.failed(row, Fenced("another runtime took over tenant alice"))
        lost = "another runtime has taken it over: another runtime took over tenant alice"
        assert lost in claw("status", "alice").out
        metrics = claw("pool", "metrics", "small").err
        assert "small: 1 tenant whose commits fail, 1 of them taken over by another runtime\n" in metrics

    def test_services_that_do_not_answer(self, claw: Call, monkeypatch: pytest.MonkeyPatch) -> None:
        """The status of all tenants names them, with the reason; it is no part of the answer for programs."""
        silent = {"engine": "no answer for 9 s", "store": "refused"}
        monkeypatch.setattr("claw_runtime.operations.services.Services.silent", lambda _: silent)

        assert claw("status").err == (
            "the engine (Podman) does not answer: no answer for 9 s\nthe object store does not answer: refused\n"
        )
        assert claw("status", "-o", "json").err == ""

    def test_a_recovery_that_has_not_ended(self, claw: Call, monkeypatch: pytest.MonkeyPatch) -> None:
        """How many tenants of the last daemon are recovered."""
        progress = {"tenants": 50, "recovered": 7, "pools_ready": False}
        progress |= {"to_restart": 0, "restarted": 0, "restarts_failing": 0}
        monkeypatch.setattr("claw_runtime.daemon.assembly.Runtime.recovered", lambda _: progress)

        assert claw("status").err == "recovering 7 of 50 tenants since the daemon's start\n"

    def test_a_program_that_does_not_answer(self, claw: Call, world: World) -> None:
        """What its probes miss and how to restart it, in both tables: nothing restarts a program that runs."""
        world.liveness.look()  # the first probe waits for its interval
        world.prober.always = None
        for _ in range(3):
            world.clock.advance(60)
            world.liveness.look()
        way = "to restart it, claw-runtime release alice --no-affinity, then claim it"
        assert claw("status").err == f"alice: unhealthy: nothing answered; {way}\n"
        assert claw("status", "alice").err == f"unhealthy: nothing answered; {way}\n"

    def test_many_troubles_are_counted(self, claw: Call, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """A store that is away does not push the table off the screen."""
        row, _ = world.tenants.find(TenantId("alice"))
        world.commits.failed(row, StoreUnavailable("the store is down"))
        monkeypatch.setattr("claw_runtime.cli.status_verb._TROUBLES", 0)

        assert claw("status").err == "… and 1 more: claw-runtime status TENANT\n"


class TestWatch:
    @pytest.fixture
    def rounds(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Callable[[], object]]]:
        """What happens while `status -w` waits for its next round; after the last it is interrupted."""
        steps: list[Callable[[], object]] = []

        def sleep(_seconds: float) -> None:
            if not steps:
                raise KeyboardInterrupt
            steps.pop(0)()

        monkeypatch.setattr(watching.time, "sleep", sleep)
        yield steps
        assert steps == []

    def test_rows_are_appended(self, claw: Call, world: World, rounds: list[Callable[[], object]]) -> None:
        """Into a pipe the table grows by what changed, under one heading, and Ctrl-C is a success."""
        world.tenants.claim("alice", "small")  # type: ignore[arg-type]
        rounds += [
            lambda: world.tenants.claim("bob", "small"),  # type: ignore[arg-type]
            lambda: None,
            lambda: world.tenants.release("alice", affinity=False),  # type: ignore[arg-type]
        ]
        result = claw("status", "-w")

        assert (result.code, result.err) == (0, "")
        assert [line.split()[:2] for line in result.out.splitlines()] == [
            ["TENANT", "STATE"],
            ["alice", "active"],
            ["bob", "active"],
            ["alice", "cold"],
        ]

    def test_columns_line_up(self, claw: Call, world: World, rounds: list[Callable[[], object]]) -> None:
        """Rows that come later stand below their headings; a row too wide for them brings its own heading."""
        long = "a-tenant-with-a-name-of-forty-characters"
        rounds += [
            lambda: world.tenants.claim("alice", "small"),  # type: ignore[arg-type]
            lambda: world.tenants.release("alice", affinity=False),  # type: ignore[arg-type]
            lambda: world.tenants.claim(long, "small"),  # type: ignore[arg-type]
            lambda: world.tenants.claim("bob", "small"),  # type: ignore[arg-type]
        ]
        lines = claw("status", "-w").out.splitlines()

        first = [line.split()[0] for line in lines]
        assert first == ["TENANT", "alice", "alice", "TENANT", long, "bob"]
        for heading, rows in ((lines[0], lines[1:3]), (lines[3], lines[4:])):
            starts = [found.start() for found in re.finditer(r"\S+", heading)]
            for row in rows:
                assert all(row[start] != " " and row[start - 1] == " " for start in starts[1:]), (heading, row)

    def test_documents_are_appended(self, claw: Call, world: World, rounds: list[Callable[[], object]]) -> None:
        """As JSON each tenant is a line, again when it changes, and never the whole list again."""
        world.tenants.claim("alice", "small")  # type: ignore[arg-type]
        rounds += [lambda: None, lambda: world.tenants.release("alice", affinity=False)]  # type: ignore[arg-type]
        result = claw("status", "-w", "-o", "json")

        assert [json.loads(line)["state"] for line in result.out.splitlines()] == ["active", "cold"]

    def test_a_daemon_that_is_away_is_waited_for(
        self, claw: Call, world: World, rounds: list[Callable[[], object]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A restart of the daemon is a word on stderr; without a daemon from the beginning it is an error."""
        from claw_runtime.api.client import Client

        get = Client.get

        def away(*_: object) -> None:
            raise DaemonUnreachable("the daemon does not answer")

        rounds += [lambda: monkeypatch.setattr(Client, "get", away), lambda: monkeypatch.setattr(Client, "get", get)]
        result = claw("status", "-w")

        assert (result.code, result.err) == (0, "the daemon does not answer: waiting for it\n")
        monkeypatch.setattr(Client, "get", away)
        assert claw("status", "-w").code == 30

    def test_a_terminal_is_redrawn(
        self, claw: Call, world: World, rounds: list[Callable[[], object]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """On a terminal a picture takes the place of the one before, fits the window, and changes no mode of it."""
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
        monkeypatch.setenv("COLUMNS", "60")
        monkeypatch.setenv("LINES", "4")
        monkeypatch.setenv("NO_COLOR", "1")
        for tenant in ("alice", "bob", "carol"):
            world.tenants.claim(tenant, "small")  # type: ignore[arg-type]
        rounds += [lambda: world.tenants.release("alice", affinity=False)]  # type: ignore[arg-type]
        result = claw("status", "-w")

        first, second = result.out.split("\x1b[3F")
        lines = [line.removesuffix("\x1b[K") for line in first.splitlines()]
        assert [line.split()[0] for line in lines[:2]] == ["TENANT", "alice"]
        assert lines[2:] == ["… and 2 more", "\x1b[J"]
        assert all(len(line) <= 60 for line in lines)
        assert "cold" in second
        assert set(re.findall(r"\x1b\[[0-9?]*[A-Za-z]", result.out)) == {"\x1b[3F", "\x1b[K", "\x1b[J"}


class TestLogs:
    def said(self, monkeypatch: pytest.MonkeyPatch, *pieces: bytes) -> dict[str, Any]:
        """The daemon's answer in these pieces; what it was asked, once it was."""
        asked: dict[str, Any] = {}

        def stream(_client: object, path: str, **query: object) -> Iterator[bytes]:
            asked.update(query, path=path)
            yield from pieces

        monkeypatch.setattr("claw_runtime.api.client.Client.stream", stream)
        return asked

    def test_options_are_the_daemons(self, claw: Call, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is asked for is asked of the daemon, which masks secrets."""
        asked = self.said(monkeypatch, b"one\n")

        assert claw("logs", "alice", "-f", "--tail", "20", "--since", "10m").out == "one\n"
        assert asked == {"path": "/api/v1/tenants/alice/logs", "follow": True, "tail": 20, "since": "10m"}

    def test_a_pipe_gets_the_bytes(self, claw: Call, monkeypatch: pytest.MonkeyPatch) -> None:
        """Elsewhere than on a terminal nothing is taken away."""
        self.said(monkeypatch, b"\x1b[31mred\x1b[0m\r\n", b"no line end")

        assert claw("logs", "alice").out == "\x1b[31mred\x1b[0m\r\nno line end"

    def test_a_terminal_is_not_steered(self, claw: Call, monkeypatch: pytest.MonkeyPatch) -> None:
        """On a terminal colours go and every other control character is shown; letters cut in two are whole again."""
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
        self.said(monkeypatch, b"\x1b[1;31mred\x1b[0m\ta\r\n\x1b]0;title\x07\xc3", b"\xbc\xff\x1b[2J", b"\nlast")

        assert claw("logs", "alice").out == "red     a\n\\x1b]0;title\\x07ü\ufffd\\x1b[2J\nlast\n"

    def test_after_the_container_is_gone(self, claw: Call, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without a container the error names the directory of the program's own log files, if there is one."""

        def gone(*_: object, **__: object) -> None:
            raise NotClaimed("tenant 'alice' is not claimed", why="its state is cold", hint="claim it")

        monkeypatch.setattr("claw_runtime.api.client.Client.stream", gone)
        assert claw("logs", "alice").err.endswith("hint: claim it\n")
        place = world.layout.logs("alice")  # type: ignore[arg-type]
        place.mkdir(parents=True)

        result = claw("logs", "alice")

        assert result.code == 10
        assert result.err.endswith(f"hint: log files of its program: {place}\n")


class TestPools:
    def test_show(self, claw: Call, world: World) -> None:
        """One pool: sizes, slots by tier, and its image."""
        shown = claw("pool", "show", "small")

        assert shown.code == 0
        assert re.search(r"^size +2 to 3$", shown.out, re.MULTILINE)
        assert re.search(r"^slots +2 ready, 0 being made, 0 claimed$", shown.out, re.MULTILINE)
        assert claw("pool", "show", "large").code == 19

    def test_scale(self, claw: Call, world: World) -> None:
        """Only what is given changes; nothing given, and no tier of ours, are wrong usage."""
        assert "1 to 3" in claw("pool", "scale", "small", "--min", "1").out
        assert "1 to 5" in claw("pool", "scale", "small", "--max", "5").out
        assert claw("pool", "scale", "small").code == 2
        for warmth in ("hot=1", "created", "created=-1", "created=x"):
            assert claw("pool", "scale", "small", "--warmth", warmth).code == 2
        former = claw("pool", "scale", "small", "--warmth", "slot=2")
        assert (former.code, "the tier slot is called created now" in former.err) == (2, True)
        assert claw("pool", "scale", "small", "--warmth", "created=2").code == 0

    def test_drain_and_undrain(self, claw: Call, world: World) -> None:
        """A drained pool says so everywhere, refuses claims, and takes them again afterwards."""
        assert "drained: no slots, no claims" in claw("pool", "drain", "small").err
        assert "small: drained" in claw("pool", "list").err
        assert claw("claim", "alice").code == 12
        assert claw("pool", "undrain", "small").err == ""
        assert claw("claim", "alice").code == 0

    def test_recycle(self, claw: Call, world: World) -> None:
        """The number of slots that are replaced is told."""
        assert claw("pool", "recycle", "small").out == "small: 2 waiting slots to be replaced\n"

    def test_metrics(self, claw: Call, world: World) -> None:
        """A row for each source of claims and each tier that was filled, with how long they took."""
        claw("claim", "alice")
        result = claw("pool", "metrics", "small")

        assert result.out.splitlines()[0].split() == ["WHAT", "FROM", "TIMES", "P50", "P95", "LAST"]
        assert ["claim", "created", "1"] in [line.split()[:3] for line in result.out.splitlines()]
        assert "small: 1 ready, 0 being made, 1 claimed, 2 to 3; 0 claims in line" in result.err
