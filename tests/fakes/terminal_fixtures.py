"""The command line in this process, over a daemon that is real up to its engine and its store.

A test module sets `pytest_plugins = ["fakes.terminal_fixtures"]` and marks itself `world(served=True)` to have both.
"""

from pathlib import Path

import pytest
from claw_runtime.cli import main as cli
from fakes.terminal import Call, Result, surroundings


@pytest.fixture
def claw(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Call:
    """`claw("claim", "alice")` is `claw-runtime claim alice` for the world in this test's directory."""
    surroundings(monkeypatch, tmp_path)

    def call(*arguments: str) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main(list(arguments))
        out, err = capsys.readouterr()
        return Result(int(ended.value.code or 0), out, err)

    return call
