"""How many requests a minute come in at a path that needs no credential."""

from dataclasses import dataclass
from typing import Final

from claw_runtime.router.table import Hook, Table

MINUTE: Final = 60.0


@dataclass(slots=True)
class _Bucket:
    left: float
    at: float


class Rates:
    """A bucket for each hook of each tenant: full with the requests of a minute, and refilled as they may come."""

    def __init__(self) -> None:
        self._buckets = dict[tuple[str, bytes], _Bucket]()

    def update(self, table: Table) -> None:
        """The daemon has another table."""
        for tenant, path in [one for one in self._buckets if one[0] not in table.routes]:
            del self._buckets[tenant, path]

    def wait(self, tenant: str, hook: Hook, now: float) -> float:
        """Count a request; 0, or the seconds after which the next one may come.

        Args:
            now: Seconds of any clock; one that goes back refills nothing.
        """
        bucket = self._buckets.setdefault((tenant, hook.path), _Bucket(float(hook.rate), now))
        refilled = max(0.0, now - bucket.at) * hook.rate / MINUTE
        bucket.left, bucket.at = min(float(hook.rate), bucket.left + refilled), now
        if bucket.left < 1.0:
            return (1.0 - bucket.left) * MINUTE / max(1, hook.rate)
        bucket.left -= 1.0
        return 0.0
