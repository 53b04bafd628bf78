"""Real starts that wait for their tenant: nothing of it is read before the gate opens, and all is as ever after."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes.image_root import PYTHON, contract_document, events, furnish, hand_over

pytestmark = pytest.mark.spawns

GATEWAY = ("/bin/sh", "-c", "env | sort; pwd; echo $$ $*", "gateway", "run")
PREWARM = {"argv": ["/bin/echo", "waiter"], "modules": "/opt/claw/modules.list"}
CAPABLE = {"prewarm": True}
PATIENCE = 10.0  # seconds
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(library: Path) -> Iterator[Start]:
    """Start the entrypoint with arguments and an environment of these values and PATH alone."""
    started: list[subprocess.Popen[str]] = []

    def run(*argv: str, **environment: str) -> subprocess.Popen[str]:
        command = [PYTHON, "-I", "-S", str(library / "__main__.py"), *argv]
        pipe, environment = subprocess.PIPE, {"PATH": "/usr/bin:/bin"} | environment
        child = subprocess.Popen(command, env=environment, cwd="/", stdout=pipe, stderr=pipe, text=True)
        started.append(child)
        return child

    yield run
    for child in started:
        child.kill()
        child.communicate()


def make_gate(root: Path) -> Path:
    gate = root / "run/claw/door"
    os.mkfifo(gate, 0o600)
    return gate


def opened(gate: Path) -> int:
    """The gate for writing, as soon as a process waits at it."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return os.open(gate, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            assert time.monotonic() < deadline, "no process waits"
            time.sleep(0.01)


def open_gate(gate: Path, line: bytes = b'{"v":1}\n') -> None:
    fifo = opened(gate)
    os.write(fifo, line)
    os.close(fifo)


def test_a_start_that_waited_continues_as_a_cold_one(root: Path, start: Start) -> None:
    """The same process becomes the gateway, with the same environment, directory and configuration, and no new file."""
    furnish(root, GATEWAY)
    hand_over(root, OPENROUTER_API_KEY="sesame", OPENCLAW_GATEWAY_TOKEN="token")
    cold = start(OPENCLAW_MATRIX_TOKEN="other", HOME="/state/home")
    cold_out, cold_log = cold.communicate()
    configuration = (root / "config/openclaw.json").read_bytes()
    tree = sorted(str(path) for path in root.resolve().rglob("*"))

    gate = make_gate(root)
    process = start("--park", "entrypoint", OPENCLAW_MATRIX_TOKEN="other", HOME="/state/home")
    open_gate(gate)
    out, log = process.communicate(timeout=PATIENCE)
    gate.unlink()

    assert process.returncode == cold.returncode == 0
    assert out.replace(str(process.pid), "PID") == cold_out.replace(str(cold.pid), "PID")
    assert f"{process.pid} run" in out
    first, *others = events(log)
    assert (first["event"], first["tier"]) == ("park.waiting", "entrypoint")
    assert [event | {"ts": ""} for event in others] == [event | {"ts": ""} for event in events(cold_log)]
    assert (root / "config/openclaw.json").read_bytes() == configuration
    assert sorted(str(path) for path in root.resolve().rglob("*")) == tree


def test_nothing_of_a_tenant_is_read_before_the_gate_opens(root: Path, start: Start) -> None:
    """Values, mounted secrets and state that are there while it waits are overruled by what is there as it opens."""
    furnish(root, GATEWAY)
    hand_over(root, OPENROUTER_API_KEY="of the pool")
    (root / "state/.claw").mkdir(mode=0o700)
    (root / "state/.claw/gateway-token").write_text("of the pool")
    secret = root.resolve() / "secret"
    secret.write_text("of the pool")
    gate = make_gate(root)
    process = start("--park", "entrypoint", OPENCLAW_MATRIX_TOKEN_FILE=str(secret))
    os.close(opened(gate))
    assert list((root / "config").iterdir()) == []

    hand_over(root, OPENROUTER_API_KEY="of the tenant")
    (root / "state/.claw/gateway-token").write_text("token of the tenant")
    secret.write_text("secret of the tenant")
    open_gate(gate)

    assert process.wait(PATIENCE) == 0
    text = (root / "config/openclaw.json").read_text()
    assert "of the pool" not in text
    assert all(f'"{value} of the tenant"' in text for value in ("token", "secret"))
    assert '"of the tenant"' in text


def test_the_waiting_process_holds_no_more_than_its_own_program(root: Path, start: Start) -> None:
    """Whoever can open the gate finds a process with the gate and a wake-up pipe open, and no file of the tenant."""
    furnish(root, GATEWAY)
    hand_over(root, OPENROUTER_API_KEY="sesame-of-nobody")
    gate = make_gate(root)
    process = start("--park", "entrypoint")
    os.close(opened(gate))

    targets = [os.readlink(entry) for entry in Path(f"/proc/{process.pid}/fd").iterdir()]
    named = [target for target in targets if target.startswith("/") and target != "/dev/null"]

    assert named == [str(gate.resolve())]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_wait_at_once(root: Path, start: Start, number: signal.Signals) -> None:
    """Code 0, nothing seeded, nothing said but that it waited; sent as early as the gate can be opened."""
    furnish(root, GATEWAY)
    gate = make_gate(root)
    process = start("--park", "entrypoint")
    os.close(opened(gate))
    began = time.monotonic()

    process.send_signal(number)
    out, log = process.communicate(timeout=PATIENCE)

    assert (process.returncode, out) == (0, "")
    assert time.monotonic() - began < 1
    assert [event["event"] for event in events(log)] == ["park.waiting"]
    assert list((root / "config").iterdir()) == []


