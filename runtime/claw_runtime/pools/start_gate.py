"""The door of a slot whose process waits: a FIFO in the directory of its values.

The runtime makes it before the container starts; the process opens it last of all, when nothing but its tenant is
missing. So a writer that can open it knows that somebody waits behind it, and one line lets the tenant in. Nothing of
the tenant is in that line. The container sees the directory read-only: what is inside cannot put anything else there.
"""

import errno
import os
import stat
from pathlib import Path

from claw_runtime.errors import EngineFailed

RING = b'{"v":1}\n'
_NAME = "door"
_NOBODY = frozenset({errno.ENXIO, errno.ENOENT})


def make(values: Path) -> None:
    """Make the door in a slot's directory of values. Raises `OSError`."""
    os.mkfifo(values / _NAME, 0o600)


def waits(values: Path) -> bool:
    """Whether a process waits behind the door."""
    fd = _open(values)
    if fd is None:
        return False
    os.close(fd)
    return True


def ring(values: Path) -> None:
    """Let the tenant in, whose state, logs and values are there by now.

    Raises:
        EngineFailed: Nobody waits behind the door any more.
    """
    fd = _open(values)
    if fd is None:
        raise EngineFailed(
            "nobody waits behind the slot's door",
            why="the process that waited has ended",
            hint="claim again; the log of the daemon says how it ended",
        )
    try:
        os.write(fd, RING)  # less than PIPE_BUF: whole or not at all
    except BrokenPipeError as error:
        raise EngineFailed("the process behind the slot's door ended as the tenant came", hint="claim again") from error
    finally:
        os.close(fd)


def _open(values: Path) -> int | None:
    """The FIFO for writing; None when there is none, or nobody has it open for reading."""
    try:
        fd = os.open(values / _NAME, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _NOBODY:
            return None
        raise
    if not stat.S_ISFIFO(os.fstat(fd).st_mode):
        os.close(fd)
        return None
    return fd
