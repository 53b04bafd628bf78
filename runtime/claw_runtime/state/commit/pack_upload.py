"""Upload of packs: one thread fills them; others compress, hash and send them.

All commits of a host share the threads and the memory for uploads. Both are given in the order of the requests, and no
commit has more than a few packs in progress: tenants that commit at the same time take turns.
"""

import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, Any, Final, NamedTuple, TypeVar, cast

from claw_runtime.errors import StoreUnavailable
from claw_runtime.formats import pack as packs
from claw_runtime.formats.envelope import PLAIN, Sealer
from claw_runtime.formats.manifest import Extent, PackRef
from claw_runtime.fsutil import chunks
from claw_runtime.ports import AmbiguousWrite, Clock, ObjectStore, PreconditionFailed
from claw_runtime.ports.objects import ATTEMPTS
from claw_runtime.state.rules.handed_out import FileSearch, SecretSearch
from claw_runtime.tenancy import Keys

THREADS: Final = 8
IN_FLIGHT: Final = 256 * 1024 * 1024
"""Bytes in memory for uploads, of all commits together."""
SIDE_BY_SIDE: Final = 4
"""Packs and blobs of one commit that may be in progress at the same time."""
FULL: Final = 8 * 1024 * 1024
"""Raw bytes of a pack: few enough that a pack stays below its limit even if they do not compress."""
_PACK_MEMORY: Final = 2 * FULL
WEIGHT: Final = 160
"""What a frame counts in a pack beside its raw bytes and its name."""
_AT_ONCE: Final = 128  # frames that are compressed in one call
_GONE: Final = (b"", "", 0, 0, 0)
_BLOCK: Final = 1024 * 1024
_MOST_OF_A_BLOB: Final = 96 * 1024 * 1024  # a few parts of 16 MiB, in parallel

T = TypeVar("T")


def put_immutable(store: ObjectStore, clock: Clock, key: str, data: bytes) -> bool:
    """Store bytes under a key that names their digest; whether they were new.

    Raises:
        StoreUnavailable: Several attempts failed.
        StoreDenied, BucketMissing: The store refused.
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
    raise _not_stored(key, last) from last


def _not_stored(key: str, error: Exception | None) -> StoreUnavailable:
    return StoreUnavailable(
        "an object could not be stored", why=str(error), hint="check the object store and try again", key=key
    )


class UploadPool:
    """Threads and memory that the commits of a host share.

    Args:
        limit: Bytes that may be in memory for uploads.
    """

    def __init__(self, threads: int = THREADS, limit: int = IN_FLIGHT) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="claw-upload")
        self._lock = threading.Lock()
        self._left = limit
        self._waiting: deque[tuple[int, threading.Event]] = deque()

    def run(self, work: Callable[[], T]) -> "Future[T]":
        return self._threads.submit(work)

    def tried(self, amount: int) -> bool:
        """Reserve so many bytes if that needs no wait; whether they were reserved."""
        with self._lock:
            free = not self._waiting and amount <= self._left
            self._left -= amount if free else 0
            return free

    def take(self, amount: int) -> None:
        """Wait until so many bytes can be reserved, in the order of the calls. The caller must not hold reserved bytes
        that are not being sent: two callers could block each other."""
        with self._lock:
            if not self._waiting and amount <= self._left:
                self._left -= amount
                return
            turn = threading.Event()
            self._waiting.append((amount, turn))
        turn.wait()

    def give(self, amount: int) -> None:
        """Return reserved bytes that are no longer in memory."""
        with self._lock:
            self._left += amount
            while self._waiting and self._waiting[0][0] <= self._left:
                amount, turn = self._waiting.popleft()
                self._left -= amount
                turn.set()


class FileChanged(Exception):
    """A file changed between two reads."""


class _Proving:
    """Reads an open file from front to back and checks its digest: the last piece is withheld if the digest differs, so
    that no wrong content is stored under a digest."""

    def __init__(self, fd: int, size: int, sha256: str) -> None:
        self._fd, self._left, self._expected = fd, size, sha256
        self._at, self._digest = 0, hashlib.sha256()

    def read(self, size: int) -> bytes:
        piece = os.pread(self._fd, min(size, self._left), self._at)
        self._at += len(piece)
        self._left -= len(piece)
        self._digest.update(piece)
        if self._left <= 0 and self._digest.hexdigest() != self._expected:
            raise FileChanged
        return piece


class PendingFrame(NamedTuple):
    """A frame's future place: frame `number` of a pack that has no name yet."""

    pack: "PendingPack"
    number: int


