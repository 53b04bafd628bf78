"""The lines of a container's log, as Podman sends them."""

import threading
from collections import deque
from collections.abc import Iterator

from claw_runtime.engine.wire import STDOUT, Call

_LONGEST = 1 << 20


class LogLines:
    """Implements `ports.Lines`. Podman reads the log four times a second, which limits the delay of a line.

    A line longer than 1 MiB is split.
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._lines = self._whole()
        self._reading = threading.Lock()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        with self._reading:
            return next(self._lines)

    def close(self) -> None:
        self._call.close()

    def _whole(self) -> Iterator[bytes]:
        held = {STDOUT: bytearray()}
        ready: deque[bytes] = deque()
        try:
            for stream, piece in self._call.frames():
                begun = held.setdefault(stream, bytearray())
                begun += piece
                *whole, rest = begun.split(b"\n")
                ready += map(bytes, whole)
                if len(rest) >= _LONGEST:
                    ready.append(bytes(rest))
                    rest = bytearray()
                held[stream] = rest
                while ready:
                    yield ready.popleft()
            if not self._call.closed:  # else: the last lines have no end
                yield from [bytes(rest) for rest in held.values() if rest]
        finally:
            self._call.close()
