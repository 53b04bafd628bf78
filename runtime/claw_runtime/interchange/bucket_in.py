"""Files out of a bucket that another tool wrote, one object a file, as rclone and boilerhouse do.

Names of objects are anybody's: each step of one is made below a directory fd that follows no link (safefs/tree.py), and
one that leads elsewhere, or is a directory's and a file's at once, is left out and told.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from claw_runtime.errors import Conflict, InvalidSpec, StateMissing
from claw_runtime.fsutil import NO_ROOM, write_all
from claw_runtime.ports import ObjectInfo
from claw_runtime.safefs.tree import MAX_DEPTH, Cursor, Skipped, Tree


class Foreign(Protocol):
    """A bucket with names of any kind."""

    url: str

    def list(self, prefix: str) -> Iterator[ObjectInfo]: ...

    def foreign(self, key: str) -> tuple[Iterator[bytes], int | None]: ...


def gather(store: Foreign, target: Path, report: Callable[[int, int], None] = lambda _done, _of: None) -> list[Skipped]:
    """Write every object as a file below an empty directory; what was left out.

    Args:
        report: Is told after each object how many bytes are done, and of how many.

    Raises:
        StateMissing: There is no object.
        Conflict: An object changed meanwhile.
        InvalidSpec: It is a state as claw stores it.
        StoreUnavailable, StoreDenied, BucketMissing: The store.
        OSError: The disk.
    """
    found = list(store.list(""))
    names = {item.key for item in found}
    if not found:
        raise StateMissing(f"{store.url} is empty", hint="name the bucket and prefix that contain the files")
    if "HEAD" in names and any(name.startswith("gen/") for name in names):
        raise InvalidSpec(
            f"{store.url} holds a state in claw's own format",
            hint="start a daemon with that bucket, or use docs/examples/state_reader.py",
        )
    skipped, done, total = list[Skipped](), 0, sum(item.size for item in found)
    with Tree(target) as tree, tree.cursor() as cursor:
        for item in found:
            try:
                why = _bring(store, item, cursor)
            except OSError as error:
                if error.errno in NO_ROOM:
                    raise
                why = (error.strerror or str(error)).lower()
            if why:
                skipped.append(Skipped(path=item.key, reason=why))
            done += item.size
            report(done, total)
    return skipped


def _bring(store: Foreign, item: ObjectInfo, cursor: Cursor) -> str:
    """One object; why not, if it was left out."""
    steps = item.key.removesuffix("/").split("/")
    if {"", ".", ".."} & set(steps) or "\0" in item.key or len(steps) > MAX_DEPTH:
        return "its key is not a valid file name"
    is_directory = item.key.endswith("/")
    for depth in range(1, len(steps) + is_directory):
        with suppress(FileExistsError):
            cursor.make_directory("/".join(steps[:depth]))
    if is_directory:
        return ""
    pieces, changed = store.foreign(item.key)
    mtime_ns = changed if changed is not None else int(item.modified * 1e9)
    with cursor.creating("/".join(steps), mode=0o600, mtime_ns=mtime_ns) as fd:
        for piece in pieces:
            write_all(fd, piece)
        if os.fstat(fd).st_size != item.size:
            raise Conflict(
                f"{store.url} changed during the import",
                why=f"the size of {item.key!r} changed"[:300],
                hint="stop the program that writes there, then import again; the tenant is unchanged",
            )
    return ""
