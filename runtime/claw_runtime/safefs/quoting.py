r"""Names of files as printable text that can be given back: what is printed names exactly one file.

A backslash is `\\`. A line break and a tab are `\n`, `\r` and `\t`. Each byte of a character that cannot be printed,
and each byte that is not UTF-8, is `\x` and two digits; so is a space at either end.
"""

import os
import re
from typing import Final

_SHORT: Final = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_ESCAPE: Final = re.compile(rb"\\(?:([\\nrt])|x([0-9a-fA-F]{2})|)")
_LONG: Final = {b"\\": b"\\", b"n": b"\n", b"r": b"\r", b"t": b"\t"}


def quoted(path: str) -> str:
    """A path with escapes for what cannot be printed."""
    if path.isprintable() and "\\" not in path and path == path.strip(" "):
        return path
    last = len(path) - 1
    return "".join(
        _escaped(char) if not char.isprintable() or char == "\\" or (char == " " and at in (0, last)) else char
        for at, char in enumerate(path)
    )


def unquoted(text: str) -> str:
    """The path of a quoted text. Characters that need no escape stand for themselves.

    Raises:
        ValueError: A backslash begins no escape.
    """
    return os.fsdecode(_ESCAPE.sub(_byte, text.encode("utf-8", "surrogateescape")))


def _escaped(char: str) -> str:
    return _SHORT.get(char) or "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape"))


def _byte(found: re.Match[bytes]) -> bytes:
    if found[1]:
        return _LONG[found[1]]
    if found[2]:
        return bytes([int(found[2], 16)])
    raise ValueError(r"a backslash in a name is written \\")
