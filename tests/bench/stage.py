"""Where a benchmark plays: a data directory on the user's own disk, an S3 server, and a sweep afterwards.

Nothing of the operator's is used: no settings file, no bucket, no daemon. However a benchmark ends, by an error or by
Ctrl-C, its containers, processes and directories are gone afterwards.
"""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from claw_runtime import runtime
from claw_runtime import settings as host_settings
from claw_runtime.errors import ClawError
from claw_runtime.logs import Secret
from claw_runtime.objects.seaweedfs import SeaweedFS
from claw_runtime.ports import SlotRow
from claw_runtime.runtime import Runtime
from claw_runtime.settings import Settings
from claw_runtime.tenancy import LABEL_OWNER

BUCKET = "bench"
LABEL_PEER = "io.claw.bench"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A data directory with settings of its own. `workload` is its only workload file."""

    home: Path
    settings: Settings
    workload: Path

    @property
    def peers(self) -> Path:
        """Directory of the directories of peers' containers."""
        return self.home / "peers"

    @property
    def labels(self) -> tuple[str, str]:
        """The labels of our containers and of the peers'."""
        return f"{LABEL_OWNER}={runtime.runtime_id(self.settings.layout)}", f"{LABEL_PEER}={self.home.name}"

    def environment(self) -> dict[str, str]:
        """For a process of `claw-runtime` that shall use this stage and nothing else."""
        ours = {name: text for name, text in os.environ.items() if not name.startswith(("CLAW_", "AWS_"))}
        for field, variable in host_settings.ENVIRONMENT.items():
            value = getattr(self.settings, field)
            if value is not None:
                ours[variable] = value.reveal() if isinstance(value, Secret) else str(value)
        return ours


@contextmanager
def staged(workload: str) -> Iterator[Stage]:
    """A stage with this workload file (`@home@` in it is the stage's directory) and an S3 server that runs.

    Raises:
        ClawError: There is no S3 server, or its ports are taken.
    """
    # Below the user's home, as the data directory is: /tmp may be memory, where an fsync costs nothing.
    home = Path(tempfile.mkdtemp(prefix="claw-bench-", dir=Path.home()))
    with ExitStack() as stack:
        stack.callback(_set_handlers, {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)})
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        server = SeaweedFS(home / "s3")
        stack.callback(server.stop)
        server.start()
        server.make_bucket(BUCKET)
        stage = Stage(home=home, settings=_settings(home, server), workload=home / "workload.yaml")
        stage.workload.write_text(workload.replace("@home@", str(home)))
        stage.peers.mkdir()
        stack.callback(_sweep, stage)
        stack.callback(_set_handlers, dict.fromkeys((signal.SIGINT, signal.SIGTERM), signal.SIG_IGN))
        yield stage


@contextmanager
def opened(stage: Stage) -> Iterator[Runtime]:
    """The real runtime of this stage, in this process, without API and keeper."""
    with runtime.opened(stage.settings, [stage.workload]) as current:
        current.recover()
        yield current


def refill(current: Runtime, pool: str) -> None:
    """Fill the pool, as the keeper does.

    Raises:
        ClawError: It could not be filled.
    """
    current.pools.keep()
    for status in current.pools.status():
        if status.id == pool and status.error:
            raise ClawError(f"pool {pool} is not full", why=status.error)


def waiting(current: Runtime, pool: str) -> SlotRow:
    """The one slot of a full pool of one."""
    [slot] = [slot for slot in current.ledger.slots(pool) if slot.state == "ready"]
    return slot


def _settings(home: Path, server: SeaweedFS) -> Settings:
    """Ours, and of the host's only how its containers are grouped."""
    return host_settings.load(
        {
            "home": home,
            "run": home / "run",
            "bucket": f"s3://{BUCKET}",
            "endpoint": server.endpoint,
            "region": "us-east-1",
            "access_key": server.access_key.reveal(),
            "secret_key": server.secret_key.reveal(),
            "cgroup_parent": host_settings.load().cgroup_parent,
            "limits": "drop",
        },
        environ={"HOME": str(home)},
        system_file=home / "none",
    )


def _sweep(stage: Stage) -> None:
    """Remove the containers of ours and of the peers', whoever was about to."""
    stage.settings.layout.home.mkdir(exist_ok=True)
    for label in stage.labels:
        found = subprocess.run(
            ["podman", "ps", "-aq", "--filter", f"label={label}"], check=True, capture_output=True, text=True
        )
        if ids := found.stdout.split():
            subprocess.run(["podman", "rm", "-f", "-t", "0", "-v", *ids], check=True, stdout=subprocess.DEVNULL)


def _set_handlers(handlers: Mapping[signal.Signals, Any]) -> None:
    """Set what Ctrl-C and SIGTERM do: nothing during the sweep, afterwards what they did before."""
    for number, handler in handlers.items():
        signal.signal(number, handler)
