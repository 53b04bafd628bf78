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
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from claw_runtime.errors import ClawError, RestoreFailed, StoreUnavailable
from claw_runtime.ports import AmbiguousWrite, ObjectMissing, ObjectStore, PreconditionFailed
from claw_runtime.sealing import KEY_SIZE, PLAIN, Aes, Sealer
from claw_runtime.tenancy import Keys, TenantId

VERSION: Final = 1
REMEMBERED: Final = 10_000
_NONCE: Final = 12


class Vault:
    """Sealers of all tenants of one store.

    Args:
        operators: Keys of the operator, `KEY_SIZE` bytes each: the first wraps, all of them unwrap. None seals nothing.
    """

    def __init__(self, store: ObjectStore, operators: Sequence[bytes] = ()) -> None:
        self._store = store
        self._operators = {_name(key): key for key in operators}
        self._sealers: dict[TenantId, Sealer] = {}
        self._lock = threading.Lock()

    def sealer(self, tenant: TenantId) -> Sealer:
        """What seals and opens the tenant's state; its key is made at the first call that finds none.

        Raises:
            RestoreFailed: Its key was wrapped with a key that is not here, or is damaged.
            StoreUnavailable, StoreDenied, BucketMissing: The store.
        """
        if not self._operators:
            return PLAIN
        found = self._sealers.get(tenant)
        if found is None:
            found = Aes(self._key(tenant), tenant)
            with self._lock:
                while len(self._sealers) >= REMEMBERED:
                    self._sealers.pop(next(iter(self._sealers)))
                self._sealers[tenant] = found
        return found

    def rewrap(self, tenant: TenantId) -> bool:
        """Wrap the tenant's key with the first of the operator's; whether it was not already.

        Raises like `sealer`; a tenant without a key is left without one.
        """
        key = Keys(tenant).key
        try:
            data, etag = self._store.get(key)
        except ObjectMissing:
            return False
        first = next(iter(self._operators))
        if json.loads(data).get("with") == first:
            return False
        self._store.put(key, self._wrapped(self._unwrapped(data, tenant), tenant), if_match=etag)
        return True

    def forget(self, tenant: TenantId) -> None:
        """Ask the store again for the tenant's key."""
        self._sealers.pop(tenant, None)

    def _key(self, tenant: TenantId) -> bytes:
        where, key = Keys(tenant).key, os.urandom(KEY_SIZE)
        with suppress(ObjectMissing):
            return self._unwrapped(self._store.get(where)[0], tenant)
        with suppress(PreconditionFailed, AmbiguousWrite):  # whatever is there now counts
            self._store.put(where, self._wrapped(key, tenant), if_absent=True)
        try:
            return self._unwrapped(self._store.get(where)[0], tenant)
        except ObjectMissing as error:
            raise StoreUnavailable(
                f"the key of tenant {tenant} could not be stored",
                why="the connection broke",
                hint="check the object store and try again",
                tenant=tenant,
            ) from error

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
            name, wrapped = str(document["with"]), base64.b64decode(document["wrapped"])
        except (ValueError, KeyError, TypeError) as error:
            raise self._refused(tenant, "its key in the store is damaged") from error
        operator = self._operators.get(name)
        if operator is None:
            have = ", ".join(self._operators)
            raise self._refused(tenant, f"its key was wrapped with operator's key {name}, and here is {have}")
        try:
            return AESGCM(operator).decrypt(wrapped[:_NONCE], wrapped[_NONCE:], _bound(tenant))
        except (InvalidTag, ValueError) as error:
            raise self._refused(tenant, "its key in the store is damaged, or another tenant's") from error

    @staticmethod
    def _refused(tenant: TenantId, why: str) -> ClawError:
        return RestoreFailed(
            f"the state of tenant {tenant} cannot be opened",
            why=why,
            hint="nothing was started; add the key that is missing to the file of encryption_key_file, after the first",
            tenant=tenant,
        )


def _name(operator: bytes) -> str:
    return hashlib.sha256(operator).hexdigest()[:16]


def _bound(tenant: TenantId) -> bytes:
    return f"claw key {tenant}".encode()
