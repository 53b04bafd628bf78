"""A running tenant's container is paused for a moment, so that a commit can copy what changes all the time.

The ledger knows of it before. A daemon that is killed meanwhile leaves a paused container, and the next one resumes it:
at its start, before a commit, or when it looks after the containers. The caller holds the tenant's lock, so no claim or
release sees the pause; commands in the container wait for its end.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from claw_runtime.errors import ClawError
from claw_runtime.tenants.host import Occupancy
from claw_runtime.tenants.lifecycle import Remedy, Step, remedy

log = structlog.get_logger(__name__)


class Holds:
    """The pauses of all tenants of this host."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._active, self._ended = 0, False

    def end(self, timeout: float) -> bool:
        """Let no pause begin any more, since the daemon ends, and wait for those that have begun; False after so many
        seconds: the next start resumes what is paused then."""
        with self._changed:
            self._ended = True
            return self._changed.wait_for(lambda: not self._active, timeout)

    @contextmanager
    def held(self, here: Occupancy) -> Iterator[bool]:
        """Pause the tenant's container while the context is open; gives whether it is paused.

        Raises:
            ClawError: The container was not resumed, or has ended; the step in its row shows that it may be paused.
        """
        container = here.slot.container if here.slot else None
        if not container or not self._begins():
            yield False
            return
        try:
            with _paused(here, container) as paused:
                yield paused
        finally:
            with self._changed:
                self._active -= 1
                self._changed.notify_all()

    def _begins(self) -> bool:
        with self._changed:
            self._active += not self._ended
            return not self._ended


@contextmanager
def _paused(here: Occupancy, container: str) -> Iterator[bool]:
    engine, ledger, tenant = here.host.engine, here.host.ledger, here.row.id
    ledger.note(tenant, step=Step.HOLD)
    began, paused = here.host.clock.monotonic(), True
    try:
        try:
            engine.pause(container)
        except ClawError as error:  # it may be paused all the same
            log.warning("a container is not paused for a commit", tenant=tenant, why=str(error), hint=error.hint)
            paused = False
        yield paused
    finally:
        engine.unpause(container)
        ledger.note(tenant, step=Step.SYNC)
        log.debug("paused for a commit", tenant=tenant, seconds=here.host.clock.monotonic() - began)


def resume(here: Occupancy) -> None:
    """Resume a container that a killed daemon paused for a commit; another one is left as it is. Raises `ClawError`."""
    if here.row.step == Step.HOLD and remedy(here.row, here.state) is Remedy.RESUME and here.container:
        here.host.engine.unpause(here.container.id)
        here.host.ledger.note(here.row.id, step=Step.SYNC)
        log.info("resumed", tenant=here.row.id, why="a daemon ended while it was paused for a commit")
