"""A container of the real OpenClaw image that waits for its tenant, made by Podman's command line alone.

It stands for the runtime: creates the start gate, brings state and values, opens it. So the image's side of the gate is
tested without the runtime's, and the runtime's own container is not needed to tell who is wrong.
"""

import json
import os
import runpy
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from claw_runtime.engine import mapping
from claw_runtime.seccomp import profiles
from fakes import live_podman

PROJECT = Path(__file__).parents[2]
IMAGE = "localhost/openclaw-nix:dev"
PATIENCE = 120.0  # seconds
MODEL_PORT = 18080
TENANT = {
    "OPENCLAW_GATEWAY_TOKEN": "token-of-the-tenant",
    "OPENCLAW_MATRIX_HOMESERVER": "https://tenant.example.org",
    "OPENCLAW_MATRIX_USER_ID": "@tenant:example.org",
    "OPENCLAW_MATRIX_TOKEN": "matrix-of-the-tenant",
    "CLAW_MODEL_BASE_URL": f"http://127.0.0.1:{MODEL_PORT}/v1",
    "CLAW_MODEL_API_KEY": "key-of-the-tenant",
    "CLAW_MODEL_ID": "stub-1",
}

chat: Callable[..., str] = runpy.run_path(str(PROJECT / "docs/examples/openclaw/chat.py"))["chat"]


def podman(*arguments: str | Path) -> str:
    """Output of a command of Podman."""
    return subprocess.run(["podman", *arguments], check=True, capture_output=True, text=True).stdout.strip()


class Gateway:
    """One container. `tier` empty is a cold start, whose values must be there before.

    Attributes:
        name: Of the container.
        state, values: Directories of the host that are mounted.
    """

    def __init__(self, home: Path, tier: str, environment: Mapping[str, str], extra: Sequence[str]) -> None:
        self.name = f"img-{home.name}"
        self.state, self.values, self._logs = home / "state", home / "values", home / "logs"
        for directory in (self.state, self.values, self._logs):
            directory.mkdir(mode=0o700)
        if tier:
            os.mkfifo(self.values / "door", 0o600)
        arguments = ["--network=slirp4netns:allow_host_loopback=false", "--publish=127.0.0.1::18789"]
        arguments += [*mapping.flags(), f"--security-opt=seccomp={profiles.path_of('strict')}"]
        arguments += ["--init", "--cap-drop=all", "--security-opt=no-new-privileges", "--pull=never"]
        arguments += ["--read-only", "--read-only-tmpfs=false", "--image-volume=ignore", f"--name={self.name}"]
        arguments += [f"--tmpfs={path}:mode=1777" for path in ("/config", "/tmp", "/var/tmp")]
        arguments += [f"--volume={self.state}:/state", f"--volume={self._logs}:/logs"]
        arguments += [f"--volume={self.values}:/run/claw:ro", f"--volume={PROJECT}/tests/fakes:/opt/fakes:ro"]
        arguments += [f"--env={name}={value}" for name, value in environment.items()]
        if parent := os.environ.get("CLAW_CGROUP_PARENT"):
            arguments.append(f"--cgroup-parent={parent}")
        podman("create", *arguments, *extra, IMAGE, *(["--park", tier] if tier else []))

    def start(self) -> None:
        podman("start", self.name)

    def opened(self) -> int:
        """The gate for writing, as soon as a process waits at it."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return os.open(self.values / "door", os.O_WRONLY | os.O_NONBLOCK)
            except OSError:
                assert time.monotonic() < deadline, self.log()
                assert self.runs(), self.log()
                time.sleep(0.05)

    def wait(self) -> None:
        """Until it waits."""
        os.close(self.opened())

    def bring(self, values: Mapping[str, str]) -> None:
        path = self.values / "values.json"
        path.touch(0o600)
        path.write_text(json.dumps({"v": 1, "values": values}))

    def open_gate(self) -> None:
        fifo = self.opened()
        os.write(fifo, b'{"v":1}\n')
        os.close(fifo)

    def model(self) -> None:
        """A model inside the container's own network."""
        script = ("/usr/bin/python3", "-I", "/opt/fakes/model_stub.py", str(MODEL_PORT))
        podman("exec", "--detach", self.name, *script)

    def runs(self) -> bool:
        return podman("container", "inspect", "--format={{.State.Running}}", self.name) == "true"

    def ended(self) -> int:
        """Its exit code, when it has one."""
        return int(podman("wait", self.name))

    def log(self) -> str:
        """Both of its streams."""
        done = subprocess.run(["podman", "logs", self.name], check=True, capture_output=True, text=True)
        return done.stdout + done.stderr

    def events(self, name: str) -> list[dict[str, Any]]:
        """Lines of this name that the entrypoint or the waiter has logged."""
        lines = [json.loads(line) for line in self.log().splitlines() if line.startswith('{"ts"')]
        return [line for line in lines if line["event"] == name]

    @property
    def pid(self) -> int:
        """The program's, which is the first child of the init."""
        init = podman("container", "inspect", "--format={{.State.Pid}}", self.name)
        return int(Path(f"/proc/{init}/task/{init}/children").read_text().split()[0])

    def zombies(self) -> int:
        """Processes in there that have ended and that nobody has waited for."""
        stats = podman("exec", self.name, "sh", "-c", "cat /proc/[0-9]*/stat 2>/dev/null; true")
        return sum(line.rpartition(") ")[2].startswith("Z") for line in stats.splitlines())

    @property
    def endpoint(self) -> str:
        return f"http://{podman('port', self.name).rpartition('-> ')[2]}"

    def ready(self, token: str = TENANT["OPENCLAW_GATEWAY_TOKEN"]) -> None:
        """Until nothing fails but what nobody has linked yet."""
        request = urllib.request.Request(f"{self.endpoint}/readyz", headers={"Authorization": f"Bearer {token}"})
        deadline = time.monotonic() + PATIENCE
        failing: Any = None
        while failing is None or not set(failing) <= {"whatsapp"}:
            assert time.monotonic() < deadline, self.log()
            assert self.runs(), self.log()
            time.sleep(0.05)
            try:
                with urllib.request.urlopen(request, timeout=10) as answer:
                    failing = json.load(answer)["failing"]
            except urllib.error.HTTPError as error:
                failing = json.load(error).get("failing")
            except (OSError, ValueError):
                continue

    def says(self, text: str, token: str = TENANT["OPENCLAW_GATEWAY_TOKEN"]) -> str:
        return chat(self.endpoint, token, text)

    def stop(self) -> int:
        """Ask it to end; its exit code."""
        podman("stop", "--time=30", self.name)
        return self.ended()

    def remove(self) -> None:
        """Remove it. Podman's own cleaning up after a container that has just ended may be in the way."""
        for _ in range(3):
            done = subprocess.run(["podman", "rm", "--force", "--time=1", self.name], check=False, capture_output=True)
            if done.returncode == 0:
                return
            time.sleep(0.5)
        raise AssertionError(done.stderr.decode())


@contextmanager
def gateway(
    below: Path,
    tier: str = "",
    *,
    state: Path | None = None,
    environment: Mapping[str, str] | None = None,
    extra: Sequence[str] = (),
) -> Iterator[Gateway]:
    """A container over a copy of a state, gone afterwards with its directories."""
    with live_podman.directory_in(below) as home:
        made = Gateway(home, tier, environment or {}, extra)
        try:
            if state:
                shutil.copytree(state, made.state, symlinks=True, dirs_exist_ok=True)
            yield made
        finally:
            made.remove()
