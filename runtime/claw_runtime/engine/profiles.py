"""Seccomp profiles as the files that Podman reads: one per text, named by its digest, beside the engine's socket."""

import hashlib
from pathlib import Path

from claw_runtime.fsutil import write_atomic
from claw_runtime.seccomp import profiles


class ProfileFiles:
    """Files of profiles. Podman reads one when it creates a container, and not again.

    Args:
        directory: Made at the first use, 0700; only this user may write there.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._written: dict[str, Path] = {}

    def path(self, text: str | None) -> Path:
        """The file with this text; None is claw's own `strict`. Raises `OSError`."""
        text = profiles.text() if text is None else text
        known = self._written.get(text)
        if known is None or not known.exists():  # a run directory may be cleared while the daemon runs
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            known = self._directory / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"
            write_atomic(known, text.encode())
            self._written[text] = known
        return known
