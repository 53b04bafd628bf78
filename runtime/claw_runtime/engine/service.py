"""Keeps one `podman system service` running on a private socket, never longer than this process.

One long-lived service makes an API call 5-30 times cheaper than a `podman` command. Containers are children of conmon,
not of the service: they, and their published ports, outlive it (measured on 4.3.1), so a restart loses nothing.
"""

import os
import queue
import shutil
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from claw_runtime import unix_http
from claw_runtime.concurrency import Replacements
from claw_runtime.engine import volatile
from claw_runtime.engine.configuration import without_keyrings
from claw_runtime.engine.refusals import podman_missing
from claw_runtime.errors import EngineUnavailable

# What Podman itself reads. Nothing else is passed on: the daemon's environment may hold S3 keys, and the service
# neither pulls nor pushes, so it needs no proxy either. CONTAINER_HOST would make it talk to another machine's Podman.
# Whole names, no prefixes: an image can ask Podman for each of these variables.
_ENVIRONMENT = frozenset(
    """
    PATH HOME USER LOGNAME LANG LC_ALL LC_CTYPE LC_MESSAGES TMPDIR DBUS_SESSION_BUS_ADDRESS
    XDG_RUNTIME_DIR XDG_CONFIG_HOME XDG_DATA_HOME XDG_CACHE_HOME XDG_SESSION_ID
    CONTAINERS_CONF CONTAINERS_CONF_OVERRIDE CONTAINERS_STORAGE_CONF CONTAINERS_HELPER_BINARY_DIR
    STORAGE_DRIVER STORAGE_OPTS
    """.split()  # noqa: SIM905  # a list of words
)
_SOCKET_PATH_MAX = 107  # bytes, sockaddr_un
_OK = 200
_PING_SECONDS = 5.0


