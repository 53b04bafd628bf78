"""A conversation with the real gateway: what a tenant tells it once and asks for later, and the model behind it.

A stub plays only the paid model. It listens in the container's own network, where `podman exec` starts it: before the
clock if the container already runs, otherwise as soon as it runs. All sides do the same.
"""

import runpy
import shutil
import subprocess
import threading
import time
import urllib.error
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.stage import Stage
from claw_runtime.daemon.assembly import Runtime
from claw_runtime.engine import command
from claw_runtime.errors import ClawError
from claw_runtime.tenancy import LABEL_POOL
from claw_runtime.tenants.tenants import Claim

PROJECT = Path(__file__).parents[2]
EXAMPLE = PROJECT / "docs/examples/openclaw"
TELL, ASK, RIGHT = "please remember blue", "what is my colour?", "blue"
MODEL_PORT = 18080
MODEL = ("/usr/bin/python3", "-I", "/opt/demo/model_stub.py", str(MODEL_PORT))
PATIENCE = 120.0
"""Seconds for a container to run, and for an answer to be right."""

chat: Callable[..., str] = runpy.run_path(str(EXAMPLE / "chat.py"))["chat"]


WORKLOAD = """
id: {pool}
image: localhost/openclaw-nix:dev
environment:
  TZ: Etc/UTC
  CLAW_MODEL_BASE_URL: http://127.0.0.1:{port}/v1
  CLAW_MODEL_API_KEY: no-secret
  CLAW_MODEL_ID: stub-1
  {values}
deploy: {{resources: {{limits: {{cpus: 2, memory: 2g, pids: 512}}}}}}
network: private
pool: {sizes}
volumes:
  demo: {{source: "@home@/demo", target: /opt/demo}}
"""


def workload(pool: str, sizes: str, *, values: str = "") -> str:
    """A workload file of the real gateway with a model that is at hand; `sizes` and `values` are YAML."""
    return WORKLOAD.format(pool=pool, sizes=sizes, values=values, port=MODEL_PORT)


def bring_model(stage: Stage) -> None:
    """Put the stub where containers of `workload` see it."""
    (stage.home / "demo").mkdir()
    shutil.copy(PROJECT / "tests/fakes/model_stub.py", stage.home / "demo")


def token_of(claim: Claim) -> str:
    """The gateway's own token."""
    assert claim.token_file is not None
    return claim.token_file.read_text().strip()


def ask(port: int | None, token: str, text: str) -> None:
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


@contextmanager
def model_in(current: Runtime, *, pool: str = "", name: str = "") -> Iterator[None]:
    """A model in each container of the pool, or in the one of that name: those that run, and those that come to run."""
    over = threading.Event()
    failed: list[Exception] = []
    served: set[str] = set()

    def serve() -> None:
        for container in _running(current, pool, name) - served:
            argv = command.exec_argv(container, MODEL, interactive=False, tty=False, detach=True)
            subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
            served.add(container)

    def go_on() -> None:
        try:
            while not over.wait(0.01):
                serve()
        except (ClawError, OSError, subprocess.SubprocessError) as error:
            failed.append(error)

    serve()
    thread = threading.Thread(target=go_on, name="model")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    if failed:
        raise failed[0]


def _running(current: Runtime, pool: str, name: str) -> set[str]:
    if name:
        found = current.engine.inspect(name)
        return {name} if found and found.state == "running" else set()
    listed = current.engine.list({**current.pools.owner_labels, LABEL_POOL: pool})
    return {found.id for found in listed if found.state == "running"}
