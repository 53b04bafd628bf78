"""The laboratory's scripts where no host can be booted: they refuse, and the reason is never silent."""

import shutil
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
    done = _run(LAB / "run", "quick")
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
        (("boot", "uml", "one", "trixie"), "hosts cannot run here: it needs root"),
        (("root", "stretch"), "unknown release: stretch"),
        (("cut", "nobody"), "there is no host nobody"),
        (("again", "nobody"), "there is no host nobody"),
        (("run", "nobody", "claw", "/dev/null"), "there is no host nobody"),
        (("reboot", "nobody"), "there is no host nobody"),
    ],
)
def test_what_is_not_known_is_refused(words: tuple[str, ...], error: str) -> None:
    """A wrong release, name or host is named in the error."""
    done = _run(LAB / "lab.sh", *words)
    assert done.returncode == 1
    assert f"lab: error: {error}" in done.stderr


def test_roots_that_are_not_made_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an empty cache, no release has its root; `make test` then reports that instead of making one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    done = _run(LAB / "lab.sh", "missing")
    assert (done.returncode, done.stdout.split()) == (0, ["bookworm", "trixie"])


def test_a_disk_that_is_not_made_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an empty cache, `make test` boots no host in user-mode Linux; its last line then says so."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    done = _run(LAB / "lab.sh", "missing", "uml")
    assert (done.returncode, done.stdout.split()) == (0, ["trixie"])


@pytest.mark.parametrize(("inside", "hosts", "status"), [(0, 0, 0), (0, 1, 1), (2, 0, 2), (2, 1, 1)])
def test_make_test_ends_with_the_laboratory(tmp_path: Path, inside: int, hosts: int, status: int) -> None:
    """It runs last, even after a failure, and its own failure fails the target; other targets lack it."""
    host = tmp_path / "host"
    host.mkdir()
    for name in ("make", "lib.sh"):
        shutil.copy(LAB.parents[1] / "host" / name, host)
    _program(host / "setup.sh", "exit 0")
    _program(host / "run", f"echo $3; exit {inside}")
    _program(host / "commands", "exit 0")
    _program(tmp_path / "tests/lab/run", f"echo hosts: $1; exit {hosts}")

    done = _run(host / "make", "test")
    assert (done.stdout.splitlines(), done.returncode) == (["inside-test", "hosts: quick"], status)
    done = _run(host / "make", "check")
    assert (done.stdout.splitlines(), done.returncode) == (["inside-check"], inside)


def _program(path: Path, body: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def test_help_names_every_verb() -> None:
    """`lab.sh help` describes each verb; a wrong one prints the same text and fails."""
    done = _run(LAB / "lab.sh", "help")
    assert done.returncode == 0
    verbs = "root venv boot run reboot cut again down sweep tools measuring check missing"
    for verb in verbs.split():
        assert f"lab.sh {verb}" in done.stdout
    assert _run(LAB / "lab.sh", "destroy").returncode == 2
