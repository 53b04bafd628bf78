"""Progress of running commits, for status requests."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from claw_runtime.ports import Clock
from claw_runtime.tenancy import TenantId


@dataclass(slots=True)
class Transfer:
    """Progress of one commit.

    Attributes:
        began: Monotonic seconds of its start.
        total: Expected bytes of files; 0 when unknown.
        bytes: Bytes of changed files that were read so far.
    """

    began: float
    total: int
    bytes: int = 0

    def add(self, size: int) -> None:
        """Count bytes that were read."""
        self.bytes += size


class Transfers:
    """The transfers of one runtime; a tenant has at most one at a time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._expected: dict[TenantId, int] = {}
        self._now: dict[TenantId, Transfer] = {}

    @contextmanager
    def expected(self, tenant: TenantId, size: int) -> Iterator[None]:
        """Within this block, a new transfer of the tenant has this expected size instead of the previous one's."""
        self._expected[tenant] = size
        try:
            yield
        finally:
            del self._expected[tenant]

    @contextmanager
    def begun(self, tenant: TenantId, size: int) -> Iterator[Transfer]:
        """The tenant's transfer for this block, of about `size` bytes unless `expected` set another size."""
        found = self._now[tenant] = Transfer(self._clock.monotonic(), self._expected.get(tenant, size))
        try:
            yield found
        finally:
            del self._now[tenant]

    def of(self, tenant: TenantId) -> tuple[Transfer, float] | None:
        """The tenant's running transfer, and seconds since it began; None when there is none."""
        found = self._now.get(tenant)
        return None if found is None else (found, self._clock.monotonic() - found.began)
