"""Opens a name below a directory fd for `safefs`: without following links, without blocking, with any mode.

Only `safefs` uses this module to open anything; nothing else opens files in a tenant's tree.
"""

import errno
import os
import stat
from pathlib import Path
from typing import Final

Attributes = tuple[tuple[str, bytes], ...]

AT_FDCWD: Final = -100
"""In place of a directory fd: the name is an ordinary path of this process."""
DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_REFUSALS: Final = {errno.ENOTSUP, errno.E2BIG, errno.ERANGE}
_PLENTY: Final = 1024 * 1024
_HANDLE: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class NotRegular(OSError):
    """The name is not a regular file but a link, directory, fifo, socket or device."""


def attributes(fd: int) -> Attributes:
    """The `user.*` extended attributes of an open file or directory, by name; empty if there are none."""
    try:
        names = os.listxattr(fd)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return ()
        raise
    found = [name for name in sorted(names) if name.startswith("user.")]
    if not found:
        return ()
    try:
        return tuple((name, os.getxattr(fd, name)) for name in found)
    except PermissionError:  # the kernel asks the mode again, although the file is open
        mode = stat.S_IMODE(os.fstat(fd).st_mode)
        os.fchmod(fd, mode | 0o400)
        try:
            return tuple((name, os.getxattr(fd, name)) for name in found)
        finally:
            os.fchmod(fd, mode)


def annotate(fd: int, xattrs: Attributes) -> list[tuple[str, str]]:
    """Set the `user.*` extended attributes of an open file or directory; which the file system refused, and why.

    Raises:
        OSError: Another error, also a disk that is full.
    """
    refused = []
    for name, value in xattrs:
        if not name.startswith("user."):
            continue
        try:
            os.setxattr(fd, name, value)
        except OSError as error:
            if error.errno not in _REFUSALS and not (error.errno == errno.ENOSPC and _has_room(fd)):
                raise
            refused.append((name, (error.strerror or str(error)).lower()))
    return refused


def _has_room(fd: int) -> bool:
    """Whether a disk has room, so that ENOSPC is the limit of a file system for the attributes of one name."""
    left = os.fstatvfs(fd)
    return left.f_bavail * left.f_frsize > _PLENTY


class Directory:
    """An open directory that can be read and searched; missing permissions are added while it is open."""

    __slots__ = ("_mode", "fd")

    def __init__(self, name: str, parent: int, *, bits: int = 0o500) -> None:
        self.fd = open_directory(name, parent)
        mode = stat.S_IMODE(os.fstat(self.fd).st_mode)
        self._mode = mode if mode & bits != bits else None
        if self._mode is not None:
            try:
                os.fchmod(self.fd, mode | bits)
            except BaseException:
                os.close(self.fd)
                raise

    @property
    def is_forced(self) -> bool:
        """Whether permissions are added while it is open."""
        return self._mode is not None

    def close(self) -> None:
        try:
            if self._mode is not None:
                os.fchmod(self.fd, self._mode)
        finally:
            os.close(self.fd)


def names(fd: int) -> list[str]:
    """Names in byte order, which is that of their text unless one of them is no UTF-8."""
    found = os.listdir(fd)
    found.sort()
    if not all(map(str.isascii, found)):
        found.sort(key=os.fsencode)
    return found


def open_directory(name: str, parent: int) -> int:
    try:
        return os.open(name, DIRECTORY, dir_fd=parent)
    except PermissionError:
        return _open_forced(name, parent, DIRECTORY & ~os.O_NOFOLLOW, 0o700)


def open_regular(name: str, parent: int) -> tuple[int, os.stat_result]:
    try:
        fd = os.open(name, _READ, dir_fd=parent)
    except PermissionError:
        fd = _open_forced(name, parent, _READ & ~os.O_NOFOLLOW, 0o400)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENXIO}:
            raise NotRegular(errno.EINVAL, "not a regular file", name) from error
        raise
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        raise NotRegular(errno.EINVAL, "not a regular file", name)
    return fd, status


def _open_forced(name: str, parent: int, flags: int, bits: int) -> int:
    """Open a file or directory of this user despite its mode, which stays unchanged.

    The /proc link of an O_PATH handle names the inode, not the path: a swap of the name changes nothing.
    """
    handle = os.open(name, _HANDLE, dir_fd=parent)
    try:
        mode = os.fstat(handle).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise NotRegular(errno.EINVAL, "not a regular file", name)
        inode = Path(f"/proc/self/fd/{handle}")
        inode.chmod(stat.S_IMODE(mode) | bits)
        try:
            return os.open(inode, flags)
        finally:
            inode.chmod(stat.S_IMODE(mode))
    finally:
        os.close(handle)
