"""Bounds what refused requests write to the daemon's log, however fast a client repeats them."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

import structlog
from starlette.types import Scope

from claw_runtime.errors import ClawError

log = structlog.get_logger(__name__)

PERIOD: Final = 10.0
"""Seconds for which the refusals of a caller are counted together."""

IN_FULL: Final = 10
"""Refusals of a caller that have a line of their own in each period; one more line has the number of the others."""

CALLERS: Final = 50
"""Callers that are counted separately in a period. All others count as one."""

_LONGEST: Final = 200  # characters of a path


class Refusals:
    """Logs refused requests; used by the event loop alone.

    Args:
        period: Seconds for which the refusals of a caller are counted together.
    """

    def __init__(self, period: float = PERIOD) -> None:
        self._period = period
        self._counts: dict[str, int] = {}

    def note(self, scope: Scope, error: ClawError) -> None:
        """Log this refusal, or count it."""
        caller = _caller_of(scope)
        if caller not in self._counts:
            if len(self._counts) >= CALLERS:
                caller = "other callers"
            if caller not in self._counts:
                self._counts[caller] = 0
                asyncio.get_running_loop().call_later(self._period, self._end, caller)
        self._counts[caller] += 1
        if self._counts[caller] <= IN_FULL:
            path = scope["path"][:_LONGEST]
            log.info("refused", method=scope["method"], path=path, error=str(error), slug=error.slug)

    def _end(self, caller: str) -> None:
        if (count := self._counts.pop(caller)) > IN_FULL:
            log.warning("more requests refused", of=caller, requests=count - IN_FULL, seconds=self._period)


def _caller_of(scope: Scope) -> str:
    """The token, the host's own user, or the address of a client without a valid token."""
    if grant := scope.get("claw.grant"):
        return "the Unix socket" if grant.local else f"token {grant.name}"
    client = scope.get("client")
    return f"address {client[0]}" if client else "the Unix socket"


class FewLines(logging.Filter):
    """Lets each warning of a library through a few times in a period, and every error."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._now = now
        self._seen: Counter[str] = Counter()
        self._until = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether this record is written."""
        if self._now() >= self._until:
            self._until = self._now() + PERIOD
            self._seen.clear()
        self._seen[str(record.msg)] += 1
        return record.levelno >= logging.ERROR or self._seen[str(record.msg)] <= IN_FULL


SERVER_LINES: Final = FewLines()
"""For uvicorn's own logger, which writes a line for each request that is no HTTP."""
