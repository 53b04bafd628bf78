"""JSON documents that a test breaks."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def changed(source: Path, target: Path, change: Callable[[Any], object]) -> Path:
    """A copy of a JSON file, broken by `change`."""
    document = json.loads(source.read_text())
    change(document)
    target.write_text(json.dumps(document))
    return target
