"""Finds out, before a lease is trusted to a store, whether its conditional writes mean anything.

Several servers answer 200 to a conditional write and ignore the condition; a lease on such a store protects nobody
(measured with several servers).
"""

import secrets
from contextlib import suppress

from claw_runtime.errors import ClawError, StoreDishonest
from claw_runtime.ports import AmbiguousWrite, ObjectMissing, ObjectStore, PreconditionFailed


def probe(store: ObjectStore) -> None:
    """Write, read and remove one object of a random name, with conditions that must fail.

    Raises:
        StoreDishonest: The store broke a promise; the message says which.
        StoreUnavailable, StoreDenied, BucketMissing: The store cannot be used at all.
        AmbiguousWrite: An answer was lost; try again.
    """
    key = f".claw-probe/{secrets.token_hex(16)}"
    try:
        _put_if_absent(store, key)
        _compare_and_swap(store, key)
    finally:
        with suppress(ClawError, AmbiguousWrite):
            store.delete(key)
    _gone(store, key)


def _put_if_absent(store: ObjectStore, key: str) -> None:
    try:
        store.put(key, b"first", if_absent=True)
    except PreconditionFailed as error:
        raise _dishonest(store, "it refused to create an object that did not exist") from error
    with suppress(PreconditionFailed):
        store.put(key, b"second", if_absent=True)
        raise _dishonest(store, "it overwrote an object although the write said If-None-Match: *")
    if _read(store, key)[0] != b"first":
        raise _dishonest(store, "it refused a conditional write and yet changed the object")


def _compare_and_swap(store: ObjectStore, key: str) -> None:
    _, before = _read(store, key)
    try:
        etag = store.put(key, b"third", if_match=before)
    except PreconditionFailed as error:
        raise _dishonest(store, "it refused a write whose If-Match named the current etag") from error
    body, current = _read(store, key)
    if body != b"third" or current != etag:
        raise _dishonest(store, "it did not give back what was just written")
    with suppress(PreconditionFailed):
        store.put(key, b"fourth", if_match=before)
        raise _dishonest(store, "it overwrote an object although If-Match named an old etag")
    if _read(store, key)[0] != b"third":
        raise _dishonest(store, "it refused a conditional write and yet changed the object")


def _gone(store: ObjectStore, key: str) -> None:
    try:
        store.get(key)
    except ObjectMissing:
        return
    raise _dishonest(store, "it still gives back an object that was deleted")


def _read(store: ObjectStore, key: str) -> tuple[bytes, str]:
    try:
        return store.get(key)
    except ObjectMissing as error:
        raise _dishonest(store, "it does not find an object that was just written") from error


def _dishonest(store: ObjectStore, what: str) -> StoreDishonest:
    return StoreDishonest(
        f"the object store {store.url} cannot hold leases",
        why=what,
        hint="use a store with honest conditional writes: Amazon S3, SeaweedFS, or a file:/// directory",
        url=store.url,
    )
