"""Seeds: files of the host with which a tenant without state starts."""

from pathlib import Path

from claw_runtime.errors import ClawError
from claw_runtime.fsutil import chunks, write_all
from claw_runtime.safefs.tree import Cursor, Found, Tree
from claw_runtime.spec.plan import Seed

_BLOCK = 1 << 20


def plant(seed: Seed, staging: Path) -> None:
    """Copy a seed's directories and regular files, with their modes and times, into a new tree.

    Links and special files are left out: in a container they would not mean the same. A name that another seed has
    already created stays unchanged.

    Raises:
        ClawError: The seed's directory cannot be read.
        OSError: The tree cannot be written.
    """
    try:
        source = Tree(seed.source)
    except OSError as error:
        raise ClawError(
            f"the seed {seed.source} cannot be read",
            why=error.strerror or str(error),
            hint="nothing was started; make the directory readable, or remove `seed` from the workload file",
        ) from error
    with source, Tree(staging) as target, source.cursor() as reader, target.cursor() as writer:
        prefix = _make_prefix(seed.subdirectory, writer)
        found = [item for item in source.walk() if isinstance(item, Found)]
        for item in found:
            if item.kind == "d":
                _make_directory(f"{prefix}{item.path}", writer)
            elif item.kind == "f":
                _copy(item, f"{prefix}{item.path}", reader, writer)
        for item in reversed(found):
            if item.kind == "d":
                writer.finish_directory(f"{prefix}{item.path}", mode=item.mode | 0o700, mtime_ns=item.mtime_ns)
        target.sync()


def _make_prefix(subdirectory: str, writer: Cursor) -> str:
    path = ""
    for name in filter(None, subdirectory.split("/")):
        _make_directory(f"{path}{name}", writer)
        path += f"{name}/"
    return path


def _make_directory(path: str, writer: Cursor) -> None:
    try:
        writer.make_directory(path)
    except FileExistsError:
        return


def _copy(item: Found, path: str, reader: Cursor, writer: Cursor) -> None:
    try:
        with (
            reader.reading(item.path) as source,
            writer.creating(path, mode=item.mode | 0o600, mtime_ns=item.mtime_ns) as target,
        ):
            for block in chunks(source, _BLOCK):
                write_all(target, block)
    except FileExistsError:
        return
