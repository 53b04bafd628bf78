"""Heartbeats: how a runtime that waits for a lease finds out that its owner is gone.

Each runtime repeatedly writes one small object with a growing number. A runtime that wants a tenant of another runtime
watches the owner's object. When the number has not changed for `ttl` seconds of the waiter's own monotonic clock, the
lease has expired. No two clocks are ever compared. There is one object per runtime, not per tenant: renewing the leases
of a thousand tenants in their HEADs every ten seconds would take nine million writes a day.

An owner that was only slow loses nothing that it committed, and its next commit is refused: the epoch in HEAD protects
the state. The heartbeat only decides when another runtime may take the lease.
"""

import json
import threading
from dataclasses import dataclass

import structlog

from claw_runtime.errors import ClawError
from claw_runtime.formats.head import timestamp
from claw_runtime.ports import AmbiguousWrite, Clock, ObjectMissing, ObjectStore
from claw_runtime.tenancy import beat_key

log = structlog.get_logger(__name__)

VERSION = 1
TTL = 60.0
"""Seconds. A daemon is restarted, and its Podman service with it, well within them."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """A heartbeat, and when this process first saw it."""

    beat: bytes | None
    at: float


class Heartbeats:
    """This runtime's heartbeat, and what it has seen of others'.

    Args:
        ttl: Seconds without a change after which another runtime's leases expire; this runtime beats three times in
            them.
    """

    def __init__(self, store: ObjectStore, runtime_id: str, clock: Clock, ttl: float = TTL) -> None:
        self._store, self._runtime_id, self._clock, self.ttl = store, runtime_id, clock, ttl
        self._number = 0
        self._seen: dict[str, _Seen] = {}
        self._lock = threading.Lock()

    def beat(self) -> None:
        """Write the next heartbeat; if the store does not answer, the next beat tries again."""
        self._number += 1
        # The time makes a beat of this process differ from one of the process before it, which began at 1 as well.
        document = {"v": VERSION, "beat": self._number, "at": timestamp(self._clock)}
        try:
            self._store.put(beat_key(self._runtime_id), json.dumps(document).encode() + b"\n")
        except (ClawError, AmbiguousWrite) as error:
            log.warning("heartbeat not written; other runtimes may take this runtime's tenants", why=str(error))

    def left(self, owner: str) -> float:
        """Seconds until a runtime's leases expire unless it sends a heartbeat; 0 when they have expired.

        Raises `StoreUnavailable`, `StoreDenied`, `BucketMissing`.
        """
        try:
            beat: bytes | None = self._store.get(beat_key(owner))[0]
        except ObjectMissing:
            beat = None
        now = self._clock.monotonic()
        with self._lock:
            seen = self._seen.get(owner)
            if seen is None or seen.beat != beat:
                seen = self._seen[owner] = _Seen(beat, now)
            return max(0.0, self.ttl - (now - seen.at))
