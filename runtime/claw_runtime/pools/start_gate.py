"""The start gate of a slot whose process waits: a FIFO in the directory of its values.

The runtime creates it before the container starts; the process opens it last of all, when nothing but its tenant is
missing. A writer that can open it therefore knows that a process waits, and one line starts that process. Nothing of
the tenant is in that line. The container sees the directory read-only, so nothing inside can replace the FIFO.
"""

import errno
import os
import stat
from pathlib import Path

from claw_runtime.errors import EngineFailed

LINE = b'{"v":1}\n'
_NAME = "door"  # of the protocol: every image that was built looks for it
_NO_READER = frozenset({errno.ENXIO, errno.ENOENT})


def make(values: Path) -> None:
    """Create the gate in a slot's directory of values. Raises `OSError`."""
    os.mkfifo(values / _NAME, 0o600)


def waits(values: Path) -> bool:
    """Whether a process waits at the gate."""
    fd = _writer(values)
    if fd is None:
        return False
    os.close(fd)
    return True


def open_gate(values: Path) -> None:
    """Start the process that waits: its tenant's state, logs and values are in place.

    Raises:
        EngineFailed: No process waits at the gate.
    """
    fd = _writer(values)
    if fd is None:
        raise EngineFailed(
            "no process waits in the slot",
            why="the process that waited has ended",
            hint="claim again; the daemon's log says how it ended",
        )
    try:
        os.write(fd, LINE)  # less than PIPE_BUF: whole or not at all
    except BrokenPipeError as error:
        raise EngineFailed(
            "the slot was not started", why="its process ended at that moment", hint="claim again"
        ) from error
    finally:
        os.close(fd)


def _writer(values: Path) -> int | None:
    """The FIFO for writing; None when there is none, or no process has it open for reading."""
    try:
        fd = os.open(values / _NAME, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _NO_READER:
            return None
        raise
    if not stat.S_ISFIFO(os.fstat(fd).st_mode):
        os.close(fd)
        return None
    return fd
