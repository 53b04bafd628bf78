"""What Podman keeps between two boots only, when every process of the user was killed and the host was not rebooted.

`pkill -KILL -u USER` leaves records of running containers and of their network namespaces. Podman 4.3.1 then refuses
every command ("invalid internal status"), or every list of containers ("unknown FS magic"). It advises `podman system
migrate`, which does not repair the second (measured). After a reboot these files are gone, and Podman makes them anew;
they are removed here for the same effect. No container, image or volume is removed.
"""

import fcntl
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import structlog

SYMPTOMS: Final = ("system migrate", "join the existing user namespace")
"""What Podman's errors say in this case."""

_SHM: Final = Path("/dev/shm")  # noqa: S108 - where Podman keeps its locks
_PROC: Final = Path("/proc")

log = structlog.get_logger(__name__)


def reset_after_a_kill(environment: Mapping[str, str] = os.environ, *, shm: Path = _SHM, proc: Path = _PROC) -> bool:
    """Remove what a reboot would remove, if no process of this user is left that it could describe.

    Returns:
        Whether that was so, and Podman may be called again.
    """
    home = _runtime_directory(environment)
    alive = home / "libpod/tmp/alive"
    if not alive.parent.is_dir():
        return False
    with (alive.parent / "claw.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another daemon of this user may start at the same time
        left = [shm / f"libpod_rootless_lock_{os.getuid()}", alive.with_name("pause.pid"), alive, *_networks(home)]
        left = [path for path in left if path.exists()]
        if not left or _somebody_lives(proc):
            return False
        for path in left:
            path.unlink(missing_ok=True)
    log.warning("podman's volatile records were removed", why="all processes of this user's containers were killed")
    return True


def has_dead_networks(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether there are network namespaces of containers, but no pause process that could keep them.

    The namespaces are mounts in the pause process's own mount namespace, so they do not outlive it.
    """
    home = _runtime_directory(environment)
    try:
        os.kill(int((home / "libpod/tmp/pause.pid").read_text()), 0)
    except PermissionError:
        return False
    except (OSError, ValueError):
        return bool(_networks(home))
    return False


def _runtime_directory(environment: Mapping[str, str]) -> Path:
    return Path(environment.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}")


def _networks(home: Path) -> list[Path]:
    return sorted((home / "netns").glob("netns-*"))


def _somebody_lives(proc: Path) -> bool:
    """Whether a process of this user is in another user namespace, as all of Podman and of containers are."""
    here = (proc / "self/ns/user").readlink()
    for entry in proc.iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            if entry.stat().st_uid == os.getuid() and (entry / "ns/user").readlink() != here:
                return True
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended
        except PermissionError:
            return True  # it hides, so it may be one
    return False
