"""Asking a container over HTTP."""

from typing import Protocol


class Prober(Protocol):
    """Asks a container's loopback port."""

    def get(self, port: int, path: str, timeout: float, bearer: str | None = None) -> tuple[int, bytes] | None:
        """HTTP status and the first 64 KiB of the body; None when nothing answers. `bearer` is sent as the token."""
