"""Copies out of a tenant's container: a tar that the engine wrote, unpacked so that no name or link in it leads away.

The tenant owns every name in that tar, and may have owned those in an earlier copy to the same place. So every step
goes through directory fds that follow no link (safefs/tree.py), a file takes the place of whatever had its name, and a
link is made only if it stays inside what is copied. Owner is who runs this; setuid, setgid and sticky bits go.
"""

import errno
import os
import secrets
import tarfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from claw_runtime.errors import ClawError, DiskFull
from claw_runtime.formats.manifest import LATEST
from claw_runtime.fsutil import NO_ROOM, room, write_all
from claw_runtime.safefs.tree import MAX_DEPTH, Cursor, Skipped, Tree

_PIECE = 1 << 20


class TornTar(Exception):
    """The tar breaks off, or is none."""


@dataclass(slots=True)
class Unpacked:
    """What was copied: number and bytes of the files, and what was left out."""

    files: int = 0
    bytes: int = 0
    skipped: list[Skipped] = field(default_factory=list)


def unpack(stream: IO[bytes], target: Path, *, name: str, contents: bool = False) -> Unpacked:
    """Write what a tar holds to `target`, as `cp -r` would.

    Args:
        stream: A tar of one file, or of one directory with everything below it.
        target: An existing directory to copy into; else the name of the copy, whose parent must exist.
        name: What the copy is called in an existing directory.
        contents: The tar holds what is in a directory, without the directory itself: it goes right into `target`.

    Raises:
        TornTar: What came before its end is written.
        DiskFull: There is no room; what was written stays.
        ClawError: `target` cannot be written to.
    """
    copied = Unpacked()
    try:
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            if contents:
                _unpack_below(tar, _rest(tar), _directory(target), copied, prefix="")
            elif (first := tar.next()) is None:
                raise TornTar("it is empty")
            elif first.isdir():
                place = _directory(target / name if target.is_dir() else target)
                _unpack_below(tar, _rest(tar), place, copied, prefix=f"{first.name.strip('/')}/")
            else:
                place = target / name if target.is_dir() else target
                first.name = place.name
                _unpack_below(tar, iter([first]), place.parent.resolve(), copied, prefix="")
    except (tarfile.TarError, EOFError) as error:
        raise TornTar(str(error)) from error
    except OSError as error:
        raise _refusal(error, target) from error
    return copied


