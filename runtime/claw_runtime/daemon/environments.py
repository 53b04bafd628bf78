"""Virtual environments for an installation: what they are made from, and making one with pip."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import claw_runtime
from claw_runtime.engine import host, versions
from claw_runtime.engine.refusals import podman_fails, podman_missing
from claw_runtime.errors import DiskFull, HostUnsupported, InstallFailed, InvalidSpec
from claw_runtime.operations.install import Installable

_PARTS: Final = ("entrypoint", "runtime")
_LEFT_OUT: Final = ("build", "*.egg-info", "__pycache__", "*.pyc")
_SECONDS: Final = 1800.0
_ASK_SECONDS: Final = 30.0
_LAST_LINES: Final = 6


def need_host() -> None:
    """Refuse a host on which the installed daemon could not work; nothing has been written yet.

    Raises:
        HostUnsupported: The host has no cgroup v2, or has v1 beside it.
        EngineUnavailable: Podman is not installed, or its program fails.
        EngineUnsupported: Podman is too old or too new.
    """
    if not host.has_cgroup_v2():
        raise HostUnsupported(
            "this host does not run on cgroup v2 alone",
            why="with cgroup v1, Podman can neither limit nor freeze a user's containers",
            hint="boot with the kernel parameter systemd.unified_cgroup_hierarchy=1 (the default since Debian 11)",
        )
    if shutil.which("podman") is None:
        raise podman_missing()
    argv = ["podman", "--version"]
    try:
        said = subprocess.run(argv, capture_output=True, text=True, errors="replace", timeout=_ASK_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise podman_fails(str(error)) from error
    if said.returncode:
        raise podman_fails(said.stderr)
    versions.check((said.stdout.split() or [""])[-1])


def found(given: Path | None, installed: Path) -> Installable:
    """The program to install.

    Args:
        given: A source tree, or a directory with wheels of claw and optionally of what it needs. By default what runs:
            an environment that is installed already, or the source tree.
        installed: The directory of installed environments.

    Raises:
        InvalidSpec: There is nothing to install.
    """
    here = Path(claw_runtime.__file__).resolve()
    if given is None and here.is_relative_to(installed.resolve()):
        return built(here.relative_to(installed.resolve()).parts[0])
    place = given.absolute() if given else here.parents[2]
    if all((place / part / "pyproject.toml").is_file() for part in _PARTS):
        files: Iterator[Path] = (file for part in _PARTS for file in _files(place / part))
        return Installable(digest=_digest(place, files), build=partial(_from_tree, place))
    wheels = sorted(place.glob("claw_*.whl")) if place.is_dir() else []
    if {wheel.name.split("-")[0] for wheel in wheels} >= {"claw_runtime", "claw_entrypoint"}:
        return Installable(digest=_digest(place, iter(wheels)), build=partial(_from_wheels, place))
    raise InvalidSpec(
        f"{place} has no claw to install",
        why="it is neither a source tree nor a directory with the wheels claw_runtime and claw_entrypoint",
        hint="give one with --from",
    )


def built(digest: str) -> Installable:
    """An environment that must be there."""

    def missing(venv: Path) -> None:
        raise InstallFailed("the environment is not there", why=str(venv), hint="claw-runtime install --from DIRECTORY")

    return Installable(digest=digest, build=missing)


def _files(directory: Path) -> Iterator[Path]:
    for base, directories, names in os.walk(directory):
        directories[:] = sorted(name for name in directories if name != "build" and not name.endswith(".egg-info"))
        if "__pycache__" in directories:
            directories.remove("__pycache__")
        yield from (Path(base) / name for name in sorted(names) if not name.endswith(".pyc"))


def _digest(place: Path, files: Iterator[Path]) -> str:
    digest = hashlib.sha256(f"{sys.version_info[:2]} {sys.base_prefix}".encode())
    for file in (*_constraints(place), *files):
        content = file.read_bytes()
        digest.update(f"\0{file.relative_to(place)}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]


def _constraints(place: Path) -> tuple[Path, ...]:
    file = place / "constraints.txt"
    return (file,) if file.is_file() else ()


def _from_tree(tree: Path, target: Path) -> None:
    # pip builds in the directory that it is given: a copy leaves the tree as it is, and may be read-only.
    try:
        with tempfile.TemporaryDirectory(prefix="claw-install-") as scratch:
            copies = [Path(scratch) / part for part in _PARTS]
            for part, copy in zip(_PARTS, copies, strict=True):
                shutil.copytree(tree / part, copy, ignore=shutil.ignore_patterns(*_LEFT_OUT))
            _build(target, tree, [str(copies[0]), f"{copies[1]}[s3]"])
    except OSError as error:  # of the copy: a list of reasons, as text
        raise _failed(f"a copy in {tempfile.gettempdir()} failed: {error}") from error


def _from_wheels(place: Path, target: Path) -> None:
    _build(target, place, [f"--find-links={place}", "claw-entrypoint", "claw-runtime[s3]"])


def _build(target: Path, place: Path, wanted: Sequence[str]) -> None:
    python = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    pip = [str(target / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
    _run([str(python), "-m", "venv", str(target)])
    _run([*pip, *(f"--constraint={file}" for file in _constraints(place)), *wanted])
    _run([str(target / "bin" / "claw-runtime"), "--version"])  # a program that cannot even start is no installation


def _run(argv: Sequence[str]) -> None:
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _failed(str(error)) from error
    if done.returncode:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise _failed(" / ".join(lines[-_LAST_LINES:]) or f"{argv[0]} ended with {done.returncode}")


def _failed(why: str) -> InstallFailed | DiskFull:
    if re.search(r"no space left|disk quota exceeded", why, re.IGNORECASE):
        return DiskFull("no room to install claw's environment", why=why, hint="free space, then install again")
    return InstallFailed(
        "claw's environment was not built",
        why=why,
        hint="install again when the reason is gone; apt-get install python3-venv if venv is missing",
    )
