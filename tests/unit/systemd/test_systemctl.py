"""The user manager is asked by its commands: which ones, and what their failures become."""

import os
import pwd
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from claw_runtime.errors import ClawError, NoUserSession, UnitFailed
from claw_runtime.systemd import systemctl
from claw_runtime.systemd.systemctl import Systemctl

USER = pwd.getpwuid(os.getuid()).pw_name


class Commands:
    """Answers commands by their beginning; the rest succeeds in silence."""

    def __init__(self, answers: dict[str, tuple[int, str, str]] | None = None) -> None:
        self.answers = answers or {}
        self.asked: list[str] = []

    def __call__(self, argv: Sequence[str], within: float) -> "subprocess.CompletedProcess[str]":
        assert within > 0
        line = " ".join(argv).removeprefix("systemctl --user --no-pager ")
        self.asked.append(line)
        code, out, err = next((found for key, found in self.answers.items() if line.startswith(key)), (0, "", ""))
        return subprocess.CompletedProcess(argv, code, out, err)


def test_a_restart_forgets_earlier_failures_first() -> None:
    """A unit that failed too often is started all the same, since somebody asks for it."""
    commands = Commands({"reset-failed": (1, "", "Unit a.service not loaded.")})
    Systemctl(commands).restart("a.service")
    assert commands.asked == ["reset-failed a.service", "restart a.service"]


def test_a_unit_that_fails_says_its_last_words() -> None:
    """The error has the process's own last lines, and the command that shows the rest."""
    commands = Commands(
        {"restart": (1, "", "Job for a.service failed."), "journalctl": (0, "first\n\nerror: port taken\n", "")}
    )
    with pytest.raises(UnitFailed) as caught:
        Systemctl(commands).restart("a.service")
    assert caught.value.why == "first / error: port taken"
    assert caught.value.hint == "journalctl --user -u a.service"


def test_without_a_readable_journal_there_is_an_exit_code() -> None:
    """A journal in memory is root's; the code is one of the documented ones."""
    commands = Commands({"restart": (1, "", "Job for a.service failed."), "show": (0, "16\n", "")})
    with pytest.raises(UnitFailed) as caught:
        Systemctl(commands).restart("a.service")
    assert caught.value.why == "its process ended with 16"


@pytest.mark.parametrize(
    "said",
    [
        "Failed to connect to bus: No medium found",
        "Failed to connect to bus: $DBUS_SESSION_BUS_ADDRESS and $XDG_RUNTIME_DIR not defined",
        "Failed to connect to user scope bus via local transport: No such file or directory",
    ],
)
def test_no_user_manager_is_an_error_of_its_own(said: str) -> None:
    """All the words that systemctl has for it are exit code 41, with what to do."""
    with pytest.raises(NoUserSession) as caught:
        Systemctl(Commands({"show": (1, "", said)})).version()
    assert (caught.value.exit_code, caught.value.why) == (41, said)
    assert "enable-linger" in caught.value.hint


def test_no_systemctl_is_no_user_manager() -> None:
    """A host without systemd gets the same error."""

    def missing(argv: Sequence[str], within: float) -> "subprocess.CompletedProcess[str]":
        raise FileNotFoundError(argv[0])

    with pytest.raises(NoUserSession):
        Systemctl(missing).reload()


def test_a_manager_that_hangs_is_reported() -> None:
    """Nobody waits for ever."""

    def hanging(argv: Sequence[str], within: float) -> "subprocess.CompletedProcess[str]":
        raise subprocess.TimeoutExpired(argv, within)

    with pytest.raises(UnitFailed, match=r"enable a\.service") as caught:
        Systemctl(hanging).enable(["a.service"])
    assert "no answer within" in caught.value.why


def test_unknown_units_are_neither_stopped_nor_disabled() -> None:
    """An uninstallation that is repeated finds nothing to do, and does not fail."""
    commands = Commands({"show --property=LoadState": (0, "not-found\n", "")})
    manager = Systemctl(commands)
    manager.stop("a.service")
    manager.disable(["a.service"])
    assert {line.split()[0] for line in commands.asked} == {"show"}


def test_a_known_unit_is_stopped_and_disabled() -> None:
    """And its failure, if it ended badly, is forgotten."""
    commands = Commands({"show --property=LoadState": (0, "loaded\n", "")})
    manager = Systemctl(commands)
    manager.stop("a.service")
    manager.disable(["a.service"])
    assert [line for line in commands.asked if not line.startswith("show")] == [
        "stop a.service",
        "reset-failed a.service",
        "disable a.service",
    ]


@pytest.mark.parametrize(("state", "active"), [("active", True), ("activating", True), ("failed", False), ("", False)])
def test_whether_a_unit_runs(state: str, active: bool) -> None:
    """A unit on its way counts as running."""
    assert Systemctl(Commands({"show": (0, f"{state}\n", "")})).is_active("a.service") is active


def test_lingering_is_a_file_of_the_login_manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked for once, without a question at the terminal, and judged by the file."""
    monkeypatch.setattr(systemctl.shutil, "which", lambda name: f"/usr/bin/{name}")
    commands = Commands()
    manager = Systemctl(commands, lingering=tmp_path)
    assert not manager.linger()
    assert commands.asked == [f"loginctl --no-ask-password enable-linger {USER}"]
    (tmp_path / USER).touch()
    assert manager.linger()
    assert len(commands.asked) == 1


def test_the_runtime_directory_is_found(tmp_path: Path) -> None:
    """`su` and `setpriv` do not set it; where the manager runs, its directory is known."""
    own = tmp_path / str(os.getuid())
    assert systemctl.session_environment({}, tmp_path) == {}
    (own / "systemd").mkdir(parents=True)
    assert systemctl.session_environment({}, tmp_path) == {"XDG_RUNTIME_DIR": str(own)}
    given = {"XDG_RUNTIME_DIR": "/elsewhere"}
    assert systemctl.session_environment(given, tmp_path) == given


@pytest.mark.spawns
def test_a_command_is_run_for_real(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A stand-in on PATH is executed, and its words on stderr become the error."""
    program = tmp_path / "systemctl"
    program.write_text('#!/bin/sh\necho "Access denied: $*" >&2\nexit 4\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(ClawError) as caught:
        Systemctl().reload()
    assert caught.value.why == "Access denied: --user --no-pager daemon-reload"
