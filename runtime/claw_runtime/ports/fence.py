"""Requests of tenants' clients, as far as operations on tenants must hold them back."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from claw_runtime.tenancy import TenantId


class Fence(Protocol):
    """The router, for operations that end or replace a tenant's container."""

    def fenced(self, tenant: TenantId) -> AbstractContextManager[None]:
        """A block in which no new request reaches the tenant: those that come are held, or told when to come back.

        The block begins when the requests under way have ended, or have had their time. Blocks may contain each other.
        Nothing is raised, and without a router nothing happens.
        """


class NoFence:
    """The fence of a host without a router."""

    @contextmanager
    def fenced(self, tenant: TenantId) -> Iterator[None]:  # noqa: ARG002
        yield
