"""The few file-system calls that Python lacks or makes easy to get wrong: whole-file writes, syncfs, room left."""

import ctypes
import errno
import hashlib
import os
import resource
import secrets
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_RENAME_NOREPLACE: Final = 1
_PAGE: Final = 4096
_ZEROS: Final = bytes(_PAGE)
_SOME_ZEROS: Final = bytes(256 * 1024)
_WAIT_BEFORE: Final = 1  # for pages that are on their way: one that is dirty again would be passed over
_WRITE: Final = 2
_STATFS: Final = 256  # bytes that are enough for `struct statfs`
_OVERLAY: Final = 0x794C7630
PERMISSIONS: Final = 0o777  # setuid, setgid and sticky mean nothing in a tenant's state and are never carried
NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What an unprivileged writer may still use of a file system.

    Attributes:
        size: Bytes.
        files: Inodes, or None where the file system does not count them (btrfs).
    """

    size: int
    files: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """What changes when a file's content does; two equal stamps around a read mean that the read was whole."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


def room(path: Path) -> Room:
    """Room left where `path` lies. Raises `OSError`."""
    answer = os.statvfs(path)
    return Room(size=answer.f_bavail * answer.f_frsize, files=answer.f_favail if answer.f_files else None)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable. Raises `OSError`."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_tree(path: Path) -> None:
    """Make a directory and everything below it durable. Raises `OSError`."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync_file_system(fd)
    finally:
        os.close(fd)


def sync_file_system(fd: int) -> None:
    """Make everything on the file system of `fd` durable, at once.

    One call at the end of a restore costs 22 ms where an fsync a file costs 8 s for 10,000 files
    (measured on ext4). Raises `OSError`, also for a write that failed earlier.
    """
    if _LIBC.syncfs(fd) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def write_back(fd: int) -> None:
    """Begin to write the dirty pages of an open file to the disk, without waiting for the disk.

    The kernel makes them read-only for that, so that the next write through a shared mapping sets the file's time.
    While a page stays dirty, only its first write does. It has no effect in memory (tmpfs) and on overlayfs. An error
    is the concern of the program that wrote: what it wrote can still be read.
    """
    _LIBC.sync_file_range(fd, ctypes.c_int64(0), ctypes.c_int64(0), _WAIT_BEFORE | _WRITE)


def is_overlay(fd: int) -> bool:
    """Whether a file or directory lies on overlayfs, whose files have their pages elsewhere. Raises `OSError`."""
    answer = ctypes.create_string_buffer(_STATFS)
    if _LIBC.fstatfs(fd, answer) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return ctypes.c_long.from_buffer(answer).value == _OVERLAY


def rename_new(source: str, target: str, *, source_fd: int, target_fd: int) -> None:
    """Rename below two directory fds, never over an existing name.

    Raises:
        FileExistsError: `target` is taken; nothing happened.
        OSError: Anything else that the kernel refuses.
    """
    if _LIBC.renameat2(source_fd, os.fsencode(source), target_fd, os.fsencode(target), _RENAME_NOREPLACE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), source, None, target)


def write_atomic(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Replace a file's content whole or not at all, durably; a reader sees the old bytes or the new ones.

    Raises:
        OSError: The old content is untouched.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        write_new(temporary, data, mode=mode)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    sync_directory(path.parent)


def write_new(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Create a file that must not exist yet and make its bytes durable. Raises `OSError`."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        write_all(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes | memoryview, *, offset: int | None = None) -> None:
    """Write every byte; `os.write` may stop early. At `offset` when one is given. Raises `OSError`."""
    view = memoryview(data)
    done = 0
    while done < len(view):
        rest = view[done:]
        done += os.write(fd, rest) if offset is None else os.pwrite(fd, rest, offset + done)


def write_sparse(fd: int, data: bytes, offset: int) -> None:
    """Write at `offset` of a file that reads as zeros there; whole pages of zeros are left out. Raises `OSError`."""
    view, start = memoryview(data), 0
    for at in range(0, len(data), _PAGE):
        if data[at : at + _PAGE] == _ZEROS:
            write_all(fd, view[start:at], offset=offset + start)
            start = at + _PAGE
    write_all(fd, view[start:], offset=offset + start)


def pages_written(data: bytes) -> int:
    """How many pages `write_sparse` writes of this."""
    return sum(data[at : at + _PAGE] != _ZEROS for at in range(0, len(data), _PAGE))


def read_exactly(source: IO[bytes], size: int, *, last: bool = True) -> bytes:
    """`size` bytes of a stream, however it gives them; the `last` ones that it has, unless more are to be read.

    Raises:
        EOFError: It ended before the last, or continues after it.
    """
    parts, missing = [], size
    while missing and (part := source.read(missing)):
        parts.append(part)
        missing -= len(part)
    if missing or (last and source.read(1)):
        raise EOFError(f"{size} bytes were promised, {'fewer' if missing else 'more'} came")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def no_room(error: BaseException | None) -> bool:
    """Whether an error, or anything that it was raised from, says that a disk or quota is full."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            return True
        error = error.__cause__ or error.__context__
    return False


