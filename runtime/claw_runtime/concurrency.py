"""Work that several threads share."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

log = structlog.get_logger(__name__)

IDLE = 64
"""Tasks that may wait beside those that run; each keeps a thread."""

LONG = 10.0
"""Seconds from which a task counts as long."""


def together(workers: int, work: Callable[[], None]) -> None:
    """Do the same work in several threads, one of which is this one; the first error of any of them is raised.

    The threads do not keep the process from ending.
    """
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - it is raised below
            errors.append(error)

    threads = [threading.Thread(target=guarded, name="fill", daemon=True) for _ in range(workers - 1)]
    for thread in threads:
        thread.start()
    if workers > 0:
        guarded()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


Task = Callable[[], bool | None]
"""Returns False when there was nothing to do yet, so that its duration tells nothing; otherwise nothing."""


class Workers:
    """A few threads that do the tasks of many tenants, in the order in which they were offered.

    One thread is left for tenants whose last task was short. So a tenant with a long task delays such tenants only if
    as many tenants as there are threads, all of which were quick before, begin a long task at the same time.

    Args:
        threads: Tasks that run at the same time, at most; 0 does each task at once, in the thread that offers it.
        monotonic: Seconds, to tell long tasks from short ones.
    """

    def __init__(self, name: str, threads: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._name, self._most, self._monotonic = name, threads, monotonic
        self._changed = threading.Condition()
        self._waiting: dict[str, Task] = {}
        self._running: dict[str, bool] = {}  # and whether it may take long
        self._idle: dict[str, bool] = {}  # likewise, of those in `waiting`
        self._returning = 0
        self._quick: set[str] = set()
        self._threads, self._stopped = 0, False
        self._own = threading.local()

    def offer(self, key: str, task: Task) -> bool:
        """Do the task as soon as a thread is free. An error that it raises is logged.

        Returns False, and leaves the task out, while another task with this key waits or runs, and after `stop`.
        """
        if not self._most:
            self._do(key, task)
            return True
        with self._changed:
            if self._stopped or key in self._waiting or key in self._running or key in self._idle:
                return False
            self._waiting[key] = task
            self._hire()
        return True

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Within a task, a block that only waits, such as for a program to stop: another task may run meanwhile.

        After the block the task continues when a thread is free, before any task that has not begun. Elsewhere, and
        while `IDLE` tasks wait, the block is as any other.
        """
        key: str | None = getattr(self._own, "key", None)
        with self._changed:
            aside = key is not None and key in self._running and len(self._idle) < IDLE
            if aside and key is not None:
                self._idle[key] = self._running.pop(key)
                self._hire()
        try:
            yield
        finally:
            if aside and key is not None:
                with self._changed:
                    self._returning += 1
                    self._changed.wait_for(lambda: self._has_room(long=self._idle[key]))
                    self._returning -= 1
                    self._running[key] = self._idle.pop(key)

    def _hire(self) -> None:
        """One thread more, if a task waits for one."""
        if self._waiting and self._threads < self._most + len(self._idle):
            self._threads += 1
            threading.Thread(target=self._go, name=self._name, daemon=True).start()

    def _has_room(self, *, long: bool, before: int = 0) -> bool:
        """Whether a task may run now, after so many others that are about to."""
        if len(self._running) + before >= self._most:
            return False
        return not long or sum(self._running.values()) + before < max(1, self._most - 1)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until no task waits or runs; False after so many seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._running and not self._idle, timeout)

    def stop(self, timeout: float) -> bool:
        """Drop the tasks that wait, and wait for those that run; False if one still runs after so many seconds."""
        with self._changed:
            self._stopped = True
            self._waiting.clear()
        return self.wait(timeout)

    def _go(self) -> None:
        while found := self._next():
            key, task = found
            self._own.key = key
            try:
                self._do(key, task)
            finally:
                with self._changed:
                    del self._running[key]
                    self._changed.notify_all()

    def _next(self) -> tuple[str, Task] | None:
        """The first task that may run now; None ends the thread. A thread that is about to end is no longer counted."""
        with self._changed:
            for key in self._waiting:
                if self._has_room(long=key not in self._quick, before=self._returning):
                    self._running[key] = key not in self._quick
                    return key, self._waiting.pop(key)
            self._threads -= 1
            return None

    def _do(self, key: str, task: Task) -> None:
        began = self._monotonic()
        try:
            done = task()
        except Exception:
            if self._stopped:  # the daemon ends and has closed what the task needs; the next one repeats it
                log.info("background work was interrupted", work=self._name, key=key)
                return
            log.exception("internal error in background work; retrying", work=self._name, key=key)
            done = None
        if done is False:
            return
        with self._changed:
            if self._monotonic() - began < LONG:
                self._quick.add(key)
            else:
                self._quick.discard(key)


class Replacements:
    """Decides when a service that runs but does not answer is replaced: at the second missed ping in a row.

    After a replacement, the next one waits 10 s, then twice as long each time, 5 min at most; ten minutes without a
    missed ping make it 10 s again.
    """

    FIRST, LONGEST, FORGIVEN = 10.0, 300.0, 600.0
    MISSED = 2

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._missed = 0
        self._pause = 0.0
        self._last = -math.inf
        self._well_since = now()

    def due(self, *, answers: bool) -> bool:
        """Whether the service must be replaced now, after a ping with this outcome; if so, that counts as done."""
        now = self._now()
        if answers:
            self._missed = 0
            if now - self._well_since >= self.FORGIVEN:
                self._pause = 0.0
            return False
        self._missed += 1
        self._well_since = now
        if self._missed < self.MISSED or now - self._last < self._pause:
            return False
        self._missed, self._last = 0, now
        self._pause = min(max(self.FIRST, 2 * self._pause), self.LONGEST)
        return True
