"""Files that a program changes through a mapping, where only the first write after a write-back sets the time."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from claw_runtime import fsutil
from claw_runtime.objects.memory import MemoryStore
from claw_runtime.safefs.tree import Tree
from claw_runtime.state.repository import CommitRequest, CommitResult, Repository, UploadRight
from claw_runtime.state.rules.selection import EVERYTHING
from claw_runtime.tenancy import tenant_id
from fakes.clock import FakeClock

ALICE = tenant_id("alice")
SIZE = 3 * 4096
WRITER = f"""
import mmap, sys
with open(sys.argv[1], "r+b") as file, mmap.mmap(file.fileno(), {SIZE}) as pages:
    for line in sys.stdin:
        if line == "on\\n":
            for number in range(10**9):
                pages[number % {SIZE}] = number % 251
        pages[100] = int(line)
        print(flush=True)
"""

pytestmark = pytest.mark.spawns


@pytest.fixture(autouse=True)
def later(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The clock that says when a tree is read runs ahead of the one of the files, by an hour or as a test sets it."""
    ahead, real = [3600], time.time_ns
    monkeypatch.setattr("time.time_ns", lambda: real() + ahead[0] * 10**9)
    return ahead


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(MemoryStore(), "here", FakeClock(), tmp_path / "scratch")


@pytest.fixture
def right(repository: Repository, tmp_path: Path) -> UploadRight:
    return repository.restorer.restore(repository.leases.acquire(ALICE), tmp_path / "staging")


def kind(place: Path) -> str:
    """The type of the file system that a directory lies on."""
    done = subprocess.run(["stat", "-f", "-c", "%T", str(place)], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def tree() -> Iterator[Path]:
    """A tree on a disk: in memory nothing is written back, so no time shows a second write."""
    for place in (Path(tempfile.gettempdir()), Path("/var/tmp"), Path.home(), Path.cwd()):
        if os.access(place, os.W_OK) and kind(place) not in ("tmpfs", "ramfs", "overlayfs"):
            with tempfile.TemporaryDirectory(prefix="claw-mapped-", dir=place) as made:
                (Path(made) / "pages").write_bytes(bytes(SIZE))
                yield Path(made)
            return
    pytest.skip("no directory on a disk: in memory and on overlayfs, writing back has no effect")


@contextmanager
def writing(tree: Path) -> Iterator[tuple[Callable[[int], None], Callable[[], None]]]:
    """A program that maps `pages`: a function that has it write a byte, and one that has it write without an end."""
    argv = [sys.executable, "-I", "-S", "-c", WRITER, str(tree / "pages")]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        told, answers = program.stdin, program.stdout

        def write(byte: int) -> None:
            told.write(f"{byte}\n")
            told.flush()
            answers.readline()

        def go_on() -> None:
            told.write("on\n")
            told.flush()

        try:
            yield write, go_on
        finally:
            program.kill()


def commit(repository: Repository, right: UploadRight | None, tree: Path, **more: object) -> CommitResult:
    assert right is not None
    options: dict[str, object] = {"release": False, **more}
    request = CommitRequest(right=right, tree=tree, selection=EVERYTHING, image_digest="", application="", **options)  # type: ignore[arg-type]
    return repository.committer.commit(request)


def stored(repository: Repository) -> bytes:
    return b"".join(repository.generations.read(ALICE, "pages"))


@pytest.mark.parametrize("release", [False, True], ids=["a sync", "a release of a paused program"])
def test_a_write_after_the_read_is_in_the_next_generation(
    repository: Repository, right: UploadRight, tree: Path, release: bool
) -> None:
    """Each write goes to a page that is dirty already: without the write-back no time would show it."""
    with writing(tree) as (write, _):
        write(1)
        result = commit(repository, right, tree, release=release)
        for byte in range(2, 6):
            if release:
                result_right = repository.restorer.adopt(repository.leases.acquire(ALICE), result.number)
            else:
                assert result.right is not None
                result_right = result.right
            time.sleep(0.02)
            write(byte)
            result = commit(repository, result_right, tree, release=release)
            assert stored(repository)[100] == byte


def test_a_mapping_that_is_not_written_to_is_not_read_again(
    repository: Repository, right: UploadRight, tree: Path
) -> None:
    """The write-back leaves no trace of its own."""
    with writing(tree) as (write, _):
        write(1)
        first = commit(repository, right, tree)
        before = (tree / "pages").stat()
        second = commit(repository, first.right, tree)
        assert second.created is False
        assert (tree / "pages").stat().st_ctime_ns == before.st_ctime_ns


def test_a_mapping_that_is_written_to_all_the_time_is_stored(
    repository: Repository, right: UploadRight, tree: Path, later: list[int]
) -> None:
    """Within a few commits, as far as it was read; once the program is quiet, the generation equals the file."""
    with writing(tree) as (_, go_on):
        later[0] = 0
        go_on()
        time.sleep(0.1)
        result = commit(repository, right, tree)
        for _ in range(4):
            result = commit(repository, result.right, tree)
        assert len(stored(repository)) == SIZE
    commit(repository, result.right, tree)
    assert stored(repository) == (tree / "pages").read_bytes()


def test_on_overlayfs_a_file_is_read_again_until_it_was_written_back(
    repository: Repository, right: UploadRight, tree: Path, later: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """There the write-back has no effect, so the kernel's own, half a minute later, is waited for."""
    monkeypatch.setattr(Tree, "is_overlay", lambda _: True)
    monkeypatch.setattr("claw_runtime.state.commit.archiver.write_back", lambda _: None)
    later[0] = 30
    with writing(tree) as (write, _):
        write(1)
        first = commit(repository, right, tree)
        write(2)
        commit(repository, first.right, tree)
    assert stored(repository)[100] == 2


def test_the_file_system_of_a_tree_is_known(tree: Path) -> None:
    """Whether it is overlayfs; this one is not."""
    with Tree(tree) as opened:
        assert opened.is_overlay() is False
    with pytest.raises(OSError, match="Bad file descriptor"):
        fsutil.is_overlay(-1)
