"""Processes of tests, as the kernel sees them (man proc_pid_stat)."""

import os
import time
from contextlib import suppress
from pathlib import Path
from signal import Signals


def harm(pid: int, signal: Signals) -> None:
    """Send SIGKILL or SIGSTOP, and wait until no thread of the process runs any more.

    A busy host delivers a signal to threads that have no processor now late: until then a service still answers.
    """
    os.kill(pid, signal)
    deadline = time.monotonic() + 30
    while any(state in "RSD" for state in states(pid)):
        assert time.monotonic() < deadline, f"{pid} still runs"
        time.sleep(0.005)


def states(pid: int) -> list[str]:
    """The state of each thread of a process, as a letter; none of one that is gone."""
    stats = []
    for path in Path(f"/proc/{pid}/task").glob("*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            stats.append(path.read_text())
    return [stat.rpartition(")")[2].split()[0] for stat in stats]


def is_gone(pid: int) -> bool:
    """Whether the process has ended; a zombie that nobody has waited for yet counts as well."""
    return set(states(pid)) <= {"Z", "X"}
