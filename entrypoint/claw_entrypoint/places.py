"""Files and directories where a tenant may have planted something: every step is one name below an open directory.

A tenant writes below /state between two starts, and what it leaves there decides nothing here: no symlink is
followed, no special file is opened for good, no recursion is as deep as a tree that it made.
"""

import os
import stat

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC  # non-blocking, so that a FIFO does not hold PID 1 for ever
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def aside(kind: str) -> str:
    """A name that nobody has foreseen."""
    return f".claw-{kind}-{os.urandom(8).hex()}"


def open_directory(prefix: str, path: str, *, create: bool = False) -> int:
    """Open a directory, each component of `path` without following a symlink; `prefix` is trusted.

    Raises:
        OSError: A component is missing (with `create`: cannot be made, mode 0700 and umask) or is not a directory.
    """
    here = os.open(prefix or "/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for name in path.strip("/").split("/"):
        try:
            there = _enter(name, here, create=create)
        finally:
            os.close(here)
        here = there
    return here


def _enter(name: str, directory: int, *, create: bool) -> int:
    try:
        return os.open(name, _DIRECTORY, dir_fd=directory)
    except FileNotFoundError:
        if not create:
            raise
        os.mkdir(name, 0o700, dir_fd=directory)
    return os.open(name, _DIRECTORY, dir_fd=directory)


def read_file(path: str, *, directory: int | None = None, limit: int = 1 << 20) -> bytes:
    """Content of a regular file of at most `limit` bytes; below `directory`, a symlink is not followed.

    Raises:
        OSError: It cannot be read, or is something else; `strerror` says what.
    """
    file = os.open(path, _READ | (os.O_NOFOLLOW if directory is not None else 0), dir_fd=directory)
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "not a regular file", path)
        if directory is not None and status.st_uid != os.geteuid():
            raise OSError(0, f"owned by uid {status.st_uid}, not by {os.geteuid()}", path)
        parts, size = [], 0
        while block := os.read(file, 1 << 16):
            parts.append(block)
            size += len(block)
            if size > limit:
                raise OSError(0, f"more than {limit} bytes", path)
        return b"".join(parts)
    finally:
        os.close(file)


def write_file(name: str, directory: int, content: bytes) -> None:
    """Put a 0600 file under `name` in one step, replacing a file or link but never writing through one.

    Raises:
        OSError: There is no room, no right, or a directory or mount point has the name.
    """
    temporary = aside("new")
    file = os.open(temporary, _CREATE, 0o600, dir_fd=directory)
    try:
        try:
            while content:
                content = content[os.write(file, content) :]
        finally:
            os.close(file)
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError:
        os.unlink(temporary, dir_fd=directory)
        raise


def empty(directory: int, mounts: list[str] | None = None) -> list[str]:
    """Delete everything in an open directory, and return what refused: `name: reason`.

    Directories are renamed up to the top before they are looked into, so a tree of any depth needs two descriptors.
    Mount points stay, with all that is in them, and so do the directories on the way to them.

    Args:
        mounts: Relative paths of the mount points below; by default the kernel's own list of them.
    """
    kept: dict[str, str] = {}
    while names := [name for name in os.listdir(directory) if name not in kept]:
        mounts = _mounts_below(directory) if mounts is None else mounts
        for name in names:
            deeper = [mount[len(name) + 1 :] for mount in mounts if mount.startswith(name + "/")]
            try:
                if name in mounts:
                    kept[name] = f"{name}: mount point"
                elif deeper:
                    kept[name] = "; ".join(f"{name}/{refused}" for refused in _empty_child(name, directory, deeper))
                else:
                    _delete(name, directory)
            except OSError as error:
                kept[name] = f"{name}: {error.strerror}"
    return list(kept.values())


def drop(directory: int, ending: str, levels: int) -> None:
    """Delete what has a name of this ending in an open directory, and in so many levels of directories below it.

    Raises:
        OSError: The directory cannot be read; what cannot be deleted stays.
    """
    for name in os.listdir(directory):
        try:
            if name.endswith(ending):
                _delete(name, directory)
            elif levels and stat.S_ISDIR(os.lstat(name, dir_fd=directory).st_mode):
                below = _enter(name, directory, create=False)
                try:
                    drop(below, ending, levels - 1)
                finally:
                    os.close(below)
        except OSError:
            continue


def _empty_child(name: str, directory: int, mounts: list[str]) -> list[str]:
    child = os.open(name, _DIRECTORY, dir_fd=directory)
    try:
        return empty(child, mounts)
    finally:
        os.close(child)


def _mounts_below(directory: int) -> list[str]:
    """Mount points below an open directory, relative to it: a rename would move them, a deletion empty them."""
    try:
        top = os.readlink(f"/proc/self/fd/{directory}").rstrip("/") + "/"
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            points = [line.split(" ")[4] for line in file]
    except OSError:
        return []
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        points = [point.replace(code, character) for point in points]
    return [point[len(top) :] for point in points if point.startswith(top)]


def _delete(name: str, top: int) -> None:
    """Delete a file, or a directory after moving the directories in it up to `top`."""
    if not stat.S_ISDIR(os.lstat(name, dir_fd=top).st_mode):
        os.unlink(name, dir_fd=top)
        return
    _unlock(name, top)
    doomed = aside("old")
    os.rename(name, doomed, src_dir_fd=top, dst_dir_fd=top)
    try:
        _hoist(doomed, top)
        os.rmdir(doomed, dir_fd=top)
    except OSError:
        os.rename(doomed, name, src_dir_fd=top, dst_dir_fd=top)  # what refused to go stays where it was found
        raise


def _hoist(name: str, top: int) -> None:
    directory, refusal = os.open(name, _DIRECTORY, dir_fd=top), None
    try:
        for child in os.listdir(directory):
            try:
                if stat.S_ISDIR(os.lstat(child, dir_fd=directory).st_mode):
                    _unlock(child, directory)
                    os.rename(child, aside("old"), src_dir_fd=directory, dst_dir_fd=top)
                else:
                    os.unlink(child, dir_fd=directory)
            except OSError as error:
                refusal = error
    finally:
        os.close(directory)
    if refusal:
        raise refusal


def _unlock(name: str, directory: int) -> None:
    """Give the owner of a directory the rights that moving and emptying it takes."""
    handle = os.open(name, os.O_PATH | _DIRECTORY, dir_fd=directory)
    try:
        if os.fstat(handle).st_mode & 0o700 != 0o700:
            os.chmod(f"/proc/self/fd/{handle}", 0o700)
    finally:
        os.close(handle)
