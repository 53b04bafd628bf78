"""The line of claims that wait for a slot of one pool: first come, first served, and bounded."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LONGEST = 64
"""Claims that may wait for one pool; each holds a thread of the API."""

LOOK_AGAIN = 0.5
"""Seconds between two looks whether anybody still wants a place."""


class Place:
    """One claim's place in the line."""

    def __init__(self, line: "WaitQueue", gone: Callable[[], bool]) -> None:
        self._line = line
        self._gone = gone
        self._seen = -1

    def turn(self, until: float) -> bool:
        """Wait for the next try: True when this is the first in line and something has changed since its last try (at
        once, when it has not tried yet); False after `until`, in seconds of `time.monotonic`, or when nobody wants
        it any more."""
        return self._line._turn(self, until)  # noqa: SLF001 - one thing in two classes


class WaitQueue:
    """Who waits, in order. Waiting is real time, whatever clock decides: a blocked thread can only be woken by it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._places: deque[Place] = deque()
        self._rings = 0

    def __len__(self) -> int:
        return len(self._places)

    def ring(self) -> None:
        """Something has changed: a slot is ready, or there is room for one."""
        with self._changed:
            self._rings += 1
            self._changed.notify_all()

    @contextmanager
    def place(self, gone: Callable[[], bool] = lambda: False) -> Iterator[Place | None]:
        """A place at the end of the line until the block ends; None when the line is too long.

        Args:
            gone: Whether nobody wants it any more.
        """
        place = Place(self, gone)
        with self._changed:
            if len(self._places) >= LONGEST:
                granted = None
            else:
                granted = place
                self._places.append(place)
        try:
            yield granted
        finally:
            with self._changed:
                if granted:
                    self._places.remove(granted)
                self._changed.notify_all()

    def _turn(self, place: Place, until: float) -> bool:
        with self._changed:
            while self._places[0] is not place or place._seen == self._rings:  # noqa: SLF001
                left = until - time.monotonic()
                if left <= 0 or place._gone():  # noqa: SLF001
                    return False
                self._changed.wait(min(left, LOOK_AGAIN))
            place._seen = self._rings  # noqa: SLF001
            return True