def stamp(fd: int) -> Stamp:
    """The stamp of an open file."""
    status = os.fstat(fd)
    return Stamp(inode=status.st_ino, size=status.st_size, mtime_ns=status.st_mtime_ns, ctime_ns=status.st_ctime_ns)


def finish(fd: int, *, mode: int, mtime_ns: int) -> None:
    """Set permissions and time of an open file or directory; only `PERMISSIONS` are kept. Raises `OSError`."""
    if stat.S_IMODE(os.fstat(fd).st_mode) != mode & PERMISSIONS:  # a look costs a tenth of a change (measured)
        os.fchmod(fd, mode & PERMISSIONS)
    os.utime(fd, ns=(mtime_ns, mtime_ns))


def chunks(fd: int, size: int, most: int | None = None) -> Iterator[bytes]:
    """An open file from its beginning in pieces of `size` bytes, the last one shorter; nothing for an empty file.

    Args:
        most: Bytes to read at most; a file that grows meanwhile is not read to its end then.
    """
    offset = 0
    while piece := read_at(fd, size if most is None else min(size, most - offset), offset):
        yield piece
        offset += len(piece)


def cut(fd: int, size: int, chunk: int, *, holes: bool) -> Iterator[tuple[bytes, int]]:
    """The first `size` bytes of an open file, cut at multiples of `chunk`: each piece and its length.

    Args:
        holes: Whether what was never written is given as a piece of no bytes and its length, as far as whole chunks of
            it were not.
    """
    at = 0
    for start, end in _written(fd, size, chunk) if holes else ((0, size),):
        if start > at:
            yield b"", start - at
        for offset in range(start, end, chunk):
            if not (piece := read_at(fd, min(chunk, size - offset), offset)):
                return
            yield piece, len(piece)
        at = end
    if at < size:
        yield b"", size - at


def _written(fd: int, size: int, chunk: int) -> Iterator[tuple[int, int]]:
    """The parts of a file that may hold data, in whole chunks."""
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        end = os.lseek(fd, start, os.SEEK_HOLE)
        start, at = max(at, start - start % chunk), min(size, end + -end % chunk)
        yield start, at


def reads_as_zeros(fd: int, start: int, end: int) -> bool:
    """Whether an open file has only zeros between two offsets; holes are not read."""
    at = start
    while at < end:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole follows
                return True
            raise
        until = min(end, os.lseek(fd, at, os.SEEK_HOLE))
        while at < until:
            piece = os.pread(fd, min(len(_SOME_ZEROS), until - at), at)
            if not piece or piece != _SOME_ZEROS[: len(piece)]:
                return False
            at += len(piece)
    return True


def hash_zeros(digest: "hashlib._Hash", count: int) -> None:
    """Put so many zeros into a digest."""
    zeros = bytes(min(count, 1024 * 1024))
    for _ in range(count // len(zeros)):
        digest.update(zeros)
    digest.update(zeros[: count % len(zeros)])


def read_at(fd: int, size: int, offset: int) -> bytes:
    """`size` bytes of an open file from `offset`; fewer if it ends before. Raises `OSError`."""
    parts: list[bytes] = []
    missing = size
    while missing and (part := os.pread(fd, missing, offset + size - missing)):
        parts.append(part)
        missing -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def open_files(wanted: int) -> int:
    """Raise the number of files that this process may have open to `wanted`, as far as this user may; the result.

    A usual soft limit of 1,024 is for programs that use `select`.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    if soft != resource.RLIM_INFINITY and soft < most:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        except OSError:  # a filter of system calls
            return soft
        return most
    return wanted if soft == resource.RLIM_INFINITY else soft
