"""The small init that is process 1 of containers: where the host has it, and the program that it runs.

A kernel gives orphans to process 1, which must reap them. Most programs do not: under Node, each orphan of a tool call
stays a zombie and counts against the limit on processes.
"""

import os
import shutil
import signal
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_NAME = "catatonit"
_HELPERS = ("/usr/libexec/podman", "/usr/local/libexec/podman", "/usr/lib/podman", "/usr/local/lib/podman")


def program() -> Path | None:
    """The init that becomes process 1 of containers: the configured one, else catatonit where Podman's helpers are.

    Podman 4.3 looks in one directory only, so its caller passes this path on. None if there is none.
    """
    candidates = [*_configured(), *(Path(place, _NAME) for place in _HELPERS)]
    if named := shutil.which(_NAME):
        candidates.append(Path(named))
    return next((path for path in candidates if os.access(path, os.X_OK)), None)


def _configured() -> Iterator[Path]:
    """What Podman's configuration sets as `init_path`, most important file first."""
    user = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config", "containers/containers.conf")
    chosen = [Path(os.environ["CONTAINERS_CONF"])] if os.environ.get("CONTAINERS_CONF") else []
    for path in (*chosen, user, Path("/etc/containers/containers.conf"), Path("/usr/share/containers/containers.conf")):
        try:
            read = tomllib.loads(path.read_text())
        except (OSError, ValueError):
            continue
        for section in ("containers", "engine"):
            value = read.get(section, {}).get("init_path")
            if isinstance(value, str) and value:
                yield Path(value)


def terminate_program(container: Mapping[str, Any], proc: Path = Path("/proc")) -> bool:
    """Send SIGTERM to the program of a container past its init, which forwards a signal only when it runs itself.

    The program of a paused container then has its signal before it runs again.

    Args:
        container: The engine's inspection.
        proc: Where the kernel shows processes.

    Returns:
        Whether there is such a program; without an init, process 1 is the program.
    """
    pid = int(container["State"]["Pid"])
    if not container["HostConfig"].get("Init") or pid <= 0:
        return False
    try:
        [program, *_] = (proc / f"{pid}/task/{pid}/children").read_text().split()  # the eldest: orphans come later
        handle = os.pidfd_open(int(program))
    except (OSError, ValueError):
        return False
    try:
        if _parent(proc / program) != pid:  # it ended meanwhile, and its number may be another process's
            return False
        signal.pidfd_send_signal(handle, signal.SIGTERM)
    except (OSError, ValueError):
        return False
    finally:
        os.close(handle)
    return True


def _parent(process: Path) -> int:
    return int((process / "stat").read_text().rpartition(")")[2].split()[1])
