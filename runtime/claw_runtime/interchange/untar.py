"""Unpacks a tar: a copy out of a tenant's container, or a state, so that nothing is written elsewhere.

The tenant owns every name in that tar, and may have owned those in an earlier copy to the same place. So every step
uses directory fds that follow no link (safefs/tree.py), and a file replaces whatever had its name. In a copy, a link is
made only if it stays inside what is copied. In a state, links are data: each is made as it is, and never followed.
The owner is the user of this process; setuid, setgid and sticky bits are dropped.
"""

import errno
import os
import secrets
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from claw_runtime.errors import ClawError, DiskFull
from claw_runtime.fsutil import NO_ROOM, pages_written, room, write_all, write_sparse
from claw_runtime.interchange.pax import mtime_of, xattrs_of
from claw_runtime.safefs.opening import Attributes, annotate
from claw_runtime.safefs.tree import MAX_DEPTH, Cursor, Skipped, Tree

_PIECE = 1 << 20
_ZEROS = bytes(4096)
_NO_ENTRY = 0o755
"""Mode of a directory that the tar has no entry of."""


class TornTar(Exception):
    """The tar breaks off, or is none."""


@dataclass(slots=True)
class Unpacked:
    """What was copied: number and bytes of the files, and what was left out."""

    files: int = 0
    bytes: int = 0
    skipped: list[Skipped] = field(default_factory=list)


def unpack(stream: IO[bytes], target: Path, *, name: str, contents: bool = False, state: bool = False) -> Unpacked:
    """Write what a tar holds to `target`, as `cp -r` would.

    Args:
        stream: A tar of one file, or of one directory with everything below it.
        target: An existing directory to copy into; else the name of the copy, whose parent must exist.
        name: What the copy is called in an existing directory.
        contents: The tar holds what is in a directory, without the directory itself: it goes right into `target`.
        state: The tar is a state: links that lead elsewhere are kept.

    Raises:
        TornTar: What came before its end is written.
        DiskFull: There is no room; what was written stays.
        ClawError: `target` cannot be written to.
    """
    copied = Unpacked()
    try:
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            if contents:
                _unpack_below(tar, _rest(tar), _directory(target), copied, prefix="", state=state)
            elif (first := tar.next()) is None:
                raise TornTar("it is empty")
            elif first.isdir():
                place = _directory(target / name if target.is_dir() else target)
                _unpack_below(tar, _rest(tar), place, copied, prefix=f"{first.name.strip('/')}/")
            else:
                place = target / name if target.is_dir() else target
                first.name = place.name
                _unpack_below(tar, iter([first]), place.parent.resolve(), copied, prefix="")
    except (tarfile.TarError, EOFError, UnicodeError) as error:
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
    tar: tarfile.TarFile,
    members: Iterator[tarfile.TarInfo],
    root: Path,
    copied: Unpacked,
    *,
    prefix: str,
    state: bool = False,
) -> None:
    with Tree(root) as tree, tree.cursor() as cursor:
        writer = _Writer(cursor, tar, copied, free=room(root).size, state=state)
        for member in members:
            _correct(member)
            path = _inside(member.name, prefix)
            if path == "" and not prefix:
                continue  # the directory itself, which is there
            if not path:
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


def _correct(member: tarfile.TarInfo) -> None:
    """Give a file with holes its own name and size, which `tarfile` takes from the last record that has one."""
    records = member.pax_headers
    if member.sparse is not None:
        member.name = records.get("GNU.sparse.name", member.name)
        with suppress(ValueError):
            member.size = int(records.get("GNU.sparse.realsize", member.size))


def _inside(name: str, prefix: str) -> str | None:
    """The path of a member below the directory `prefix`, or below the root of the tar, whose names may begin with `./`;
    None if it leads elsewhere or too deep."""
    path = name.strip("/")
    if not prefix:
        path = "/".join(step for step in path.split("/") if step not in ("", "."))
    elif path.startswith(prefix):
        path = path.removeprefix(prefix)
        if {"", "."} & set(path.split("/")):
            return None
    else:
        return None
    steps = path.split("/")
    return None if ".." in steps or len(steps) > MAX_DEPTH else path


