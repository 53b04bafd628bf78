"""Standard output that is full, closed or unread: a plain message and an exit code, and no traceback."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CLI = [sys.executable, "-c", "from claw_runtime.cli.main import main; main()"]
pytestmark = pytest.mark.spawns


def run(*arguments: str, stdout: int | None = None, closed: bool = False) -> tuple[int, str]:
    """Exit code and standard error of a verb that needs no daemon."""
    command = [*CLI, *arguments]
    if closed:
        command = ["sh", "-c", 'exec "$@" >&-', "sh", *command]
    done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    return done.returncode, done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this host")
@pytest.mark.parametrize(
    "verb", [("version",), ("version", "-o", "json"), ("config", "schema"), ("completion", "bash")]
)
def test_a_full_disk_behind_stdout_is_an_error(verb: tuple[str, ...]) -> None:
    """The answer was not printed, and a script can tell: exit code 26, once, without a traceback."""
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        code, told = run(*verb, stdout=full)
    finally:
        os.close(full)

    assert code == 26
    text = told if "-o" not in verb else json.loads(told)["message"] + json.loads(told)["why"]
    assert "the answer cannot be printed" in text
    assert "No space left on device" in text
    assert "Traceback" not in told
    assert "Exception ignored" not in told


def test_a_closed_stdout_is_an_error() -> None:
    """An answer that nobody can have seen is no success."""
    code, told = run("version", closed=True)

    assert code == 1
    assert told.startswith("error: the answer cannot be printed")
    assert "Traceback" not in told
    assert "Exception ignored" not in told


@pytest.mark.parametrize("verb", [("version",), ("config", "schema")])
def test_a_reader_that_has_gone_is_no_noise(verb: tuple[str, ...]) -> None:
    """`| head -1` ends the verb without a word."""
    reads, writes = os.pipe()
    os.close(reads)
    try:
        code, told = run(*verb, stdout=writes)
    finally:
        os.close(writes)

    assert (code, told) == (1, "")
