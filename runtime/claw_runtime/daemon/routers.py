"""The router of a run directory: its process, and the daemon that keeps one running.

The router is no child that ends with the daemon. A daemon that starts takes over the one that is there, and replaces it
if it listens elsewhere, is of another version, or does not answer.
"""

import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from claw_runtime import __version__, logs
from claw_runtime.concurrency import Replacements
from claw_runtime.daemon import notifying
from claw_runtime.errors import ClawError, PortTaken
from claw_runtime.router import presence, process
from claw_runtime.router.presence import Presence
from claw_runtime.systemd.notify import Notifier
from claw_runtime.tenancy import Layout

log = structlog.get_logger(__name__)

START: Final = 10.0
"""Seconds in which a router that was started listens."""
_ENVIRONMENT: Final = ("PATH", "HOME", "LANG", "LC_ALL", "PYTHONPATH")
"""All that the router gets of the daemon's variables, which may hold keys of the object store."""
_LOG_MOST: Final = 4 << 20
KEPT: Final = "ingress"
"""The name by which the service manager holds the router's socket."""


def run(address: process.Address, layout: Layout) -> None:
    """Be the router of a run directory until SIGTERM. Raises as `process.run`."""
    manager = notifying.manager()
    if manager.listens and (other := presence.present(layout.router_lock)):
        other.end()  # the unit's router takes the place of one that a daemon started
    life: list[notifying.Life] = []

    def began(ours: Presence) -> None:
        told = notifying.Life(manager, lambda: process.answers(ours), lambda: f"listens on {ours.address}")
        told.start()
        life.append(told)

    try:
        process.run(
            address, lock=layout.router_lock, control=layout.router_socket, began=began, listen=partial(_kept, manager)
        )
    finally:
        for one in life:
            one.end()


def _kept(manager: Notifier, address: process.Address) -> socket.socket:
    """The socket that the service manager holds while the unit restarts, so that nobody is refused; else a new one."""
    if (descriptor := manager.kept.get(KEPT)) is not None:
        found = socket.socket(fileno=descriptor)
        found.set_inheritable(False)
        if found.getsockname()[:2] == address:
            return found
        found.close()
        manager.drop(KEPT)
    made = process.listening(address)
    manager.keep(KEPT, made.fileno())
    return made


def main() -> None:
    """`python -m claw_runtime.daemon.routers ADDRESS:PORT RUN-DIRECTORY`: what daemon and unit execute."""
    logs.configure()
    os.chdir("/")
    host, _, port = sys.argv[1].rpartition(":")
    run_directory = Path(sys.argv[2])
    run_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        run((host.strip("[]"), int(port)), Layout(home=run_directory, run=run_directory))
    except ClawError as error:
        sys.stderr.write(f"claw-router: {error}; {error.hint}\n")
        sys.exit(error.exit_code)


class Router:
    """The router that a daemon keeps running.

    Args:
        address: Of the setting `ingress`; None: there is to be no router.
        restart: Restarts the unit that runs it; None: the daemon starts it.
    """

    def __init__(
        self, address: process.Address | None, layout: Layout, restart: Callable[[], None] | None = None
    ) -> None:
        self._address, self._layout, self._restart = address, layout, restart
        self._child = 0
        self._started = -START
        self._replacements = Replacements()
        self._why = ""
        self._silent_since: float | None = None

    @property
    def is_wanted(self) -> bool:
        """Whether this host is to have a router."""
        return self._address is not None

    def supervise(self) -> None:
        """Start the router if there is none, and replace one that is not as it must be; called every few seconds."""
        there = presence.present(self._layout.router_lock)
        if self._address is None:
            if there is not None and self._restart is None:
                log.info("the router ends: no address is set for one", address=there.address)
                there.end()
        elif self._restart is not None:
            if self._replacements.due(answers=there is not None and process.answers(there)):
                try:
                    self._restart()
                except ClawError as error:
                    self._note(error)
        elif there is None:
            self._start(self._address)
        elif not self._fits(there, self._address):
            log.info("the router is replaced", address=there.address, version=there.version)
            there.end()
            self._start(self._address)
        elif self._replacements.due(answers=process.answers(there)):
            log.warning("the router did not answer and is replaced", address=there.address)
            there.end(signal.SIGKILL, within=START)
            self._start(self._address)

    def look(self) -> None:
        """Raises `ClawError` if clients cannot reach the router."""
        if self._address is None:
            return
        there = presence.present(self._layout.router_lock)
        if there is not None and process.answers(there):
            self._silent_since = None
            return
        now = time.monotonic()
        if self._silent_since is None:
            self._silent_since = now
        where = there.address if there else process.shown(self._address)
        why = self._why or f"nothing answers on {where}"
        raise ClawError("the router does not answer", why=f"{why}, for {now - self._silent_since:.0f} s")

    def _fits(self, there: Presence, address: process.Address) -> bool:
        """Whether it listens where it must, and is of this version. Any port fits port 0."""
        shown = process.shown(address)
        where = there.address if address[1] else there.address.rpartition(":")[0] + ":0"
        return where == shown and there.version == __version__

    def _start(self, address: process.Address) -> None:
        """Start a process, unless one is only just starting."""
        if self._child_runs() and time.monotonic() - self._started < START:
            return
        try:
            process.listening(address).close()  # a process would only find out the same
        except ClawError as error:
            self._note(error)
            return
        self._why, self._started = "", time.monotonic()
        self._child = self._spawn(process.shown(address))

    def _child_runs(self) -> bool:
        """Whether the process that was started here runs; one that has ended is reaped."""
        with suppress(ChildProcessError):
            if self._child and os.waitpid(self._child, os.WNOHANG)[0] == 0:
                return True
        self._child = 0
        return False

    def _note(self, error: ClawError) -> None:
        """Why there is no router, told once."""
        why = f"{error.brief}: {error.why}" if isinstance(error, PortTaken) else str(error)
        if why != self._why:
            log.warning("the router cannot be started; trying again", why=why, hint=error.hint)
        self._why = why

    def _spawn(self, address: str) -> int:
        """Start a process, whose id it gives; neither the daemon's end nor Ctrl-C in its terminal ends it."""
        path = self._layout.router_log
        if path.exists() and path.stat().st_size > _LOG_MOST:
            path.replace(path.with_suffix(".log.1"))
        return os.posix_spawn(
            sys.executable,
            [sys.executable, "-P", "-m", "claw_runtime.daemon.routers", address, str(self._layout.run)],
            {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(path), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
        )


if __name__ == "__main__":
    main()
