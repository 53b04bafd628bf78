"""Real starts of `python3 -I -S <entrypoint>`: what is executed, with what around it, and at what cost of imports."""

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes.image_root import PROJECT, PYTHON, events, furnish, hand_over

pytestmark = pytest.mark.spawns

Start = Callable[..., "subprocess.CompletedProcess[str]"]
ALLOWED = {
    "_collections_abc",
    "_json",
    "_stat",
    "claw_entrypoint",
    "errno",
    "genericpath",
    "os",
    "posixpath",
    "stat",
    "time",
}


def may_become(uid: int) -> bool:
    """Whether this is root, and in a user namespace that has the uid."""
    rows = (map(int, row.split()) for row in Path("/proc/self/uid_map").read_text().splitlines())
    return os.geteuid() == 0 and any(first <= uid < first + count for first, _, count in rows)


@pytest.fixture
def start(library: Path, place: Path) -> Start:
    """Start the entrypoint with a command and an environment of these values and PATH alone."""

    def run(*argv: str, user: int | None = None, flags: tuple[str, ...] = (), **environment: str):
        command = [PYTHON, "-I", "-S", *flags, str(library), *argv]
        environment = {"PATH": "/usr/bin:/bin"} | environment
        return subprocess.run(
            command, env=environment, cwd=place, user=user, capture_output=True, text=True, check=False
        )

    return run


def test_without_a_command_it_becomes_the_gateway(root: Path, start: Start) -> None:
    """Arguments, the gateway's own environment, and `/` as its directory; allowlisted names are gone from it."""
    script = "env | sort; pwd; echo $0 $*"
    furnish(root, ["/bin/sh", "-c", script, "gateway", "run"])

    done = start(OPENCLAW_MATRIX_TOKEN="sesame", OPENROUTER_API_KEY_FILE="", HOME="/state/home")

    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith(("HOME", "NPM", "OPEN", "PATH"))] == [
        "HOME=/state/home",
        "NPM_CONFIG_OFFLINE=true",
        "PATH=/usr/bin:/bin",
    ]
    assert lines[-2:] == ["/", "gateway run"]


def test_a_command_runs_as_a_person_expects(root: Path, start: Start, place: Path) -> None:
    """Found through PATH, its own environment untouched, where it was started, with its own exit code."""
    furnish(root)

    done = start("sh", "-c", "pwd; env; exit 7", OPENCLAW_MATRIX_TOKEN="sesame")

    assert done.returncode == 7
    assert done.stdout.startswith(f"{place}\n")
    assert "OPENCLAW_MATRIX_TOKEN=sesame\n" in done.stdout
    assert "NPM_CONFIG_OFFLINE" not in done.stdout


def test_one_value_of_a_feature_is_substituted_without_the_others(root: Path, start: Start) -> None:
    """`podman run -e OPENCLAW_MATRIX_TOKEN=abc123 IMAGE sh -c 'grep …'` finds it, and warns once for each feature."""
    furnish(root)

    done = start("grep", "abc123", f"{root}/config/openclaw.json", OPENCLAW_MATRIX_TOKEN="abc123")

    assert (done.returncode, done.stdout.strip()) == (0, '"accessToken": "abc123",')
    off = [event["feature"] for event in events(done.stderr) if event["event"] == "feature.off"]
    assert off == ["matrix", "openrouter", "model", "control_ui"]


def test_the_process_is_replaced_not_doubled(root: Path, library: Path) -> None:
    """What runs has the number that was started (1 in a container), and no descriptor but the standard ones."""
    furnish(root)
    script = "import os; print(os.getpid(), *sorted(os.listdir('/proc/self/fd')))"
    command = [PYTHON, "-I", "-S", str(library), PYTHON, "-c", script]

    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
        words = child.communicate()[0].split()

    # The fourth descriptor is the listed directory itself.
    assert words == [str(child.pid), "0", "1", "2", "3"]


def test_no_signal_stays_ignored(root: Path, start: Start) -> None:
    """Python ignores two signals for itself; a pipeline in a tenant's shell must still end on a closed pipe."""
    furnish(root)

    done = start("grep", "SigIgn", "/proc/self/status")

    ignored = int(done.stdout.split()[1], 16)
    assert not any(ignored >> (number - 1) & 1 for number in (signal.SIGPIPE, signal.SIGXFSZ))


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (("no-such-program",), 127),
        (("/no/such/program",), 127),
        (("/etc/passwd",), 126),
        (("/etc",), 126),
        (("",), 126),
    ],
)
def test_a_command_that_cannot_run_fails_as_in_a_shell(
    root: Path, start: Start, argv: tuple[str, ...], code: int
) -> None:
    """127 when it is not there, 126 when it is not executable, and a line that says so."""
    furnish(root)

    done = start(*argv)

    assert done.returncode == code
    last = events(done.stderr)[-1]
    assert (last["level"], last["event"], last["program"], last["exit_code"]) == ("error", "exec.failed", argv[0], code)


