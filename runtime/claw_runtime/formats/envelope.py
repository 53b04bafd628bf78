"""Sealing: what leaves this host is encrypted, if the operator wants that, and what comes back is proved untouched.

AES-256-GCM with a key of each tenant's own (`state/keyring.py` keeps it). Every piece is sealed by itself, with a
nonce of its own, so that one file can be read without the rest; what a piece is for and whose it is are sealed with it,
so that no piece can stand in for another kind of piece or for another tenant's.

    nonce                12 bytes, random
    ciphertext and tag   as long as the piece and 16 bytes

A manifest that is sealed begins with the 8 bytes `CLAWSEAL`; of a pack the manifest says whether it is.
"""

import os
from typing import Final, Literal, Protocol

from claw_runtime.errors import RestoreFailed, VerifyMismatch
from claw_runtime.tenancy import TenantId

Purpose = Literal["frame", "index", "manifest"]

MAGIC: Final = b"CLAWSEAL"
KEY_SIZE: Final = 32
_NONCE: Final = 12


class Sealer(Protocol):
    """Seals and opens pieces of one tenant's state."""

    @property
    def seals(self) -> bool:
        """Whether anything is sealed at all."""

    def seal(self, data: bytes, purpose: Purpose) -> bytes: ...

    def open(self, data: bytes | memoryview, purpose: Purpose) -> bytes | memoryview:
        """Raises `VerifyMismatch` for whatever this key did not seal for this purpose."""


class Plain:
    """Seals nothing."""

    seals = False

    def seal(self, data: bytes, purpose: Purpose) -> bytes:  # noqa: ARG002
        return data

    def open(self, data: bytes | memoryview, purpose: Purpose) -> bytes | memoryview:  # noqa: ARG002
        return data


PLAIN: Final[Sealer] = Plain()


class Aes:
    """AES-256-GCM with a tenant's key, `KEY_SIZE` bytes."""

    seals = True

    def __init__(self, key: bytes, tenant: TenantId) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._cipher = AESGCM(key)
        self._tenant = tenant

    def seal(self, data: bytes, purpose: Purpose) -> bytes:
        nonce = os.urandom(_NONCE)
        return nonce + self._cipher.encrypt(nonce, data, self._bound(purpose))

    def open(self, data: bytes | memoryview, purpose: Purpose) -> bytes:
        from cryptography.exceptions import InvalidTag

        try:
            return self._cipher.decrypt(bytes(data[:_NONCE]), bytes(data[_NONCE:]), self._bound(purpose))
        except (InvalidTag, ValueError) as error:
            raise VerifyMismatch(
                f"a sealed {purpose} of tenant {self._tenant} is not what was sealed",
                why="it was changed, or sealed with another key",
                hint="the object store returned bytes that differ from those stored, or the tenant's key is another",
                tenant=self._tenant,
            ) from error

    def _bound(self, purpose: Purpose) -> bytes:
        return f"claw {purpose} {self._tenant}".encode()


def wrap(sealer: Sealer, manifest: bytes) -> bytes:
    """A manifest object's bytes as they are stored."""
    return MAGIC + sealer.seal(manifest, "manifest") if sealer.seals else manifest


def unwrap(sealer: Sealer, data: bytes, tenant: TenantId) -> bytes:
    """A manifest object's bytes as they were before `wrap`; one that was never sealed is as it is.

    Raises:
        RestoreFailed: It is sealed, and there is no key.
        VerifyMismatch: It is sealed, and not with this key.
    """
    if not data.startswith(MAGIC):
        return data
    if not sealer.seals:
        raise RestoreFailed(
            f"the state of tenant {tenant} is encrypted",
            why="this runtime has no operator's key",
            hint="set encryption_key_file to the file that the state was written with; nothing was started",
            tenant=tenant,
        )
    return bytes(sealer.open(data[len(MAGIC) :], "manifest"))
