"""The operator's keys: a file of mode 0600 with one key a line, the newest first."""

import base64
import re
from pathlib import Path
from typing import Final

from claw_runtime.errors import InvalidSpec
from claw_runtime.secrets.files import read_text

SIZE: Final = 32
_HEX: Final = re.compile(rf"[0-9A-Fa-f]{{{2 * SIZE}}}")


def operator_keys(path: Path) -> tuple[bytes, ...]:
    """The keys of a file, in its order; empty lines and those that begin with `#` count for nothing.

    Raises:
        InvalidSpec: There is no such file, others can read it, or a line is not 32 bytes in base64 or hex.
    """
    text = read_text(path)
    if text is None:
        raise InvalidSpec(
            f"no such file: {path}",
            why="encryption_key_file names it, and states cannot be read or written without it",
            hint=f"put your copy back, or for a first one: (umask 077; head -c {SIZE} /dev/urandom | base64 > {path})",
        )
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    keys = tuple(_key(path, number, line) for number, line in lines if line and not line.startswith("#"))
    if not keys or len(set(keys)) < len(keys):
        raise InvalidSpec(f"{path}: no key, or one twice", hint="put one key on each line, the newest first")
    return keys


def _key(path: Path, number: int, line: str) -> bytes:
    try:
        key = bytes.fromhex(line) if _HEX.fullmatch(line) else base64.b64decode(line, validate=True)
    except ValueError:
        key = b""
    if len(key) != SIZE or key == bytes(SIZE):
        raise InvalidSpec(
            f"{path}:{number}: not a key",
            why=f"a key is {SIZE} random bytes, in base64 or hex",
            hint=f"make one with: head -c {SIZE} /dev/urandom | base64",
        )
    return key