class PodmanService:
    """One child process that serves Podman's API.

    Args:
        path: The Unix socket; what is there is replaced. Podman makes it 0600.
        flags: Podman's own options, before `system service`.
        start_timeout: Seconds until the API must answer.
    """

    def __init__(self, path: Path, *, flags: Sequence[str] = (), start_timeout: float = 30.0) -> None:
        self._path = path
        self._flags = flags
        self._start_timeout = start_timeout
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._generation = 0
        self._replacements = Replacements()

    @property
    def url(self) -> str:
        return f"unix://{self._path}"

    @property
    def path(self) -> Path:
        return self._path

    @property
    def pid(self) -> int | None:
        """The child, or None before the first `ensure` and after `close`."""
        return self._process.pid if self._process else None

    def ensure(self) -> int:
        """Start the service when there is none, or when it died or lost its socket.

        Returns:
            A number that changes with every start, so that clients know when their connections are stale.

        Raises:
            EngineUnavailable: Podman is not installed, or its API does not answer in time.
        """
        if self._alive():
            return self._generation
        with self._lock:
            if not self._alive():
                self._end()
                self._start()
            return self._generation

    def supervise(self) -> bool:
        """Replace the service if it runs and does not answer; to be called every few seconds.

        A service that ended is left to the next `ensure`. Calls that wait for a hung one fail when it is killed.

        Returns:
            Whether it was replaced.

        Raises:
            EngineUnavailable: The new one does not answer either; a later `ensure` or call tries again.
        """
        process = self._process
        if process is None or not _runs(process) or not self._replacements.due(answers=self.answers()):
            return False
        with self._lock:
            if self._process is not process or self.answers():  # it was just being started
                return False
            process.kill()  # it would not heed SIGTERM
            self._end()
            self._start()
        return True

    def listens(self) -> bool:
        """Whether a process accepts on the socket: a killed service closes it before the kernel reports its end."""
        try:
            unix_http.connected(self._path).close()
        except OSError:
            return False
        return True

    def close(self) -> None:
        """End the service; a later `ensure` starts it again."""
        with self._lock:
            self._end()

    def _alive(self) -> bool:
        process = self._process  # read once: another thread may be ending it
        # A predecessor that is still shutting down unlinks the socket by its path, and so might remove the new one.
        return process is not None and _runs(process) and self._path.exists()

    def _start(self) -> None:
        if volatile.has_dead_networks():
            volatile.reset_after_a_kill()
        try:
            self._spawn()
        except EngineUnavailable as error:
            if not any(symptom in error.why for symptom in volatile.SYMPTOMS) or not volatile.reset_after_a_kill():
                raise
            self._spawn()

    def _spawn(self) -> None:
        # The kernel sends the death signal when the *thread* that forked ends, so that thread waits for the child.
        argv = ["setpriv", "--pdeathsig", "TERM", *prepared(self._path, self._flags)]
        started: queue.SimpleQueue[subprocess.Popen[bytes] | OSError] = queue.SimpleQueue()
        threading.Thread(target=self._keep, args=(argv, started), name="podman-service", daemon=True).start()
        outcome = started.get()
        if isinstance(outcome, OSError):
            raise EngineUnavailable("podman could not be started", why=str(outcome)) from outcome
        self._process = outcome
        self._generation += 1
        self._wait_until_it_answers(outcome)

    def _keep(self, argv: list[str], started: "queue.SimpleQueue[subprocess.Popen[bytes] | OSError]") -> None:
        try:
            if self._log.exists():  # the output of the previous one, which may explain its end
                self._log.replace(self._log.with_suffix(".log.1"))
            with self._log.open("wb") as log:
                # A session of its own: Ctrl-C in the daemon's terminal must not end it before the daemon is done.
                process = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=environment(self._path),
                    start_new_session=True,
                )
        except OSError as error:
            started.put(error)
            return
        started.put(process)
        process.wait()

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + self._start_timeout
        while not self.answers():
            if process.poll() is not None or time.monotonic() > deadline:
                last = self._last_words()
                self._end()
                raise EngineUnavailable(
                    "podman's API does not answer",
                    why=last or f"no answer on {self._path} in {self._start_timeout:g} s",
                    hint="run `podman info` as this user and fix the errors that it reports",
                )
            time.sleep(0.01)

    def answers(self) -> bool:
        """Whether its API answers a ping within seconds."""
        return pinged(self._path)

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._path.unlink(missing_ok=True)

    @property
    def _log(self) -> Path:
        return self._path.with_suffix(".log")

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""


def _runs(process: subprocess.Popen[bytes]) -> bool:
    """Asks the kernel: `poll` says that it runs as long as the thread that waits for it has not been scheduled."""
    if process.returncode is not None:
        return False
    try:
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False


def prepared(path: Path, flags: Sequence[str] = ()) -> list[str]:
    """The command line of a service on this socket, whose directory then exists and whose stale socket is gone.

    Raises:
        EngineUnavailable: Podman is not installed, or the socket's path is too long.
    """
    podman = shutil.which("podman")
    if podman is None:
        raise podman_missing()
    if len(os.fsencode(path)) > _SOCKET_PATH_MAX:
        raise EngineUnavailable(
            f"the socket path is longer than {_SOCKET_PATH_MAX} bytes",
            why=str(path),
            hint="choose a shorter run directory",
        )
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    return [podman, *flags, "system", "service", "--time=0", f"unix://{path}"]


def environment(path: Path) -> dict[str, str]:
    """The variables that Podman's service on this socket gets: those of this process that Podman reads, and its
    configuration without keyrings."""
    found = {name: value for name, value in os.environ.items() if name in _ENVIRONMENT}
    return found | without_keyrings(found, path.with_suffix(".conf"))


def pinged(path: Path) -> bool:
    """Whether Podman's API answers a ping on this socket within seconds."""
    try:
        with unix_http.connected(path, within=_PING_SECONDS, timeout=_PING_SECONDS) as connection:
            answer = unix_http.ask(connection, "GET", "/_ping")
            answer.close()
            return answer.status == _OK
    except OSError:
        return False