def _rest(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members that are yet to come."""
    while (member := tar.next()) is not None:
        tar.members.clear()  # type: ignore[attr-defined]  # it remembers each, and there may be a million
        yield member


def _directory(path: Path) -> Path:
    """The directory, made if it is not there; a link of the operator's own is followed once, here."""
    with suppress(FileExistsError):
        path.mkdir()
    return path.resolve()


def _unpack_below(
    tar: tarfile.TarFile, members: Iterator[tarfile.TarInfo], root: Path, copied: Unpacked, *, prefix: str
) -> None:
    with Tree(root) as tree, tree.cursor() as cursor:
        writer = _Writer(cursor, tar, copied, free=room(root).size)
        for member in members:
            path = member.name.strip("/").removeprefix("./")
            if not path.startswith(prefix) or not _is_plain(path := path[len(prefix) :]):
                copied.skipped.append(Skipped(path=member.name, reason="its name leads out of the copied directory"))
                continue
            try:
                reason = writer.write(path, member, prefix)
            except OSError as error:
                if error.errno in NO_ROOM:
                    raise
                reason = (error.strerror or str(error)).lower()
            if reason:
                copied.skipped.append(Skipped(path=path, reason=reason))
        writer.finish()


def _is_plain(path: str) -> bool:
    parts = path.split("/")
    return not {"", ".", ".."} & set(parts) and len(parts) <= MAX_DEPTH


class _Writer:
    """Makes one entry after the other below one root."""

    def __init__(self, cursor: Cursor, tar: tarfile.TarFile, copied: Unpacked, *, free: int) -> None:
        self._cursor = cursor
        self._tar = tar
        self._copied = copied
        self._free = free
        self._made: list[tuple[str, tarfile.TarInfo]] = []
        self._files: set[str] = set()

    def write(self, path: str, member: tarfile.TarInfo, prefix: str) -> str:
        """Make one entry; why not, if it was left out. Raises `OSError`, `DiskFull`."""
        if member.isdir():
            return self._make_directory(path, member)
        if member.isreg():
            self._replace(path, lambda temporary: self._write_file(temporary, member))
            self._files.add(path)
            self._copied.files += 1
            self._copied.bytes += member.size
            return ""
        if member.issym():
            if not _stays(path, member.linkname):
                return f"a link to {member.linkname}, outside the copied directory"
            self._replace(path, lambda name: self._cursor.make_link(name, member.linkname, mtime_ns=_mtime_ns(member)))
            return ""
        if member.islnk():
            other = member.linkname.strip("/").removeprefix("./").removeprefix(prefix)
            if other not in self._files:
                return f"a hard link to {member.linkname}, which was not copied"
            self._replace(path, lambda name: self._link(other, name))
            self._files.add(path)
            self._copied.files += 1
            return ""
        return "not a file, directory or link"

    def finish(self) -> None:
        """Modes and times of the directories that were made, after everything in them."""
        for path, member in reversed(self._made):
            self._cursor.finish_directory(path, mode=member.mode, mtime_ns=_mtime_ns(member))

    def _make_directory(self, path: str, member: tarfile.TarInfo) -> str:
        try:
            self._cursor.make_directory(path)
        except FileExistsError:
            parent, name = self._cursor.parent(path)
            os.close(os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent))
        else:
            self._made.append((path, member))
        return ""

    def _write_file(self, path: str, member: tarfile.TarInfo) -> None:
        if member.size > self._free:
            raise OSError(errno.ENOSPC, f"{member.name} has {member.size} bytes; {self._free} bytes are free")
        self._free -= member.size
        source = self._tar.extractfile(member)
        assert source is not None  # noqa: S101 - it is a regular file
        with self._cursor.creating(path, mode=member.mode, mtime_ns=_mtime_ns(member)) as fd:
            while piece := source.read(_PIECE):
                write_all(fd, piece)

    def _link(self, other: str, path: str) -> None:
        """Beside `other`, which this copy wrote, so that both stay one file."""
        parent, name = self._cursor.parent(other)
        held = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            parent, name = self._cursor.parent(path)
            os.link(f"/proc/self/fd/{held}", name, dst_dir_fd=parent, follow_symlinks=True)
        finally:
            os.close(held)

    def _replace(self, path: str, make: Callable[[str], None]) -> None:
        """Make something under another name beside it, then let it take its place; a link there is not followed."""
        directory, separator, name = path.rpartition("/")
        temporary = f"{directory}{separator}.claw-{secrets.token_hex(6)}"
        try:
            make(temporary)
            parent, made = self._cursor.parent(temporary)
            os.replace(made, name, src_dir_fd=parent, dst_dir_fd=parent)
        finally:
            with suppress(OSError):  # gone, unless something went wrong, or both names are one file
                parent, made = self._cursor.parent(temporary)
                os.unlink(made, dir_fd=parent)


def _stays(path: str, target: str) -> bool:
    """Whether a link resolves inside the tree, whatever other such links are in it.

    Climbing is safe only at the beginning, where the way up is made of true directories.
    """
    parts = [part for part in target.split("/") if part not in ("", ".")]
    climbs = next((n for n, part in enumerate(parts) if part != ".."), len(parts))
    return not target.startswith("/") and climbs <= path.count("/") and ".." not in parts[climbs:]


def _mtime_ns(member: tarfile.TarInfo) -> int:
    """What the file system takes: a tenant can set any time, and a tar holds more than there is."""
    if not 0 < member.mtime < LATEST / 1e9:
        return 0
    return int(member.mtime * 1_000_000_000)


def _refusal(error: OSError, target: Path) -> ClawError:
    if error.errno in NO_ROOM:
        return DiskFull(
            f"not enough disk space to copy to {target}",
            why=error.strerror or str(error),
            hint="free some space, or copy to another disk; the files written so far remain",
        )
    return ClawError(
        f"cannot copy to {target}",
        why=(error.strerror or str(error)).lower(),
        hint="name an existing directory, or a new name in one",
    )
