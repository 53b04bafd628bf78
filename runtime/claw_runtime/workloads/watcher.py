"""Workload files that change while the daemon runs: seen by a look at each file's inode, size and time.

A file that was changed into something that is not valid changes nothing: its pool keeps its settings and reports why.
"""

from collections.abc import Sequence
from pathlib import Path

import structlog

from claw_runtime.errors import ClawError, InvalidSpec
from claw_runtime.pools.pools import Pools
from claw_runtime.spec import loader

log = structlog.get_logger(__name__)

_Stamp = tuple[int, int, int]


class WorkloadFiles:
    """The files of a daemon's workloads.

    Args:
        pools: Told of what changes; it has read all files already.
        directory: All `*.yaml` in it.
        named: These instead, when there are any.
    """

    def __init__(self, pools: Pools, directory: Path, named: Sequence[Path] = ()) -> None:
        self._pools = pools
        self._directory = directory
        self._named = tuple(named)
        self._stamps = {path: stamp for path in self._paths() if (stamp := _stamp(path))}
        self._missing: set[Path] = set()
        self._problems: dict[Path, ClawError] = {}

    def look(self) -> None:
        """Bring the pools to what the files say now, and report files that cannot be used."""
        present = self._paths()
        for path in present:
            stamp = _stamp(path)
            if stamp is None or stamp == self._stamps.get(path):
                continue
            self._stamps[path] = stamp  # of before the read: a later change is seen by the next look
            self._read(path)
        gone = [path for path in self._stamps if _stamp(path) is None]
        for path in gone:
            # Editors remove a file for the moment in which they write it: one that is gone twice is gone.
            if path in self._missing:
                self._forget(path)
        self._missing = set(gone) & self._stamps.keys()
        self._pools.report({pool: problem for path, problem in self._problems.items() for pool in self._pools_of(path)})

    def _paths(self) -> Sequence[Path]:
        return self._named or sorted(self._directory.glob("*.yaml"))

    def _read(self, path: Path) -> None:
        before = self._pools_of(path)
        try:
            document = loader.load(path)
            pool = document.workload.id
            if pool in self._pools.ids() and (other := self._pools.document(pool).path) != path:
                raise InvalidSpec(
                    f"{path}: id {pool!r} is taken",
                    why=f"{other} has the same id",
                    hint="give each workload a different id",
                )
            self._pools.put(document)
        except ClawError as error:
            self._problems[path] = error
            log.warning("workload file not used", path=str(path), error=str(error), hint=error.hint)
            return
        self._problems.pop(path, None)
        log.info("workload file read", path=str(path), pool=pool)
        for old in before:
            if old != pool:
                self._pools.remove(old)

    def _forget(self, path: Path) -> None:
        del self._stamps[path]
        self._problems.pop(path, None)
        for pool in self._pools_of(path):
            log.info("workload file was removed", path=str(path), pool=pool)
            self._pools.remove(pool)

    def _pools_of(self, path: Path) -> list[str]:
        return [pool for pool in self._pools.ids() if self._pools.document(pool).path == path]


def _stamp(path: Path) -> _Stamp | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
