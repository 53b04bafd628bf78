"""Podman's API service as a unit of a service manager: watched and restarted, never started or ended from here.

What forwards a tenant's published port is a child of Podman's service. In a unit of its own, and with a unit file that
ends the service alone (`KillMode=process`), those processes outlive the daemon, its service, and upgrades of both.
"""

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from claw_runtime import unix_http
from claw_runtime.concurrency import Replacements
from claw_runtime.engine import volatile
from claw_runtime.engine.service import environment, pinged, prepared
from claw_runtime.errors import ClawError, EngineUnavailable

_START_SECONDS = 30.0
_RESTART_AFTER = 3.0
_LOOK_SECONDS = 0.05
_BUSY_SECONDS = 1.0


class PodmanUnit:
    """Podman's API on the socket of a unit, with the methods of `PodmanService`.

    Args:
        path: The Unix socket, which a start of the unit makes anew.
        restart: Ends and starts the unit; raises `ClawError` if that fails.
        start_timeout: Seconds until the API must answer.
    """

    pid: int | None = None
    """The process is the service manager's."""

    def __init__(self, path: Path, restart: Callable[[], None], *, start_timeout: float = _START_SECONDS) -> None:
        self.path = path
        self._restart = restart
        self._start_timeout = start_timeout
        self._lock = threading.Lock()
        self._known: tuple[int, int, int] | None = None
        self._generation = 0
        self._replacements = Replacements()

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    def ensure(self) -> int:
        """Wait for the service if it is not there. If it stays away for seconds, the unit is restarted.

        Returns:
            A number that changes with every start, so that clients know when their connections are stale.

        Raises:
            EngineUnavailable: Its API does not answer in time.
        """
        if self._known is not None and self._identity() == self._known and self.listens():
            return self._generation
        with self._lock:
            if self._known is None or self._identity() != self._known or not self.listens():
                self._wait_until_it_answers()
            return self._generation

    def supervise(self) -> bool:
        """Restart the unit if its service does not answer; to be called every few seconds.

        Returns:
            Whether it was restarted.

        Raises:
            ClawError: The service manager refused, or the new service does not answer either.
        """
        if not self._replacements.due(answers=self.answers()):
            return False
        self._restart()
        with self._lock:
            self._wait_until_it_answers()
        return True

    def answers(self) -> bool:
        """Whether its API answers a ping within seconds."""
        return pinged(self.path)

    def listens(self) -> bool:
        """Whether a process accepts on the socket; one that is too busy to accept counts."""
        try:
            unix_http.connected(self.path, within=_BUSY_SECONDS).close()
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError:
            return True
        return True

    def close(self) -> None:
        """Nothing: the unit stays."""

    def _identity(self) -> tuple[int, int, int] | None:
        """Of the socket's name; each start of the service binds a new one."""
        try:
            status = self.path.lstat()
        except OSError:
            return None
        return status.st_dev, status.st_ino, status.st_ctime_ns

    def _wait_until_it_answers(self) -> None:
        began, asked, why = time.monotonic(), False, ""
        while True:
            identity = self._identity()
            if identity is not None and self.answers() and identity == self._identity():
                break
            waited = time.monotonic() - began
            if waited > self._start_timeout:
                raise EngineUnavailable(
                    "podman's API does not answer",
                    why=why or f"no answer on {self.path} in {self._start_timeout:g} s",
                    hint="systemctl --user status claw-podman",
                )
            if waited > _RESTART_AFTER and not asked:
                asked = True
                try:
                    self._restart()
                except ClawError as error:
                    why = str(error)
            time.sleep(_LOOK_SECONDS)
        if identity != self._known:
            self._known = identity
            self._generation += 1


def become(path: Path) -> NoReturn:
    """Replace this process with Podman's service on the socket, with the environment that the daemon's child gets.

    Raises:
        EngineUnavailable: Podman is not installed, or the socket's path is too long.
    """
    volatile.reset_after_a_kill()
    argv = prepared(path)
    os.execve(argv[0], argv, environment(path))  # noqa: S606 - an argv list, no shell


def main() -> NoReturn:
    """`python -m claw_runtime.engine.unit SOCKET`: what the unit executes."""
    try:
        become(Path(sys.argv[1]))
    except ClawError as error:
        sys.exit(f"claw-podman: {error}; {error.hint}")


if __name__ == "__main__":
    main()
