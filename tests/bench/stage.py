"""The surroundings of a benchmark: a data directory on the user's own disk, an S3 server, and the removal afterwards.

A benchmark uses nothing of the operator's: no settings file, no bucket, no daemon. However it ends, by an error or by
Ctrl-C, its containers, processes and directories are removed.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from claw_runtime import settings as host_settings
from claw_runtime.api.client import Client
from claw_runtime.daemon import assembly
from claw_runtime.daemon import home as daemon_home
from claw_runtime.daemon.assembly import Runtime
from claw_runtime.errors import ClawError, DaemonUnreachable
from claw_runtime.logs import Secret
from claw_runtime.objects.seaweedfs import SeaweedFS
from claw_runtime.ports import SlotRow
from claw_runtime.settings import Settings
from claw_runtime.state.repository import CommitRequest, Repository
from claw_runtime.state.rules.selection import EVERYTHING
from claw_runtime.tenancy import LABEL_OWNER, TenantId

BUCKET = "bench"
LABEL_PEER = "io.claw.bench"
UP, FULL = 60.0, 120.0  # seconds until a daemon's API must answer, and until its pool must be full


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A data directory with settings of its own, and its workload files."""

    home: Path
    settings: Settings
    workloads: tuple[Path, ...]

    @property
    def workload(self) -> Path:
        """The first workload file."""
        return self.workloads[0]

    def daemon_pid(self) -> int:
        """The process that `daemon` started, out of the lock that it holds."""
        return int(self.settings.layout.lock.read_text())

    @property
    def peers(self) -> Path:
        """Directory of the directories of peers' containers."""
        return self.home / "peers"

    @property
    def labels(self) -> tuple[str, str]:
        """The labels of our containers and of the peers'."""
        return f"{LABEL_OWNER}={daemon_home.runtime_id(self.settings.layout)}", f"{LABEL_PEER}={self.home.name}"

    def environment(self) -> dict[str, str]:
        """For a process of `claw-runtime` that shall use this stage and nothing else."""
        ours = {name: text for name, text in os.environ.items() if not name.startswith(("CLAW_", "AWS_"))}
        for field, variable in host_settings.ENVIRONMENT.items():
            value = getattr(self.settings, field)
            if value not in (None, ()):  # what may be said several times is empty here
                ours[variable] = _written(value)
        return ours


def _written(value: object) -> str:
    """A setting as an operator would write it; a float is a duration."""
    if isinstance(value, Secret):
        return value.reveal()
    return f"{value}s" if isinstance(value, float) else str(value)


@contextmanager
def staged(*workloads: str) -> Iterator[Stage]:
    """A stage with these workload files (`@home@` in them is the stage's directory) and an S3 server that runs.

    Raises:
        ClawError: There is no S3 server, or its ports are taken.
    """
    # Below the user's home, as the data directory is: /tmp may be memory, where an fsync costs nothing.
    home = Path(tempfile.mkdtemp(prefix="claw-bench-", dir=Path.home()))
    with ExitStack() as stack:
        stack.callback(_set_handlers, {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)})
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        run = Path(tempfile.mkdtemp(prefix="claw-bench-", dir=memory() or home))
        stack.callback(shutil.rmtree, run, ignore_errors=True)
        server = SeaweedFS(home / "s3")
        stack.callback(server.stop)
        server.start()
        server.make_bucket(BUCKET)
        files = tuple(home / f"workload-{number}.yaml" for number in range(len(workloads)))
        stage = Stage(home=home, settings=_settings(home, run, server), workloads=files)
        for file, text in zip(files, workloads, strict=True):
            file.write_text(text.replace("@home@", str(home)))
        stage.peers.mkdir()
        stack.callback(_sweep, stage)
        stack.callback(_set_handlers, dict.fromkeys((signal.SIGINT, signal.SIGTERM), signal.SIG_IGN))
        yield stage


@contextmanager
def opened(stage: Stage) -> Iterator[Runtime]:
    """The real runtime of this stage, in this process, without API and reconciler."""
    with assembly.opened(stage.settings, stage.workloads) as current:
        current.recover()
        yield current


