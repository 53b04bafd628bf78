"""What Podman keeps beside containers: processes, mounts and directories, and whom they serve."""

import os
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from claw_runtime.ports import Container

MARK = "LC_MESSAGES"
"""Variable that goes from the daemon to Podman, and from there to every process that it starts beside a container. Only
variables of a few names do (engine/service.py); none of these programs translates its messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process that Podman started for a daemon of ours; `words` are its command line."""

    pid: int
    role: str
    parent: int
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.pid} {' '.join(self.words)[:160]}"


def processes(place: Path) -> list[Process]:
    """All that carry the mark of this place: the service, conmon, network and port helpers."""
    marked = f"{MARK}={place}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):
            if marked in (entry / "environ").read_bytes().split(b"\0"):
                found.append(_process(entry))
    return found


def _process(entry: Path) -> Process:
    status = dict(line.split(":\t", 1) for line in (entry / "status").read_text().splitlines() if ":\t" in line)
    words = (entry / "cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
    return Process(pid=int(entry.name), role=status["Name"], parent=int(status["PPid"]), words=tuple(words))


def strays(there: Sequence[Process], alive: Collection[Container], masters: Iterable[int]) -> list[str]:
    """Those that serve no container that there is, and no daemon; holders of ports do not say whom they serve, and are
    counted: a container has one. The first Podman since the boot makes the user namespace, and stays as parent of the
    one that serves."""
    daemons = {*masters}
    daemons |= {one.pid for one in there if one.role == "podman" and one.parent in daemons}
    wrong = [f"left: process {one}" for one in there if not _is_needed(one, alive, daemons)]
    holders = sum(process.words[:1] == ("rootlessport",) for process in there)
    return wrong + ([f"left: {holders - len(alive)} holders of ports"] if holders > len(alive) else [])


def _is_needed(process: Process, alive: Iterable[Container], masters: Iterable[int]) -> bool:
    match process.role:
        case "podman":
            return process.parent in masters or "cleanup" in process.words
        case "conmon":
            return any(found.id in process.words for found in alive)
        case "slirp4netns":
            return any(str(found.pid) in process.words for found in alive)
        case _:
            return True


def storage(gone: Iterable[str]) -> list[str]:
    """Mounts and directories of containers that are gone."""
    mounts = Path("/proc/self/mountinfo").read_text()
    top = (
        Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "containers/storage/overlay-containers"
    )
    wrong = [f"left: mount of {container[:12]}" for container in gone if container in mounts]
    return wrong + [f"left: directory of {container[:12]}" for container in gone if (top / container).exists()]
