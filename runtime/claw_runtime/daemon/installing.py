"""Composes an installation from the settings of this user: what is installed where, and for which data directory."""

import errno
import fcntl
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from claw_runtime import settings as settings_module
from claw_runtime.daemon.home import load_workloads
from claw_runtime.deploy.units import Program
from claw_runtime.errors import ClawError, PortTaken
from claw_runtime.operations.install import Installer
from claw_runtime.operations.install_files import InstallPaths
from claw_runtime.ports import Systemd
from claw_runtime.router.presence import present
from claw_runtime.router.process import shown
from claw_runtime.settings import Settings
from claw_runtime.spec.sink import common_sink
from claw_runtime.systemd.systemctl import Systemctl, session_environment

_OWN: Final = frozenset({"home", "run", "workloads"})
"""Settings that the units take from the environment of the one who installs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """An installation of this user.

    Attributes:
        paths: Its directories.
        settings: What the installed daemon will see.
        ignored: Variables of this shell that it will not see.
        variables: The file of the daemon's variables.
    """

    installer: Installer
    paths: InstallPaths
    settings: Settings
    ignored: tuple[str, ...]
    variables: Path


def installation(
    home: Path | None,
    config: Path | None,
    *,
    systemd: Systemd | None = None,
    environ: Mapping[str, str] = os.environ,
    system_file: Path = settings_module.SYSTEM_FILE,
) -> Installation:
    """What would be installed for this user now.

    Args:
        home, config: Of the options `--home` and `--config`.

    Raises:
        InvalidSpec: The settings are not valid.
    """
    environ = session_environment(environ)
    base = Path(environ.get("HOME") or "/")
    paths = InstallPaths(
        data=_directory(environ, "XDG_DATA_HOME", base / ".local/share") / "claw",
        config=_directory(environ, "XDG_CONFIG_HOME", base / ".config"),
        commands=base / ".local/bin",
    )
    variables = paths.config / "claw" / "claw.env"
    ours = {name: settings_module.ENVIRONMENT[name] for name in _OWN}
    kept = {name: text for name, text in environ.items() if not name.startswith(("CLAW_", "AWS_"))}
    kept |= {name: environ[name] for name in (*ours.values(), "CLAW_CONFIG") if name in environ}
    given = _variables(variables)
    seen = settings_module.load({"home": home}, environ={**given, **kept}, config=config, system_file=system_file)
    environment = {"CLAW_SERVICES": "units", "CLAW_HOME": str(seen.home), "CLAW_RUN": str(seen.run)}
    if seen.origins["workloads"] == ours["workloads"]:
        environment["CLAW_WORKLOADS"] = str(seen.workloads)
    chosen = config or (Path(environ["CLAW_CONFIG"]) if environ.get("CLAW_CONFIG") else None)
    if chosen:
        environment["CLAW_CONFIG"] = str(chosen.expanduser().absolute())
    s3 = not seen.bucket and not _has_sink(seen)
    program = Program(
        venv=paths.link,
        socket=seen.layout.engine_socket,
        environment=environment,
        variables=variables,
        s3=s3,
        run=seen.run,
        ingress=shown(seen.ingress) if seen.ingress else "",
    )
    read = {
        *settings_module.ENVIRONMENT.values(),
        *(n for names in settings_module.AWS_ENVIRONMENT.values() for n in names),
    }
    ignored = tuple(sorted(name for name in read if environ.get(name) and name not in kept and name not in given))
    return Installation(
        installer=Installer(
            paths,
            systemd or Systemctl(),
            seen.home,
            program,
            holder=lambda: holder(seen),
            listen=lambda: need_ports(seen, variables),
        ),
        paths=paths,
        settings=seen,
        ignored=ignored,
        variables=variables,
    )


def holder(settings: Settings) -> str:
    """The process id of the daemon that serves the data directory; empty if there is none."""
    try:
        with settings.layout.lock.open("r", encoding="utf-8", errors="replace") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read(64).strip() or "unknown"
    except OSError:
        pass
    return ""


def need_ports(settings: Settings, variables: Path) -> None:
    """Refuse addresses on which other processes listen than those of this run directory.

    Raises:
        PortTaken: The daemon, or the router, could not listen there.
    """
    need_port(settings.listen, variables)
    there = present(settings.layout.router_lock)
    if settings.ingress and (there is None or there.address != shown(settings.ingress)):
        need_port(settings.ingress, variables, what="the router", name="CLAW_INGRESS")


def need_port(
    address: tuple[str, int] | None, variables: Path, *, what: str = "the API", name: str = "CLAW_LISTEN"
) -> None:
    """Refuse an address on which another process listens; None and port 0 are always free.

    Args:
        address: A setting.
        variables: The file in which it may be changed.
        what: Listens there; `name`: the variable of the setting.

    Raises:
        PortTaken: It could not listen there.
    """
    if address is None:
        return
    with socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
            probe.listen(1)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                return  # the daemon will report what else is wrong with it
            raise PortTaken(
                f"{what} cannot listen on {address[0]} port {address[1]}",
                why="another process listens there",
                hint=f"end that process, or set another {name} in {variables}; then install again",
                port=address[1],
            ) from error


def _has_sink(settings: Settings) -> bool:
    try:
        return common_sink(load_workloads(sorted(settings.workloads.glob("*.yaml")))) is not None
    except ClawError:  # the daemon will report it
        return False


def _directory(environ: Mapping[str, str], variable: str, default: Path) -> Path:
    given = environ.get(variable, "")
    return Path(given) if given.startswith("/") else default


def _variables(path: Path) -> dict[str, str]:
    """The assignments of a file of variables, as far as systemd and a shell agree on them."""
    try:
        lines = path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return {}
    pairs = (line.strip().partition("=") for line in lines if "=" in line and line.strip()[0] not in "#;")
    return {name.strip(): value.strip().strip("\"'") for name, _, value in pairs}
