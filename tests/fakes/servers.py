"""S3 servers of other people on a free port of 127.0.0.1: honest ones for the conformance suite, liars for the probe.

ministack, which pins another botocore, and pys3local live in environments of their own: `make conformance` makes them.
"""

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from claw_runtime.errors import StoreUnavailable
from claw_runtime.logs import Secret
from claw_runtime.objects.s3 import S3Store
from claw_runtime.ports import AmbiguousWrite

_START_SECONDS: Final = 60.0
_ACCESS: Final = Secret("access-key-of-a-test")
_SECRET: Final = Secret("secret-key-of-a-test")


class Missing(Exception):
    """The server is not installed; the message says how it would be."""


@dataclass(frozen=True, kw_only=True)
class Server:
    """One that runs and answers."""

    endpoint: str
    access_key: Secret = _ACCESS
    secret_key: Secret = _SECRET

    def store(self, bucket: str, *, prefix: str = "") -> S3Store:
        """A store in a bucket of that name, which is made."""
        made = S3Store(
            bucket=bucket,
            prefix=prefix,
            endpoint=self.endpoint,
            access_key=self.access_key,
            secret_key=self.secret_key,
        )
        made.create_bucket()
        return made


@contextmanager
def moto() -> Iterator[Server]:
    """In a thread of this process."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        running: Any = server._server
        running.app = _one_condition_at_a_time(running.app)
        yield Server(endpoint=f"http://{host}:{port}")
    finally:
        server.stop()


def _one_condition_at_a_time(app: Callable[..., Any]) -> Callable[..., Any]:
    """moto looks and writes in two steps: of writers at the same moment more than one may find the ETag that it asked
    for, which no server that is meant for more than tests does."""
    lock = threading.Lock()

    def alone(environ: Mapping[str, Any], start: Callable[..., Any]) -> Any:
        if {"HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH"} & environ.keys():
            with lock:
                return app(environ, start)
        return app(environ, start)

    return alone


@contextmanager
def ministack(home: Path) -> Iterator[Server]:
    program, port = _program("ministack"), _free_port()
    environment = {
        "BIND_HOST": "127.0.0.1",  # its own default is every interface
        "GATEWAY_PORT": str(port),
        "S3_PERSIST": "1",
        "S3_DATA_DIR": str(home / "data"),
        "PERSIST_STATE": "1",
        "STATE_DIR": str(home / "state"),
    }
    with _running([program], home, port, environment) as server:
        yield server


@contextmanager
def rclone(home: Path) -> Iterator[Server]:
    """Answers 200 to conditional writes and ignores them (rclone issue 8566)."""
    program, port = _program("rclone"), _free_port()
    (home / "data").mkdir()
    keys = f"{_ACCESS.reveal()},{_SECRET.reveal()}"
    argv = [program, "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", keys, "--config", os.devnull]
    with _running([*argv, str(home / "data")], home, port) as server:
        yield server


@contextmanager
def pys3local(home: Path) -> Iterator[Server]:
    """Ignores conditions, and its listings end with their first page."""
    program, port = _program("pys3local"), _free_port()
    argv = [program, "serve", "--path", str(home / "data"), "--listen", f"127.0.0.1:{port}"]
    keys = ["--access-key-id", _ACCESS.reveal(), "--secret-access-key", _SECRET.reveal()]
    with _running([*argv, *keys, "--allow-bucket-creation"], home, port) as server:
        yield server


HONEST: Final[Mapping[str, Callable[[Path], AbstractContextManager[Server]]]] = {"ministack": ministack}
LIARS: Final[Mapping[str, Callable[[Path], AbstractContextManager[Server]]]] = {
    "rclone serve s3": rclone,
    "pys3local": pys3local,
}


def _program(name: str) -> str:
    """Beside this interpreter, in its own environment below it, or on PATH."""
    beside = Path(sys.executable).parent
    for found in (beside / name, beside.parent / "peers" / name / "bin" / name):
        if found.exists():
            return str(found)
    if (path := shutil.which(name)) is None:
        raise Missing(f"{name} is not installed; `make conformance` installs it")
    return path


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def _running(
    argv: Sequence[str], home: Path, port: int, environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    log = home / "server.log"
    given = {"PATH": os.defpath, "HOME": str(home), "AWS_EC2_METADATA_DISABLED": "true", **(environment or {})}
    with log.open("wb") as output:
        process = subprocess.Popen(argv, cwd=home, env=given, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        server = Server(endpoint=f"http://127.0.0.1:{port}")
        _wait(server, process, log)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(server: Server, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Until it has made a bucket."""
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            server.store("ready")
        except (StoreUnavailable, AmbiguousWrite):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(
                    f"{process.args!r} does not answer: {log.read_text('utf-8', 'replace')[-600:]}"
                ) from None
            time.sleep(0.2)
        else:
            return
