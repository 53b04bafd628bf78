"""Objects as files below a directory: the same keys and the same promises as S3, without any server.

Put-if-absent is link(2) of a finished temporary file, compare-and-swap a rename under flock(2); both hold between
processes, and between hosts on a file system that keeps flock honest there. A key that is a file cannot also be a
directory (`x` beside `x/y`), which no layout of claw needs.
"""

import errno
import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from claw_runtime.errors import BucketMissing, ClawError, StoreDenied, StoreUnavailable
from claw_runtime.fsutil import no_room, sync_directory, write_new
from claw_runtime.objects.keys import checked_key, checked_prefix
from claw_runtime.ports import ObjectInfo, ObjectMissing, PreconditionFailed

_TEMPORARY = "+tmp"  # `+` is in no key
_LOCK = "+lock"
_PART = 1 << 20


class DirectoryStore:
    """An `ObjectStore` in a directory that exists. Etags are the SHA-256 of the content, so a listing has none.

    Raises:
        BucketMissing: There is no such directory.
        StoreDenied: This user may not write to it.
    """

    def __init__(self, root: Path) -> None:
        self.url = root.as_uri()
        self._root = root
        with _told(self.url):
            if not root.is_dir():
                raise FileNotFoundError(errno.ENOENT, "no such directory", str(root))
            (root / _TEMPORARY).mkdir(mode=0o700, exist_ok=True)

    def get(self, key: str) -> tuple[bytes, str]:
        with _told(self.url, key):
            data = self._path(key).read_bytes()
            return data, _etag(data)

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        with _told(self.url, key), self._path(key).open("rb") as file:
            file.seek(offset)
            return file.read(length)

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        path = self._path(key)
        with _told(self.url, key, writing=True):
            temporary = self._root / _TEMPORARY / secrets.token_hex(16)
            try:
                write_new(temporary, data, mode=0o600)
                self._make_parents(path.parent)
                with self._locked():
                    self._place(temporary, path, if_absent=if_absent, if_match=if_match)
                sync_directory(path.parent)
            finally:
                with suppress(OSError):
                    temporary.unlink(missing_ok=True)
        return _etag(data)

    def send(self, key: str, source: IO[bytes], size: int) -> None:
        path = self._path(key)
        with _told(self.url, key, writing=True):
            temporary = self._root / _TEMPORARY / secrets.token_hex(16)
            try:
                with temporary.open("xb") as file:
                    shutil.copyfileobj(source, file, _PART)
                    _check_size(file.tell(), size)
                    file.flush()
                    os.fsync(file.fileno())
                self._make_parents(path.parent)
                _replace(temporary, path)
                sync_directory(path.parent)
            finally:
                with suppress(OSError):
                    temporary.unlink(missing_ok=True)

    def fetch(self, key: str, size: int, sink: Callable[[int, memoryview], None]) -> None:
        with _told(self.url, key):
            file = self._path(key).open("rb")
        with file:
            for offset in range(0, size, _PART):
                with _told(self.url, key):
                    piece = file.read(min(_PART, size - offset))
                sink(offset, memoryview(piece))

    def delete(self, key: str, *, if_match: str | None = None) -> None:
        path = self._path(key)
        with _told(self.url, key, writing=True), self._locked():
            if if_match is not None and self._current(path) != if_match:
                raise PreconditionFailed(key)
            try:
                path.unlink()
            except (FileNotFoundError, NotADirectoryError):
                return
            sync_directory(path.parent)

    def remove_unfinished(self, age: float) -> int:
        removed, folder = 0, self._root / _TEMPORARY
        with _told(self.url):
            clock = folder / secrets.token_hex(16)
            clock.touch(mode=0o600)
            now = clock.stat().st_mtime  # of the file system's host, as the times of the others
            clock.unlink()
            with os.scandir(folder) as found:
                for item in found:
                    with suppress(FileNotFoundError):  # it has just been finished
                        if item.is_file(follow_symlinks=False) and now - item.stat().st_mtime >= age:
                            Path(item.path).unlink()
                            removed += 1
        return removed

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        start = checked_prefix(prefix).rpartition("/")[0]
        with _told(self.url):
            for key in self._keys(start):
                if key.startswith(prefix) and key > after:
                    try:
                        status = (self._root / key).stat()
                    except FileNotFoundError:
                        continue
                    yield ObjectInfo(key=key, size=status.st_size, etag="", modified=status.st_mtime)

    def _path(self, key: str) -> Path:
        return self._root / checked_key(key)

    def _keys(self, directory: str) -> Iterator[str]:
        """All keys below a directory in byte order, in which `a-b` comes before `a/b`."""
        try:
            with os.scandir(self._root / directory) as found:
                names = sorted((f"{item.name}/" if item.is_dir(follow_symlinks=False) else item.name) for item in found)
        except (FileNotFoundError, NotADirectoryError):
            return
        for name in names:
            key = f"{directory}/{name}" if directory else name
            if name.startswith("+"):
                continue
            if name.endswith("/"):
                yield from self._keys(key[:-1])
            else:
                yield key

    def _make_parents(self, directory: Path) -> None:
        if not directory.is_dir():
            if directory != self._root:
                self._make_parents(directory.parent)
            directory.mkdir(mode=0o700, exist_ok=True)
            sync_directory(directory.parent)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fd = os.open(self._root / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _place(self, temporary: Path, path: Path, *, if_absent: bool, if_match: str | None) -> None:
        if if_absent:
            try:
                path.hardlink_to(temporary)
            except FileExistsError as error:
                raise PreconditionFailed(str(path)) from error
            return
        if if_match is not None and self._current(path) != if_match:
            raise PreconditionFailed(str(path))
        _replace(temporary, path)

    def _current(self, path: Path) -> str | None:
        """The etag of the present object, if there is one."""
        try:
            return _etag(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None


def _replace(temporary: Path, path: Path) -> None:
    """Rename a finished file to its name, which may be that of an empty directory."""
    try:
        temporary.replace(path)
    except IsADirectoryError:
        for directory, _, _ in os.walk(path, topdown=False):
            with suppress(OSError):
                Path(directory).rmdir()
        temporary.replace(path)


def _check_size(came: int, size: int) -> None:
    if came != size:
        raise EOFError(f"{size} bytes were announced, but {came} were received")


def _etag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@contextmanager
def _told(url: str, key: str = "", *, writing: bool = False) -> Iterator[None]:
    """Translate errors of the file system into errors of an object store."""
    try:
        yield
    except FileNotFoundError as error:
        if key and not writing:
            raise ObjectMissing(key) from error
        raise BucketMissing(
            f"the store {url} does not exist",
            why=str(error),
            hint="create the directory, or set another store",
            url=url,
        ) from error
    except OSError as error:
        raise _translated(error, url, key) from error


def _translated(error: OSError, url: str, key: str) -> ClawError | ObjectMissing:
    if key and isinstance(error, (NotADirectoryError, IsADirectoryError)):
        return ObjectMissing(key)
    if isinstance(error, PermissionError):
        return StoreDenied(
            f"this user may not use the store {url}",
            why=str(error),
            hint="give this user access to the directory",
            url=url,
        )
    hint = "free space there" if no_room(error) else "check the disk that holds it"
    return StoreUnavailable(f"the store {url} does not work", why=str(error), hint=hint, url=url)
