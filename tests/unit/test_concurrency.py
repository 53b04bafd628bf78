"""Workers: tasks of many tenants in a few threads, where a long one does not delay the short ones."""

import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
from claw_runtime.concurrency import LONG, Replacements, Workers
from structlog.testing import capture_logs

SOON = 10.0
"""Seconds after which a test counts a thread as stuck."""


class Tasks:
    """Tasks that wait until the test ends them; `time` is what the workers' clock shows."""

    def __init__(self) -> None:
        self.time, self.done, self.begun = 0.0, list[str](), list[str]()
        self._ends: dict[str, threading.Event] = {}
        self._changed = threading.Condition()

    def blocked(self, name: str) -> Callable[[], None]:
        self._ends[name] = threading.Event()

        def task() -> None:
            self._note(self.begun, name)
            assert self._ends[name].wait(SOON)
            self._note(self.done, name)

        return task

    def short(self, name: str) -> Callable[[], None]:
        return lambda: self._note(self.done, name)

    def end(self, *names: str) -> None:
        for name in names or tuple(self._ends):
            self._ends[name].set()

    def until(self, what: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(what, SOON)

    def _note(self, where: list[str], name: str) -> None:
        with self._changed:
            where.append(name)
            self._changed.notify_all()


@pytest.fixture
def tasks() -> Iterator[Tasks]:
    made = Tasks()
    yield made
    made.end()


@pytest.fixture
def workers(tasks: Tasks) -> Workers:
    return Workers("test", 3, lambda: tasks.time)


def test_every_task_is_done(workers: Workers, tasks: Tasks) -> None:
    """More tasks than threads wait for one, and nothing runs or waits afterwards."""
    for number in range(50):
        assert workers.offer(f"t{number}", tasks.short(f"t{number}"))

    assert workers.wait(SOON)
    assert sorted(tasks.done) == sorted(f"t{number}" for number in range(50))


def test_a_tenant_has_one_task_at_a_time(workers: Workers, tasks: Tasks) -> None:
    """A second task for the same tenant is refused while the first one waits or runs, and taken afterwards."""
    assert workers.offer("alice", tasks.blocked("alice"))
    assert not workers.offer("alice", tasks.short("again"))
    tasks.end("alice")
    assert workers.wait(SOON)
    assert workers.offer("alice", tasks.short("again"))
    assert workers.wait(SOON)

    assert tasks.done == ["alice", "again"]


def test_long_tasks_leave_a_thread_for_tenants_that_are_quick(workers: Workers, tasks: Tasks) -> None:
    """Of three threads, two may run tasks of tenants that took long, or are new; one is for tenants that were quick."""
    workers.offer("quick", tasks.short("quick"))
    assert workers.wait(SOON)
    for name in ("huge", "vast", "big"):
        workers.offer(name, tasks.blocked(name))
    tasks.until(lambda: len(tasks.begun) == 2)
    workers.offer("quick", tasks.short("quick again"))
    tasks.until(lambda: "quick again" in tasks.done)

    assert tasks.begun == ["huge", "vast"]
    tasks.end("huge")
    tasks.until(lambda: "big" in tasks.begun)


def test_a_tenant_that_became_large_loses_its_turn_among_the_quick_ones(workers: Workers, tasks: Tasks) -> None:
    """What its last task took decides; the next short one puts it back."""
    workers.offer("alice", tasks.short("short"))
    assert workers.wait(SOON)
    workers.offer("alice", tasks.blocked("long"))
    tasks.until(lambda: tasks.begun == ["long"])
    tasks.time += LONG
    tasks.end("long")
    assert workers.wait(SOON)
    for name in ("huge", "vast"):
        workers.offer(name, tasks.blocked(name))
    workers.offer("alice", tasks.blocked("alice"))
    workers.offer("bob", tasks.short("bob"))
    tasks.until(lambda: len(tasks.begun) == 3)

    assert tasks.begun == ["long", "huge", "vast"]
    tasks.end("huge", "vast", "alice")
    assert workers.wait(SOON)


def test_a_task_that_only_waits_leaves_its_thread_to_others(workers: Workers, tasks: Tasks) -> None:
    """Twenty programs that do not stop delay no other task, and every task that waited for one is finished."""
    stopped = threading.Event()

    def stops(name: str) -> Callable[[], None]:
        def task() -> None:
            with workers.waiting():
                assert stopped.wait(SOON)
            tasks.short(name)()

        return task

    names = [f"t{number}" for number in range(20)]
    for name in names:
        assert workers.offer(name, stops(name))
    for number in range(5):
        workers.offer(f"other{number}", tasks.short(f"other{number}"))
    tasks.until(lambda: len(tasks.done) == 5)
    assert not workers.offer("t0", tasks.short("again"))
    assert not workers.wait(0.01)

    stopped.set()
    assert workers.wait(SOON)
    assert sorted(tasks.done[5:]) == sorted(names)


def test_after_its_wait_a_task_counts_again(workers: Workers, tasks: Tasks) -> None:
    """Not more tasks than threads run at once, and one that waited comes before those that have not begun."""
    stopped, at_once, most = threading.Event(), list[str](), list[int]()
    lock = threading.Lock()

    def task(name: str) -> Callable[[], None]:
        def go() -> None:
            with workers.waiting():
                assert stopped.wait(SOON)
            with lock:
                at_once.append(name)
                most.append(len(at_once))
            time.sleep(0.01)
            with lock:
                at_once.remove(name)

        return go

    for number in range(12):
        workers.offer(f"t{number}", task(f"t{number}"))
    stopped.set()

    assert workers.wait(SOON)
    assert len(most) == 12
    assert max(most) <= 2  # of three threads, one is for tenants that were quick


def test_a_wait_elsewhere_is_a_block_as_any_other(workers: Workers) -> None:
    """Callers need not know whether they run in a task."""
    with workers.waiting():
        pass
    with pytest.raises(ZeroDivisionError), workers.waiting():
        raise ZeroDivisionError
    assert workers.wait(SOON)


def test_a_task_with_nothing_to_do_shows_no_duration(workers: Workers, tasks: Tasks) -> None:
    """A tenant that was busy is not taken for a quick one."""
    workers.offer("alice", lambda: False)
    assert workers.wait(SOON)
    for name in ("huge", "vast", "alice"):
        workers.offer(name, tasks.blocked(name))
    tasks.until(lambda: len(tasks.begun) == 2)

    assert tasks.begun == ["huge", "vast"]


def test_a_defect_ends_one_task_only(workers: Workers, tasks: Tasks) -> None:
    """It is logged with the tenant's name, and its thread does the next task."""

    def broken() -> None:
        raise ZeroDivisionError

    with capture_logs() as logged:
        for number in range(10):
            workers.offer(f"t{number}", broken)
        workers.offer("alice", tasks.short("alice"))
        assert workers.wait(SOON)

    assert tasks.done == ["alice"]
    assert sorted(line["key"] for line in logged) == sorted(f"t{number}" for number in range(10))


def test_a_stop_does_not_wait_for_ever(workers: Workers, tasks: Tasks) -> None:
    """Tasks that wait are dropped, none is taken any more, and one that runs is left behind after the given time."""
    for name in ("huge", "vast", "waits"):
        workers.offer(name, tasks.blocked(name))
    tasks.until(lambda: len(tasks.begun) == 2)

    assert not workers.stop(0.01)
    assert not workers.offer("alice", tasks.short("alice"))
    tasks.end()
    assert workers.stop(SOON)
    assert sorted(tasks.done) == ["huge", "vast"]


def test_without_threads_a_task_is_done_at_once(tasks: Tasks) -> None:
    """In the thread that offers it."""
    assert Workers("test", 0).offer("alice", tasks.short("alice"))
    assert tasks.done == ["alice"]


def test_a_service_is_replaced_at_the_second_missed_ping() -> None:
    """One may be a busy host; a ping that is answered in between starts the count again."""
    watched = Replacements(lambda: 0.0)
    assert [watched.due(answers=answers) for answers in (False, True, False, False)] == [False, False, False, True]


def test_replacements_wait_longer_each_time() -> None:
    """10 s, then twice as long, 5 min at most; ten good minutes make it 10 s again."""
    time = 0.0
    watched = Replacements(lambda: time)
    replaced = []
    for second in range(0, 2000, 2):
        time = float(second)
        if watched.due(answers=False):
            replaced.append(second)
    pauses = [later - earlier for earlier, later in pairwise(replaced)]
    assert pauses[:5] == [10, 20, 40, 80, 160]
    assert max(pauses) == 300
    for _ in range(2):
        time += Replacements.FORGIVEN
        assert not watched.due(answers=True)
    assert [watched.due(answers=False) for _ in range(2)] == [False, True]
