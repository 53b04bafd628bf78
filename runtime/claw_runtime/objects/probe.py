"""Checks, before a store is used for leases, that its conditional writes work.

Several servers answer 200 to a conditional write and ignore the condition; a lease on such a store protects nothing
(docs/CONFORMANCE.md names some). The probe requires what leases and restores need, and records other properties.
"""

import io
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, Protocol, runtime_checkable

from claw_runtime.errors import ClawError, StoreDishonest
from claw_runtime.ports import AmbiguousWrite, Capabilities, ObjectInfo, ObjectMissing, ObjectStore, PreconditionFailed

_OTHER: Final = '"0123456789abcdef0123456789abcdef"'


@runtime_checkable
class _Remote(Protocol):
    """Questions that only a store behind a network can answer. `learn` adapts it to the service before the others."""

    def pages(self, prefix: str, size: int) -> Sequence[ObjectInfo]: ...

    def refuses_damage(self, key: str) -> bool: ...

    def learn(self, key: str) -> None: ...


class _Lie(Exception):
    """A broken promise; its text follows the store's name in the message."""


def probe(store: ObjectStore) -> Capabilities:
    """What the store does, which is all that leases and restores need.

    Raises:
        StoreDishonest: The store broke a promise that leases or restores need; the message names it.
        StoreUnavailable, StoreDenied, BucketMissing: The store cannot be used at all.
        AmbiguousWrite: An answer was lost; retry.
    """
    found = survey(store)
    if found.lies:
        told = "cannot hold leases" if found.unfit_for_leases else "cannot hold state"
        raise StoreDishonest(
            f"the object store {store.url} {told}",
            why="; ".join(found.lies),
            hint="use a store that honours conditional writes: Amazon S3, SeaweedFS, or a file:/// directory",
            url=store.url,
        )
    return found


def survey(store: ObjectStore) -> Capabilities:
    """Write, read and remove a few objects with random names, with conditions that must fail; returns the results.

    Raises as `probe`, except `StoreDishonest`.
    """
    place = f".claw-probe/{secrets.token_hex(16)}"
    first, second, damaged, sample = (f"{place}-{letter}" for letter in "abcd")
    lies: list[str] = []

    def keeps(promise: Callable[[ObjectStore, str], None]) -> bool:
        try:
            promise(store, first)
        except _Lie as lie:
            lies.append(str(lie))
            return False
        return True

    try:
        remote = store if isinstance(store, _Remote) else None
        if remote:
            remote.learn(sample)
            store.delete(sample)
        absent, swap, ranges = keeps(_put_if_absent), keeps(_compare_and_swap), keeps(_range)
        multipart = _multipart(store, second)
        paging = [item.key for item in remote.pages(place, 1)] == [first, second] if remote else None
        checksums = remote.refuses_damage(damaged) if remote else None
        conditional_delete = _conditional_delete(store, second)
    finally:
        for made in (first, second, damaged, sample):
            with suppress(ClawError, AmbiguousWrite):
                store.delete(made)
    keeps(_gone)
    return Capabilities(
        put_if_absent=absent,
        compare_and_swap=swap,
        ranges=ranges,
        conditional_delete=conditional_delete,
        multipart=multipart,
        checksums=checksums,
        paging=paging,
        lies=tuple(lies),
    )


def _put_if_absent(store: ObjectStore, key: str) -> None:
    try:
        store.put(key, b"first", if_absent=True)
    except PreconditionFailed as error:
        raise _Lie("it refused to create an object that did not exist") from error
    with suppress(PreconditionFailed):
        store.put(key, b"second", if_absent=True)
        raise _Lie("it overwrote an object although the write said If-None-Match: *")
    if _read(store, key)[0] != b"first":
        raise _Lie("it refused a conditional write but changed the object")


def _compare_and_swap(store: ObjectStore, key: str) -> None:
    store.put(key, b"second")
    body, before = _read(store, key)
    if body != b"second":
        raise _Lie("it did not return what was just written")
    try:
        etag = store.put(key, b"third", if_match=before)
    except PreconditionFailed as error:
        raise _Lie("it refused a write whose If-Match named the current etag") from error
    body, current = _read(store, key)
    if body != b"third" or current != etag:
        raise _Lie("it did not return what was just written")
    with suppress(PreconditionFailed):
        store.put(key, b"fourth", if_match=before)
        raise _Lie("it overwrote an object although If-Match named an old etag")
    if _read(store, key)[0] != b"third":
        raise _Lie("it refused a conditional write but changed the object")


def _range(store: ObjectStore, key: str) -> None:
    store.put(key, b"0123456789")
    if store.get_range(key, 3, 4) != b"3456":
        raise _Lie("it returned the wrong bytes for a range of an object")


def _gone(store: ObjectStore, key: str) -> None:
    with suppress(ObjectMissing):
        store.get(key)
        raise _Lie("it still returns an object that was deleted")


def _multipart(store: ObjectStore, key: str) -> bool:
    with suppress(ClawError, ObjectMissing):
        store.send(key, io.BytesIO(b"part"), 4)
        if store.get(key)[0] == b"part":
            return True
    store.put(key, b"part")
    return False


def _conditional_delete(store: ObjectStore, key: str) -> bool:
    with suppress(PreconditionFailed, ClawError):
        store.delete(key, if_match=_OTHER)
        return False
    try:
        store.delete(key, if_match=_read(store, key)[1])
    except (PreconditionFailed, ClawError, _Lie):
        return False
    return True


def _read(store: ObjectStore, key: str) -> tuple[bytes, str]:
    try:
        return store.get(key)
    except ObjectMissing as error:
        raise _Lie("it cannot find an object that was just written") from error
