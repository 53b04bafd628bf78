"""How far the commits under way have come, for whoever asks meanwhile."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from claw_runtime.ports import Clock
from claw_runtime.tenancy import TenantId


@dataclass(slots=True)
class Transfer:
    """One tree on its way into the store.

    Attributes:
        began: By the monotonic clock.
        total: Bytes of files that are expected; 0 when nobody knows.
        bytes: Those of files that were read, as far as they changed: what is read is soon sent.
    """

    began: float
    total: int
    bytes: int = 0

    def add(self, size: int) -> None:
        """So many bytes more were read."""
        self.bytes += size


class Transfers:
    """Those of one runtime; a tenant has one at a time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._expected: dict[TenantId, int] = {}
        self._now: dict[TenantId, Transfer] = {}

    @contextmanager
    def expected(self, tenant: TenantId, size: int) -> Iterator[None]:
        """A transfer of the tenant that begins in this block is about so many bytes, whatever was there before."""
        self._expected[tenant] = size
        try:
            yield
        finally:
            del self._expected[tenant]

    @contextmanager
    def begun(self, tenant: TenantId, size: int) -> Iterator[Transfer]:
        """The tenant's transfer, of about `size` bytes unless something else is expected; over at the end."""
        found = self._now[tenant] = Transfer(self._clock.monotonic(), self._expected.get(tenant, size))
        try:
            yield found
        finally:
            del self._now[tenant]

    def of(self, tenant: TenantId) -> tuple[Transfer, float] | None:
        """The transfer under way, and seconds since it began; None when there is none."""
        found = self._now.get(tenant)
        return None if found is None else (found, self._clock.monotonic() - found.began)
