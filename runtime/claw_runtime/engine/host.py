"""Facts about this host for an unprivileged user, read from files: `doctor` must work without Podman."""

import getpass
import os
import shutil
from pathlib import Path

from claw_runtime.engine import init
from claw_runtime.ports import HostFacts

_KERNEL = Path("/proc/sys")
_BOOT = _KERNEL / "kernel/random/boot_id"
_PROCESS_1 = Path("/proc/1/stat")
_SELINUX = Path("/sys/fs/selinux/enforce")
_CGROUPS = Path("/sys/fs/cgroup")


def facts(home: Path) -> HostFacts:
    """Collect the facts; never fails.

    Args:
        home: The data directory; the room left is that of its file system, or of the nearest parent that exists.
    """
    user = getpass.getuser()
    nearest = next(path for path in (home, *home.parents) if path.exists())
    return HostFacts(
        user=user,
        uid=os.getuid(),
        podman=shutil.which("podman"),
        init=os.fspath(found) if (found := init.program()) else None,
        subordinate_uids=_range(Path("/etc/subuid"), user),
        subordinate_gids=_range(Path("/etc/subgid"), user),
        tun=os.access("/dev/net/tun", os.R_OK | os.W_OK),
        systemd=Path("/run/systemd/system").is_dir(),
        room=shutil.disk_usage(nearest).free,
        writable=os.access(nearest, os.W_OK),
        selinux=number_in(_SELINUX) == 1,
        keys=number_in(_KERNEL / "kernel/keys/maxkeys"),
        inotify=number_in(_KERNEL / "fs/inotify/max_user_instances"),
        cgroup_v2=has_cgroup_v2(),
    )


def has_cgroup_v2() -> bool:
    """Whether cgroup v2 is the host's only hierarchy; with v1, or with both, the file is missing there."""
    return (_CGROUPS / "cgroup.controllers").exists()


def boot() -> str:
    """The machine's present boot: another text after each start of the machine, or of the container that this runs in.

    All containers of the user end with either. Empty if the kernel does not tell.
    """
    try:
        started = (
            _PROCESS_1.read_text("utf-8", "replace").rpartition(")")[2].split()[19]
        )  # ticks since the kernel's boot
    except (OSError, IndexError):
        started = ""
    try:
        return f"{_BOOT.read_text().strip()} {started}".strip()
    except OSError:
        return ""


def number_in(path: Path) -> int | None:
    """The number that a file of the kernel holds; None if it has none or cannot be read."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _range(path: Path, user: str) -> int:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    entries = [line.split(":") for line in lines]
    mine = (user, str(os.getuid()))
    return sum(int(entry[2]) for entry in entries if len(entry) == 3 and entry[0] in mine and entry[2].isdigit())
