"""The line of claims: order, bound, and time."""

import threading
import time

from claw_runtime.pools.wait_queue import LONGEST, WaitQueue


def soon(seconds: float = 5.0) -> float:
    return time.monotonic() + seconds


def test_turns_come_in_order() -> None:
    """Each ring lets the first one try, and who leaves lets the next one try."""
    line, served = WaitQueue(), []
    free = 0
    lock = threading.Lock()

    def claim(name: int) -> None:
        nonlocal free
        with line.place() as place:
            assert place is not None
            entered.set()
            while place.turn(soon()):
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
    line.ring()
    threads[0].join(5)
    threads[1].join(5)
    with lock:
        free = 3
    line.ring()
    for thread in threads:
        thread.join(5)

    assert served == [0, 1, 2, 3, 4]
    assert len(line) == 0


def test_waiting_ends() -> None:
    """Who is not first, or is first and sees no change, waits no longer than it said."""
    line = WaitQueue()
    with line.place() as first, line.place() as second:
        assert first is not None
        assert second is not None
        assert first.turn(soon())
        assert not first.turn(soon(0.02))
        assert not second.turn(soon(0.02))


def test_line_is_bounded() -> None:
    """One more than fit is turned away, and a place that was left is free again."""
    line = WaitQueue()
    places = [line.place() for _ in range(LONGEST)]
    for place in places:
        assert place.__enter__() is not None

    with line.place() as over:
        assert over is None
    places[-1].__exit__(None, None, None)
    with line.place() as again:
        assert again is not None
    for place in places[:-1]:
        place.__exit__(None, None, None)
    assert len(line) == 0