class _Writer:
    """Makes one entry after the other below one root."""

    def __init__(self, cursor: Cursor, tar: tarfile.TarFile, copied: Unpacked, *, free: int, state: bool) -> None:
        self._cursor = cursor
        self._tar = tar
        self._copied = copied
        self._free = free
        self._state = state
        self._made: dict[str, tarfile.TarInfo | None] = {}
        self._names: set[str] = set()

    def write(self, path: str, member: tarfile.TarInfo, prefix: str) -> str:
        """Make one entry; why not, if it was left out. Raises `OSError`, `DiskFull`."""
        if member.isdir():
            return self._make_directory(path, member)
        if member.issym() and not self._state and not _stays(path, member.linkname):
            return f"a link to {member.linkname}, outside the copied directory"
        if not (member.isreg() or member.issym() or member.islnk()):
            return "not a file, directory or link"
        other = _inside(member.linkname, prefix) if member.islnk() else None
        if member.islnk() and other not in self._names:
            return f"a hard link to {member.linkname}, which was not copied"
        self._make_parents(path)
        if member.issym():
            self._replace(path, lambda name: self._cursor.make_link(name, member.linkname, mtime_ns=_mtime_ns(member)))
        elif other is not None:
            self._replace(path, lambda name: self._link(other, name))
        else:
            self._replace(path, lambda name: self._write_file(name, member))
            self._copied.bytes += member.size
        self._names.add(path)
        self._copied.files += not member.issym()
        return ""

    def finish(self) -> None:
        """Modes and times of the directories that were made, after everything in them."""
        for path, member in sorted(self._made.items(), reverse=True):
            mode, mtime_ns = (member.mode, _mtime_ns(member)) if member else (_NO_ENTRY, time.time_ns())
            if member is not None and (xattrs := xattrs_of(member.pax_headers)):
                with self._cursor.directory(path) as fd:
                    self._annotate(path, fd, xattrs)
            self._cursor.finish_directory(path, mode=mode, mtime_ns=mtime_ns)

    def _make_parents(self, path: str) -> None:
        """Make the directories above a name that the tar has no entry of, or only a later one."""
        above, _, _ = path.rpartition("/")
        if not above or above in self._made:
            return
        try:
            self._cursor.parent(path)
        except FileNotFoundError:
            self._make_parents(above)
            with suppress(FileExistsError):
                self._cursor.make_directory(above)
                self._made[above] = None

    def _make_directory(self, path: str, member: tarfile.TarInfo) -> str:
        self._make_parents(path)
        try:
            self._cursor.make_directory(path)
        except FileExistsError:
            with self._cursor.directory(path):  # and not a link or file of that name
                pass
            if path not in self._made:  # it was there before
                return ""
        self._made[path] = member
        return ""

    def _write_file(self, path: str, member: tarfile.TarInfo) -> None:
        holes: list[tuple[int, int]] | None = member.sparse  # type: ignore[assignment]  # the stubs have bytes
        parts = [(0, member.size)] if holes is None else [(at, size) for at, size in holes if size > 0]
        source = self._source(member)
        with self._cursor.creating(path, mode=member.mode, mtime_ns=_mtime_ns(member)) as fd:
            for at, size in parts:
                self._copy(member, source, fd, at, size)
            os.truncate(fd, member.size)  # it may end with a hole
            self._annotate(path, fd, xattrs_of(member.pax_headers))

    def _copy(self, member: tarfile.TarInfo, source: IO[bytes], fd: int, at: int, size: int) -> None:
        """Copy one part of a file to its place; its pages of zeros become holes. Raises `EOFError` when there is less,
        and `OSError` before the first piece for which there is no room."""
        while size:
            if not (piece := source.read(min(size, _PIECE))):
                raise EOFError("unexpected end of data")
            may_have_holes = _ZEROS in piece
            need = pages_written(piece) * len(_ZEROS) if may_have_holes else len(piece)
            if need > self._free:
                raise OSError(errno.ENOSPC, f"{member.name} has {member.size} bytes; there is no room for all of it")
            self._free -= need
            if may_have_holes:
                write_sparse(fd, piece, at)
            else:
                write_all(fd, piece, offset=at)
            at, size = at + len(piece), size - len(piece)

    def _source(self, member: tarfile.TarInfo) -> IO[bytes]:
        """The stored bytes of a file: those of one with holes without them, which `extractfile` would fill."""
        if member.sparse is None:
            source = self._tar.extractfile(member)
            assert source is not None  # noqa: S101 - it is a regular file
            return source
        stream = self._tar.fileobj
        assert stream is not None  # noqa: S101 - it is open
        stream.seek(member.offset_data)
        return stream  # type: ignore[return-value]  # it can read

    def _annotate(self, path: str, fd: int, xattrs: Attributes) -> None:
        for name, why in annotate(fd, xattrs):
            self._copied.skipped.append(Skipped(path=path, reason=f"without its attribute {name}: {why}"))

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
    return mtime_of(member.pax_headers, member.mtime)


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
