"""The process that waits at a slot's start gate, in small: it opens the FIFO as the image's does until one line comes.

It runs in a thread of this process, on the real FIFO, so that the runtime's own check (somebody has it open for
reading) and its line work on it as on a container.
"""

import os
import select
import threading
from collections.abc import Callable
from pathlib import Path


class Waiter:
    """Waits from its making on; `opened` gets what is in values.json beside the gate when the line comes."""

    def __init__(self, values: Path, opened: Callable[[bytes], None]) -> None:
        self._values, self._opened = values, opened
        self._ended = False
        self._held = threading.Lock()
        self._fifo: int | None = os.open(values / "door", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._wait, args=(self._fifo,), name=f"gate {values}", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """SIGTERM, or any other end, while it waits; afterwards nobody has the gate open."""
        with self._held:
            self._ended = True
            if self._fifo is not None:
                os.write(self._fifo, b"\n")  # wakes the thread
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _wait(self, fifo: int) -> None:
        waiting = select.poll()
        waiting.register(fifo, select.POLLIN)
        waiting.poll()
        with self._held:
            line, ended = os.read(fifo, 4096), self._ended
            os.close(fifo)
            self._fifo = None
        if not ended:
            assert line == b'{"v":1}\n', line
            values = self._values / "values.json"
            self._opened(values.read_bytes() if values.exists() else b"")


def at(sources: list[Path]) -> Path | None:
    """That of the directories which has a start gate."""
    return next((source for source in sources if (source / "door").is_fifo()), None)
