"""A running tenant's container is paused for a moment, so that a commit can copy what changes all the time.

The ledger knows of it before. A daemon that is killed meanwhile leaves a paused container, and the next one resumes it:
at its start, before a commit, or when it looks after the containers. The caller holds the tenant's lock, so no claim or
release sees the pause; commands in the container wait for its end, and a pause waits for commands that are about to
begin.
"""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import structlog

from claw_runtime.errors import ClawError, Conflict, NotClaimed
from claw_runtime.tenancy import TenantId
from claw_runtime.tenants.host import Occupancy
from claw_runtime.tenants.lifecycle import Remedy, Step, remedy

log = structlog.get_logger(__name__)

ENTRY = 2.0
"""Seconds that a program of this host may take to begin a command in a container that it was given."""
_LOOK = 0.05


class Holds:
    """The pauses of all tenants of this host."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._held, self._ended = set[TenantId](), False
        self._entered: dict[TenantId, float] = {}

    def end(self, timeout: float) -> bool:
        """Let no pause begin any more, since the daemon ends, and wait for those that have begun; False after so many
        seconds: the next start resumes what is paused then."""
        with self._changed:
            self._ended = True
            return self._changed.wait_for(lambda: not self._held, timeout)

    def enter(self, here: Occupancy) -> str:
        """The id of the running container, for a command that begins in it within `ENTRY` seconds: no pause is before.

        Raises:
            NotClaimed: The tenant has no running container.
            Conflict: It may run in a moment: it is being claimed or released, or is paused for a commit.
        """
        row, container = here.row, here.slot.container if here.slot else None
        if row.state in ("claiming", "releasing"):
            raise _not_now(row.id, f"it is {row.state}")
        if row.state != "active" or not container:
            raise NotClaimed(
                f"tenant {row.id!r} is not claimed",
                why=f"its state is {row.state}",
                hint=f"claw-runtime claim {row.id}",
            )
        with self._changed:
            if row.id in self._held or row.step == Step.HOLD:  # the latter also of a daemon that was killed
                raise _not_now(row.id, "it is paused for a commit")
            self._entered[row.id] = here.host.clock.monotonic() + ENTRY
        return container

    def held(self, here: Occupancy) -> AbstractContextManager[bool]:
        """Pause the tenant's container while the context is open; gives whether it is paused.

        The call itself waits up to `ENTRY` seconds for commands that are about to begin; further ones wait for the end.

        Raises:
            ClawError: The container was not resumed, or has ended; the step in its row shows that it may be paused.
        """
        container = here.slot.container if here.slot else None
        return self._now(here, container) if container and self._begins(here) else nullcontext(False)

    def _begins(self, here: Occupancy) -> bool:
        """Whether a pause may begin; if so, the caller must end it with `_over`."""
        tenant, clock = here.row.id, here.host.clock
        with self._changed:
            self._held.add(tenant)
            until = self._entered.pop(tenant, 0.0)
        try:
            while not self._ended and (left := until - clock.monotonic()) > 0:
                clock.sleep(min(_LOOK, left))
        except BaseException:
            self._over(tenant)
            raise
        with self._changed:
            begins = not self._ended
        if not begins:
            self._over(tenant)
        return begins

    @contextmanager
    def _now(self, here: Occupancy, container: str) -> Iterator[bool]:
        try:
            with _paused(here, container) as paused:
                yield paused
        finally:
            self._over(here.row.id)

    def _over(self, tenant: TenantId) -> None:
        with self._changed:
            self._held.discard(tenant)
            self._changed.notify_all()


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


def _not_now(tenant: TenantId, why: str) -> Conflict:
    return Conflict(
        f"tenant {tenant!r} has no running container now", why=why, hint="retry in a few seconds", retry_after=1
    )
