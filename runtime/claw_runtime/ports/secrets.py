"""Tenants' secret values."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from claw_runtime.tenancy import TenantId


class Revealed(Protocol):
    """A boxed secret whose `repr` and `str` are masked."""

    def reveal(self) -> str: ...


class Secrets(Protocol):
    """Values of a tenant that must not be seen: files on this host."""

    def read(self, tenant: TenantId, names: Sequence[str]) -> Mapping[str, Revealed]:
        """Those of the names that are set for the tenant, or for all tenants."""

    def all(self, tenant: TenantId) -> Mapping[str, Revealed]:
        """Every value that is set for the tenant, or for all tenants."""

    def generate(self, tenant: TenantId, name: str) -> tuple[Revealed, Path]:
        """The tenant's own random value of that name, made at the first call; and the 0600 file that holds it."""
