"""Seccomp profiles as text: `strict` and `browser`, which come with claw, or a file of the operator's.

Text is what is compared, hashed and given to the engine: a slot is made under exactly the rules that its template was
made from, also if the file is changed meanwhile.
"""

import json
import os
import stat
from functools import cache
from pathlib import Path
from typing import Final

from claw_runtime.errors import InvalidSpec

OWN: Final = ("strict", "browser")
"""Names of claw's own profiles, the default first."""

DEFAULT: Final = "strict"
MOST_BYTES: Final = 1 << 20
_ALLOWS: Final = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG")


def path_of(name: str) -> Path:
    """The file of a profile: one of `OWN`, or a path."""
    return Path(__file__).with_name(f"{name}.json") if name in OWN else Path(name)


def text(name: str = DEFAULT) -> str:
    """The text of a profile: one of `OWN`, or an absolute path.

    Raises:
        InvalidSpec: The file is missing, cannot be read, or is no seccomp profile. Its contents are never repeated.
    """
    return _own(name) if name in OWN else _checked(_read(Path(name)), name)


def permissive(profile: str) -> bool:
    """Whether a profile allows what it does not name; `profile` is the text."""
    return json.loads(profile)["defaultAction"] in _ALLOWS


@cache
def _own(name: str) -> str:
    return path_of(name).read_text(encoding="utf-8")


def _read(path: Path) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # never waits for the writer of a FIFO
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise _refused(str(path), "it is not a regular file")
            return os.read(fd, MOST_BYTES + 1)
        finally:
            os.close(fd)
    except OSError as error:
        raise _refused(str(path), error.strerror or str(error)) from error


def _checked(data: bytes, name: str) -> str:
    if len(data) > MOST_BYTES:
        raise _refused(name, f"it has more than {MOST_BYTES} bytes")
    try:
        written = data.decode()
        profile = json.loads(written)
        action, rules = profile["defaultAction"], profile.get("syscalls", [])
        whole = isinstance(action, str) and action.startswith("SCMP_ACT_") and isinstance(rules, list)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        whole, written = False, ""
    if not whole:
        raise _refused(name, "it is not a JSON object with defaultAction and syscalls")
    return written


def _refused(name: str, why: str) -> InvalidSpec:
    return InvalidSpec(
        f"the seccomp profile {name} cannot be used",
        why=why,
        hint="correct `seccomp` in the workload file: strict, browser, or the path of a profile",
        path=name,
    )
