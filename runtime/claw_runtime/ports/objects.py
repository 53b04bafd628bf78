"""Objects by key, in whatever store."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Final, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectInfo:
    """One entry of a listing. `size` in bytes; `modified` in seconds since the epoch by the store's own clock, which
    is to be compared with nothing else. `etag` is empty where the store would have to read the object for it."""

    key: str
    size: int
    etag: str
    modified: float


class ObjectStore(Protocol):
    """Keys and bytes, with conditional writes that check their condition.

    A key is 1–900 bytes of `[A-Za-z0-9._/-]`, no segment empty, `.` or `..`. Every method raises `StoreUnavailable`,
    `StoreDenied` or `BucketMissing`; a write whose answer was lost raises `AmbiguousWrite` and may have happened.
    """

    url: str

    def get(self, key: str) -> tuple[bytes, str]:
        """Body and etag. Raises `ObjectMissing`."""

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`. Raises `ObjectMissing`."""

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        """Write; the new etag. Raises `PreconditionFailed`."""

    def delete(self, key: str, *, if_match: str | None = None) -> None:
        """A key that is gone is fine, unless `if_match` names its etag. Raises `PreconditionFailed`."""

    def send(self, key: str, source: IO[bytes], size: int) -> None:
        """Write a large object whose name says what is in it: `source` is read once, from front to back, in parts that
        are sent side by side; a few of them are in memory at a time. Whatever the key held before is replaced."""

    def fetch(self, key: str, size: int, sink: Callable[[int, memoryview], None]) -> None:
        """Read a large object of `size` bytes in parts, side by side: `sink(offset, bytes)` is called once for each,
        in any order, from several threads. Raises `ObjectMissing`; what `sink` raises ends it."""

    def remove_unfinished(self, age: float) -> int:
        """Remove what is left of writes that were never finished and were last continued `age` seconds ago or earlier,
        by the store's clock; how many. No listing shows them, but they take space."""

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        """All keys that start with `prefix` and come after `after`, in byte order, over as many pages as it takes.

        Args:
            after: Only for keys that have no `/` behind the prefix, since not every service lists others in byte order.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a store was seen to do.

    Attributes:
        put_if_absent, compare_and_swap: It heeds `If-None-Match: *` and `If-Match` on PUT, which leases need.
        ranges: It gives exactly the part that was asked for, which restores need.
        conditional_delete: It heeds `If-Match` on DELETE.
        multipart: A large object goes up in parts.
        checksums: It refuses bytes that are not those of their checksum; None where nothing is sent over a wire.
        paging: A listing continues after its first page; None where there are no pages.
        lies: What speaks against using it at all, in words that follow the store's name.
    """

    put_if_absent: bool
    compare_and_swap: bool
    ranges: bool
    conditional_delete: bool
    multipart: bool
    checksums: bool | None
    paging: bool | None
    lies: tuple[str, ...] = ()

    @property
    def unfit_for_leases(self) -> bool:
        return not (self.put_if_absent and self.compare_and_swap)

    @property
    def missing(self) -> tuple[str, ...]:
        """What it lacks of what it may lack, in words."""
        words = {
            "conditional delete": self.conditional_delete,
            "multipart upload": self.multipart,
            "checksums": self.checksums,
            "paging": self.paging,
        }
        return tuple(word for word, has in words.items() if has is False)


class ObjectMissing(Exception):
    """No object has that key."""


class PreconditionFailed(Exception):
    """The object is not as the conditional write expected; nothing was written."""


class AmbiguousWrite(Exception):
    """The connection broke after the request was sent: the write may or may not have happened."""


ATTEMPTS: Final = 4
