"""The queue of claims that wait for a slot of one pool: first come, first served, and bounded."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LONGEST = 1000
"""Claims that may wait for one pool. Those of the API hold no thread (`wake`)."""

CHECK_EVERY = 0.5
"""Seconds between two checks whether a waiting claim is still wanted."""


class QueuedClaim:
    """One claim in the queue."""

    def __init__(self, queue: "WaitQueue", gone: Callable[[], bool], wake: Callable[[], None]) -> None:
        self._queue = queue
        self._gone = gone
        self._wake = wake
        self._seen = -1

    def may_try(self) -> bool:
        """As `wait_turn`, without waiting."""
        return self._queue._may_try(self)  # noqa: SLF001 - one thing in two classes

    def wait_turn(self, until: float) -> bool:
        """Wait for the next attempt.

        Returns:
            True when this claim is first in the queue and something has changed since its last attempt (at once, when
            it has not tried yet). False after `until`, in seconds of `time.monotonic`, or when the caller has gone.
        """
        return self._queue._wait_turn(self, until)  # noqa: SLF001 - one thing in two classes


class WaitQueue:
    """The claims that wait, in order. They wait in real time, whatever the clock: only that wakes a blocked thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._tenants: deque[QueuedClaim] = deque()
        self._changes = 0

    def __len__(self) -> int:
        return len(self._tenants)

    def notify(self) -> None:
        """Let the first claim try again: a slot is ready, or there is room for one."""
        with self._changed:
            self._changes += 1
            self._tell()

    @contextmanager
    def enter(
        self, gone: Callable[[], bool] = lambda: False, wake: Callable[[], None] = lambda: None
    ) -> Iterator[QueuedClaim | None]:
        """A claim at the end of the queue until the block ends; None when the queue is full.

        Args:
            gone: Whether the caller has gone.
            wake: Called, in any thread, when this claim is first and may try; for one that waits without a thread.
        """
        claim = QueuedClaim(self, gone, wake)
        with self._changed:
            if len(self._tenants) >= LONGEST:
                entered = None
            else:
                entered = claim
                self._tenants.append(claim)
        try:
            yield entered
        finally:
            with self._changed:
                if entered:
                    self._tenants.remove(entered)
                self._tell()

    def _tell(self) -> None:
        self._changed.notify_all()
        if self._tenants:
            self._tenants[0]._wake()  # noqa: SLF001

    def _may_try(self, claim: QueuedClaim) -> bool:
        with self._changed:
            if self._tenants[0] is not claim or claim._seen == self._changes:  # noqa: SLF001
                return False
            claim._seen = self._changes  # noqa: SLF001
            return True

    def _wait_turn(self, claim: QueuedClaim, until: float) -> bool:
        with self._changed:
            while self._tenants[0] is not claim or claim._seen == self._changes:  # noqa: SLF001
                left = until - time.monotonic()
                if left <= 0 or claim._gone():  # noqa: SLF001
                    return False
                self._changed.wait(min(left, CHECK_EVERY))
            claim._seen = self._changes  # noqa: SLF001
            return True