class PendingPack:
    """A pack that is being filled or sent."""

    def __init__(self) -> None:
        self.weight = 0
        self.pieces: list[tuple[bytes, str, int, int, int]] = []
        self.ref: PackRef | None = None
        self.sent: Future[None] | None = None
        self._sealed = threading.Event()
        self._frames: list[tuple[int, int, int]] = []

    def add(self, raw: bytes, path: str, at: int, mode: int, mtime_ns: int) -> PendingFrame:
        """Add a frame: the `raw` bytes of a file from offset `at`."""
        self.pieces.append((raw, path, at, mode, mtime_ns))
        self.weight += len(raw) + WEIGHT + 2 * len(path)
        return PendingFrame(self, len(self.pieces) - 1)

    def seal(self, builder: packs.PackBuilder) -> packs.Pack:
        """Compress the added frames; from here on every place is known."""
        for start in range(0, len(self.pieces), _AT_ONCE):
            some = self.pieces[start : start + _AT_ONCE]
            self.pieces[start : start + _AT_ONCE] = [_GONE] * len(some)  # free the raw bytes of compressed frames
            places = builder.add_all(some)
            self._frames += [
                (offset, stored, len(raw)) for (offset, stored), (raw, *_) in zip(places, some, strict=True)
            ]
        self.pieces.clear()
        pack = builder.seal()
        self.ref = pack.ref  # set last: a thread that sees it also sees the frames
        self._sealed.set()
        return pack

    def extent(self, number: int, sha256: str | None) -> Extent:
        """A frame's place; waits until it is known. Raises the error that ended the pack."""
        if self.ref is None:
            self._sealed.wait()
        if self.ref is None:
            assert self.sent is not None  # noqa: S101 - only one that was sent is ever waited for
            self.sent.result()
            raise AssertionError("unreachable")
        offset, stored, raw = self._frames[number]
        return Extent(pack=self.ref.sha256, offset=offset, stored=stored, raw=raw, sha256=sha256)

    def given_up(self) -> None:
        """End all waits for a place with this error."""
        self._sealed.set()


class Blob(NamedTuple):
    """A file that is a separate object: its digest, and the object's name below `blobs/`."""

    sha256: str
    name: str


class _UnderWay(NamedTuple):
    """An upload in progress; `amount` bytes of memory are reserved for it, and it owns `fd`."""

    future: Future[Any]
    amount: int
    fd: int | None = None

    def check(self) -> None:
        """Wait for the upload. Raises its error, except `FileChanged`, which the reader of the file's digest gets."""
        error = self.future.exception()
        if error is not None and not isinstance(error, FileChanged):
            raise error


