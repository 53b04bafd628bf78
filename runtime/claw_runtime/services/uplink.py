"""Packs on their way into the store: filled by one thread, compressed, hashed and sent by others.

All commits of a host share the threads and the memory for what is on its way. Both are had in the order in which they
were asked for, and no commit has more than a few packs under way: tenants that commit at the same time take turns.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, NamedTuple, TypeVar

from claw_runtime import packs
from claw_runtime.errors import StoreUnavailable
from claw_runtime.manifest import Extent, PackRef
from claw_runtime.ports import AmbiguousWrite, Clock, ObjectStore, PreconditionFailed
from claw_runtime.sealing import PLAIN, Sealer
from claw_runtime.services.leases import ATTEMPTS
from claw_runtime.tenancy import Keys

THREADS: Final = 8
IN_FLIGHT: Final = 256 * 1024 * 1024
"""Bytes of all commits together that may be in memory on their way."""
SIDE_BY_SIDE: Final = 4
"""Packs and blobs that one commit may have under way."""
FULL: Final = 8 * 1024 * 1024
"""Raw bytes of a pack: few enough that a pack stays below its limit whatever zstd makes of them."""
_PARCEL: Final = 2 * FULL
_NAME: Final = 160

T = TypeVar("T")


def put_immutable(store: ObjectStore, clock: Clock, key: str, data: bytes) -> bool:
    """Store bytes under a key that names their digest; whether they were new.

    Raises:
        StoreUnavailable: The store did not take them, several times.
        StoreDenied, BucketMissing: The store.
    """
    last: Exception | None = None
    for attempt in range(ATTEMPTS):
        if attempt:
            clock.sleep(0.1 * 2**attempt)
        try:
            store.put(key, data, if_absent=True)
        except PreconditionFailed:
            return False
        except (AmbiguousWrite, StoreUnavailable) as error:
            last = error
        else:
            return True
    raise StoreUnavailable(
        "an object could not be stored", why=str(last), hint="check the object store and try again", key=key
    ) from last


class Uplink:
    """What the commits of a host share.

    Args:
        limit: Bytes that may be on their way.
    """

    def __init__(self, threads: int = THREADS, limit: int = IN_FLIGHT) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="claw-upload")
        self._lock = threading.Lock()
        self._left = limit
        self._waiting: deque[tuple[int, threading.Event]] = deque()

    def run(self, work: Callable[[], T]) -> "Future[T]":
        return self._pool.submit(work)

    def take(self, amount: int) -> None:
        """Wait until so many bytes may be on their way, first come, first served."""
        with self._lock:
            if not self._waiting and amount <= self._left:
                self._left -= amount
                return
            turn = threading.Event()
            self._waiting.append((amount, turn))
        turn.wait()

    def give(self, amount: int) -> None:
        """These bytes are not in memory any more."""
        with self._lock:
            self._left += amount
            while self._waiting and self._waiting[0][0] <= self._left:
                amount, turn = self._waiting.popleft()
                self._left -= amount
                turn.set()


class Place(NamedTuple):
    """Where a frame will lie: it is number `number` of a pack that has no name yet."""

    parcel: "Parcel"
    number: int


class Parcel:
    """A pack that is being filled, or is under way."""

    def __init__(self) -> None:
        self.weight = 0
        self.pieces: list[tuple[bytes, str, int, int, int]] = []
        self.ref: PackRef | None = None
        self.sent: Future[int] | None = None
        self._sealed = threading.Event()
        self._frames: list[tuple[int, int, int]] = []

    def add(self, raw: bytes, path: str, at: int, mode: int, mtime_ns: int) -> Place:
        """Take in the `raw` bytes from `at` of a file."""
        self.pieces.append((raw, path, at, mode, mtime_ns))
        self.weight += len(raw) + _NAME + 2 * len(path)
        return Place(self, len(self.pieces) - 1)

    def seal(self, builder: packs.PackBuilder) -> packs.Pack:
        """Compress what was taken in; from here on every place is known."""
        frames = self._frames
        self.pieces.reverse()
        while self.pieces:  # let go of what is compressed
            raw, path, at, mode, mtime_ns = self.pieces.pop()
            offset, stored = builder.add(raw, path=path, at=at, mode=mode, mtime_ns=mtime_ns)
            frames.append((offset, stored, len(raw)))
        pack = builder.seal()
        self.ref = pack.ref  # the last to be set: whoever sees it sees the frames
        self._sealed.set()
        return pack

    def extent(self, number: int, sha256: str | None) -> Extent:
        """A frame's place; waits until it is known. Raises what kept it from becoming known."""
        if self.ref is None:
            self._sealed.wait()
        if self.ref is None:
            assert self.sent is not None  # noqa: S101 - only one that was sent is ever waited for
            self.sent.result()
            raise AssertionError("unreachable")
        offset, stored, raw = self._frames[number]
        return Extent(pack=self.ref.sha256, offset=offset, stored=stored, raw=raw, sha256=sha256)

    def given_up(self) -> None:
        """Whoever waits for a place is told."""
        self._sealed.set()


