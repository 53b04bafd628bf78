"""Installs claw for one user: a virtual environment, systemd user units that run it, and the commands.

Every step can be repeated. What an earlier, unfinished installation left is completed, and what is in place is not
touched. An environment is never changed: a new one is made beside it, and a link is switched when it is
whole.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from claw_runtime.deploy import units
from claw_runtime.errors import ClawError, Conflict, DaemonRunning, DiskFull, InstallFailed, NotLingering
from claw_runtime.operations.install_files import (
    Action,
    File,
    InstallPaths,
    point,
    remove,
    staging,
    target_of,
    text_of,
    told,
    write,
)
from claw_runtime.ports import CLAW_UNIT, ROUTER_UNIT, Systemd
from claw_runtime.units import format_size

COMMANDS = ("claw-runtime", "claw")
_WHOLE = "claw-whole"
"""A file in an environment, written last."""
_RAN = "claw-ran"
"""A file in an environment whose program has become ready."""
ROOM = 400 << 20
"""Bytes that an environment may take: 265 MB on Debian 13, and what pip unpacks meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Installable:
    """A program to install.

    Attributes:
        digest: Of all that goes into its environment.
        build: Makes the environment in a directory that does not exist; raises `InstallFailed`, `DiskFull`.
    """

    digest: str
    build: Callable[[Path], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was done.

    Attributes:
        files: Units and commands.
        venv: The environment that is used now.
        restarted: Units that were started, in their order.
    """

    files: tuple[File, ...]
    venv: Path
    restarted: tuple[str, ...]


class Installer:
    """Installs, upgrades and removes.

    Args:
        home: The data directory that the daemon serves.
        program: What the units run.
        holder: The process that serves that data directory without being the unit's, or an empty text.
        listen: Raises `PortTaken` if the daemon could not listen where its settings say.
    """

    def __init__(
        self,
        paths: InstallPaths,
        systemd: Systemd,
        home: Path,
        program: units.Program,
        *,
        holder: Callable[[], str],
        listen: Callable[[], None],
    ) -> None:
        self._paths, self._systemd, self._home = paths, systemd, home
        self._program, self._holder, self._listen = program, holder, listen

    def plan(self) -> list[File]:
        """What `install` writes and removes; it looks and changes nothing.

        Raises:
            InstallFailed: A path has a character that no unit file can hold.
        """
        try:
            wanted = units.rendered(self._program)
        except ValueError as error:
            raise InstallFailed(
                "the units cannot be written", why=f"a path is {error}", hint="choose directories with printable names"
            ) from error
        files = [self._unit(name, wanted.get(name)) for name in units.UNITS]
        files += [self._command(name) for name in COMMANDS]
        return [file for file in files if file is not None]

    def install(self, source: Installable) -> Report:
        """Install, or bring an installation up to date; running tenants notice nothing.

        Raises:
            NoUserSession, NotLingering: Systemd cannot run this user's units; nothing was written.
            Conflict: Another data directory's installation is there; nothing was written.
            DaemonRunning: A daemon that no unit started serves the data directory; nothing was written.
            PortTaken: Another process listens where the daemon would; nothing was written.
            InstallFailed, DiskFull: The environment or a file could not be written. No unit was changed, and what ran
                before runs.
            UnitFailed: A unit does not start. If an earlier program was installed, it runs again.
        """
        self.check()
        plan = self.plan()
        venv = self._built(source)
        before = self._state(plan)
        self._write(plan, venv)
        restarted = self._start(plan, before, switched=before.target != venv)
        with suppress(ClawError):  # it runs; without room for the mark, it is only not gone back to
            write(venv / _RAN, "")
        self._collect(venv, before.target)
        return Report(files=tuple(plan), venv=venv, restarted=restarted)

    def uninstall(self) -> Report:
        """Stop and disable the units and remove what `install` wrote. Data, containers and edited units stay.

        Raises:
            NoUserSession: No user manager answers; nothing was removed.
        """
        self._systemd.version()
        venv = target_of(self._paths.link)
        for name in reversed(units.UNITS):
            self._systemd.stop(name)
        self._systemd.disable(units.UNITS)
        files = []
        for path in (*map(self._paths.unit, units.UNITS), *(self._paths.commands / name for name in COMMANDS)):
            file = self._removal(path)
            if file is not None:
                files.append(file)
                remove(file)
        self._systemd.reload()
        self._paths.link.unlink(missing_ok=True)
        shutil.rmtree(self._paths.environments, ignore_errors=True)
        self._paths.record.unlink(missing_ok=True)
        return Report(files=tuple(files), venv=venv or self._paths.link, restarted=())

    def is_built(self, source: Installable) -> bool:
        """Whether the environment is there, so that an installation takes seconds."""
        return (self._paths.environments / source.digest / _WHOLE).exists()

    def prepare(self, source: Installable) -> Path:
        """Build the environment and change nothing else; it is used by the next `install` of the same digest.

        Raises:
            InstallFailed, DiskFull: It was not built.
        """
        self._systemd.version()
        return self._built(source)

    def installed_home(self) -> Path | None:
        """The data directory of the installation that is there, whole or not."""
        try:
            return Path(json.loads(self._paths.record.read_text("utf-8"))["home"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    # --- steps ----------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Refuse what `install` refuses before it writes anything; the errors are listed there."""
        self._systemd.version()
        other = self.installed_home()
        if other is not None and other != self._home:
            raise Conflict(
                f"claw is installed for this user with the data directory {other}",
                why="a user has one claw.service, and it serves one data directory",
                hint=f"claw-runtime --home {other} uninstall, or run claw-runtime --home {other} install",
            )
        if not self._systemd.is_active(CLAW_UNIT) and (holder := self._holder()):
            raise DaemonRunning(
                f"a daemon already serves {self._home}",
                why=f"process {holder} holds its lock, and is not the unit {CLAW_UNIT}",
                hint=f"end it (kill {holder}; tenants' containers keep running), then install again",
            )
        if not self._systemd.linger():
            raise NotLingering(
                "lingering is off for this user",
                why="systemd would end the daemon and all tenants at this user's logout, and not start them at boot",
                hint="as root: loginctl enable-linger USER; then install again",
            )
        if not self._systemd.is_active(CLAW_UNIT):
            self._listen()

    def _built(self, source: Installable) -> Path:
        venv = self._paths.environments / source.digest
        if self.is_built(source):
            return venv
        shutil.rmtree(venv, ignore_errors=True)  # what an interrupted installation left
        try:
            self._need_room()
            with told(venv.parent):
                self._paths.data.mkdir(mode=0o700, parents=True, exist_ok=True)
                venv.parent.mkdir(exist_ok=True)
            source.build(venv)
            write(venv / _WHOLE, "")
        except BaseException:
            shutil.rmtree(venv, ignore_errors=True)
            for directory in (venv.parent, self._paths.data):
                with suppress(OSError):  # something else is in it
                    directory.rmdir()
            raise
        return venv

    def _need_room(self) -> None:
        """Raises `DiskFull` before minutes of work if the environment cannot have room."""
        data = self._paths.data
        nearest = next(path for path in (data, *data.parents) if path.exists())
        free = shutil.disk_usage(nearest).free
        if free < ROOM:
            raise DiskFull(
                "no room to install claw's environment",
                why=f"{nearest} has {format_size(free)} free, and it may take {format_size(ROOM)}",
                hint="free space, or set XDG_DATA_HOME to a directory with more; then install again",
            )

    def _write(self, plan: list[File], venv: Path) -> None:
        """Write record, units, commands and link: all of them or, if one has no room, none."""
        with staging() as staged:
            staged.text(self._paths.record, json.dumps({"home": str(self._home)}) + "\n")
            for file in plan:
                if file.action == "write" and file.path.suffix == ".service":
                    staged.text(file.path, file.text)
                elif file.action == "write":
                    staged.link(file.path, Path(file.text))
            staged.link(self._paths.link, venv)
        for file in plan:
            remove(file)

    def _restore(self, before: "_Before") -> None:
        """The units as they were."""
        for path, text in before.texts.items():
            with suppress(OSError, ClawError):
                if text is None:
                    path.unlink(missing_ok=True)
                elif text_of(path) != text:
                    write(path, text)

    def _unit(self, name: str, text: str | None) -> File | None:
        path = self._paths.unit(name)
        there = text_of(path)
        if text is None:
            return self._removal(path)
        action: Action = "write"
        if there == text:
            action = "unchanged"
        elif there is not None and units.is_edited(there):
            action = "keep"
        return File(path=path, text=text, action=action)

    def _command(self, name: str) -> File:
        path, target = self._paths.commands / name, self._paths.link / "bin" / name
        action: Action = "write"
        if target_of(path) == target:
            action = "unchanged"
        elif path.exists() or path.is_symlink():
            action = "keep"
        return File(path=path, text=str(target), action=action)

    def _removal(self, path: Path) -> File | None:
        """What an uninstallation does to a unit or a command that is there."""
        if path.parent == self._paths.commands:
            target = target_of(path)
            ours = target is not None and target.is_relative_to(self._paths.link)
            return File(path=path, text="", action="remove") if ours else None
        text = text_of(path)
        if text is None:
            return None
        return File(path=path, text=text, action="keep" if units.is_edited(text) else "remove")

    def _state(self, plan: list[File]) -> "_Before":
        texts = {file.path: text_of(file.path) for file in plan if file.path.suffix == ".service"}
        target = target_of(self._paths.link)
        return _Before(texts=texts, target=target if target and (target / _RAN).exists() else None)

    def _start(self, plan: list[File], before: "_Before", *, switched: bool) -> tuple[str, ...]:
        written = {file.path.name for file in plan if file.action == "write"}
        gone = [file.path.name for file in plan if file.action == "remove"]
        names = [name for name in units.UNITS if self._paths.unit(name).exists()]
        for name in gone:
            self._systemd.stop(name)
        self._systemd.reload()
        self._systemd.enable(names)
        restarted = []
        try:
            for name in names:
                new = name in written or (switched and name in (CLAW_UNIT, ROUTER_UNIT))
                if new or not self._systemd.is_active(name):
                    self._systemd.restart(name)
                    restarted.append(name)
        except ClawError as error:
            self._back(before, names)
            if before.target is None:
                raise
            raise InstallFailed(
                "the new program does not start; the previous one runs again", why=str(error), hint=error.hint
            ) from error
        return tuple(restarted)

    def _back(self, before: "_Before", names: list[str]) -> None:
        """To what ran before; a first installation is stopped, and its files stay for the next attempt."""
        if before.target is None:
            for name in reversed(names):
                with suppress(ClawError):
                    self._systemd.stop(name)
            with suppress(ClawError):
                self._systemd.disable(names)
            return
        self._restore(before)
        point(self._paths.link, before.target)
        self._systemd.reload()
        for name in names:
            if before.texts.get(self._paths.unit(name)) is not None:
                with suppress(ClawError):  # the first failure is the one to report
                    self._systemd.restart(name)

    def _collect(self, *wanted: Path | None) -> None:
        """Remove environments that neither this nor the previous installation uses, nor a running process."""
        for venv in self._paths.environments.iterdir():
            if venv not in wanted and not _in_use(venv):
                shutil.rmtree(venv, ignore_errors=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Before:
    """What was installed before.

    Attributes:
        texts: Of the unit files; None for one that was not there.
        target: The environment, if its program ever became ready.
    """

    texts: Mapping[Path, str | None]
    target: Path | None


def _in_use(venv: Path, proc: Path = Path("/proc")) -> bool:
    """Whether a process of this user runs a program of the environment."""
    for entry in proc.glob("[0-9]*"):
        with suppress(OSError):
            if f"{venv}/".encode() in (entry / "cmdline").read_bytes():
                return True
    return False
