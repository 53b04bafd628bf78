"""The seam to programs and ports of this host, as workloads and upgrades see them."""

from collections.abc import Collection
from typing import Protocol


class Prober(Protocol):
    """Asks loopback ports of this host."""

    def get(self, port: int, path: str, timeout: float, bearer: str | None = None) -> tuple[int, bytes] | None:
        """HTTP status and the first 64 KiB of the body; None when nothing answers. `bearer` is sent as the token."""

    def refusing(self, ports: Collection[int]) -> frozenset[int]:
        """Those of these ports of 127.0.0.1 that refuse connections: nothing listens there. No program is woken."""

    def is_free(self, port: int) -> bool:
        """Whether a container could publish this port of 127.0.0.1 now: an orphan of an engine may still hold it."""
