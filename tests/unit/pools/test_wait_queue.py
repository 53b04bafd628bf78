"""The queue of claims: order, bound, and time."""

import threading
import time

from claw_runtime.pools.wait_queue import LONGEST, WaitQueue


def soon(seconds: float = 5.0) -> float:
    return time.monotonic() + seconds


def test_turns_come_in_order() -> None:
    """Each change lets the first one try, and one that leaves lets the next one try."""
    queue, served = WaitQueue(), []
    free = 0
    lock = threading.Lock()

    def claim(name: int) -> None:
        nonlocal free
        with queue.enter() as queued:
            assert queued is not None
            entered.set()
            while queued.wait_turn(soon()):
                with lock:
                    if free:
                        free -= 1
                        served.append(name)
                        return

    threads = []
    for name in range(5):
        entered = threading.Event()
        threads.append(threading.Thread(target=claim, args=(name,)))
        threads[-1].start()
        assert entered.wait(5)
    with lock:
        free = 2
    queue.notify()
    threads[0].join(5)
    threads[1].join(5)
    with lock:
        free = 3
    queue.notify()
    for thread in threads:
        thread.join(5)

    assert served == [0, 1, 2, 3, 4]
    assert len(queue) == 0


def test_waiting_ends() -> None:
    """Who is not first, or is first and sees no change, waits no longer than it said."""
    queue = WaitQueue()
    with queue.enter() as first, queue.enter() as second:
        assert first is not None
        assert second is not None
        assert first.wait_turn(soon())
        assert not first.wait_turn(soon(0.02))
        assert not second.wait_turn(soon(0.02))


def test_queue_is_bounded() -> None:
    """One more than fit is turned away, and room that a claim left is free again."""
    queue = WaitQueue()
    entered = [queue.enter() for _ in range(LONGEST)]
    for one in entered:
        assert one.__enter__() is not None

    with queue.enter() as over:
        assert over is None
    entered[-1].__exit__(None, None, None)
    with queue.enter() as again:
        assert again is not None
    for one in entered[:-1]:
        one.__exit__(None, None, None)
    assert len(queue) == 0
