"""The command line on real parts: rootless Podman, a daemon process, a terminal, and tenants that mean harm."""

import io
import json
import os
import pty
import select
import stat
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import live_podman
from fakes.daemon import CLI, Daemon
from fakes.documents import changed

pytestmark = pytest.mark.podman

CONTRACT = Path(__file__).resolve().parents[2] / "images" / "openclaw-nix" / "contract.json"
TOKEN = "OPENCLAW_GATEWAY_TOKEN"


def _small(contract: dict[str, Any]) -> None:
    """The OpenClaw image's contract, for the small image: a generated token, and a port that it serves."""
    contract["ports"] = {"gateway": 8080}
    contract["probes"] = {"live": {"path": "/healthz"}, "ready": {"path": "/healthz", "timeout": 30}}
    contract["stop"]["timeout"] = 2


@pytest.fixture(scope="module")
def daemon(session_home: Path, small_image: str) -> Iterator[Daemon]:
    """One daemon for the module, with a store in a directory."""
    with live_podman.directory_in(session_home) as home:
        (home / "store").mkdir()
        changed(CONTRACT, home / "contract.json", _small)
        workload = home / "small.yaml"
        workload.write_text(
            f"id: small\nimage: {small_image}\ncontract: contract.json\npool: {{min_size: 1, max_size: 4}}\n"
        )
        daemon = Daemon(home / "d", [workload], {"CLAW_BUCKET": f"file://{home}/store"})
        daemon.start(ready=1)
        yield daemon
        daemon.close()


@pytest.fixture(scope="module")
def alice(daemon: Daemon) -> dict[str, Any]:
    """A claimed tenant; what `claim` answered."""
    claim: dict[str, Any] = daemon.ok("claim", "alice", "-o", "json").json
    return claim


@pytest.fixture
def inside(daemon: Daemon, alice: dict[str, Any]) -> Callable[[str], str]:
    """Runs a shell script in alice's container; its output."""
    return lambda script: daemon.ok("exec", "alice", "--", "sh", "-c", script).out


@pytest.fixture
def here(session_home: Path) -> Iterator[Path]:
    """A directory of the operator's, with a file that no tenant may reach."""
    with live_podman.directory_in(session_home) as place:
        (place / "secret").mkdir()
        (place / "secret" / "keys").write_text("mine")
        yield place