def test_a_gateway_that_is_not_there_is_127(root: Path, start: Start) -> None:
    """The absolute path of the contract is all that is tried, whatever PATH has."""
    furnish(root, ["/opt/none/sh"])

    assert start().returncode == 127


def test_a_start_that_cannot_be_whole_is_78(root: Path, start: Start) -> None:
    """One error line with the reason and what to do; the gateway does not run."""
    furnish(root, ["/bin/echo", "ran"])
    hand_over(root, NOT_ALLOWED="sesame")

    done = start()

    assert (done.returncode, done.stdout) == (78, "")
    [error] = [event for event in events(done.stderr) if event["level"] == "error"]
    assert (error["event"], error["exit_code"]) == ("seed.failed", 78)
    assert "NOT_ALLOWED" in error["message"]
    assert error["hint"]
    assert "sesame" not in done.stderr


def test_a_command_runs_even_without_a_contract(root: Path, start: Start) -> None:
    """A person who looks into a broken image gets a shell, and the gateway does not start."""
    root.resolve().joinpath("etc").mkdir()

    done = start("echo", "ran")

    assert (done.returncode, done.stdout) == (0, "ran\n")
    assert [event["event"] for event in events(done.stderr)] == ["seed.defect"]
    assert start().returncode == 78


def test_a_volume_that_is_not_writable_is_explained(root: Path, start: Start) -> None:
    """As a uid without rights, and likewise on a read-only root: 78 and the flags to use; a command still runs."""
    if not may_become(12345):
        pytest.skip("needs root, to become a uid that owns nothing here")
    furnish(root)

    done, command = start(user=12345), start("echo", "ran", user=12345)

    assert done.returncode == 78
    assert (
        "uid 12345 cannot make directories: /state/.openclaw: Permission denied" in events(done.stderr)[-1]["message"]
    )
    assert "--userns=keep-id" in events(done.stderr)[-1]["hint"]
    assert (command.returncode, command.stdout) == (0, "ran\n")


def test_any_uid_will_do(root: Path, start: Start) -> None:
    """A uid without a name, a home or a right outside its volumes starts the gateway, over a locked leftover too."""
    if not may_become(54321):
        pytest.skip("needs root, to become another uid")
    furnish(root)
    (root / "config/locked/inside/deep").mkdir(parents=True)
    for place in ("config/locked/inside/deep", "config/locked/inside", "config/locked", "config", "state", "logs"):
        os.chown(root / place, 54321, 54321)
        (root / place).chmod(0o500 if "locked" in place else 0o700)

    assert start(user=54321).returncode == 0
    assert os.listdir(root / "config") == ["openclaw.json"]
    assert (root / "config/openclaw.json").stat().st_uid == 54321


@pytest.mark.parametrize("argv", [(), ("true",)], ids=["gateway", "command"])
def test_a_start_imports_next_to_nothing(root: Path, library: Path, argv: tuple[str, ...]) -> None:
    """Beyond a bare interpreter's modules only these few: each further one is paid for at every wake of a tenant."""
    furnish(root)
    hand_over(root, OPENROUTER_API_KEY="x")

    def imported(*command: str) -> set[str]:
        done = subprocess.run(
            [PYTHON, "-I", "-S", "-X", "importtime", *command], capture_output=True, text=True, check=True
        )
        lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
        return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines[1:]}

    extra = imported(str(library / "__main__.py"), *argv) - imported("-c", "pass")

    assert "claw_entrypoint" in extra
    assert extra - ALLOWED - ({"warnings"} if argv else set()) == set()


def test_the_image_s_own_main_is_the_one_that_is_tested() -> None:
    """`entrypoint/__main__.py` finds the package beside it, and reads the contract at its one fixed place."""
    if Path("/etc/claw/contract.json").exists():
        pytest.skip("this machine is an image")
    for main in ("entrypoint", "entrypoint/__main__.py"):
        done = subprocess.run(
            [PYTHON, "-I", "-S", str(PROJECT / main)], capture_output=True, text=True, check=False, cwd="/"
        )

        assert done.returncode == 78
        assert "/etc/claw/contract.json" in json.loads(done.stderr)["message"]
