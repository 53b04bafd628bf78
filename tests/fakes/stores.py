"""A store that fails on purpose, and stores that lie: what real ones have done, at the call that a test names."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Literal

from claw_runtime.errors import StoreUnavailable
from claw_runtime.objects.memory import MemoryStore
from claw_runtime.ports import AmbiguousWrite, ObjectInfo, ObjectStore

Operation = Literal["get", "get_range", "put", "delete", "send", "fetch", "list"]
Action = Literal["unavailable", "applied, answer lost", "not applied, answer lost", "truncated", "flipped", "crash"]


class Crashed(BaseException):
    """The process died here: no `except Exception` sees it, nothing after it runs."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What happens from the `first` matching call on, `times` times. A call matches when `key` is part of its key."""

    operation: Operation
    action: Action
    key: str = ""
    first: int = 1
    times: int = 1


class FaultyStore:
    """Wraps a store.

    Attributes:
        inner: The store itself, which never fails.
        faults: What happens, as `tell` set it.
        calls: (operation, key) of every call that arrived.
        before: Called with both before anything happens; tests may replace it.
    """

    def __init__(self, inner: ObjectStore, *faults: Fault) -> None:
        self.url = inner.url
        self.inner = inner
        self.faults = list(faults)
        self._seen: Counter[Fault] = Counter()
        self.calls: list[tuple[Operation, str]] = []
        self.before: Callable[[Operation, str], None] = lambda _operation, _key: None

    def tell(self, *faults: Fault) -> None:
        """Replace the faults; calls are counted from now on."""
        self.faults = list(faults)
        self._seen.clear()

    def _action(self, operation: Operation, key: str) -> Action | None:
        self.calls.append((operation, key))
        self.before(operation, key)
        chosen: Action | None = None
        for fault in self.faults:
            if fault.operation == operation and fault.key in key:
                self._seen[fault] += 1
                if fault.first <= self._seen[fault] < fault.first + fault.times:
                    chosen = chosen or fault.action
        if chosen == "unavailable":
            raise StoreUnavailable("the store does not answer", why="a test said so")
        if chosen == "crash":
            raise Crashed
        return chosen

    def get(self, key: str) -> tuple[bytes, str]:
        action = self._action("get", key)
        data, etag = self.inner.get(key)
        return _damaged(data, action), etag

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        action = self._action("get_range", key)
        return _damaged(self.inner.get_range(key, offset, length), action)

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        action = self._action("put", key)
        if action == "not applied, answer lost":
            raise AmbiguousWrite(key)
        etag = self.inner.put(key, data, if_absent=if_absent, if_match=if_match)
        if action == "applied, answer lost":
            raise AmbiguousWrite(key)
        return etag

    def delete(self, key: str, *, if_match: str | None = None) -> None:
        self._action("delete", key)
        self.inner.delete(key, if_match=if_match)

    def send(self, key: str, source: IO[bytes], size: int) -> None:
        action = self._action("send", key)
        if action == "not applied, answer lost":
            raise AmbiguousWrite(key)
        self.inner.send(key, source, size)
        if action == "applied, answer lost":
            raise AmbiguousWrite(key)

    def fetch(self, key: str, size: int, sink: Callable[[int, memoryview], None]) -> None:
        action = self._action("fetch", key)
        self.inner.fetch(key, size, lambda offset, data: sink(offset, memoryview(_damaged(bytes(data), action))))

    def remove_unfinished(self, age: float) -> int:
        return self.inner.remove_unfinished(age)

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        self._action("list", prefix)
        return self.inner.list(prefix, after=after)


class ForgetfulStore(MemoryStore):
    """Accepts conditional writes and ignores their conditions, as several S3 servers do."""

    def __init__(self, *, ignores_absent: bool = True, ignores_match: bool = True) -> None:
        super().__init__()
        self._ignores = ignores_absent, ignores_match

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        absent, match = self._ignores
        return super().put(key, data, if_absent=if_absent and not absent, if_match=None if match else if_match)


class VersionedStore(MemoryStore):
    """Keeps every version of every object, as a versioned bucket does: a plain delete hides them.

    Attributes:
        versions: By key, the bytes of each version, oldest first.
    """

    def __init__(self) -> None:
        super().__init__()
        self.versions: dict[str, list[bytes]] = {}

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        etag = super().put(key, data, if_absent=if_absent, if_match=if_match)
        self.versions.setdefault(key, []).append(bytes(data))
        return etag

    def copy(self) -> "VersionedStore":
        """Another bucket with the same objects and versions."""
        made = VersionedStore()
        made._objects, made._numbers = dict(self._objects), self._numbers
        made.versions = {key: list(versions) for key, versions in self.versions.items()}
        return made


def _damaged(data: bytes, action: Action | None) -> bytes:
    if action == "truncated":
        return data[: len(data) // 2]
    if action == "flipped" and data:
        middle = len(data) // 2
        return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    return data