def test_a_line_may_come_in_pieces(root: Path, start: Start) -> None:
    """The end of the line opens the gate, not the first byte, and a writer that leaves does not."""
    furnish(root, ["/bin/true"])
    gate = make_gate(root)
    process = start("--park", "entrypoint")
    for piece in (b'{"v"', b":1}", b"\n"):
        open_gate(gate, piece)

    assert process.wait(PATIENCE) == 0
    assert (root / "config/openclaw.json").exists()


@pytest.mark.parametrize("line", [b'{"v":2}\n', b"sesame\n", b"\xff\n", b"x" * 4096])
def test_another_protocol_is_refused(root: Path, start: Start, line: bytes) -> None:
    """78, nothing is seeded, and what rang is not repeated."""
    furnish(root, GATEWAY)
    gate = make_gate(root)
    process = start("--park", "entrypoint")
    open_gate(gate, line)

    _, log = process.communicate(timeout=PATIENCE)

    assert process.returncode == 78
    assert events(log)[-1]["event"] == "seed.failed"
    assert "sesame" not in log
    assert list((root / "config").iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "said"), [("none", "No such file"), ("file", "not a FIFO"), ("link", "cannot open the start gate")]
)
def test_without_a_gate_it_does_not_wait(root: Path, start: Start, kind: str, said: str) -> None:
    """78 with what is missing; a file or a link in the gate's place is no gate."""
    furnish(root, GATEWAY)
    if kind == "file":
        (root / "run/claw/door").touch()
    if kind == "link":
        os.mkfifo(root / "elsewhere")
        (root / "run/claw/door").symlink_to(root.resolve() / "elsewhere")

    process = start("--park", "entrypoint")
    _, log = process.communicate(timeout=PATIENCE)

    assert process.returncode == 78
    assert said in events(log)[-1]["message"]
    assert events(log)[-1]["hint"]


def test_the_former_word_means_the_same_start(root: Path, start: Start) -> None:
    """A runtime says `parked`, since older images know no other word; the log has the tier's word of now."""
    furnish(root, ["/bin/sh", "-c", "echo run"])
    gate = make_gate(root)
    process = start("--park", "parked")
    open_gate(gate)
    out, log = process.communicate(timeout=PATIENCE)

    assert (process.returncode, out) == (0, "run\n")
    assert (events(log)[0]["event"], events(log)[0]["tier"]) == ("park.waiting", "entrypoint")


@pytest.mark.parametrize(
    ("word", "tier"), [("interpreter", "interpreter"), ("waiting", "interpreter"), ("prewarmed", "prewarmed")]
)
def test_other_tiers_are_the_waiter_of_the_image(root: Path, library: Path, start: Start, word: str, tier: str) -> None:
    """It gets the gate, the tier, how to bind, and the gateway; a former word of a tier becomes the present one."""
    furnish(root, GATEWAY, prewarm=PREWARM, capabilities=CAPABLE)

    out, log = start("--park", word).communicate(timeout=PATIENCE)

    main = str(library / "__main__.py")
    bind = [PYTHON, "-I", "-S", main, "--bind"]
    assert out.split() == ["waiter", "/run/claw/door", tier, *bind, "--", *" ".join(GATEWAY).split()]
    assert log == ""


@pytest.mark.parametrize(
    "arguments", [("interpreter",), ("waiting",), ("prewarmed",), ("hot",), (), ("entrypoint", "x")]
)
def test_a_tier_that_is_not_offered_is_refused(root: Path, start: Start, arguments: tuple[str, ...]) -> None:
    """78, and the hint names what there is."""
    document = contract_document()
    document.pop("prewarm", None)
    furnish(root, GATEWAY)
    (root / "etc/claw/contract.json").write_text(json.dumps(document | {"capabilities": {}}))

    process = start("--park", *arguments)
    _, log = process.communicate(timeout=PATIENCE)

    assert process.returncode == 78
    assert "entrypoint" in events(log)[-1]["message"] + events(log)[-1]["hint"]


def test_bind_prints_the_environment_that_the_gateway_would_have(root: Path, start: Start) -> None:
    """One JSON object on stdout, equal to what a cold start's gateway sees, and the same configuration."""
    furnish(root, ["/usr/bin/env", "-0"])
    hand_over(root, OPENROUTER_API_KEY="sesame")
    given = {"OPENCLAW_MATRIX_TOKEN": "other", "HOME": "/state/home", "TEXT": "two\nlines — and \U0001f99e"}
    cold, _ = start(**given).communicate()
    configuration = (root / "config/openclaw.json").read_bytes()

    bound = start("--bind", **given)
    out, log = bound.communicate()

    assert bound.returncode == 0
    assert json.loads(out) == dict(entry.split("=", 1) for entry in cold.split("\0") if entry)
    assert "OPENCLAW_MATRIX_TOKEN" not in out
    assert (root / "config/openclaw.json").read_bytes() == configuration
    assert events(log)


def test_a_bind_that_cannot_be_whole_is_78(root: Path, start: Start) -> None:
    """Then nothing is printed, so nothing can be started with half of it."""
    furnish(root)
    hand_over(root, NOT_ALLOWED="sesame")

    bound = start("--bind")
    out, log = bound.communicate()

    assert (bound.returncode, out) == (78, "")
    assert "NOT_ALLOWED" in events(log)[-1]["message"]
