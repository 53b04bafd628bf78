"""The command line, from argv to exit code, over a daemon that is real up to its engine and its store."""

import os
import re
import resource
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from claw_runtime import __version__, errors
from claw_runtime.cli import main as cli
from claw_runtime.cli import running
from claw_runtime.daemon import tools
from claw_runtime.errors import ClawError
from claw_runtime.operations.doctor import Finding
from claw_runtime.tenancy import TenantId
from claw_runtime.tenants.lifecycle import Step
from fakes.faces import serving
from fakes.terminal import Call, Result, surroundings
from fakes.world import World

TESTS = Path(__file__).resolve().parents[2]
ALICE = TenantId("alice")


pytest_plugins = ["fakes.terminal_fixtures"]
pytestmark = pytest.mark.world(filled=True, served=True)


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A daemon whose every claim fails with the error in `failing.answer`."""
    made = World(tmp_path_factory.mktemp("f"))

    def claim(*_: object, **__: object) -> None:
        raise made.answer  # type: ignore[attr-defined]

    made.tenants.claim = claim  # type: ignore[method-assign, assignment]
    with serving(made):
        yield made
    made.close()


class TestErrors:
    @pytest.mark.parametrize("cls", errors.table().values(), ids=lambda cls: cls.slug)
    def test_every_class_keeps_its_code_and_words(
        self, claw: Call, failing: World, monkeypatch: pytest.MonkeyPatch, cls: type[ClawError]
    ) -> None:
        """What the daemon raises is what the process ends with: code, what, why and what to do; stdout stays empty."""
        monkeypatch.setenv("CLAW_RUN", str(failing.layout.run))
        failing.answer = cls("it went wrong", why="a cause", hint="a cure")  # type: ignore[attr-defined]

        said = claw("claim", "alice", "--pool", "p")
        told = claw("claim", "alice", "--pool", "p", "-o", "json")

        assert said == Result(cls.exit_code, "", "error: it went wrong\n  why: a cause\n hint: a cure\n")
        assert (told.code, told.out) == (cls.exit_code, "")
        assert told.error == {
            "messageType": "exit_error",
            "code": cls.exit_code,
            "slug": cls.slug,
            "message": "it went wrong",
            "why": "a cause",
            "hint": "a cure",
        }

    @pytest.mark.parametrize(
        "arguments", [("status",), ("claim", "alice"), ("sync", "cat", "alice", "x"), ("pool", "list")]
    )
    def test_without_a_daemon(self, claw: Call, tmp_path: Path, arguments: tuple[str, ...]) -> None:
        """No daemon is 30, with the socket that was tried and the command that starts one."""
        result = claw(*arguments)

        assert result.code == 30
        assert str(tmp_path / "run" / "api.sock") in result.err
        assert "claw-runtime up" in result.err

    @pytest.mark.parametrize("name", ["../x", "a/b", "-x", "", "a" * 300, "Alice", "é", "a\nb", "\udcff"])
    @pytest.mark.parametrize("verb", ["claim", "release", "status", "exec", "shell", "logs", "sync list", "sync cat"])
    def test_wrong_tenant_ids(self, claw: Call, verb: str, name: str) -> None:
        """Every verb refuses a wrong id with 18 before it asks anybody, daemon or not."""
        more = {"exec": ["true"], "sync cat": ["x"]}.get(verb, [])

        result = claw(*verb.split(), "--", name, *more)

        assert result.code == 18
        assert result.err.startswith("error: not a tenant id: ")
        assert result.err.isprintable() or result.err.replace("\n", "").isprintable()

    def test_messages_cannot_steer_a_terminal(
        self, claw: Call, failing: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Control characters in an error are shown, not obeyed; several lines stay in their column."""
        monkeypatch.setenv("CLAW_RUN", str(failing.layout.run))
        failing.answer = errors.NotReady("a\x1b[2J", why="one\ntwo\x07", hint="\x9bc\u202e")  # type: ignore[attr-defined]

        assert claw("claim", "alice", "-p", "p").err == (
            "error: a\\x1b[2J\n  why: one\n       two\\x07\n hint: \\x9bc\\u202e\n"
        )

    def test_unknown_verb_suggests_a_known_one(self, claw: Call) -> None:
        """A slip of the finger is a usage error, 2, with what was probably meant."""
        result = claw("cliam", "alice")

        assert (result.code, result.out) == (2, "")
        assert "Did you mean 'claim'?" in result.err

    @pytest.mark.parametrize(
        "arguments", [("claim",), ("claim", "a", "b"), ("claim", "--nope", "a"), ("pool", "x"), ("-o", "x", "status")]
    )
    def test_usage_errors_are_two(self, claw: Call, arguments: tuple[str, ...]) -> None:
        """Wrong usage is 2, on stderr alone."""
        result = claw(*arguments)

        assert (result.code, result.out) == (2, "")
        assert "Error: " in result.err

    def test_usage_errors_as_json(self, claw: Call) -> None:
        """Also wrong usage is one JSON object where JSON was asked for."""
        result = claw("claim", "-o", "json")

        assert (result.code, result.error["code"], result.error["slug"]) == (2, 2, "usage")
        assert "TENANT" in result.error["message"]

    def test_wrong_settings_file(self, claw: Call) -> None:
        """A settings file that is not there is 16."""
        assert claw("--config", "/nonexistent.toml", "status").code == 16

    def test_interrupt(self, claw: Call, monkeypatch: pytest.MonkeyPatch) -> None:
        """Ctrl-C is 130, as shells have it."""

        def interrupted(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("claw_runtime.cli.output.Context.client", interrupted)

        result = claw("status")

        assert (result.code, result.out, result.err.strip()) == (130, "", "interrupted")


class TestVerbs:
    def test_claim_says_where(self, claw: Call, world: World) -> None:
        """One line of data on stdout, the milliseconds beside it on stderr."""
        result = claw("claim", "alice")

        assert result.code == 0
        assert re.fullmatch(r"alice claimed: http://127\.0\.0\.1:\d+ \(created, no state yet\)\n", result.out)
        assert "restore 0" in result.err

    def test_second_claim_is_fine(self, claw: Call, world: World) -> None:
        """Claiming twice ends with 0 both times and says so."""
        claw("claim", "alice")

        result = claw("claim", "alice")

        assert result.code == 0
        assert result.out.startswith("alice already claimed: http://127.0.0.1:")

    @pytest.mark.parametrize(
        "order",
        [
            ("-o", "json", "claim", "alice"),
            ("claim", "alice", "-o", "json"),
            ("claim", "-ojson", "alice"),
            ("claim", "--output=json", "alice"),
        ],
    )
    def test_json_before_and_behind_the_verb(self, claw: Call, world: World, order: tuple[str, ...]) -> None:
        """`-o json` is one document on stdout and nothing else, wherever it stands."""
        result = claw(*order)

        assert (result.code, result.json["status"], result.json["tenantId"]) == (0, "claimed", "alice")

    def test_the_nearer_form_wins(self, claw: Call, world: World) -> None:
        """A form given behind the verb beats the one before it."""
        assert claw("-o", "json", "claim", "alice", "-o", "text").out.startswith("alice claimed")

    def test_pool_from_the_environment(self, claw: Call, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """CLAW_POOL names the pool where `--pool` does not."""
        monkeypatch.setenv("CLAW_POOL", "large")

        assert claw("claim", "alice").code == 19
        assert claw("claim", "alice", "--pool", "small").code == 0

    def test_status_of_one_and_of_all(self, claw: Call, world: World) -> None:
        """Without a tenant all are listed; JSON is the API's answer as it is."""
        assert claw("status") == Result(0, "", "no tenants yet: claw-runtime claim TENANT\n")
        claw("claim", "alice")

        table = claw("status").out.splitlines()
        one = claw("status", "alice")

        assert table[0].split() == ["TENANT", "STATE", "POOL", "ENDPOINT", "GENERATION", "SINCE"]
        assert table[1].split()[:3] == ["alice", "active", "small"]
        assert table[1].endswith(" ago")
        assert "state      active" in one.out
        assert claw("status", "-o", "json").json == [claw("status", "alice", "-o", "json").json]
        assert claw("status", "bob").code == 10

    def test_status_names_a_generation_only_where_a_tree_is(self, claw: Call, world: World) -> None:
        """A released tenant's newest generation is the store's to tell, so status shows none."""
        for colour in ("blue", "red"):
            claw("claim", "alice")
            world.write("alice", {"colour.txt": colour})
            claimed = claw("status", "alice").out
            claw("release", "alice")

        assert "grew from  generation 1" in claimed
        assert "grew from" not in claw("status", "alice").out
        assert claw("status").out.splitlines()[1].split()[:5] == ["alice", "cold", "small", "-", "-"]

    def test_release_names_the_generation(self, claw: Call, world: World) -> None:
        """A release says which generation it sealed, and next time that nothing changed."""
        claw("claim", "alice")
        world.write("alice", {"colour.txt": "blue"})

        first = claw("release", "alice")
        claw("claim", "alice")
        second = claw("release", "alice")

        assert first.out == "alice released: generation 1, 1 file, 4 B\n"
        assert "uploaded in" in first.err
        assert second.out == "alice released: nothing changed since generation 1\n"
        assert claw("release", "alice").code == 10

    def test_release_can_drop_what_is_new(self, claw: Call, world: World) -> None:
        """`--no-sync` saves nothing and says that it released."""
        claw("claim", "alice")
        world.write("alice", {"colour.txt": "blue"})

        assert claw("release", "alice", "--no-sync").out == "alice released\n"
        assert claw("sync", "list", "alice").code == 34

    def test_pools_are_a_table(self, claw: Call, world: World) -> None:
        """One line a pool that can be cut by its spaces; why it is not full is said on stderr."""
        world.engine.fail("create", errors.EngineFailed("no more", why="test"))
        claw("claim", "alice")
        world.pools.keep()

        result = claw("pool", "list")

        assert result.out.splitlines()[0].split() == ["POOL", "READY", "CLAIMED", "MIN", "MAX", "IMAGE"]
        assert result.out.splitlines()[1].split()[:5] == ["small", "1", "1", "2", "3"]
        assert result.err == "small: no more: test\n"
        assert claw("pool", "list", "-o", "json").json[0]["minSize"] == 2

    def test_version(self, claw: Call) -> None:
        """The version is the same by verb, option and JSON, and needs no daemon."""
        assert claw("version").out == f"{__version__}\n"
        assert claw("version", "-o", "json").json == {"version": __version__}
        assert claw("--version").out.strip().endswith(__version__)

    def test_doctor_ends_with_one_when_something_fails(self, claw: Call, monkeypatch: pytest.MonkeyPatch) -> None:
        """A failure is exit code 1, a warning is not; each finding comes with what to do."""
        bad = Finding(check="podman", verdict="fail", detail="not there", hint="install it")
        odd = Finding(check="room", verdict="warn", detail="little", hint="clear up")
        monkeypatch.setattr(tools, "examine", lambda *_: iter([odd, bad]))

        result = claw("doctor")

        assert result.code == 1
        assert result.out == "warn  room: little\n      clear up\nFAIL  podman: not there\n      install it\n"
        assert result.err == "1 failed, 1 warnings\n"
        assert claw("doctor", "-o", "json").json[1] == {
            "check": "podman",
            "verdict": "fail",
            "detail": "not there",
            "hint": "install it",
        }
        monkeypatch.setattr(tools, "examine", lambda *_: iter([odd]))
        assert claw("doctor").code == 0


class TestSync:
    @pytest.fixture(autouse=True)
    def saved(self, claw: Call, world: World) -> None:
        """One generation of alice with an ordinary, a binary and a hostile name."""
        claw("claim", "alice")
        world.write("alice", {"memory/colour.txt": "blue", "evil\x1b[31m\n": "x", "with space & ?#%.txt": "odd"})
        (world.state("alice") / "bytes").write_bytes(bytes(range(256)))
        (world.state("alice") / "link").symlink_to("memory/colour.txt")
        claw("release", "alice")

    def test_list_shows_names_that_cannot_steer(self, claw: Call) -> None:
        """A file name with control characters is one harmless line; directories and links can be told apart."""
        result = claw("sync", "list", "alice")

        names = [line.split(maxsplit=4)[-1] for line in result.out.splitlines()[1:]]
        assert names == [
            "bytes",
            "evil\\x1b[31m\\n",
            "link -> memory/colour.txt",
            "memory/",
            "memory/colour.txt",
            "with space & ?#%.txt",
        ]
        assert result.err == "alice: generation 1, 6 entries\n"

    def test_list_as_json_has_the_names_as_they_are(self, claw: Call) -> None:
        """JSON escapes for itself, so the true name is in it."""
        assert "evil\x1b[31m\n" in [
            entry["path"] for entry in claw("sync", "list", "alice", "-o", "json").json["files"]
        ]

    @pytest.mark.parametrize("path", ["memory/colour.txt", "/memory/colour.txt"])
    def test_cat_prints_a_file(self, claw: Call, path: str) -> None:
        """A file is printed as it is, with nothing around it."""
        assert claw("sync", "cat", "alice", path) == Result(0, "blue", "")

    def test_cat_takes_any_name(self, claw: Call) -> None:
        """Characters that mean something in a URL are part of the name."""
        assert claw("sync", "cat", "alice", "with space & ?#%.txt").out == "odd"

    @pytest.mark.parametrize("path", ["../../bob/files/x", "memory/../memory/colour.txt", "./bytes", ".."])
    def test_cat_does_not_climb(self, claw: Call, path: str) -> None:
        """A path with `..` would name another tenant's address; it is refused before anything is sent."""
        assert claw("sync", "cat", "alice", path).code == 2

    @pytest.mark.parametrize("path", ["shape.txt", "memory", "\udcff"])
    def test_cat_of_nothing_is_an_error(self, claw: Call, path: str) -> None:
        """No file, no output, and an exit code that says so."""
        result = claw("sync", "cat", "alice", path)

        assert (result.out, result.code) == ("", 34)

    def test_an_older_generation(self, claw: Call, world: World) -> None:
        """`--generation` reads what was; one that never was is an error."""
        claw("claim", "alice")
        world.write("alice", {"memory/colour.txt": "red"})
        claw("release", "alice")

        assert claw("sync", "cat", "alice", "memory/colour.txt").out == "red"
        assert claw("sync", "cat", "alice", "memory/colour.txt", "-g", "1").out == "blue"
        assert claw("sync", "list", "alice", "--generation", "3").code == 34
        assert claw("sync", "list", "alice", "--generation", "0").code == 2


def test_cat_is_byte_for_byte(
    capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, world: World
) -> None:
    """Bytes that are no text come out as they went in."""
    surroundings(monkeypatch, tmp_path)
    world.tenants.claim("alice", "small")  # type: ignore[arg-type]
    (world.state("alice") / "bytes").write_bytes(bytes(range(256)) * 1000)
    world.tenants.release("alice")  # type: ignore[arg-type]
    capsysbinary.readouterr()

    with pytest.raises(SystemExit) as ended:
        cli.main(["sync", "cat", "alice", "bytes"])

    assert ended.value.code == 0
    assert capsysbinary.readouterr().out == bytes(range(256)) * 1000


class Became(BaseException):
    """The process would be another program now."""


class TestHandingOver:
    """exec and shell become Podman."""

    @pytest.fixture(autouse=True)
    def become(self, claw: Call, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        def execvp(file: str, argv: list[str]) -> None:
            raise Became(file, argv)

        monkeypatch.setattr(running.os, "execvp", execvp)
        claw("claim", "alice")

    def argv(self, *arguments: str) -> list[str]:
        with pytest.raises(Became) as became:
            cli.main(list(arguments))
        file, argv = became.value.args
        assert (file, argv[0]) == ("podman", "podman")
        return list(argv)

    def container(self, world: World) -> str:
        """Alice's container, of all that wait in the pool."""
        slot = world.tenants.find(ALICE)[1]
        assert slot
        assert slot.container
        return slot.container

    @pytest.mark.parametrize("dashes", [(), ("--",)])
    def test_exec_passes_the_command_on_untouched(self, world: World, dashes: tuple[str, ...]) -> None:
        """Whatever follows the tenant is the command's, also what looks like an option of ours."""
        command = ["sh", "-c", "echo -o json --help", "--detach", "-h"]

        argv = self.argv("exec", "alice", *dashes, *command)

        assert argv[-5:] == command
        assert argv[-6] in [found.id for found in world.engine.list(world.pools.owner_labels)]
        assert "--tty" not in argv

    def test_exec_detached(self) -> None:
        """`--detach` before the tenant is ours."""
        assert "--detach" in self.argv("exec", "--detach", "alice", "--", "sleep", "1")

    def test_exec_detached_in_a_unit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A command that is left running is not tied to the systemd unit that asked for it; any other is."""
        monkeypatch.setenv("INVOCATION_ID", "0" * 32)  # systemd sets it; Podman then makes no scope
        self.argv("exec", "alice", "--", "sleep", "1")
        assert "INVOCATION_ID" in os.environ
        self.argv("exec", "--detach", "alice", "--", "sleep", "1")
        assert "INVOCATION_ID" not in os.environ

    def test_shell(self) -> None:
        """A shell is /bin/sh unless another is named."""
        assert self.argv("shell", "alice")[-1] == "/bin/sh"
        assert self.argv("shell", "alice", "-s", "bash")[-1] == "bash"

    def test_exec_takes_options_before_the_tenant(self) -> None:
        """Variables, directory and terminal are Podman's business, each in its own argument."""
        argv = self.argv("exec", "-it", "-e", "A=1", "-e", "HOME", "-w", "/state", "alice", "env", "-w", "x")

        assert argv[2:-5] == ["--interactive", "--tty", "--env=A=1", "--env=HOME", "--workdir=/state"]
        assert argv[-3:] == ["env", "-w", "x"]
        assert "--tty" not in self.argv("exec", "-T", "alice", "true")
        assert "--interactive" not in self.argv("exec", "-d", "alice", "true")

    def test_exec_without_a_command(self, claw: Call) -> None:
        """`--` alone is no command."""
        assert claw("exec", "alice", "--").code == 2

    @pytest.mark.parametrize("arguments", [("exec", "bob", "--", "true"), ("shell", "bob")])
    def test_unclaimed(self, claw: Call, arguments: tuple[str, ...]) -> None:
        """A tenant without a container is 10, whether it was ever here or not."""
        assert claw(*arguments).code == 10
        claw("release", "alice")
        assert claw(arguments[0], "alice", *arguments[2:]).code == 10

    @pytest.mark.parametrize("before", ["hold", "claiming"])
    @pytest.mark.parametrize("arguments", [("exec", "alice", "--", "true"), ("shell", "alice")])
    def test_it_waits_for_a_container_that_runs_in_a_moment(
        self, world: World, arguments: tuple[str, ...], before: str
    ) -> None:
        """A commit pauses it, or the tenant is being claimed: Podman would refuse the command at once."""
        if before == "hold":
            world.ledger.note(ALICE, step=Step.HOLD)
        else:
            world.ledger.become(ALICE, "claiming", 0.0)
        timer = threading.Timer(0.3, world.ledger.become, (ALICE, "active", 0.0))
        timer.start()

        assert self.container(world) in self.argv(*arguments)
        timer.join()

    def test_a_copy_waits_as_well(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """Into the container: what it finds there is not half a claim."""

        def copy(argv: list[str], **_: object) -> None:
            raise Became("podman", argv)

        monkeypatch.setattr(running, "run", copy)
        world.ledger.become(ALICE, "claiming", 0.0)
        timer = threading.Timer(0.3, world.ledger.become, (ALICE, "active", 0.0))
        timer.start()

        assert f"{self.container(world)}:/state/x" in self.argv("cp", __file__, "alice:/state/x")
        timer.join()

    def test_a_pause_that_does_not_end_is_reported(
        self, claw: Call, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After five seconds, with the reason and what to do."""
        assert running.PATIENCE == 5.0
        monkeypatch.setattr(running, "PATIENCE", 0.2)
        world.ledger.note(ALICE, step=Step.HOLD)

        ended = claw("exec", "alice", "--", "true")

        assert ended.code == 37
        assert "paused for a commit" in ended.err
        assert "retry" in ended.err

    @pytest.mark.parametrize("arguments", [("exec", "alice", "--", "true"), ("cp", "alice:/x", "y")])
    def test_a_frozen_tenant_is_refused_at_once(self, claw: Call, world: World, arguments: tuple[str, ...]) -> None:
        """It rests until it is claimed; its log can be read."""
        container = self.container(world)
        world.engine.say(container, b"resting\n")
        world.engine.pause(container)
        world.ledger.become(ALICE, "frozen", 0.0)

        ended = claw(*arguments)

        assert ended.code == 10
        assert "its state is frozen" in ended.err
        assert "claw-runtime claim alice" in ended.err
        assert "resting" in claw("logs", "alice").out

    def test_without_podman(self, claw: Call, monkeypatch: pytest.MonkeyPatch) -> None:
        """No Podman on this host is 14."""

        def missing(file: str, argv: list[str]) -> None:
            raise FileNotFoundError(2, "No such file", file)

        monkeypatch.setattr(running.os, "execvp", missing)

        assert claw("shell", "alice").code == 14

    def test_the_commands_words_do_not_choose_our_form(self, claw: Call) -> None:
        """`-o json` behind `--` belongs to the command: our own error stays text."""
        assert claw("exec", "bob", "--", "jq", "-o", "json").err.startswith("error: ")


UP = """
import sys
from contextlib import contextmanager
from pathlib import Path

from claw_runtime.daemon import assembly
from claw_runtime.cli.main import main
from fakes.faces import runtime_of
from fakes.world import World

@contextmanager
def opened(settings, workloads=(), *, accept_store=False):
    world = World(Path(sys.argv[1]))
    settings.run.mkdir()
    try:
        yield runtime_of(world)
    finally:
        print("closed with", [slot.state for slot in world.ledger.slots()], flush=True)
        world.close()

assembly.opened = opened
main(["up"])
"""


def _from_a_shell() -> None:
    """Tests that run as a shell's background job were told to ignore SIGINT, and so would their children be. A shell
    gives few open files."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


@pytest.mark.spawns
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_up_serves_and_ends_well(claw: Call, tmp_path: Path, number: signal.Signals, code: int) -> None:
    """`up` serves on a socket that is 0600; SIGTERM and Ctrl-C remove it and the waiting slots, and keep tenants'.
    The daemon may open as many files as the host allows."""
    socket = tmp_path / "run" / "api.sock"
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    with subprocess.Popen(
        [sys.executable, "-c", UP, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        preexec_fn=_from_a_shell,  # noqa: PLW1509 - it does nothing else
    ) as daemon:
        try:
            deadline = time.monotonic() + 30
            while not socket.exists():
                assert daemon.poll() is None, daemon.communicate()
                assert time.monotonic() < deadline
                time.sleep(0.02)
            claimed = claw("claim", "alice")
            mode = stat.S_IMODE(socket.stat().st_mode)
            files = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
            daemon.send_signal(number)
            out, err = daemon.communicate(timeout=30)
        finally:
            daemon.kill()

    assert claimed.code == 0
    assert mode == 0o600
    assert files[0] == min(files[1], 65_536)
    assert daemon.returncode == code
    assert out.decode() == "closed with ['claimed']\n"
    assert not socket.exists()
    assert b"Traceback" not in err
