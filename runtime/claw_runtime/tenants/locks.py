"""Single flight: one operation at a time on each tenant."""

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from claw_runtime.errors import ClawError
from claw_runtime.tenancy import TenantId

log = structlog.get_logger(__name__)


class Locks:
    """One lock per tenant, created at its first use and never removed: all callers must share it."""

    def __init__(self) -> None:
        self._locks: defaultdict[TenantId, threading.Lock] = defaultdict(threading.Lock)

    @contextmanager
    def held(self, tenant: TenantId) -> Iterator[None]:
        """Wait for the tenant's lock and hold it."""
        with self._locks[tenant]:
            yield

    @contextmanager
    def tried(self, tenant: TenantId) -> Iterator[bool]:
        """Hold the tenant's lock for the block if it is free; gives whether it was."""
        lock = self._locks[tenant]
        got = lock.acquire(blocking=False)
        try:
            yield got
        finally:
            if got:
                lock.release()


@contextmanager
def alone(tenant: TenantId) -> Iterator[None]:
    """Log an error of one tenant instead of raising it, so that it does not stop work on the others; it is retried."""
    try:
        yield
    except (ClawError, OSError) as error:
        log.warning("tenant left unchanged; it is retried", tenant=tenant, error=str(error))
    except Exception:
        log.exception("internal error with one tenant; it is left unchanged and retried", tenant=tenant)
