"""Objects in this process's memory, for tests and experiments; lost when the process ends."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from typing import IO

from claw_runtime.fsutil import read_exactly
from claw_runtime.objects.keys import checked_key, checked_prefix
from claw_runtime.ports import ObjectInfo, ObjectMissing, PreconditionFailed


class MemoryStore:
    """An `ObjectStore` in a dict. Etags are opaque and never repeat; `now` is its clock."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self.now = now
        self.url = "memory:"
        self._objects: dict[str, tuple[bytes, str, float]] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def get(self, key: str) -> tuple[bytes, str]:
        found = self._objects.get(checked_key(key))
        if found is None:
            raise ObjectMissing(key)
        return found[:2]

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        return self.get(key)[0][offset : offset + length]

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        with self._lock:
            found = self._objects.get(checked_key(key))
            if if_absent and found is not None:
                raise PreconditionFailed(key)
            if if_match is not None and (found is None or found[1] != if_match):
                raise PreconditionFailed(key)
            etag = f'"{next(self._numbers)}"'
            self._objects[key] = bytes(data), etag, self.now()
            return etag

    def delete(self, key: str, *, if_match: str | None = None) -> None:
        with self._lock:
            found = self._objects.get(checked_key(key))
            if if_match is not None and (found is None or found[1] != if_match):
                raise PreconditionFailed(key)
            self._objects.pop(key, None)

    def send(self, key: str, source: IO[bytes], size: int) -> None:
        self.put(key, read_exactly(source, size))

    def fetch(self, key: str, size: int, sink: Callable[[int, memoryview], None]) -> None:
        sink(0, memoryview(self.get(key)[0])[:size])

    def remove_unfinished(self, age: float) -> int:  # noqa: ARG002 - nothing is ever left here
        return 0

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        checked_prefix(prefix)
        with self._lock:
            found = sorted((key, one) for key, one in self._objects.items() if key.startswith(prefix) and key > after)
        return (ObjectInfo(key=key, size=len(data), etag=etag, modified=at) for key, (data, etag, at) in found)
