"""What tests of the command line have in common; the fixtures are in terminal_fixtures.py."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class Result:
    """How a call ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, Any]:
        """The one JSON object on stderr."""
        found: dict[str, Any] = json.loads(self.err)
        return found


Call = Callable[..., Result]


def surroundings(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Settings of nobody but the test."""
    for name in [name for name in os.environ if name.startswith(("CLAW_", "AWS_", "_CLAW"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CLAW_HOME", str(home / "home"))
    monkeypatch.setenv("CLAW_RUN", str(home / "run"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "none"))
