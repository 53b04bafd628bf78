"""Trees of all that a kernel allows a tenant, and a full description of a tree, so that two can be compared."""

import hashlib
import os
import stat
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random

Look = tuple[object, ...]

NAMES = (
    *(b"a", b"notes.md", b"with space ", b"-rf", b"\xff\xfe", b"line\nbreak", b"\x1b[31m", "täglich".encode(), b"'\""),
    *(b"back\\slash", b"\\x41", b"*?[", b"%2e", b"a=b", b"\xc3", b"~", b"x" * 255, b"->", b"\xed\xa0\x80", b"..."),
)
ATTRIBUTES = (b"user.colour", b"user.\xff", b"user.a=b", b"user.100%", b"user.%3D", b"user.l\nine", "user.ü".encode())
VALUES = (b"", b"blue", b"\0\xff\n=", b"9 hdrcharset=\xff\n", b"12 size=99\n", b"x" * 300)
TARGETS = (b"a", b"../..", b"/etc/passwd", b"../../outside", b"\xff", b"nowhere/" * 40, b".", b"l\n", b"->")
MODES = (0o000, 0o100, 0o200, 0o400, 0o444, 0o500, 0o555, 0o644, 0o700, 0o755, 0o777)
NS = 10**9
CHUNK = 64 * 1024


def grow(root: Path, seed: int | Random, *, names: int = 40, modes: Sequence[int] = MODES) -> Path:
    """Make a tree of about so many names in a directory; the same for the same seed."""
    rng = Random(seed) if isinstance(seed, int) else seed
    directories = [os.fsencode(root)]
    for number in range(names):
        path = os.path.join(rng.choice(directories), rng.choice(NAMES) + (b"%d" % number)[: rng.choice((0, 3))])
        if os.path.lexists(path) or len(os.path.basename(path)) > 255:
            continue
        kind = rng.choice("ddfffssl")
        if kind == "l":
            os.symlink(rng.choice(TARGETS), path)
        elif kind == "d":
            os.mkdir(path)
            directories.append(path)
        else:
            _write(path, rng, sparse=kind == "s")
        if kind != "l" and rng.random() < 0.3:
            for name in rng.sample(ATTRIBUTES, rng.randint(1, 3)):
                os.setxattr(path, name, rng.choice(VALUES))
    for path in sorted(_below(os.fsencode(root)), reverse=True):
        when = rng.choice((-5_000_000_001, -1, 0, 1, rng.randrange(-(2**31) * NS, 2**33 * NS), 1_700_000_000 * NS))
        if not os.path.islink(path):
            os.chmod(path, rng.choice(modes))
        os.utime(path, ns=(when, when), follow_symlinks=False)
    return root


def _write(path: bytes, rng: Random, *, sparse: bool) -> None:
    with open(path, "xb") as file:
        if not sparse:
            file.write(rng.randbytes(rng.choice((0, 1, 511, 512, 513, 4096, CHUNK, CHUNK + 1, 200_000))))
            return
        for _ in range(rng.randint(0, 4)):
            file.seek(rng.randrange(2**22))
            file.write(rng.randbytes(rng.choice((1, 5000, CHUNK))))
        file.truncate(rng.choice((file.tell(), 2**22, 2**22 + 1)))


def deep(root: Path, levels: int, name: str = "n") -> int:
    """Make so many directories, each in the one before; an fd of the last one, the caller's to close."""
    fd = os.open(root, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir(name, dir_fd=fd)
        below = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    return fd


def look(root: Path) -> dict[bytes, Look]:
    """Everything below a directory: kind, mode, time, content, attributes, target. Modes of its own do not hinder."""
    top = os.fsencode(root)
    seen = dict[bytes, Look]()
    for path in _below(top):
        status = os.lstat(path)
        here = path[len(top) + 1 :]
        if stat.S_ISLNK(status.st_mode):
            seen[here] = "l", status.st_mtime_ns, os.readlink(path)
            continue
        mode = stat.S_IMODE(status.st_mode)
        with _open(path):
            attributes = {os.fsencode(name): os.getxattr(path, name) for name in os.listxattr(path)}
            if stat.S_ISDIR(status.st_mode):
                seen[here] = "d", mode, status.st_mtime_ns, attributes
                continue
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        seen[here] = "f", mode, status.st_mtime_ns, attributes, status.st_size, digest
    return seen


def blocks(root: Path) -> dict[bytes, int]:
    """Bytes that each file takes on the disk."""
    top = os.fsencode(root)
    found = ((path, os.lstat(path)) for path in _below(top))
    return {path[len(top) + 1 :]: status.st_blocks * 512 for path, status in found if stat.S_ISREG(status.st_mode)}


def _below(path: bytes) -> Iterator[bytes]:
    with _open(path):
        for name in sorted(os.listdir(path)):
            below = os.path.join(path, name)
            yield below
            if os.path.isdir(below) and not os.path.islink(below):
                yield from _below(below)


@contextmanager
def _open(path: bytes) -> Iterator[None]:
    """A file or directory of our own readable for as long as the block."""
    mode = stat.S_IMODE(os.lstat(path).st_mode)
    if mode & 0o500 == 0o500:
        yield
        return
    os.chmod(path, mode | 0o700)
    try:
        yield
    finally:
        os.chmod(path, mode)


def unprivileged(check: Callable[[Path], None]) -> None:
    """Run a check in a directory of its own as a user for whom modes mean something."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        if os.geteuid() != 0:
            check(root)
            return
        os.chown(root, 65534, 65534)
        child = os.fork()
        if not child:
            code = 1
            try:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
                check(root)
                code = 0
            finally:
                if code:
                    traceback.print_exc()
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
