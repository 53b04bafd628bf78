"""An image tool in memory: remembers what it was asked, and answers as a good image would."""

import contextlib
import io
import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from claw_runtime.errors import BuildFailed
from claw_runtime.ports import ExecResult
from fakes.engine import FakeEngine

Report = Callable[[str], None]


class FakeImageTool:
    """Implements `ports.ImageTool`.

    Attributes:
        bases: Base images that were made.
        built: Reference → the build's arguments.
        builds: How many builds there were.
        contexts: Reference → path in the context → text, as the build saw them.
        configs: Reference → what `config` answers.
        found: What the probe of `Images.verify` finds; tests change it.
        files: Path → text of files in every image, for a script that opens one.
        failure: When set, the next build raises it.
    """

    def __init__(self, engine: FakeEngine, found: Mapping[str, Any] | None = None) -> None:
        self._engine = engine
        self.bases: list[str] = []
        self.built: dict[str, Mapping[str, str]] = {}
        self.builds = 0
        self.contexts: dict[str, dict[str, str]] = {}
        self.configs: dict[str, Mapping[str, Any]] = {}
        self.found = dict(found or {})
        self.files: dict[str, str] = {}
        self.failure: BuildFailed | None = None

    def has(self, reference: str) -> bool:
        return reference in self.bases or reference in self.built

    def make_base(self, reference: str, *, report: Report) -> None:
        self.bases.append(reference)

    def build(self, context: Path, reference: str, *, arguments: Mapping[str, str], report: Report) -> str:
        if self.failure:
            raise self.failure
        files = [path for path in context.rglob("*") if path.is_file()]
        self.built[reference] = dict(arguments)
        self.builds += 1
        self.contexts[reference] = {str(path.relative_to(context)): path.read_text() for path in sorted(files)}
        self.configs[reference] = {"Labels": _labels(self.contexts[reference]["Containerfile"])}
        return self._engine.add_image(reference).id

    def load(self, archive: Path, *, report: Report) -> Sequence[str]:
        names = archive.read_text().split()
        for name in names:
            self._engine.add_image(name)
        return names

    def config(self, reference: str) -> Mapping[str, Any]:
        return self.configs[reference]

    def run(self, reference: str, argv: Sequence[str]) -> ExecResult:
        script, argument = argv[-2:]
        if not argument.startswith("/"):
            return ExecResult(exit_code=0, stdout=json.dumps(self.found).encode(), stderr=b"")
        return _executed(script, argument, self.files)


def _executed(script: str, path: str, files: Mapping[str, str]) -> ExecResult:
    """What a script that reads one file prints, with these files and no others."""

    def opened(name: str, mode: str) -> io.BytesIO:
        if name not in files:
            raise FileNotFoundError(name)
        return io.BytesIO(files[name].encode())

    printed = io.StringIO()
    with mock.patch.object(sys, "argv", ["-c", path]), contextlib.redirect_stdout(printed):
        try:
            exec(script, {"open": opened})
        except Exception as error:  # noqa: BLE001
            return ExecResult(exit_code=1, stdout=b"", stderr=str(error).encode())
    return ExecResult(exit_code=0, stdout=printed.getvalue().encode(), stderr=b"")


def _labels(containerfile: str) -> dict[str, str]:
    """Labels of the last LABEL instruction."""
    line = next(line for line in reversed(containerfile.splitlines()) if line.startswith("LABEL "))
    return dict(word.split("=", 1) for word in shlex.split(line.removeprefix("LABEL ")))
