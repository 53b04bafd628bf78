"""Keys of tenants: a random one for each, which lies beside its state, wrapped with the operator's.

The operator's key never leaves this host, and a tenant's is nowhere but in the bucket: a tenant is forgotten by the
removal of one small object. The operator's key is changed by wrapping each tenant's anew; no state is written again.

    KEY    {"v": 1, "with": first 16 digits of the operator key's SHA-256, "wrapped": base64 of nonce, key and tag}
"""

import base64
import hashlib
import json
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal

from claw_runtime.errors import ClawError, InvalidSpec, RestoreFailed, StoreUnavailable, VerifyMismatch
from claw_runtime.formats.envelope import KEY_SIZE, PLAIN, Aes, Purpose, Sealer
from claw_runtime.ports import AmbiguousWrite, ObjectMissing, ObjectStore, PreconditionFailed
from claw_runtime.tenancy import TENANTS, Keys, TenantId, owner_of

VERSION: Final = 1
REMEMBERED: Final = 10_000
THREADS: Final = 8
_NONCE: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewrapped:
    """What became of one tenant's key: wrapped anew, as it should be already, or neither, and `why`."""

    tenant: TenantId
    outcome: Literal["wrapped", "current", "failed"]
    why: str = ""


class Keyring:
    """Sealers of all tenants of one store.

    Args:
        operators: Keys of the operator, `KEY_SIZE` bytes each: the first wraps, all of them unwrap. None seals nothing.
    """

    def __init__(self, store: ObjectStore, operators: Sequence[bytes] = ()) -> None:
        self._store = store
        self._operators = {_name(key): key for key in operators}
        self._read: dict[TenantId, bytes] = {}

    def sealer(self, tenant: TenantId) -> Sealer:
        """What seals and opens the tenant's state, for one restore or one commit; asks for its key when it needs it."""
        return _Sealer(self, tenant) if self._operators else PLAIN

    def key(self, tenant: TenantId, *, fresh: bool = False) -> bytes:
        """The tenant's key, from memory unless it shall be `fresh`.

        Raises:
            RestoreFailed: It has none, or one that is damaged or wrapped with a key that is not here.
            StoreUnavailable, StoreDenied, BucketMissing: The store.
        """
        if not fresh and (found := self._read.get(tenant)):
            return found
        try:
            data, _ = self._store.get(Keys(tenant).key)
        except ObjectMissing as error:
            raise self._refused(tenant, "its key is not in the store") from error
        return self._remember(tenant, self._unwrapped(data, tenant))

    def key_to_write(self, tenant: TenantId) -> bytes:
        """The key that the store has now: others may have removed the tenant since it was read, and it came again.

        Made if there is none. One that was there and got lost is put back: what was sealed with it needs it.
        """
        where, key = Keys(tenant).key, self._read.get(tenant) or os.urandom(KEY_SIZE)
        with suppress(ObjectMissing):
            return self._remember(tenant, self._unwrapped(self._store.get(where)[0], tenant))
        with suppress(PreconditionFailed, AmbiguousWrite):  # whatever is there now counts
            self._store.put(where, self._wrapped(key, tenant), if_absent=True)
        try:
            return self._remember(tenant, self._unwrapped(self._store.get(where)[0], tenant))
        except ObjectMissing as error:
            raise StoreUnavailable(
                f"the key of tenant {tenant} could not be stored",
                why="the connection broke",
                hint="check the object store and try again",
                tenant=tenant,
            ) from error

    def forget(self, tenant: TenantId) -> None:
        """The tenant was removed for good, and its key with it."""
        self._read.pop(tenant, None)

    def rewrap(self, tenants: Sequence[TenantId] = ()) -> Iterator[Rewrapped]:
        """Wrap tenants' keys, of all that have one by default, with the first key of the operator.

        Running tenants do not notice; an operator's key that wraps nothing any more may be removed afterwards.

        Raises:
            InvalidSpec: The operator has no key.
            StoreUnavailable, StoreDenied, BucketMissing: The store cannot be listed.
        """
        if not self._operators:
            raise InvalidSpec(
                "there is no operator's key",
                why="encryption_key_file is not set",
                hint="docs/RUNBOOK.md#encrypt-states describes how to set it",
            )
        with ThreadPoolExecutor(THREADS, thread_name_prefix="claw-keys") as pool:
            yield from pool.map(self._rewrapped, tenants or self._with_key())

    def _rewrapped(self, tenant: TenantId) -> Rewrapped:
        try:
            return Rewrapped(tenant=tenant, outcome="wrapped" if self._rewrap(tenant) else "current")
        except (ClawError, ObjectMissing, AmbiguousWrite, PreconditionFailed) as error:
            why = "it has no key" if isinstance(error, ObjectMissing) else str(error)
            return Rewrapped(tenant=tenant, outcome="failed", why=why)

    def _with_key(self) -> Iterator[TenantId]:
        for item in self._store.list(TENANTS):
            tenant = owner_of(item.key)
            if tenant is not None and item.key == Keys(tenant).key:
                yield tenant

    def _rewrap(self, tenant: TenantId) -> bool:
        data, etag = self._store.get(Keys(tenant).key)
        key = self._unwrapped(data, tenant)
        if json.loads(data)["with"] == next(iter(self._operators)):
            return False
        self._store.put(Keys(tenant).key, self._wrapped(key, tenant), if_match=etag)
        return True

    def _remember(self, tenant: TenantId, key: bytes) -> bytes:
        if len(self._read) >= REMEMBERED:
            self._read.clear()
        self._read[tenant] = key
        return key

    def _wrapped(self, key: bytes, tenant: TenantId) -> bytes:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        name, operator = next(iter(self._operators.items()))
        nonce = os.urandom(_NONCE)
        wrapped = base64.b64encode(nonce + AESGCM(operator).encrypt(nonce, key, _bound(tenant))).decode()
        return json.dumps({"v": VERSION, "with": name, "wrapped": wrapped}).encode() + b"\n"

    def _unwrapped(self, data: bytes, tenant: TenantId) -> bytes:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        try:
            document = json.loads(data)
            version, name = document["v"], str(document["with"])
            wrapped = base64.b64decode(document["wrapped"], validate=True)
        except (ValueError, KeyError, TypeError) as error:
            raise self._refused(tenant, "its key in the store is damaged") from error
        if version != VERSION:
            raise self._refused(tenant, f"its key is of version {version!r}, this program reads {VERSION}")
        operator = self._operators.get(name)
        if operator is None:
            have = " and ".join(self._operators)
            raise self._refused(tenant, f"its key was wrapped with the operator's key {name[:16]}, here is {have}")
        try:
            return AESGCM(operator).decrypt(wrapped[:_NONCE], wrapped[_NONCE:], _bound(tenant))
        except (InvalidTag, ValueError) as error:
            raise self._refused(tenant, "its key in the store is damaged, or another tenant's") from error

    @staticmethod
    def _refused(tenant: TenantId, why: str) -> RestoreFailed:
        return RestoreFailed(
            f"the state of tenant {tenant} cannot be opened",
            why=why,
            hint="nothing was started; the key that it was wrapped with belongs into the file of encryption_key_file,"
            " on a line after the first; a tenant's key that is gone is in the bucket's versions, or nowhere",
            tenant=tenant,
        )


