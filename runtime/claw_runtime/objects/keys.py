"""What an object key may look like, checked by every driver, so that a key that works in one works in all."""

import re
from typing import Final

_KEY: Final = re.compile(r"[A-Za-z0-9._/-]{1,900}")
ALLOWED: Final = "letters without accents, digits and . _ - /, with no empty, . or .. step and at most 900 characters"
"""What a key consists of, for messages."""

_PREFIX: Final = re.compile(r"[A-Za-z0-9._/-]{0,900}")


def checked_key(key: str) -> str:
    """The key itself.

    Raises:
        ValueError: The key does not have the form that `ports.ObjectStore` defines; an internal error.
    """
    if not _KEY.fullmatch(key) or any(step in {"", ".", ".."} for step in key.split("/")):
        raise ValueError(f"not an object key: {key[:80]!r}")
    return key


def checked_prefix(prefix: str) -> str:
    """The prefix of a listing itself; it may end anywhere in a key. Raises `ValueError`."""
    if not _PREFIX.fullmatch(prefix) or any(step in {"", ".", ".."} for step in prefix.split("/")[:-1]):
        raise ValueError(f"not a key prefix: {prefix[:80]!r}")
    return prefix
