"""Sealing: optional encryption of everything that leaves this host, with a check that it comes back unchanged.

AES-256-GCM with a separate key for each tenant (`state/keyring.py` keeps it). Every piece is sealed separately, with
its own nonce, so that one file can be read without the rest. Purpose and tenant of a piece are authenticated with it,
so that no piece can replace another kind of piece or another tenant's.

    nonce                12 bytes, random
    ciphertext and tag   as long as the piece and 16 bytes

A manifest that is sealed begins with the 8 bytes `CLAWSEAL`; for a pack, the manifest records whether it is sealed.
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
        """Whether content is encrypted."""

    def seal(self, data: bytes, purpose: Purpose) -> bytes: ...

    def open(self, data: bytes | memoryview, purpose: Purpose) -> bytes | memoryview:
        """Decrypt. Raises `VerifyMismatch` for anything that this key did not seal for this purpose."""


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
                f"a sealed {purpose} of tenant {self._tenant} was changed",
                why="its bytes differ from those sealed, or another key sealed it",
                hint="the object store returned bytes that differ from those stored, or the tenant's key has changed",
                tenant=self._tenant,
            ) from error

    def _bound(self, purpose: Purpose) -> bytes:
        return f"claw {purpose} {self._tenant}".encode()


def wrap(sealer: Sealer, manifest: bytes) -> bytes:
    """A manifest object's bytes as they are stored."""
    return MAGIC + sealer.seal(manifest, "manifest") if sealer.seals else manifest


def is_wrapped(data: bytes) -> bool:
    """Whether the stored bytes of a manifest object are encrypted."""
    return data.startswith(MAGIC)


def unwrap(sealer: Sealer, data: bytes, tenant: TenantId) -> bytes:
    """A manifest object's bytes before `wrap`; an unsealed one is returned unchanged.

    Raises:
        RestoreFailed: The manifest is sealed, and there is no key.
        VerifyMismatch: The manifest is sealed with another key.
    """
    if not is_wrapped(data):
        return data
    if not sealer.seals:
        raise RestoreFailed(
            f"the state of tenant {tenant} is encrypted",
            why="this runtime has no operator's key",
            hint="set encryption_key_file to the file that the state was written with; nothing was started",
            tenant=tenant,
        )
    return bytes(sealer.open(data[len(MAGIC) :], "manifest"))
