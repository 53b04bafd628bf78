"""A real daemon in a process of its own, and the command line against it, as an operator has them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from claw_runtime.api.client import Client

CLI = (sys.executable, "-c", "from claw_runtime.cli.main import main; main()")


@dataclass(frozen=True, slots=True)
class Answer:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Daemon:
    """`claw-runtime up` with a data directory of its own.

    Args:
        home: Data directory, with a short path; `run` is made below it.
        workloads: Workload files.
        settings: Environment variables that begin with CLAW_, besides home and run.
    """

    def __init__(self, home: Path, workloads: Sequence[Path] = (), settings: Mapping[str, str] | None = None) -> None:
        self.home = home
        self.workloads = workloads
        own = {name: text for name, text in os.environ.items() if not name.startswith(("AWS_", "CLAW_"))}
        keep = {name: os.environ[name] for name in ("CLAW_CGROUP_PARENT", "CLAW_IN_HOLDER") if name in os.environ}
        self.environment = {
            **own, **keep, "CLAW_HOME": str(home), "CLAW_RUN": str(home / "run"),
            "CLAW_LIMITS": "drop", **(settings or {}),
        }  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """What the daemons of this data directory said on standard error."""
        path = self.home / "daemon.log"
        return path.read_text() if path.exists() else ""

    def cli(self, *arguments: str, timeout: float = 120, stdin: str | None = None, **environment: str) -> Answer:
        """Run `claw-runtime ARGUMENTS…`."""
        done = subprocess.run(
            [*CLI, *arguments],
            env={**self.environment, **environment},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    def ok(self, *arguments: str, **options: Any) -> Answer:
        """Run it; it must end with 0."""
        answer = self.cli(*arguments, **options)
        assert answer.code == 0, f"{arguments}: {answer.err}\n{self.log[-3000:]}"
        return answer

    def start(self, *, ready: int = 0, timeout: float = 90) -> None:
        """Start, and wait until the API answers and `ready` slots wait in the first pool."""
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.home / "daemon.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*CLI, "up", *map(str, self.workloads)],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,  # as a shell's job has one, so that a test may end it as a whole
            )
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"the daemon ended with {self.process.returncode}:\n{self.log[-3000:]}"
            answer = self.cli("pool", "list", "-o", "json")
            if answer.code == 0 and self._slots_recovered() and (not ready or answer.json[0]["ready"] >= ready):
                return
            time.sleep(0.1)
        raise AssertionError(f"the daemon is not up after {timeout} s:\n{self.log[-3000:]}")

    def _slots_recovered(self) -> bool:
        """Whether what the last daemon left of slots is kept or gone; tenants may still be recovered."""
        client = Client(Path(self.environment["CLAW_RUN"]) / "api.sock", timeout=30)
        return bool(client.get("/api/v1/recovery")["poolsReady"])

    def kill(self) -> None:
        """SIGKILL: no farewell."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def close(self) -> None:
        """Release every tenant without a commit, and stop."""
        if self.process is None:
            return
        if self.process.poll() is not None:
            self.start()
        for tenant in self.cli("status", "-o", "json").json:
            if tenant["state"] != "cold":
                self.cli("release", tenant["tenantId"], "--no-sync")
        self.stop()
        if "CLAW_INGRESS" in self.environment:
            self.cli("router", "--end")

    def state_of(self, tenant: str) -> Path:
        """The live /state of a claimed tenant on this host: the one slot that the tenant's container mounts."""
        container = self.ok("status", tenant, "-o", "json").json["containerId"]
        inspected = subprocess.run(
            ["podman", "container", "inspect", container], check=True, capture_output=True, text=True
        ).stdout
        return next(
            Path(mount["Source"]) for mount in json.loads(inspected)[0]["Mounts"] if mount["Destination"] == "/state"
        )


@contextmanager
def on_small_image(
    home: Path, image: str, more: str = "", settings: Mapping[str, str] | None = None
) -> Iterator[Daemon]:
    """A running daemon with one slot of the small image, a store in a directory, and `more` in its workload file."""
    (home / "store").mkdir()
    workload = home / "small.yaml"
    workload.write_text(
        f"id: small\nimage: {image}\nports: [{{container: 8080}}]\n"
        "healthcheck: {path: /healthz, ready_timeout: 60s}\nvolumes: {state: {target: /state}}\n"
        f"pool: {{min_size: 1, max_size: 4, affinity_timeout: 0}}\n{more}"
    )
    made = Daemon(home / "d", [workload], {"CLAW_BUCKET": f"file://{home / 'store'}", **(settings or {})})
    made.start(ready=1)
    yield made
    made.close()
