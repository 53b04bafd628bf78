"""A clock that tests own: it stands still until told, and `sleep` only moves it."""


class FakeClock:
    """Implements `claw_runtime.ports.Clock`; `slept` is every sleep that was asked for, in order."""

    def __init__(self, now: float = 1_790_000_000.0) -> None:
        self._now, self._monotonic = now, 0.0
        self.slept: list[float] = []

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        self._now += seconds
        self._monotonic += seconds

    def jump(self, seconds: float) -> None:
        """Set the wall clock forward or back, as an operator or NTP may; monotonic time does not notice."""
        self._now += seconds
