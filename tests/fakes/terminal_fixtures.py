"""The command line in this process, over a daemon that is real up to its engine and its store.

A test module says `pytest_plugins = ["fakes.terminal_fixtures"]` to have these fixtures.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from claw_runtime.cli import main as cli
from fakes.faces import serving
from fakes.terminal import Call, Result, surroundings
from fakes.world import World


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


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A daemon that serves; claims and releases are quiet on stdout, which belongs to the verbs."""
    made = World(tmp_path)
    made.pools.keep()
    with serving(made):
        yield made
    made.close()