@contextmanager
def daemon(stage: Stage) -> Iterator[Client]:
    """`claw-runtime up`, in a session of its own, so that Ctrl-C reaches it through us alone; its API answers.

    Raises:
        ClawError: It did not come up; its last words are the why.
    """
    program = Path(sys.executable).with_name("claw-runtime")
    with (stage.home / "daemon.log").open("wb") as log:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", str(program), "up", *map(str, stage.workloads)],
            env=stage.environment(),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    client = Client(stage.settings.layout.api_socket)
    try:
        _until_up(client, process, stage.home / "daemon.log")
        yield client
    finally:
        client.close()
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _until_up(client: Client, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + UP
    while True:
        try:
            client.get("/api/v1/pools")
        except DaemonUnreachable as error:
            if process.poll() is not None or time.monotonic() > deadline:
                said = log.read_text(errors="replace").strip()[-2000:]
                raise ClawError("the daemon does not come up", why=said or str(error)) from error
            time.sleep(0.05)
        else:
            return


def only_slot(stage: Stage, api: Client) -> Path:
    """The directory of the one slot that waits, once the daemon is at rest. Raises as `until_full`."""
    until_full(stage, api, 1)
    [slot] = stage.settings.layout.slots.glob("*")
    return slot


def until_full(stage: Stage, api: Client, slots: int) -> None:
    """Wait until a daemon's one pool has so many slots that wait, and there are no others.

    Raises:
        ClawError: They cannot be made, or the daemon does not come to rest.
    """
    deadline = time.monotonic() + FULL
    while time.monotonic() < deadline:
        [pool] = api.get("/api/v1/pools")
        if pool["error"]:
            raise ClawError(f"pool {pool['id']} is not full", why=pool["error"], hint=pool["hint"])
        if pool["ready"] == slots == len(list(stage.settings.layout.slots.glob("*"))):
            return
        time.sleep(0.05)
    said = (stage.home / "daemon.log").read_text(errors="replace").strip()[-2000:]
    raise ClawError(f"the daemon does not have {slots} slots after {FULL:g} s", why=said)


def refill(current: Runtime) -> None:
    """Fill the pools, as the reconciler does.

    Raises:
        ClawError: One could not be filled.
    """
    current.pools.keep()
    for status in current.pools.status():
        if status.error:
            raise ClawError(f"pool {status.id} is not full", why=status.error, hint=status.hint)


def waiting(current: Runtime, pool: str) -> SlotRow:
    """The one slot of a full pool of one."""
    [slot] = [slot for slot in current.ledger.slots(pool) if slot.state == "ready"]
    return slot


def remember(current: Runtime, tenant: TenantId, tree: Path) -> None:
    """Commit a tree as the tenant's state, as another host would have: nothing of it is left on this one."""
    elsewhere = Repository(current.store, "elsewhere", current.clock, current.settings.layout.scratch)
    lease = elsewhere.leases.acquire(tenant)
    with tempfile.TemporaryDirectory(dir=current.settings.home) as staging:
        right = elsewhere.restorer.restore(lease, Path(staging, "tree"))
    elsewhere.committer.commit(
        CommitRequest(right=right, tree=tree, selection=EVERYTHING, image_digest="", application="", release=True)
    )


def memory() -> Path | None:
    """A directory in memory, as the user's runtime directory is on a host with systemd; None where there is none."""
    for place in (os.environ.get("XDG_RUNTIME_DIR", ""), "/dev/shm"):
        if place and os.access(place, os.W_OK) and _file_system(place) == "tmpfs":
            return Path(place)
    return None


def _file_system(place: str) -> str:
    return subprocess.run(["stat", "-f", "-c", "%T", place], capture_output=True, text=True, check=True).stdout.strip()


def _settings(home: Path, run: Path, server: SeaweedFS) -> Settings:
    """Ours, and of the host's only how its containers are grouped."""
    return host_settings.load(
        {
            "home": home,
            "run": run,
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
