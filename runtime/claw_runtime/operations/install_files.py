"""Where an installation of one user lies, and how its files and links are written."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from claw_runtime.errors import DiskFull, InstallFailed
from claw_runtime.fsutil import NO_ROOM, write_atomic

Action = Literal["write", "unchanged", "keep", "remove"]


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallPaths:
    """Where an installation of this user lies.

    Attributes:
        data: `$XDG_DATA_HOME/claw`.
        config: `$XDG_CONFIG_HOME`.
        commands: A directory on the PATH of login shells.
    """

    data: Path
    config: Path
    commands: Path

    @property
    def link(self) -> Path:
        """The link to the environment that is used."""
        return self.data / "venv"

    @property
    def environments(self) -> Path:
        """All environments, by the digest of what is in them."""
        return self.data / "venvs"

    @property
    def record(self) -> Path:
        """What is installed for which data directory; written before the first unit, and removed last."""
        return self.data / "install.json"

    def unit(self, name: str) -> Path:
        """A unit's file."""
        return self.config / "systemd" / "user" / name


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One file of an installation, and what happens to it."""

    path: Path
    text: str
    action: Action


def remove(file: File) -> None:
    """Remove a file if that is its action."""
    if file.action == "remove":
        file.path.unlink(missing_ok=True)


class Staged:
    """Files and links that lie beside the names that they will have."""

    def __init__(self) -> None:
        self._made: list[tuple[Path, Path]] = []

    def text(self, path: Path, text: str) -> None:
        """Make a file ready. Raises `DiskFull`, `InstallFailed`."""
        write(self._beside(path), text)

    def link(self, path: Path, target: Path) -> None:
        """Make a link ready. Raises `DiskFull`, `InstallFailed`."""
        new = self._beside(path)
        with told(path):
            new.unlink(missing_ok=True)
            new.symlink_to(target)

    def _beside(self, path: Path) -> Path:
        with told(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".{path.name}.new")
        self._made.append((new, path))
        return new

    def settle(self) -> None:
        """Give each its name, which takes no room."""
        for new, path in self._made:
            with told(path):
                new.replace(path)

    def drop(self) -> None:
        """Remove what has not got its name."""
        for new, _ in self._made:
            with suppress(OSError):
                new.unlink(missing_ok=True)


@contextmanager
def staging() -> Iterator[Staged]:
    """Files that all get their names when the block ends, or of which none is left when it fails."""
    staged = Staged()
    try:
        yield staged
        staged.settle()
    finally:
        staged.drop()


def write(path: Path, text: str) -> None:
    """Replace a file whole. Raises `DiskFull`, `InstallFailed`."""
    with told(path):
        write_atomic(path, text.encode(), mode=0o600 if path.suffix == ".json" else 0o644)


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Turn what the file system refuses about a path into `DiskFull` or `InstallFailed`."""
    try:
        yield
    except OSError as error:
        problem = DiskFull if error.errno in NO_ROOM else InstallFailed
        raise problem(
            f"{path} cannot be written", why=error.strerror or str(error), hint="remove the reason, then install again"
        ) from error


def point(link: Path, target: Path) -> None:
    """Make a link at once: a program that follows it meanwhile finds the old target or the new one.

    Raises:
        DiskFull, InstallFailed: It cannot be made; the old one stays.
    """
    if target_of(link) == target:
        return
    new = link.with_name(f".{link.name}.{os.getpid()}")
    with told(link):
        new.unlink(missing_ok=True)
        new.symlink_to(target)
        new.replace(link)


def target_of(link: Path) -> Path | None:
    """Where a link leads; None for anything else."""
    return link.readlink() if link.is_symlink() else None


def text_of(path: Path) -> str | None:
    """A file's text; None where there is none."""
    try:
        return path.read_text("utf-8", "replace")
    except FileNotFoundError:
        return None