def eventually(condition: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


class TestExec:
    @pytest.mark.parametrize("code", [0, 1, 2, 42, 125, 130, 255])
    def test_the_commands_own_code(self, daemon: Daemon, alice: dict[str, Any], code: int) -> None:
        """Whatever the command ends with, also a code that Podman or we use, is what exec ends with."""
        assert daemon.cli("exec", "alice", "--", "sh", "-c", f"exit {code}").code == code

    @pytest.mark.parametrize(("command", "code"), [("/etc", 126), ("no-such-program", 127)])
    def test_what_cannot_be_run(self, daemon: Daemon, alice: dict[str, Any], command: str, code: int) -> None:
        """Not executable is 126, not found 127, as in a shell and as with Podman."""
        assert daemon.cli("exec", "alice", "--", command).code == code

    def test_podmans_own_failure(self, daemon: Daemon, alice: dict[str, Any]) -> None:
        """What Podman itself refuses is 125."""
        assert daemon.cli("exec", "-e", "=x", "alice", "--", "true").code == 125

    def test_input_variables_and_directory(self, daemon: Daemon, alice: dict[str, Any]) -> None:
        """Standard input, `-e` with and without a value and `-w` reach the command; the streams stay apart."""
        script = 'cat; pwd; echo "$A $B"; echo err >&2'
        answer = daemon.ok(
            "exec", "-e", "A=1 2", "-e", "B", "-w", "/tmp", "alice", "sh", "-c", script, stdin="in\n", B="mine"
        )

        assert (answer.out, answer.err) == ("in\n/tmp\n1 2 mine\n", "err\n")


def test_shell_on_a_terminal(daemon: Daemon, alice: dict[str, Any]) -> None:
    """`shell` on a terminal is one: the program inside sees it with its size, and its exit code comes out."""
    child, terminal = pty.fork()
    if child == 0:
        os.execvpe(CLI[0], [*CLI, "shell", "alice"], daemon.environment)
    seen = b""

    def shown(text: bytes) -> bool:
        nonlocal seen
        if select.select([terminal], [], [], 0.1)[0]:
            seen += os.read(terminal, 4096)
        return text in seen

    eventually(lambda: shown(b"$ ") or shown(b"# "))
    os.write(terminal, b"tty; cd /state; exit 7\r")
    eventually(lambda: shown(b"/dev/"))
    _, status = os.waitpid(child, 0)
    os.close(terminal)

    assert os.waitstatus_to_exitcode(status) == 7


def test_port_is_where_it_answers(daemon: Daemon, alice: dict[str, Any]) -> None:
    """`port` names the port of this host in Podman's own form, one alone for scripts, and JSON for programs."""
    port = alice["endpoints"]["port"]

    assert daemon.ok("port", "alice").out == f"8080/tcp -> 127.0.0.1:{port}\n"
    assert daemon.ok("port", "alice", "8080").out == f"127.0.0.1:{port}\n"
    assert daemon.ok("port", "alice", "-o", "json").json == [
        {"containerPort": 8080, "protocol": "tcp", "hostAddress": "127.0.0.1", "hostPort": port}
    ]
    assert daemon.cli("port", "alice", "9").code == 34


class TestCopyOut:
    def test_files_and_trees(self, daemon: Daemon, inside: Callable[[str], str], here: Path) -> None:
        """A file, a directory and what is in one come out as ours, with their modes and times."""
        inside(
            "mkdir -p /state/w/sub; echo blue >/state/w/colour; echo x >/state/w/sub/run; chmod 4755 /state/w/sub/run"
        )
        daemon.ok("cp", "alice:/state/w/colour", str(here))
        daemon.ok("cp", "alice:/state/w", f"{here}/copy")
        daemon.ok("cp", "alice:/state/w/.", f"{here}/flat")

        assert (here / "colour").read_text() == (here / "copy/colour").read_text() == "blue\n"
        assert stat.S_IMODE((here / "flat/sub/run").stat().st_mode) == 0o755
        assert (here / "flat/sub/run").stat().st_uid == os.getuid()

    def test_links_lead_nowhere(self, daemon: Daemon, inside: Callable[[str], str], here: Path) -> None:
        """No link that a tenant made brings a file of this host into the copy, or a file of the copy to this host."""
        inside(
            f"rm -rf /state/evil; mkdir -p /state/evil/in; cd /state/evil; ln -s {here}/secret/keys keys; "
            f"ln -s {here}/secret out; ln -s ../../../../../../{here}/secret up; ln -s in good; mkfifo pipe"
        )
        answer = daemon.ok("cp", "alice:/state/evil", str(here))

        assert sorted(os.listdir(here / "evil")) == ["good", "in"]
        assert all(f"left out: {name}:" in answer.err for name in ("keys", "out", "up", "pipe"))
        # The next time `in` is a link out, and `good` a directory with files in it: the copy that is there stays apart.
        inside(f"cd /state/evil; rm -rf in good; mkdir good; echo theirs >good/keys; ln -s {here}/secret in")
        (here / "evil" / "good").unlink()
        (here / "evil" / "good").symlink_to(here / "secret")
        daemon.ok("cp", "alice:/state/evil/.", f"{here}/evil")
        assert (here / "secret" / "keys").read_text() == "mine"

    def test_a_link_itself(self, daemon: Daemon, inside: Callable[[str], str], here: Path) -> None:
        """A link that is named leads to what it means inside: the container's own file, never this host's."""
        inside(f"ln -sf /etc/hostname /state/name; ln -sf {here}/secret/keys /state/keys")
        daemon.ok("cp", "alice:/state/name", f"{here}/name")
        missing = daemon.cli("cp", "alice:/state/keys", f"{here}/stolen")

        assert (here / "name").read_text() == inside("cat /etc/hostname")
        assert (missing.code, (here / "stolen").exists()) == (34, False)

    def test_as_a_tar(self, daemon: Daemon, inside: Callable[[str], str]) -> None:
        """`-` is a tar on standard output."""
        inside("mkdir -p /state/t; echo 1 >/state/t/a")
        done = subprocess.run(
            [*CLI, "cp", "alice:/state/t", "-"], env=daemon.environment, capture_output=True, check=True
        )

        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
            assert tar.getnames() == ["t", "t/a"]

    def test_what_is_not_there(self, daemon: Daemon, alice: dict[str, Any], here: Path) -> None:
        """A path that is not there, a target that cannot be, and a tenant without a container each have an error."""
        assert daemon.cli("cp", "alice:/nowhere", str(here)).code == 34
        assert daemon.cli("cp", "alice:/nowhere", "-").code == 34
        assert daemon.cli("cp", "alice:/etc", f"{here}/no/such").code == 1
        assert daemon.cli("cp", "alice:/etc/hostname", f"{here}/no/").code == 2
        assert daemon.cli("cp", "bob:/etc", str(here)).code == 10
        assert daemon.cli("cp", f"{here}/none", "alice:/state/").code == 2


class TestCopyIn:
    def test_files_and_trees(self, daemon: Daemon, inside: Callable[[str], str], here: Path) -> None:
        """What goes in belongs to the program, with the modes that it had; so does what a tar holds."""
        (here / "src").mkdir()
        (here / "src" / "a:b").write_text("1")
        (here / "src" / "a:b").chmod(0o640)
        daemon.ok("cp", f"{here}/src", "alice:/state/")
        daemon.ok("cp", f"{here}/src/a:b", "alice:/tmp/one")
        body = io.BytesIO()
        with tarfile.open(fileobj=body, mode="w") as tar:
            tar.add(here / "src" / "a:b", "two")
        subprocess.run([*CLI, "cp", "-", "alice:/tmp"], env=daemon.environment, input=body.getvalue(), check=True)

        assert inside("stat -c '%a %u' /state/src/a:b") == f"640 {os.getuid()}\n"
        assert inside("cat /tmp/one /tmp/two; touch /state/src/a:b") == "11"

    def test_a_tenants_link_leads_nowhere(self, daemon: Daemon, inside: Callable[[str], str], here: Path) -> None:
        """A link in the way is followed inside the container only: nothing is written to this host."""
        (here / "notes").write_text("for alice")
        inside(f"ln -sfn {here}/secret /state/box; ln -sf {here}/secret/keys /state/notes; ln -sfn /tmp /state/tmp")
        for target in ("box/", "box/keys", "notes"):
            daemon.cli("cp", f"{here}/notes", f"alice:/state/{target}")
        daemon.ok("cp", f"{here}/notes", "alice:/state/tmp/")

        assert os.listdir(here / "secret") == ["keys"]
        assert (here / "secret" / "keys").read_text() == "mine"
        assert inside("cat /tmp/notes") == "for alice"

    def test_where_nobody_may_write(self, daemon: Daemon, alice: dict[str, Any], here: Path) -> None:
        """The image's own files cannot be written over."""
        (here / "notes").write_text("x")
        answer = daemon.cli("cp", f"{here}/notes", "alice:/bin/entry")

        assert (answer.code, "read-only" in answer.err) == (33, True), answer.err


class TestLogs:
    def test_secrets_are_masked(self, daemon: Daemon, alice: dict[str, Any], inside: Callable[[str], str]) -> None:
        """What a program prints of its token is masked."""
        token = Path(alice["tokenFile"]).read_text()
        inside(f"echo begin-{token}-end >/proc/1/fd/1")
        eventually(lambda: "-end" in daemon.ok("logs", "alice").out)

        assert token not in daemon.ok("logs", "alice").out

    def test_secrets_are_masked_by_the_next_daemon(self, daemon: Daemon, alice: dict[str, Any]) -> None:
        """A daemon that did not hand the token out masks it all the same, in what was printed before it was there."""
        token = Path(alice["tokenFile"]).read_text()
        daemon.ok("exec", "alice", "--", "sh", "-c", f"echo begin-{token}-over >/proc/1/fd/1")
        daemon.kill()
        daemon.start()
        eventually(lambda: "-over" in daemon.ok("logs", "alice").out)

        assert token not in daemon.ok("logs", "alice").out

    def test_tail_and_since(self, daemon: Daemon, inside: Callable[[str], str]) -> None:
        """`--tail` counts lines from the end, `--since` takes a duration or a time."""
        inside("echo one >/proc/1/fd/1; echo two >/proc/1/fd/1")
        eventually(lambda: "two" in daemon.ok("logs", "alice").out)

        assert daemon.ok("logs", "alice", "--tail", "1").out == "two\n"
        assert daemon.ok("logs", "alice", "--tail", "0").out == ""
        assert "started" in daemon.ok("logs", "alice", "--since", "10m").out
        time.sleep(1.1)
        assert daemon.ok("logs", "alice", "--since", "1s").out == ""
        assert daemon.ok("logs", "alice", "--since", "2100-01-01T00:00:00Z").out == ""
        assert daemon.cli("logs", "alice", "--since", "yesterday").code == 16

    def test_following_ends_with_the_container(self, daemon: Daemon) -> None:
        """`logs -f` prints each line as it comes, and ends with 0 when the container does."""
        daemon.ok("claim", "carol")
        command = [*CLI, "logs", "-f", "carol"]
        with subprocess.Popen(command, env=daemon.environment, stdout=subprocess.PIPE, text=True) as following:
            assert following.stdout is not None
            killer = threading.Timer(60, following.kill)
            killer.start()
            assert following.stdout.readline() == "started\n"
            daemon.ok("exec", "carol", "--", "sh", "-c", "echo now >/proc/1/fd/1")
            assert following.stdout.readline() == "now\n"
            daemon.ok("release", "carol", "--no-affinity")
            assert following.wait(30) == 0
            killer.cancel()

    def test_after_the_container_is_gone(self, daemon: Daemon) -> None:
        """The log went with the container; the error says so and where the program's own log files are."""
        daemon.ok("claim", "dave")
        daemon.ok("exec", "dave", "--", "sh", "-c", "echo words >/logs/program.log")
        daemon.ok("release", "dave", "--no-affinity")
        answer = daemon.cli("logs", "dave")

        assert answer.code == 10
        place = Path(answer.err.rpartition("hint:")[2].partition(": ")[2].strip())
        assert (place / "program.log").read_text() == "words\n"


def test_watching_appends_what_changes(daemon: Daemon, alice: dict[str, Any]) -> None:
    """`status -w` into a pipe prints each tenant, and again when it changes, and Ctrl-C is a good end."""
    command = [*CLI, "status", "-w", "-n", "0.2", "-o", "json"]
    with subprocess.Popen(command, env=daemon.environment, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        killer = threading.Timer(60, watching.kill)
        killer.start()
        daemon.ok("claim", "erin")
        seen: list[tuple[str, str]] = []
        while ("erin", "active") not in seen:
            told = json.loads(watching.stdout.readline())
            seen.append((told["tenantId"], told["state"]))
        assert ("alice", "active") in seen
        assert seen.count(("alice", "active")) == 1
        watching.send_signal(2)
        assert watching.wait(10) == 0
        killer.cancel()
    daemon.ok("release", "erin", "--no-sync", "--no-affinity")
