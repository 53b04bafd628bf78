"""Keys of tenants: a random key for each, stored beside its state and wrapped with the operator's key.

The operator's key never leaves this host, and a tenant's key is only in the bucket: removing that one small object
makes the tenant's state unreadable. To change the operator's key, each tenant's key is wrapped again; no state is
rewritten.

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
    """The result for one tenant's key: wrapped again, already correct, or failed, and `why`."""

    tenant: TenantId
    outcome: Literal["wrapped", "current", "failed"]
    why: str = ""


class Keyring:
    """Sealers of all tenants of one store.

    Args:
        operators: Keys of the operator, `KEY_SIZE` bytes each: the first wraps, all unwrap. Without any, nothing is
            encrypted.
    """

    def __init__(self, store: ObjectStore, operators: Sequence[bytes] = ()) -> None:
        self._store = store
        self._operators = {_name(key): key for key in operators}
        self._read: dict[TenantId, bytes] = {}

    def sealer(self, tenant: TenantId) -> Sealer:
        """Encrypts and decrypts the tenant's state for one restore or commit; fetches the key when it is needed."""
        return _Sealer(self, tenant) if self._operators else PLAIN

    def key(self, tenant: TenantId, *, fresh: bool = False) -> bytes:
        """The tenant's key, from memory unless `fresh`.

        Raises:
            RestoreFailed: The key is missing or damaged, or wrapped with a key that this host lacks.
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
        """The key that the store has now: another host may have removed and re-created the tenant since it was read.

        It is created if missing. If a key that existed got lost, it is written again: sealed objects need it.
        """
        where, key = Keys(tenant).key, self._read.get(tenant) or os.urandom(KEY_SIZE)
        with suppress(ObjectMissing):
            return self._remember(tenant, self._unwrapped(self._store.get(where)[0], tenant))
        with suppress(PreconditionFailed, AmbiguousWrite):  # the key in the store is the valid one
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
        """Forget the key of a tenant that was removed permanently."""
        self._read.pop(tenant, None)

    def rewrap(self, tenants: Sequence[TenantId] = ()) -> Iterator[Rewrapped]:
        """Wrap tenants' keys, by default all, with the first key of the operator.

        Running tenants are not affected; an operator's key that no longer wraps any key may be removed afterwards.

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
            raise self._refused(tenant, f"its key was wrapped with the operator's key {name[:16]}, not with {have}")
        try:
            return AESGCM(operator).decrypt(wrapped[:_NONCE], wrapped[_NONCE:], _bound(tenant))
        except (InvalidTag, ValueError) as error:
            raise self._refused(tenant, "its key in the store is damaged, or another tenant's") from error

    @staticmethod
    def _refused(tenant: TenantId, why: str) -> RestoreFailed:
        return RestoreFailed(
            f"the state of tenant {tenant} cannot be opened",
            why=why,
            hint="nothing was started; add the key that it was wrapped with to the file of encryption_key_file,"
            " on a line after the first; if the tenant's key is lost, only a versioned bucket can still have it",
            tenant=tenant,
        )


class _Sealer:
    """Decrypts with the known key while it fits, and encrypts with the key that the store has now."""

    seals = True

    def __init__(self, keyring: Keyring, tenant: TenantId) -> None:
        self._keyring, self._tenant = keyring, tenant
        self._reading: Aes | None = None
        self._writing: Aes | None = None
        self._lock = threading.Lock()

    def seal(self, data: bytes, purpose: Purpose) -> bytes:
        with self._lock:  # parallel threads ask once
            if self._writing is None:
                self._reading = self._writing = Aes(self._keyring.key_to_write(self._tenant), self._tenant)
        return self._writing.seal(data, purpose)

    def open(self, data: bytes | memoryview, purpose: Purpose) -> bytes:
        if self._reading is None:
            known = Aes(self._keyring.key(self._tenant), self._tenant)
            try:
                opened = known.open(data, purpose)
            except VerifyMismatch:  # another host removed and re-created the tenant
                known = Aes(self._keyring.key(self._tenant, fresh=True), self._tenant)
                opened = known.open(data, purpose)
            self._reading = known
            return opened
        return self._reading.open(data, purpose)


def _name(operator: bytes) -> str:
    return hashlib.sha256(operator).hexdigest()[:16]


def _bound(tenant: TenantId) -> bytes:
    return f"claw key {tenant}".encode()
