"""What a tenant with a memory waits for: from the claim to the real gateway's right answer.

The tenant told its assistant a colour in an earlier container. Each turn it comes back, out of the object store, and
asks for it. The peer is the same gateway started by `podman run -d` under the same terms, over a copy of the same state
that lies ready before its clock starts. Only the paid model is played by a stub, inside the container's own network,
started by the same `podman exec` on both sides as soon as the container runs.
"""

import json
import os
import runpy
import shutil
import subprocess
import threading
import time
import urllib.error
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.figures import Figure, load, now, take_turns
from bench.podman_run import PodmanRun, log_driver
from bench.stage import Stage, opened, refill, staged, waiting
from claw_runtime.clock import SystemClock
from claw_runtime.engine import command
from claw_runtime.engine.probe import HttpProber
from claw_runtime.errors import ClawError
from claw_runtime.runtime import Runtime
from claw_runtime.services.claims import Claim
from claw_runtime.services.health import wait_ready
from claw_runtime.tenancy import TenantId

PROJECT = Path(__file__).parents[2]
EXAMPLE = PROJECT / "docs/examples/openclaw"
POOL = "openclaw"
TENANT = TenantId("alice")
PEER = "podman run -d"
TELL, ASK, RIGHT = "please remember blue", "what is my colour?", "blue"
MODEL_PORT = 18080
MODEL = ("/usr/bin/python3", "-I", "/opt/demo/model_stub.py", str(MODEL_PORT))
REST = 1.0  # seconds
PATIENCE = 120.0  # seconds for a container to run, and for an answer to be right

chat: Callable[..., str] = runpy.run_path(str(EXAMPLE / "chat.py"))["chat"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Seconds from the beginning."""

    ready: float
    answer: float


def measure(runs: int = 5) -> list[Figure]:
    """`claim_to_ready` and `claim_to_answer`."""
    before = load()
    with staged(_workload()) as stage, opened(stage) as current:
        memory = _remember(stage, current)
        peer = PodmanRun(stage, current.pools.workload(POOL), current.engine.info(), log_driver())
        ours, theirs = take_turns(
            "claim_to_answer", runs, lambda: _claim(current, peer), lambda: _run(current, peer, memory), rest=REST
        )
    after = load()
    return [
        Figure(
            name=f"claim_to_{phase}",
            peer=PEER,
            goal=goal,
            ours=[getattr(times, phase) for times in ours],
            theirs=[getattr(times, phase) for times in theirs],
            load=(before, after),
            at=now(),
        )
        for phase, goal in (("ready", None), ("answer", 1.0))
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What the peer starts over. `values` is the content of the values file, `token` the gateway's own."""

    state: Path
    values: bytes
    token: str


def _workload() -> str:
    """The example's workload with one slot, and with a model that is at hand."""
    text = (EXAMPLE / "workload.yaml").read_text()
    model = f"CLAW_MODEL_BASE_URL: http://127.0.0.1:{MODEL_PORT}/v1\n  CLAW_MODEL_API_KEY: no-secret\n"
    text = text.replace("\nenvironment:\n", f"\nenvironment:\n  {model}  CLAW_MODEL_ID: stub-1\n")
    text = text.replace("min_size: 2", "min_size: 1")
    return f"{text}\nvolumes:\n  demo: {{source: @home@/demo, target: /opt/demo}}\n"


def _remember(stage: Stage, current: Runtime) -> Memory:
    """The earlier life: generation 1 in the store, and a copy of it for the peer."""
    (stage.home / "demo").mkdir()
    shutil.copy(PROJECT / "tests/fakes/model_stub.py", stage.home / "demo")
    refill(current, POOL)
    slot = waiting(current, POOL)
    with _model(current, slot.container or ""):
        claim = current.claims.claim(TENANT, POOL)
        token = _token(claim)
        _ask(claim.port, token, TELL)
    values = (current.settings.layout.slot(slot.id).values / "values.json").read_bytes()
    assert json.loads(values)["values"]["OPENCLAW_GATEWAY_TOKEN"] == token
    current.claims.release(TENANT)
    refill(current, POOL)
    lease = current.syncing.acquire(TENANT)
    state = stage.home / "memory"
    state.mkdir()
    current.syncing.restore(lease, state)
    current.syncing.give_back(lease.tenant)
    return Memory(state=state, values=values, token=token)


def _claim(current: Runtime, peer: PodmanRun) -> Times:
    slot = waiting(current, POOL)
    with _model(current, slot.container or ""):
        begin = time.perf_counter()
        claim = current.claims.claim(TENANT, POOL)
        ready = time.perf_counter() - begin
        _ask(claim.port, _token(claim), ASK)
        answer = time.perf_counter() - begin
    peer.match(slot.container or "")
    current.claims.release(TENANT, sync=False)  # the next turn begins with the same generation
    refill(current, POOL)
    return Times(ready=ready, answer=answer)


def _run(current: Runtime, peer: PodmanRun, memory: Memory) -> Times:
    dirs = peer.directories()
    shutil.copytree(memory.state, dirs.state, symlinks=True, dirs_exist_ok=True)
    (dirs.values / "values.json").write_bytes(memory.values)
    os.sync()  # the copy is not to be written while the gateway starts
    with _model(current, peer.name):
        begin = time.perf_counter()
        peer.start(dirs)
        port = _wait_ready(current, peer.name, memory.token)
        ready = time.perf_counter() - begin
        _ask(port, memory.token, ASK)
        answer = time.perf_counter() - begin
    peer.remove()
    shutil.rmtree(dirs.state.parent)
    return Times(ready=ready, answer=answer)


def _wait_ready(current: Runtime, container: str, token: str) -> int | None:
    """Wait as a claim does; the published port."""
    found = current.engine.inspect(container)
    port = found.host_port if found else None
    hint = f"podman logs {container}"
    wait_ready(
        current.pools.workload(POOL),
        port,
        HttpProber(),
        SystemClock(),
        bearer=token,
        ended=lambda: None,
        hint=hint,
    )
    return port


def _ask(port: int | None, token: str, text: str) -> None:
    """Ask until the answer is right.

    Raises:
        TimeoutError: It never was.
    """
    deadline = time.monotonic() + PATIENCE
    last: Any = None
    while time.monotonic() < deadline:
        try:
            last = chat(f"http://127.0.0.1:{port}", token, text)
        except (urllib.error.URLError, OSError) as error:
            last = error
        else:
            if RIGHT in last:
                return
        time.sleep(0.05)
    raise TimeoutError(f"no right answer to {text!r} in {PATIENCE:g} s; the last one: {last}")


def _token(claim: Claim) -> str:
    assert claim.token_file is not None
    return claim.token_file.read_text().strip()


@contextmanager
def _model(current: Runtime, container: str) -> Iterator[None]:
    """Start the model's stub in the container as soon as that runs; the body makes it run."""
    over = threading.Event()
    failed: list[Exception] = []

    def start() -> None:
        try:
            while not over.wait(0.01):
                found = current.engine.inspect(container)
                if found and found.state == "running":
                    argv = command.exec_argv(container, MODEL, interactive=False, tty=False, detach=True)
                    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
                    return
        except (ClawError, OSError, subprocess.SubprocessError) as error:
            failed.append(error)

    thread = threading.Thread(target=start, name="model")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    if failed:
        raise failed[0]
