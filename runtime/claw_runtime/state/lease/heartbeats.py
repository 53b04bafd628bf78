"""Signs of life: how a runtime that waits for a lease finds out that its owner is gone.

Each runtime writes one small object again and again, with a number that grows. Whoever wants a tenant that another
runtime holds looks at the owner's object; when the number has not changed for `ttl` seconds of the waiter's own
monotonic clock, the lease is over. No two clocks are ever compared. One object a runtime, not one a tenant: a thousand
tenants' leases renewed in their HEADs every ten seconds would be nine million writes a day.

An owner that was only slow loses nothing that it committed, and its next commit is refused: the epoch in HEAD is what
protects the state, this only says when it is polite to take it.
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
    """A beat, and when this process saw it first."""

    beat: bytes | None
    at: float


class Heartbeats:
    """This runtime's sign of life, and what it has seen of others'.

    Args:
        ttl: Seconds without a change after which another's lease is over; ours is renewed three times in them.
    """

    def __init__(self, store: ObjectStore, runtime_id: str, clock: Clock, ttl: float = TTL) -> None:
        self._store, self._runtime_id, self._clock, self.ttl = store, runtime_id, clock, ttl
        self._number = 0
        self._seen: dict[str, _Seen] = {}
        self._lock = threading.Lock()

    def beat(self) -> None:
        """Write the next sign of life; a store that is away is asked again at the next beat."""
        self._number += 1
        # The time makes a beat of this process differ from one of the process before it, which began at 1 as well.
        document = {"v": VERSION, "beat": self._number, "at": timestamp(self._clock)}
        try:
            self._store.put(beat_key(self._runtime_id), json.dumps(document).encode() + b"\n")
        except (ClawError, AmbiguousWrite) as error:
            log.warning("no sign of life could be written; other runtimes may take our tenants", why=str(error))

    def left(self, owner: str) -> float:
        """Seconds until the leases of a runtime are over, if it gives no sign of life until then; 0 when they are.

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
