"""The systemd user manager through its commands: the only module that runs them."""

import os
import pwd
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from claw_runtime.errors import NoUserSession, UnitFailed

LINGER: Final = Path("/var/lib/systemd/linger")
_USERS: Final = Path("/run/user")
_SECONDS: Final = 60.0
_START_SECONDS: Final = 300.0  # above every TimeoutStartSec and TimeoutStopSec of our units
_NO_BUS: Final = ("failed to connect to bus", "failed to connect to user", "transport endpoint", "no medium found")
_LOG_LINES: Final = "5"

Run = Callable[[Sequence[str], float], "subprocess.CompletedProcess[str]"]


class Systemctl:
    """`ports.Systemd` by `systemctl --user`, `loginctl` and `journalctl --user`.

    Args:
        run: Runs a command within these seconds; its output is text.
        lingering: Directory in which the login manager keeps a file for each user that lingers.
    """

    def __init__(self, run: Run | None = None, *, lingering: Path = LINGER) -> None:
        self._run = run or _run
        self._lingering = lingering
        self._user = pwd.getpwuid(os.getuid()).pw_name

    def version(self) -> str:
        return self._ask("show", "--property=Version", "--value").strip()

    def lingers(self) -> bool:
        return (self._lingering / self._user).exists()

    def linger(self) -> bool:
        if not self.lingers() and shutil.which("loginctl"):
            self._run(["loginctl", "--no-ask-password", "enable-linger", self._user], _SECONDS)
        return self.lingers()

    def reload(self) -> None:
        self._ask("daemon-reload")

    def enable(self, units: Sequence[str]) -> None:
        self._ask("enable", *units)

    def disable(self, units: Sequence[str]) -> None:
        for unit in units:
            if self._known(unit):
                self._ask("disable", unit)

    def restart(self, unit: str) -> None:
        self._ask("reset-failed", unit, fails=False)
        self._ask("restart", unit, within=_START_SECONDS)

    def stop(self, unit: str) -> None:
        if self._known(unit):
            self._ask("stop", unit, within=_START_SECONDS)
            self._ask("reset-failed", unit, fails=False)

    def is_active(self, unit: str) -> bool:
        return self._show(unit, "ActiveState") in ("active", "activating", "reloading")

    def _known(self, unit: str) -> bool:
        return self._show(unit, "LoadState") not in ("not-found", "")

    def _show(self, unit: str, name: str) -> str:
        return self._ask("show", f"--property={name}", "--value", unit).strip()

    def _ask(self, verb: str, *arguments: str, within: float = _SECONDS, fails: bool = True) -> str:
        try:
            done = self._run(["systemctl", "--user", "--no-pager", verb, *arguments], within)
        except FileNotFoundError as error:
            raise _no_session("the program systemctl is missing") from error
        except subprocess.TimeoutExpired as error:
            raise UnitFailed(
                f"systemctl --user {verb} {' '.join(arguments)}".rstrip(),
                why=f"no answer within {within:g} s",
                hint="systemctl --user list-jobs",
            ) from error
        if done.returncode == 0:
            return done.stdout
        said = done.stderr.strip()
        if any(symptom in said.lower() for symptom in _NO_BUS):
            raise _no_session(said.splitlines()[0])
        if fails:
            unit = arguments[-1] if verb == "restart" else ""
            raise UnitFailed(
                f"systemctl --user {verb} {' '.join(arguments)} failed",
                why=self._last_words(unit) or said or f"it ended with {done.returncode}",
                hint=f"journalctl --user -u {unit}" if unit else "systemctl --user status",
            )
        return ""

    def _last_words(self, unit: str) -> str:
        """What the unit's process printed last; at least how it ended, as a journal may be readable for root only."""
        if not unit:
            return ""
        argv = ["journalctl", "--user", "--no-pager", "-q", "-o", "cat", "-n", _LOG_LINES, "-u", unit]
        lines: list[str] = []
        with suppress(OSError, subprocess.TimeoutExpired):
            lines = [line for line in self._run(argv, _SECONDS).stdout.splitlines() if line.strip()]
        if lines:
            return " / ".join(lines)
        status = self._show(unit, "ExecMainStatus")
        return f"its process ended with {status}" if status not in ("", "0") else ""


def _run(argv: Sequence[str], within: float) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        argv,
        env=session_environment(os.environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=within,
        check=False,
    )


def session_environment(environ: Mapping[str, str], users: Path = _USERS) -> dict[str, str]:
    """The environment with the user's runtime directory, which `su` and `setpriv` do not set."""
    found = dict(environ)
    own = users / str(os.getuid())
    if not found.get("XDG_RUNTIME_DIR") and (own / "systemd").is_dir():
        found["XDG_RUNTIME_DIR"] = str(own)
    return found


def _no_session(why: str) -> NoUserSession:
    return NoUserSession(
        "no systemd user manager answers for this user",
        why=why,
        hint="as root: loginctl enable-linger USER; then log in as that user (ssh, machinectl shell), not by su. "
        "A host without systemd needs no installation: run `claw-runtime up` under its own service manager",
    )
