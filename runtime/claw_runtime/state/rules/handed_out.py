"""Looks for values that a tenant was handed out as secrets in what is written to the store.

A program may write its keys into its state in plain text: then they are in the bucket, in exports and in copies. Only
new content is searched, and only the first part of a large file. A value is never shown, only its name.
"""

import json
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote

from claw_runtime.safefs.tree import Skipped

SHORTEST: Final = 8
"""Bytes of the shortest value that is searched; a shorter one would be found by accident."""
FIRST: Final = 4 * 1024 * 1024
"""Bytes at the beginning of each file that are searched."""

Named = Iterable[tuple[str, str]]
"""Names and values; a name may have several values, such as one before and one after a rotation."""


class SecretSearch:
    """One search: call `look` with each piece that is written. Not thread-safe."""

    def __init__(self, secrets: Named = ()) -> None:
        self._wanted = tuple(
            (name, form) for name, value in secrets for form in sorted(_forms(value)) if len(form) >= SHORTEST
        )
        self._longest = max((len(form) for _, form in self._wanted), default=0)
        self._tail: tuple[str, int, bytes] = "", 0, b""
        self._found: dict[str, set[str]] = {}

    def look(self, path: str, at: int, raw: bytes) -> None:
        """Search a piece of a file that begins at offset `at`, also across its border to the piece before."""
        if not self._wanted or at >= FIRST:
            return
        before, end, tail = self._tail
        window = tail + raw if (before, end) == (path, at) else raw
        for name, form in self._wanted:
            if form in window:
                self._found.setdefault(path, set()).add(name)
        self._tail = path, at + len(raw), window[-self._longest :]

    @property
    def found(self) -> tuple[tuple[str, str], ...]:
        """Path and name of each value that was found, in order."""
        return tuple((path, name) for path in sorted(self._found) for name in sorted(self._found[path]))

    def told(self) -> tuple[Skipped, ...]:
        """The same for a person."""
        return tuple(
            Skipped(path=path, reason=f"it holds the secret {name} in plain text") for path, name in self.found
        )


def _forms(value: str) -> set[bytes]:
    """How a value may stand in a file: unchanged, as JSON and as a URL has it."""
    texts = {value, value.strip(), json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], quote(value)}
    return {text.encode("utf-8", "surrogateescape") for text in texts}