class Shipment:
    """All that one commit sends. Filled by one thread; `close` it whatever happens.

    Args:
        epoch: Of the lease that it is sent under.
    """

    def __init__(
        self, store: ObjectStore, clock: Clock, keys: Keys, uplink: Uplink, *, epoch: int, sealer: Sealer = PLAIN
    ) -> None:
        self._store, self._clock, self._keys, self._uplink = store, clock, keys, uplink
        self._epoch, self._sealer = epoch, sealer
        self._turns = threading.BoundedSemaphore(SIDE_BY_SIDE)
        self._open: Parcel | None = None
        self._under_way: list[tuple[Future[int], int]] = []
        self._parcels: list[Parcel] = []

    @property
    def seals(self) -> bool:
        return self._sealer.seals

    def add(self, raw: bytes, path: str, at: int, mode: int, mtime_ns: int) -> Place:
        """Send a frame, at most `packs.FRAME` bytes; waits while too much is under way. Raises what sending raised."""
        parcel = self._open
        if parcel is None:
            self._turns.acquire()
            try:
                self._raise_first()
                self._uplink.take(_PARCEL)
            except BaseException:
                self._turns.release()
                raise
            parcel = self._open = Parcel()
        place = parcel.add(raw, path, at, mode, mtime_ns)
        if parcel.weight >= FULL:
            self.flush()
        return place

    def flush(self) -> None:
        """Send what is waiting for more."""
        parcel, self._open = self._open, None
        if parcel is not None:
            self._parcels.append(parcel)
            parcel.sent = self._uplink.run(lambda: self._send(parcel))
            self._under_way.append((parcel.sent, _PARCEL))

    def refs(self) -> Iterator[PackRef]:
        """The packs, once every frame's place was asked for."""
        return (parcel.ref for parcel in self._parcels if parcel.ref)

    def finish(self) -> int:
        """Wait for everything; how many bytes were sent. Raises what sending raised."""
        return sum(future.result() for future, _ in self._under_way)

    def close(self) -> None:
        """What has not begun never will, and what has begun is waited for."""
        if self._open is not None:
            self._open = None
            self._done(_PARCEL)
        for future, amount in self._under_way:
            if future.cancel():
                self._done(amount)
        for future, _ in self._under_way:
            if not future.cancelled():
                future.exception()

    def _send(self, parcel: Parcel) -> int:
        try:
            pack = parcel.seal(packs.PackBuilder(self._epoch, self._sealer))
            new = put_immutable(self._store, self._clock, self._keys.pack(pack.sha256), pack.data)
            return len(pack.data) if new else 0
        finally:
            parcel.given_up()
            self._done(_PARCEL)

    def _done(self, amount: int) -> None:
        self._uplink.give(amount)
        self._turns.release()

    def _raise_first(self) -> None:
        for future, _ in self._under_way:
            if future.done():
                future.result()
