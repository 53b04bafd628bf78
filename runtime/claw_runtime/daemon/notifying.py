"""Tells the service manager that a program is ready, alive or ending, from questions that it answered."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from claw_runtime import unix_http
from claw_runtime.systemd.notify import Notifier

if TYPE_CHECKING:
    from claw_runtime.daemon.assembly import Runtime

log = structlog.get_logger(__name__)

FIRST_PAUSE = 0.1
"""Seconds between two questions until the first answer."""

PAUSE = 10.0
"""Seconds between two questions later; a shorter watchdog makes it a third of that."""

ANSWER = 10.0
"""Seconds that an answer may take."""


class Life:
    """A thread that asks whether the program is alive, and passes the answer on.

    The first answer is readiness. Each one feeds the watchdog; without an answer it is left hungry, and the manager
    ends the program.

    Args:
        notifier: The manager's address.
        alive: Asks; may take seconds, but not for ever.
        told: One line for `systemctl status`.
    """

    def __init__(self, notifier: Notifier, alive: Callable[[], bool], told: Callable[[], str]) -> None:
        self._notifier, self._alive, self._told = notifier, alive, told
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to ask, if there is a manager."""
        if self._notifier.listens:
            self._thread = threading.Thread(target=self._go, name="notify", daemon=True)
            self._thread.start()

    def end(self) -> None:
        """Tell that the program ends; the manager expects no more signs of life. Any number of times."""
        if not self._ended.is_set():
            self._ended.set()
            self._notifier.send(STOPPING="1", STATUS="stopping")

    def join(self) -> None:
        """Wait for the thread."""
        if self._thread:
            self._thread.join(ANSWER)

    def _go(self) -> None:
        ready, pause = False, min(PAUSE, (self._notifier.watchdog or 3 * PAUSE) / 3)
        while not self._ended.wait(pause if ready else FIRST_PAUSE):
            try:
                if not self._alive() or self._ended.is_set():
                    continue
                first = {} if ready else {"READY": "1"}
                self._notifier.send(**first, WATCHDOG="1", STATUS=self._told())
                ready = True
            except Exception:
                log.exception("internal error while reporting to the service manager; repeating")


def manager() -> Notifier:
    """The service manager that started this process, if one did; to be called once, before children are started."""
    return Notifier()


@contextmanager
def telling(notifier: Notifier, alive: Callable[[], bool], told: Callable[[], str]) -> Iterator[Life]:
    """Tell of this program while the block runs; a program that begins to stop calls `end` at once."""
    life = Life(notifier, alive, told)
    life.start()
    try:
        yield life
    finally:
        life.end()
        life.join()


def of_daemon(notifier: Notifier, runtime: "Runtime") -> AbstractContextManager[Life]:
    """Tell of a daemon while the block serves its API."""
    return telling(notifier, lambda: answers(runtime.settings.layout.api_socket), lambda: told(runtime))


def answers(path: Path) -> bool:
    """Whether the API answers on its socket: its event loop runs, and accepts connections."""
    try:
        with unix_http.connected(path, within=ANSWER, timeout=ANSWER) as connection:
            answer = unix_http.ask(connection, "GET", "/livez")
            answer.close()
            return answer.status == 200
    except OSError:
        return False


def told(runtime: "Runtime") -> str:
    """What the daemon does, in one line."""
    progress = runtime.recovered()
    if progress["recovered"] < progress["tenants"] or not progress["pools_ready"]:
        return f"recovering: {progress['recovered']} of {progress['tenants']} tenants"
    active = sum(row.state == "active" for row in runtime.ledger.tenants())
    silent = runtime.services.silent()
    return f"{active} active tenants" + "".join(f"; {name} does not answer" for name in silent)
