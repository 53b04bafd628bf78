"""The daemon as an operator has it (`claw-runtime up`: API, reconciler, real Podman), but it kills itself when told to.

It is a fork of this process, which has imported everything. Between its lives a file tells it where to die next, so
that whatever a story needs before can be arranged with the very daemon that is to be killed.
"""

import ctypes
import gc
import json
import os
import signal
import sys
import time
import traceback
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from claw_runtime.api import server
from claw_runtime.api.client import Client
from claw_runtime.cli import main as cli
from claw_runtime.cli import up_verb
from claw_runtime.daemon import loops, stores
from claw_runtime.engine.podman import PodmanEngine
from claw_runtime.errors import ClawError
from claw_runtime.tenancy import Layout
from kill.beside import MARK
from kill.places import Store
from kill.points import Fuse, Shot, install

__all__ = ["KillingDaemon", "server", "up_verb"]  # imported here, once, for all that are forked

PAUSE = 0.3
"""Seconds between two looks of the reconciler and of those who tend and retry: nobody waits 30 s for each point."""


class FileFuse(Fuse):
    """Armed while a file says so; what is passed is written to another."""

    def __init__(self, place: Path) -> None:
        super().__init__()
        self._file, self._log, self._stamp = place / "fuse.json", place / "points.log", 0
        self._victim = "daemon"

    def is_armed(self) -> bool:
        try:
            stamp = self._file.stat().st_mtime_ns
        except FileNotFoundError:
            return False
        if stamp != self._stamp:
            shot, self._victim = json.loads(self._file.read_text())
            self._stamp = stamp
            self.arm(Shot(**shot) if shot else None)
        return True

    def strike(self) -> None:
        if self._victim == "daemon":
            super().strike()
        for pid in _children("podman"):
            os.kill(pid, signal.SIGKILL)

    def noted(self, point: tuple[str, int]) -> None:
        with self._log.open("a") as file:
            file.write(json.dumps(point) + "\n")


class KillingDaemon:
    """One data directory below `place`, and the daemons that serve it, one after another.

    Args:
        workload: Its file.
        bucket: The store's directory; one below `place` when it is None.
    """

    def __init__(self, place: Path, workload: Path, bucket: Path | None = None) -> None:
        self.place = place
        self.layout = Layout(home=place / "home", run=place / "run")
        self._workload = workload
        self.bucket = bucket or place / "bucket"
        self.bucket.mkdir(exist_ok=True)
        self._pid = 0

    @property
    def pid(self) -> int:
        """Of the daemon that runs, 0 when none does."""
        return self._pid

    @property
    def log(self) -> str:
        """What all of them said."""
        path = self.place / "daemon.log"
        return path.read_text() if path.exists() else ""

    @property
    def client(self) -> Client:
        return Client(self.layout.api_socket, timeout=60)

    def start(self, *, timeout: float = 60) -> float:
        """Start a daemon; the seconds until its API answered and its slots were recovered."""
        begun = time.monotonic()
        self.layout.api_socket.unlink(missing_ok=True)
        self._pid = os.fork()
        if self._pid == 0:
            self._be_daemon()
        while time.monotonic() - begun < timeout:
            assert not self.is_dead(), f"the daemon died at its start:\n{self.log[-3000:]}"
            try:
                recovery = self.client.get("/api/v1/recovery")
            except ClawError:
                recovery = {"poolsReady": False}
            if recovery["poolsReady"]:  # tenants may still be recovered
                return time.monotonic() - begun
            time.sleep(0.01)
        raise AssertionError(f"the daemon is not up after {timeout} s:\n{self.log[-3000:]}")

    def run(self) -> int:
        """Start a daemon that will not stay; its exit code."""
        pid = os.fork()
        if pid == 0:
            self._be_daemon()
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def arm(self, shot: Shot | None, *, victim: Literal["daemon", "service"] = "daemon") -> None:
        """From now on its points count; it dies at the shot, if there is one, or Podman's service does."""
        (self.place / "points.log").unlink(missing_ok=True)
        draft = self.place / "fuse.draft"
        draft.write_text(json.dumps([asdict(shot) if shot else None, victim]))
        draft.rename(self.place / "fuse.json")

    def disarm(self) -> list[tuple[str, int]]:
        """Its points count no more; those that it passed."""
        (self.place / "fuse.json").unlink(missing_ok=True)
        log = self.place / "points.log"
        lines = log.read_text().splitlines() if log.exists() else []
        return [(name, nth) for name, nth in map(json.loads, lines)]

    def is_dead(self, *, within: float = 0.0) -> bool:
        """Whether the daemon has ended, at the latest in so many seconds."""
        deadline = time.monotonic() + within
        while self._pid:
            pid, _ = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                self._pid = 0
            elif time.monotonic() >= deadline:
                return False
            else:
                time.sleep(0.005)
        return True

    def kill(self) -> None:
        """SIGKILL from outside: no farewell."""
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
        assert self.is_dead(within=30)

    def stop(self) -> None:
        """SIGTERM: it removes waiting slots and leaves tenants alone."""
        if self._pid:
            os.kill(self._pid, signal.SIGTERM)
        assert self.is_dead(within=60), self.log[-3000:]

    def _be_daemon(self) -> None:
        """Never returns: nothing of the parent's stack, tests or exit handlers may run twice."""
        code = 70
        try:
            gc.disable()
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)  # tests that are broken off leave no daemon
            warnings.resetwarnings()
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            log = os.open(self.place / "daemon.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            nothing = os.open(os.devnull, os.O_RDWR)
            for fd, stream in ((nothing, 0), (log, 1), (log, 2)):
                os.dup2(fd, stream)
            sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w", 1), os.fdopen(2, "w", 1)
            self._arrange()
            install(FileFuse(self.place), PodmanEngine, Store)
            cli.main(["up", str(self._workload)])
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        except BaseException:  # noqa: BLE001 - for whoever reads the log
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)

    def _arrange(self) -> None:
        for name in [name for name in os.environ if name.startswith(("AWS_", "CLAW_")) and name not in _KEPT]:
            del os.environ[name]
        os.environ |= {
            "CLAW_HOME": str(self.layout.home), "CLAW_RUN": str(self.layout.run), "CLAW_LIMITS": "drop",
            "CLAW_BUCKET": self.bucket.as_uri(), MARK: str(self.place),
        }  # fmt: skip
        loops.RECONCILER_PAUSE = loops.TENDING_PAUSE = loops.RETRY_KEPT = PAUSE
        stores.open_store = lambda *_, **__: Store(self.bucket)


_PR_SET_PDEATHSIG = 1
_KEPT = ("CLAW_CGROUP_PARENT", "CLAW_IN_HOLDER", "CLAW_USER")


def _children(name: str) -> list[int]:
    """Pids of this process's children whose program has that name."""
    pids = [pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()]
    return [int(pid) for pid in pids if Path(f"/proc/{pid}/comm").read_text().strip() == name]
