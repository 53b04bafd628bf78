"""Which process is the router of a run directory: the one that holds the lock of a file, which describes it."""

import fcntl
import json
import os
import secrets
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from claw_runtime.errors import DaemonRunning

PATIENCE: Final = 5.0
"""Seconds to wait for a predecessor, which gives the lock up before its last requests end."""
_PAUSE: Final = 0.05
_MOST: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Presence:
    """A router.

    Attributes:
        pid: Its process, and `born` what the kernel says of that process's start: both together name one process.
        address: Where it listens, as `127.0.0.1:8080`.
        version: Of claw.
        name: Random; it is in each of its answers to `/_claw/healthz`.
        since: Seconds since the epoch.
    """

    pid: int
    born: str
    address: str
    version: str
    name: str
    since: float

    def end(self, number: int = signal.SIGTERM, within: float = 0.0) -> bool:
        """Send the process a signal and wait so many seconds for its end; nothing is sent to any other process.

        Returns:
            Whether it has ended.
        """
        try:
            handle = os.pidfd_open(self.pid)
        except OSError:
            return True
        try:
            if born(self.pid) != self.born:  # the number is another process's now
                return True
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, number)
            waiting = select.poll()
            waiting.register(handle, select.POLLIN)
            return bool(waiting.poll(within * 1000))
        finally:
            os.close(handle)


def born(pid: int) -> str:
    """When the kernel started a process, in its own ticks; empty if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


@contextmanager
def claimed(path: Path) -> Iterator[Callable[[str, str], Presence]]:
    """Be the router of a lock file until the block ends.

    Gives a function that describes this router there, by its address and claw's version.

    Raises:
        DaemonRunning: Another router has it, and keeps it for `PATIENCE` seconds.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def describe(address: str, version: str) -> Presence:
        pid = os.getpid()
        name = secrets.token_hex(16)
        ours = Presence(pid=pid, born=born(pid), address=address, version=version, name=name, since=time.time())
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(asdict(ours)).encode(), 0)
        return ours

    try:
        _lock(descriptor, path)
        yield describe
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path) -> None:
    until = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < until:
                time.sleep(_PAUSE)
                continue
            raise DaemonRunning(
                f"a router already uses {path.parent}",
                why="it holds the lock of the run directory",
                hint="end it with claw-runtime router --end, or set CLAW_RUN to another directory",
            ) from None
        return


def present(path: Path) -> Presence | None:
    """The router that holds the lock file; None if there is none, or if it is only just starting."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _described(os.pread(descriptor, _MOST, 0))
    else:
        return None
    finally:
        os.close(descriptor)


def _described(content: bytes) -> Presence | None:
    try:
        found = Presence(**json.loads(content))
    except (ValueError, TypeError):
        return None
    return found if born(found.pid) == found.born else None
