"""The host's clock behind `ports.Clock`: services take a clock as an argument, so that tests own time."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class SystemClock:
    """Implements `claw_runtime.ports.Clock` with the operating system's clocks."""

    def now(self) -> float:
        """Seconds since the epoch; for records, never for decisions, since it may jump."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that only grow; for every decision."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait; a negative time does not wait."""
        time.sleep(max(0.0, seconds))


class Stopwatch:
    """Milliseconds of named steps: `with stopwatch("restore"): …`, then `stopwatch.spent`."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self.spent: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = self._monotonic()
        yield
        self.spent[name] = round((self._monotonic() - start) * 1e3, 1)
