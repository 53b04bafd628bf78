"""The data directory of a daemon: its directories, its lock, its id and its workload files."""

import fcntl
import os
import secrets
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from claw_runtime.errors import ClawError, DaemonRunning, InvalidSpec
from claw_runtime.fsutil import write_atomic
from claw_runtime.spec import loader
from claw_runtime.spec.loader import Document
from claw_runtime.tenancy import Layout


def load_workloads(paths: Sequence[Path]) -> Mapping[str, Document]:
    """Workload files by pool id.

    Raises:
        InvalidSpec: One is not valid, or two have the same id.
    """
    documents: dict[str, Document] = {}
    for path in paths:
        document = loader.load(path)
        if (other := documents.get(document.workload.id)) is not None:
            raise InvalidSpec(
                f"{path}: id {document.workload.id!r} is taken",
                why=f"{other.path} has the same id",
                hint="give each workload a different id",
            )
        documents[document.workload.id] = document
    return documents


def runtime_id(layout: Layout) -> str:
    """This runtime's id, created at the first start: the owner in leases and the label on containers."""
    try:
        return layout.runtime_id.read_text("ascii").strip()
    except FileNotFoundError:
        owner = secrets.token_hex(8)
        write_atomic(layout.runtime_id, owner.encode())
        return owner


def make_directories(layout: Layout) -> None:
    for directory in (layout.home, layout.run, layout.workloads, layout.slots, layout.tenants):
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ClawError(
                f"{directory} cannot be made", why=error.strerror or "", hint="choose another with --home or CLAW_HOME"
            ) from error
    for directory in (layout.home, layout.run):
        _check_ours(directory)


def _check_ours(directory: Path) -> None:
    """Refuse a directory in which other users may rename: they could replace the socket or a values file.

    Raises:
        ClawError: Other users own the directory (or the link to it), or may write to it.
    """
    status = directory.stat()
    strangers = {status.st_uid, directory.lstat().st_uid} - {os.geteuid()}
    if status.st_uid in strangers or strangers - {0}:
        why = f"it belongs to user {max(strangers)}"
    elif status.st_mode & 0o022:
        why = f"others may write to it (mode {stat.S_IMODE(status.st_mode):04o})"
    else:
        return
    raise ClawError(
        f"{directory} is not private to this user",
        why=why,
        hint=f"chmod 0700 {directory} if it is yours, or choose another (CLAW_HOME, CLAW_RUN)",
    )


@contextmanager
def locked(layout: Layout) -> Iterator[None]:
    """Allow one daemon per data directory; the lock ends with the process."""
    with layout.lock.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise DaemonRunning(
                f"a daemon already serves {layout.home}",
                why=f"process {file.read().strip() or 'unknown'} holds its lock",
                hint="use that one, or choose another data directory with --home",
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
