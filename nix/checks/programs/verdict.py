"""How a check ends: nothing when its claim holds, else one line on standard error and exit code 1."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

SHOWN = 3


def refuse(what: str) -> NoReturn:
    """End the check. The line begins with the claim's name, which is the name of the program."""
    claim = Path(sys.argv[0]).stem.replace("_", "-")
    sys.exit(f"{claim}: {' '.join(what.split())}")


def some(items: Sequence[str]) -> str:
    """The first items and how many more there are, for one line."""
    rest = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return ", ".join(items[:SHOWN]) + rest
