"""The id of a store: one object, written once, by which a host recognises the store that its tenants' states are in.

An empty directory where a disk is not mounted, a wrong bucket or a new one answers like a store without any tenant. It
lacks this object, or has another one. It is read when a daemon starts, and when a HEAD is missing or has gone back.
"""

import json
import secrets
from contextlib import suppress
from typing import Final, NoReturn

from claw_runtime.errors import StoreUnavailable
from claw_runtime.formats.head import HeadRefused, timestamp
from claw_runtime.ports import AmbiguousWrite, Clock, ObjectMissing, ObjectStore, PreconditionFailed, StoreMemory
from claw_runtime.ports.objects import ATTEMPTS
from claw_runtime.tenancy import STORE_KEY, TENANTS

VERSION: Final = 1


class StoreId:
    """The id of one store, and the id that this host remembers.

    Raises (every method): StoreUnavailable, StoreDenied, BucketMissing.
    """

    def __init__(self, store: ObjectStore, memory: StoreMemory, clock: Clock) -> None:
        self._store, self._memory, self._clock = store, memory, clock

    def open(self, *, accept: bool = False) -> str:
        """The store's id, for the start of a daemon. A store without an id gets one if that cannot be a mistake: it has
        tenants, or this host knows none.

        Args:
            accept: A person wants this store: what is remembered of another one is forgotten.

        Raises:
            HeadRefused: This is not the store that this host's tenants have their states in; nothing was changed.
        """
        known, (found, etag) = self._memory.store(), self._read()
        if found and known in ("", found):
            self._memory.set_store(found, self._store.url)
            return found
        is_plain = not known and etag is None and (self._memory.is_empty() or self._has_tenants())
        if not is_plain and not accept:
            self._refuse(known, found)
        if not found:
            found = self._create(known if known and self._has_tenants() else secrets.token_hex(16), etag)
        self._memory.set_store(found, self._store.url, forget=not is_plain and found != known)
        return found

    def check(self) -> None:
        """Check that this still is the store that was opened.

        Raises:
            HeadRefused: Its id is missing, or is another one.
        """
        known = self._memory.store()
        found = self._read()[0] if known else ""
        if found != known:
            self._refuse(known, found)

    def _read(self) -> tuple[str, str | None]:
        """The id in the store, empty if it cannot be read; and the object's etag, None if it is missing."""
        try:
            data, etag = self._store.get(STORE_KEY)
        except ObjectMissing:
            return "", None
        with suppress(ValueError, KeyError, TypeError):
            found = json.loads(data)["id"]
            return (found if isinstance(found, str) else ""), etag
        return "", etag

    def _has_tenants(self) -> bool:
        return next(iter(self._store.list(TENANTS)), None) is not None

    def _create(self, store: str, etag: str | None) -> str:
        """Write the id; the id that is there afterwards, since another host may do the same."""
        document = {"v": VERSION, "id": store, "created": timestamp(self._clock)}
        for _ in range(ATTEMPTS):
            with suppress(PreconditionFailed, AmbiguousWrite):
                body = json.dumps(document).encode() + b"\n"
                self._store.put(STORE_KEY, body, if_absent=etag is None, if_match=etag)
            if found := self._read()[0]:
                return found
        raise StoreUnavailable(f"the id of the store {self._store.url} could not be written", hint="retry")

    def _refuse(self, known: str, found: str) -> NoReturn:
        has = f"it has the id {found[:32]!r}" if found else f"its object {STORE_KEY} is missing or damaged"
        wants = f"{known} was expected" if known else "this host knows tenants' generations, and none is there"
        raise HeadRefused(
            f"{self._store.url} is not the store that the tenants' states are in",
            why=f"{has}, but {wants}",
            hint="nothing was touched; check bucket, prefix and whether the disk is mounted; "
            "to use this store from now on: claw-runtime up --accept-store",
            url=self._store.url,
        )