class CommitUpload:
    """All uploads of one commit. Filled by one thread; always call `close` at the end.

    Args:
        epoch: Epoch of the lease under which the commit writes.
        search: Looks at all content that is new.
    """

    def __init__(
        self,
        store: ObjectStore,
        clock: Clock,
        keys: Keys,
        pool: UploadPool,
        *,
        epoch: int,
        sealer: Sealer = PLAIN,
        search: SecretSearch | None = None,
    ) -> None:
        self._search = search or SecretSearch()
        self._store, self._clock, self._keys, self._pool = store, clock, keys, pool
        self._epoch, self._sealer = epoch, sealer
        self._turns = threading.BoundedSemaphore(SIDE_BY_SIDE)
        self._open: PendingPack | None = None
        self._under_way: list[_UnderWay] = []
        self._lock, self._sent = threading.Lock(), 0
        self._packs: list[PendingPack] = []

    @property
    def seals(self) -> bool:
        """Whether stored content is encrypted, so that no file may be a separate object."""
        return self._sealer.seals

    def add(self, raw: bytes, path: str, at: int, mode: int, mtime_ns: int) -> PendingFrame:
        """Send a frame of at most `packs.FRAME` bytes; waits while too much is in progress. Raises upload errors."""
        self._search.look(path, at, raw)
        pending = self._open
        if pending is None:
            self._take(_PACK_MEMORY)
            pending = self._open = PendingPack()
        place = pending.add(raw, path, at, mode, mtime_ns)
        if pending.weight >= FULL:
            self.flush()
        return place

    def passed(self, raw: bytes, path: str, at: int) -> None:
        """Note a chunk that the store has: a secret may begin in it and end in a new one."""
        self._search.look(path, at, raw, new=False)

    def send(
        self,
        fd: int,
        path: str,
        size: int,
        known: Mapping[str, str],
        *,
        check: Callable[[int], None] = lambda _fd: None,
    ) -> "Future[Blob]":
        """Store an open file as a separate object; waits while too much is in progress. Raises errors of uploads.

        Args:
            fd: May be closed after the call.
            path: Its name, for the search.
            size: Bytes to store. What the file gains after this size was seen belongs to a later commit.
            known: Names of objects that the store has, by digest.
            check: Called with the open file when it was read; may raise `FileChanged`.
        """
        amount = min(size + _BLOCK, _MOST_OF_A_BLOB)
        self._take(amount)
        mine = os.dup(fd)
        search = FileSearch(self._search, path)
        future = self._pool.run(lambda: self._send_file(mine, size, known, amount, check, search))
        self._under_way.append(_UnderWay(future, amount, mine))
        return future

    def flush(self) -> None:
        """Send the pack that is only partly filled."""
        pending, self._open = self._open, None
        if pending is not None:
            self._packs.append(pending)
            pending.sent = self._pool.run(lambda: self._send_pack(pending))
            self._under_way.append(_UnderWay(pending.sent, _PACK_MEMORY))

    def refs(self) -> Iterator[PackRef]:
        """The packs; valid after every frame's place was asked for."""
        return (pending.ref for pending in self._packs if pending.ref)

    def finish(self) -> int:
        """Wait for all uploads; how many bytes were sent. Raises errors of uploads."""
        for one in self._under_way:
            one.check()
        return self._sent

    def close(self) -> None:
        """Cancel uploads that have not begun, and wait for the others."""
        if self._open is not None:
            self._open = None
            self._done(_PACK_MEMORY)
        for one in self._under_way:
            if one.future.cancel():
                self._done(one.amount)
                if one.fd is not None:
                    os.close(one.fd)
        for one in self._under_way:
            if not one.future.cancelled():
                one.future.exception()

    def _send_pack(self, pending: PendingPack) -> None:
        try:
            pack = pending.seal(packs.PackBuilder(self._epoch, self._sealer))
            if put_immutable(self._store, self._clock, self._keys.pack(pack.sha256), pack.data):
                self._count(len(pack.data))
        finally:
            pending.given_up()
            self._done(_PACK_MEMORY)

    def _send_file(
        self,
        fd: int,
        size: int,
        known: Mapping[str, str],
        amount: int,
        check: Callable[[int], None],
        search: FileSearch,
    ) -> Blob:
        """Read the file once for its digest, and once more to send it.

        Raises:
            FileChanged: The two differ, or the file is shorter than `size`.
        """
        try:
            digest, seen = hashlib.sha256(), 0
            for piece in chunks(fd, _BLOCK, size):  # no further: the digest must be that of the bytes that are sent
                digest.update(piece)
                search.look(seen, piece)
                seen += len(piece)
            if seen != size:
                raise FileChanged
            sha256 = digest.hexdigest()
            if sha256 in known:
                check(fd)
                return Blob(sha256, known[sha256])
            name = f"{sha256}.{self._epoch}"
            self._send_named(self._keys.blob(name), fd, size, sha256)
            check(fd)
            search.keep()
            self._count(size)
            return Blob(sha256, name)
        finally:
            os.close(fd)
            self._done(amount)

    def _send_named(self, key: str, fd: int, size: int, sha256: str) -> None:
        last: Exception | None = None
        for attempt in range(ATTEMPTS):
            if attempt:
                self._clock.sleep(0.1 * 2**attempt)
            try:
                self._store.send(key, cast("IO[bytes]", _Proving(fd, size, sha256)), size)
            except (AmbiguousWrite, StoreUnavailable) as error:
                last = error
            except EOFError as error:
                raise FileChanged from error
            else:
                return
        raise _not_stored(key, last) from last

    def _take(self, amount: int) -> None:
        self._turns.acquire()
        try:
            for one in self._under_way:
                if one.future.done():
                    one.check()
            if not self._pool.tried(amount):
                self.flush()
                self._pool.take(amount)
        except BaseException:
            self._turns.release()
            raise

    def _count(self, sent: int) -> None:
        with self._lock:
            self._sent += sent

    def _done(self, amount: int) -> None:
        self._pool.give(amount)
        self._turns.release()
