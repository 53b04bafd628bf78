"""The laboratory's scripts where no host can be booted: they refuse, and the reason is never silent."""

import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.spawns

LAB = Path(__file__).resolve().parents[1] / "lab"
REASON = "lab: not run on this host: it needs root\n"


def _run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


def test_the_part_of_make_test_reports_why_it_did_not_run() -> None:
    """Without root, the last line is the reason, and the other tests decide how `make test` ends."""
    done = _run(LAB / "run", "nspawn")
    assert (done.returncode, done.stdout) == (0, REASON)


def test_make_lab_fails_where_it_cannot_run() -> None:
    """Without root, `make lab` does not look like a success."""
    done = _run(LAB / "run")
    assert (done.returncode, done.stdout) == (1, REASON)


def test_a_host_is_not_booted_without_root() -> None:
    """`lab.sh boot` reports why, before it makes anything."""
    done = _run(LAB / "lab.sh", "boot", "nspawn", "one", "trixie")
    assert done.returncode == 1
    assert "lab: error: hosts cannot run here: it needs root" in done.stderr


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("boot", "nspawn", "one", "sid"), "unknown release: sid"),
        (("boot", "nspawn", "../one", "trixie"), "not a host's name: ../one"),
        (("root", "stretch"), "unknown release: stretch"),
        (("run", "nobody", "claw", "/dev/null"), "there is no host nobody"),
    ],
)
def test_what_is_not_known_is_refused(words: tuple[str, ...], error: str) -> None:
    """A wrong release, name or host is named in the error."""
    done = _run(LAB / "lab.sh", *words)
    assert done.returncode == 1
    assert f"lab: error: {error}" in done.stderr


def test_help_names_every_verb() -> None:
    """`lab.sh help` describes each verb; a wrong one prints the same text and fails."""
    done = _run(LAB / "lab.sh", "help")
    assert done.returncode == 0
    for verb in ("root", "venv", "boot", "run", "down", "tools", "check"):
        assert f"lab.sh {verb}" in done.stdout
    assert _run(LAB / "lab.sh", "destroy").returncode == 2
