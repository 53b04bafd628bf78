"""Workloads that come and go through the API while the daemon runs: files of the workloads directory.

A change is in its file before it is answered, so that the next daemon finds what this one serves.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from claw_runtime.errors import ClawError, Conflict, DiskFull, InvalidSpec
from claw_runtime.fsutil import no_room, write_atomic
from claw_runtime.pools.pools import Pools
from claw_runtime.ports import Ledger
from claw_runtime.spec import loader
from claw_runtime.spec.loader import Document
from claw_runtime.spec.sink import common_sink


class Workloads:
    """The workload files of a daemon.

    Args:
        directory: Where files are written; None when the daemon was started with files of its own, which it must not
            change.
        record: Called with a kind of event and its facts.
    """

    def __init__(
        self, pools: Pools, ledger: Ledger, directory: Path | None, record: Callable[..., None] = lambda *_, **__: None
    ) -> None:
        self._pools = pools
        self._ledger = ledger
        self._directory = directory
        self._record = record

    def put(self, text: str, pool: str | None = None, *, new: bool = False) -> Document:
        """Add or change a workload.

        Args:
            text: Of its file.
            pool: The id that it must have; None takes whichever it has.
            new: It must not be there yet.

        Raises:
            InvalidSpec: It is not valid, or has another id.
            Conflict: It is there already, or comes from a file that is not ours to change.
            DiskFull: Its file could not be written; nothing was changed.
        """
        document = loader.parse(text, (self._directory or Path()) / f"{pool or 'workload'}.yaml")
        found = document.workload.id
        if pool is not None and found != pool:
            raise InvalidSpec(
                f"the workload's id is {found!r}, not {pool!r}", hint="use the same id in the request and in the file"
            )
        if new and found in self._pools.ids():
            raise Conflict(f"pool {found!r} already exists", hint=f"change it: PUT /api/v1/workloads/{found}")
        path = self._own(found)
        document = loader.parse(text, path)
        known = self._known()
        self._same_store(known, {**known, found: document})
        before = known.get(found)
        self._pools.put(document)  # it may yet refuse the workload, for what its image promises
        try:
            write_atomic(path, text.encode())
        except OSError as error:
            if before is None:
                self._pools.remove(found)
            else:
                self._pools.put(before)
            problem = DiskFull if no_room(error) else ClawError
            raise problem(f"{path} cannot be written", why=str(error), hint="nothing was changed") from error
        self._record("workload-put", pool=found, image=document.workload.image)
        return document

    def remove(self, pool: str) -> Document:
        """Take a workload away; its slots go. What it was.

        Raises:
            UnknownPool: There is none of that id.
            Conflict: Tenants hold something of it, or its file is not ours to remove.
        """
        document = self._pools.document(pool)
        path = self._own(pool)
        held = [row.id for row in self._ledger.tenants(pool=pool) if row.state != "cold"]
        if held:
            raise Conflict(
                f"pool {pool!r} is in use",
                why=f"{len(held)} of its tenants have a container or a tree here, such as {held[0]!r}",
                hint="drain the pool and release them first",
            )
        known = self._known()
        self._same_store(known, {other: known[other] for other in known if other != pool})
        path.unlink(missing_ok=True)
        self._pools.remove(pool)
        self._record("workload-removed", pool=pool)
        return document

    def _known(self) -> dict[str, Document]:
        return {pool: self._pools.document(pool) for pool in self._pools.ids()}

    def _same_store(self, before: Mapping[str, Document], after: Mapping[str, Document]) -> None:
        """A daemon has the store that it began with: at the next start, another would have no tenant's state.

        Raises:
            InvalidSpec: Two workloads name different stores.
            Conflict: With this change the workloads name another store than without it.
        """
        if common_sink(after) != common_sink(before):
            raise Conflict(
                "this would change where tenants' state is stored",
                why="the next daemon would take its store from sync.sink of the workload files",
                hint="leave sync.sink as it is, or set CLAW_BUCKET and start `up` again",
            )

    def _own(self, pool: str) -> Path:
        """The file that the workload has, or would have. Raises `Conflict`."""
        if self._directory is None:
            raise Conflict(
                "this daemon serves the workload files that it was started with",
                why="changes through the API would be lost at its next start",
                hint="start `up` without files: it then serves the workloads directory",
            )
        own = self._directory / f"{pool}.yaml"
        if pool in self._pools.ids() and (path := self._pools.document(pool).path).absolute() != own.absolute():
            raise Conflict(f"pool {pool!r} comes from {path}", hint="change that file, and start `up` again")
        return own