class _Sealer:
    """Opens with the key that is known, while it fits, and seals with the one that the store has now."""

    seals = True

    def __init__(self, keyring: Keyring, tenant: TenantId) -> None:
        self._keyring, self._tenant = keyring, tenant
        self._reading: Aes | None = None
        self._writing: Aes | None = None
        self._lock = threading.Lock()

    def seal(self, data: bytes, purpose: Purpose) -> bytes:
        with self._lock:  # threads that pack side by side ask once
            if self._writing is None:
                self._reading = self._writing = Aes(self._keyring.key_to_write(self._tenant), self._tenant)
        return self._writing.seal(data, purpose)

    def open(self, data: bytes | memoryview, purpose: Purpose) -> bytes:
        if self._reading is None:
            known = Aes(self._keyring.key(self._tenant), self._tenant)
            try:
                opened = known.open(data, purpose)
            except VerifyMismatch:  # the tenant was removed and came again, through another host
                known = Aes(self._keyring.key(self._tenant, fresh=True), self._tenant)
                opened = known.open(data, purpose)
            self._reading = known
            return opened
        return self._reading.open(data, purpose)


def _name(operator: bytes) -> str:
    return hashlib.sha256(operator).hexdigest()[:16]


def _bound(tenant: TenantId) -> bytes:
    return f"claw key {tenant}".encode()
