"""Single flight: of all that works on one tenant, one thing at a time."""

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from claw_runtime.errors import ClawError
from claw_runtime.tenancy import TenantId

log = structlog.get_logger(__name__)


class Locks:
    """One lock a tenant, made when it is first asked for and kept: a tenant's lock must be the same for all."""

    def __init__(self) -> None:
        self._locks: defaultdict[TenantId, threading.Lock] = defaultdict(threading.Lock)

    @contextmanager
    def held(self, tenant: TenantId) -> Iterator[None]:
        """Wait for the tenant."""
        with self._locks[tenant]:
            yield

    @contextmanager
    def tried(self, tenant: TenantId) -> Iterator[bool]:
        """Whether the tenant was free, and is ours until the block ends."""
        lock = self._locks[tenant]
        got = lock.acquire(blocking=False)
        try:
            yield got
        finally:
            if got:
                lock.release()


@contextmanager
def alone(tenant: TenantId) -> Iterator[None]:
    """One tenant's trouble, whatever it is, is not that of those who come after it; it is tried again."""
    try:
        yield
    except (ClawError, OSError) as error:
        log.warning("tenant left as it was; it is tried again", tenant=tenant, error=str(error))
    except Exception:
        log.exception("a mistake with one tenant, which is left as it was and tried again", tenant=tenant)
