"""A tenant that swaps names while its state is committed gets nobody else's bytes into it, and none of ours.

Each attack is shown to have teeth: with the control taken away it succeeds.
"""

import ctypes
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from claw_runtime.errors import UploadFailed
from claw_runtime.objects.memory import MemoryStore
from claw_runtime.safefs import opening
from claw_runtime.safefs.tree import Cursor, Tree
from claw_runtime.state.repository import CommitRequest, Repository, UploadRight
from claw_runtime.state.rules.selection import EVERYTHING
from claw_runtime.state.sqlite import copy as databases
from claw_runtime.state.sqlite.backup import HEADER
from claw_runtime.tenancy import tenant_id
from fakes.clock import FakeClock

ALICE = tenant_id("alice")
SECRET = b"BOB's password"


@pytest.fixture
def neighbour(tmp_path: Path) -> Path:
    root = tmp_path / "bob"
    root.mkdir()
    (root / "cred").write_bytes(SECRET)
    return root


@pytest.fixture
def tree(tmp_path: Path, neighbour: Path) -> Path:
    """A directory, and a link to the neighbour's that can take its place."""
    root = tmp_path / "alice"
    (root / "d").mkdir(parents=True)
    (root / "d" / "cred").write_bytes(b"alice's own")
    (root / "l").symlink_to(neighbour)
    return root


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(MemoryStore(), "here", FakeClock(), tmp_path / "scratch")


@pytest.fixture
def right(repository: Repository, tmp_path: Path) -> UploadRight:
    return repository.restorer.restore(repository.leases.acquire(ALICE), tmp_path / "staging")


def committed(repository: Repository, right: UploadRight, tree: Path) -> tuple[UploadRight, list[bytes]]:
    """Commit a tree that changes meanwhile; the content of every file that is stored."""
    done = repository.committer.commit(
        CommitRequest(right=right, tree=tree, selection=EVERYTHING, image_digest="", application="", release=False)
    )
    assert done.right is not None
    names = (
        [entry.path for entry in repository.generations.manifest(ALICE).entries if entry.type == "f"]
        if done.number
        else []
    )
    return done.right, [b"".join(repository.generations.read(ALICE, name)) for name in names]


def exchange(first: Path, second: Path) -> None:
    """Swap two names in one step."""
    names = os.fsencode(first), os.fsencode(second)
    assert ctypes.CDLL(None, use_errno=True).renameat2(-100, names[0], -100, names[1], 2) == 0


@contextmanager
def swapping(first: Path, second: Path) -> Iterator[list[int]]:
    """Swap two names without pause, as fast as the kernel can."""
    stop, count = threading.Event(), [0]

    def go() -> None:
        while not stop.is_set():
            for _ in range(20):
                exchange(first, second)
            count[0] += 20
            time.sleep(0)

    attacker = threading.Thread(target=go)
    attacker.start()
    try:
        yield count
    finally:
        stop.set()
        attacker.join()


def test_no_race_puts_a_neighbours_byte_into_a_generation(
    repository: Repository, right: UploadRight, tree: Path
) -> None:
    """A directory and a link to the neighbour change places all the time: what is stored is the tenant's own."""
    seen: set[bytes] = set()
    rounds, deadline = 0, time.monotonic() + 1.5
    with swapping(tree / "d", tree / "l") as swaps:
        while time.monotonic() < deadline:
            try:
                right, contents = committed(repository, right, tree)
            except UploadFailed:  # the tree is empty at that moment: its only directory is a link
                continue
            seen.update(contents)
            rounds += 1
    assert swaps[0] > 100
    assert rounds > 5
    assert seen <= {b"alice's own"}


def looks_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the second look at directories that changed, which would find the swap too, and drop what was read."""
    monkeypatch.setattr(Tree, "changed", lambda _self, _listings: iter(()))


def at_the_entry(act: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Do something after a directory was looked at, right before it is entered."""
    real, done = EVERYTHING.descends, list[str]()

    def asked(directory: str) -> bool:
        if directory == "d" and not done:
            done.append(directory)
            act()
        return real(directory)

    monkeypatch.setattr(type(EVERYTHING), "descends", lambda _self, directory: asked(directory))


def at_the_opening(act: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Do something after a file was looked at, right before it is opened."""
    real, done = Cursor.open, list[str]()

    def opened(self: Cursor, path: str) -> tuple[int, os.stat_result]:
        if path == "d/cred" and not done:
            done.append(path)
            act()
        return real(self, path)

    monkeypatch.setattr(Cursor, "open", opened)


@pytest.mark.parametrize("controlled", [True, False])
def test_a_directory_that_becomes_a_link_before_it_is_entered(
    repository: Repository, right: UploadRight, tree: Path, monkeypatch: pytest.MonkeyPatch, *, controlled: bool
) -> None:
    """Is not entered. Without O_NOFOLLOW on directories the neighbour's file would be stored."""
    at_the_entry(lambda: exchange(tree / "d", tree / "l"), monkeypatch)
    if not controlled:
        monkeypatch.setattr(opening, "DIRECTORY", opening.DIRECTORY & ~os.O_NOFOLLOW)
        looks_once(monkeypatch)
    _, contents = committed(repository, right, tree)
    assert (SECRET in contents) is not controlled


@pytest.mark.parametrize("controlled", [True, False])
def test_a_file_that_becomes_a_link_before_it_is_opened(
    repository: Repository,
    right: UploadRight,
    tree: Path,
    neighbour: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    controlled: bool,
) -> None:
    """Is not read. Without O_NOFOLLOW on files what it leads to would be stored under its name."""

    def swap() -> None:
        (tree / "d" / "cred").unlink()
        (tree / "d" / "cred").symlink_to(neighbour / "cred")

    at_the_opening(swap, monkeypatch)
    if not controlled:
        monkeypatch.setattr(opening, "_READ", opening._READ & ~os.O_NOFOLLOW)
        looks_once(monkeypatch)
    _, contents = committed(repository, right, tree)
    assert (SECRET in contents) is not controlled


@pytest.mark.parametrize("controlled", [True, False])
def test_a_sidecar_that_leads_elsewhere(
    repository: Repository,
    right: UploadRight,
    tree: Path,
    neighbour: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    controlled: bool,
) -> None:
    """A log that is a link is never opened, not even for a private copy."""
    (tree / "m.db").write_bytes(HEADER + bytes(4080))
    (tree / "m.db-wal").symlink_to(neighbour / "cred")
    opened: list[str] = []
    real = databases.chunks

    def noted(fd: int, size: int) -> Iterator[bytes]:
        opened.append(os.readlink(f"/proc/self/fd/{fd}"))
        return real(fd, size)

    monkeypatch.setattr(databases, "chunks", noted)
    if not controlled:
        monkeypatch.setattr(opening, "_READ", opening._READ & ~os.O_NOFOLLOW)
    monkeypatch.setattr("claw_runtime.state.sqlite.backup.snapshot", lambda directory: directory / "database")
    committed(repository, right, tree)
    assert (str(neighbour / "cred") in opened) is not controlled


def test_a_fifo_in_the_place_of_a_file_does_not_hang_us(
    repository: Repository, right: UploadRight, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit that waits for somebody to open the other end would never end."""

    def swap() -> None:
        (tree / "d" / "cred").unlink()
        os.mkfifo(tree / "d" / "cred")

    at_the_opening(swap, monkeypatch)
    done = threading.Event()

    def go() -> None:
        committed(repository, right, tree)
        done.set()

    threading.Thread(target=go, daemon=True).start()
    assert done.wait(10)
