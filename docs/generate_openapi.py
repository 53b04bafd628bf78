"""Writes docs/openapi.json from the API: `python docs/generate_openapi.py`.

tests/docs/test_api_reference.py fails if the file differs from what this script would write.
"""

import json
from pathlib import Path
from typing import cast

from claw_runtime.api.app import create_api
from claw_runtime.daemon.assembly import Runtime

TARGET = Path(__file__).with_name("openapi.json")


class _Anything:
    """A runtime that is asked for nothing: only handlers use it, and none is called."""

    def __getattr__(self, _name: str) -> "_Anything":
        return self


def description() -> str:
    """The whole text of docs/openapi.json; nothing of it depends on what a daemon serves."""
    return (
        json.dumps(create_api(cast("Runtime", _Anything())).openapi(), indent=1, ensure_ascii=False, sort_keys=True)
        + "\n"
    )


if __name__ == "__main__":
    TARGET.write_text(description(), encoding="utf-8")
