"""Whether engine and store answer: one look at a time, however many ask, and an answer within a deadline."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future

from claw_runtime.errors import ClawError, StoreUnavailable

WITHIN = 5.0
"""Seconds after which a look that has not ended counts as failed."""


class Readiness:
    """Asks engine and store for all requests that come during one look.

    Args:
        look: Raises `ClawError` if one of them does not answer; it may also never return.
        within: Seconds.
    """

    def __init__(self, look: Callable[[], None], *, within: float = WITHIN) -> None:
        self._look, self._within = look, within
        self._lock = threading.Lock()
        self._running: Future[None] | None = None

    async def check(self) -> None:
        """Wait for the look that runs, or for a new one. Raises `ClawError`."""
        look = asyncio.wrap_future(self._begun())
        look.add_done_callback(_retrieve)
        try:
            await asyncio.wait_for(asyncio.shield(look), self._within)
        except TimeoutError as error:
            raise StoreUnavailable(
                "the engine or the object store does not answer",
                why=f"a check of both did not end within {self._within:g} s",
                hint="claw-runtime doctor shows which one; tenants that run are not affected",
            ) from error

    def _begun(self) -> "Future[None]":
        with self._lock:
            if self._running is None:
                self._running = Future()
                threading.Thread(target=self._go, args=(self._running,), name="ready", daemon=True).start()
            return self._running

    def _go(self, done: "Future[None]") -> None:
        error: BaseException | None = None
        try:
            self._look()
        except ClawError as refused:
            error = refused
        except Exception as unknown:  # noqa: BLE001 - the waiting requests must learn of it
            error = ClawError("the engine or the object store failed", why=repr(unknown), hint="claw-runtime doctor")
        with self._lock:
            self._running = None
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)


def _retrieve(look: "asyncio.Future[None]") -> None:
    """Take the failure of a look that ended after its request: asyncio logs others with a traceback."""
    if not look.cancelled():
        look.exception()
