"""The data directory of a daemon: its directories, its lock, its id and its workload files."""

import fcntl
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TextIO

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
def locked(layout: Layout) -> Iterator[str]:
    """Allow one daemon per data directory and run directory, until the process ends; gives this runtime's id.

    The run directory's lock file names its owner, also after that daemon's end: what lies in the directory is not
    removed for another one.

    Raises:
        DaemonRunning: Another daemon has one of the two, or the values of another one's slots are in the run directory.
    """
    with (
        _held(layout.lock, partial(_home_taken, layout)) as home_lock,
        _held(layout.run_lock, partial(_run_taken, layout)) as run_lock,
    ):
        owner = runtime_id(layout)
        _check_run(layout, _lines(run_lock), owner)
        _write(home_lock, f"{os.getpid()}")
        _write(run_lock, f"{os.getpid()}\n{layout.home}\n{owner}\n")
        yield owner


@contextmanager
def _held(path: Path, taken: Callable[[Sequence[str]], DaemonRunning]) -> Iterator[TextIO]:
    """The lock file, locked until the block ends; `taken` makes the error from its lines if another process has it."""
    with path.open("a+", encoding="utf-8", errors="surrogateescape") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise taken(_lines(file)) from None
        yield file


def _lines(file: TextIO) -> Sequence[str]:
    file.seek(0)
    return file.read(1 << 16).splitlines()


def _write(file: TextIO, text: str) -> None:
    file.truncate(0)
    file.write(text)
    file.flush()


def _home_taken(layout: Layout, holder: Sequence[str]) -> DaemonRunning:
    return DaemonRunning(
        f"a daemon already serves {layout.home}",
        why=f"process {holder[0] if holder else 'unknown'} holds its lock",
        hint="use that one; a second daemon needs its own data directory (--home) and its own run directory (CLAW_RUN)",
    )


def _run_taken(layout: Layout, holder: Sequence[str]) -> DaemonRunning:
    pid, home = (*holder, "unknown", "unknown")[:2]
    return DaemonRunning(
        f"another daemon uses the run directory {layout.run}",
        why=f"process {pid} serves the data directory {home} there",
        hint="set CLAW_RUN to another directory for this daemon, and for each command that talks to it",
    )


def _check_run(layout: Layout, last: Sequence[str], owner: str) -> None:
    """Refuse a run directory with values of another runtime's slots: its containers may still use them."""
    values = layout.slot("any").values.parent
    home, of = (*last, "", "", "")[1:3]
    if of in ("", owner) or not any(values.glob("*")):
        return
    raise DaemonRunning(
        f"the run directory {layout.run} belongs to the data directory {home}",
        why="it holds the values of that directory's slots, whose containers may still run",
        hint=f"set CLAW_RUN to another directory for this daemon; if {home} is gone for good, remove {values}",
    )
