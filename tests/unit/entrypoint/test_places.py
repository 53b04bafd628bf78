"""Directories that a tenant wrote are opened, emptied and written without being trusted."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from claw_entrypoint.places import empty, open_directory, read_file, write_file


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """A descriptor of a directory."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield directory
    finally:
        os.close(directory)


def test_everything_goes_and_nothing_that_a_link_names(tmp_path: Path) -> None:
    """Files, links, FIFOs, hidden and odd names, locked directories go; what links point at stays."""
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    (outside / "deep").mkdir(parents=True)
    (outside / "deep/file").write_text("precious")
    (inside / "a/b/c").mkdir(parents=True)
    (inside / "a/b/c/file").write_text("x")
    (inside / "a/link").symlink_to(outside)
    (inside / "link").symlink_to(outside / "deep")
    (inside / "dangling").symlink_to("/nowhere")
    os.mkfifo(inside / ".fifo")
    (inside / "new\nline").write_text("x")
    Path(os.fsdecode(os.fsencode(inside) + b"/\xff")).write_text("x")
    (inside / "locked/in").mkdir(parents=True)
    (inside / "locked/in").chmod(0)
    (inside / "locked").chmod(0o500)

    with opened(inside) as directory:
        assert empty(directory) == []

    assert os.listdir(inside) == []
    assert (outside / "deep/file").read_text() == "precious"


def test_no_depth_is_too_deep(tmp_path: Path) -> None:
    """A tree far deeper than Python recurses and than a process may hold descriptors is gone like a flat one."""
    depth = 3 * sys.getrecursionlimit()
    here = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=here)
        there = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = there
    os.close(here)

    with opened(tmp_path) as directory:
        assert empty(directory) == []

    assert os.listdir(tmp_path) == []


IN_A_MOUNT_NAMESPACE = """
import os, subprocess, sys
sys.path.insert(0, sys.argv[2])
from claw_entrypoint.places import empty
top = sys.argv[1]
for place in ("a/b/mount of", "top"):
    subprocess.run(["mount", "--bind", top + "/../other", f"{top}/{place}"], check=True)
subprocess.run(["mount", "--bind", top + "/../other/kept", f"{top}/file"], check=True)
print(sorted(empty(os.open(top, os.O_RDONLY))))
print(sorted(os.listdir(top)), os.listdir(top + "/a"), os.listdir(top + "/a/b"), os.listdir(top + "/a/b/mount of"))
"""


@pytest.mark.spawns
def test_a_mount_point_and_what_is_in_it_stay_in_place(tmp_path: Path) -> None:
    """Emptying stops at a mount, even of the same filesystem and deep inside, and says which entry refused."""
    unshare = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]
    if not shutil.which("unshare") or subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespace may be made here")
    top = tmp_path / "config"
    (top / "a/b/mount of").mkdir(parents=True)
    (top / "a/stale").write_text("x")
    (top / "top").mkdir()
    (top / "file").write_text("x")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/kept").write_text("x")
    sources = str(Path(sys.modules["claw_entrypoint"].__path__[0]).parent)

    command = [*unshare, sys.executable, "-c", IN_A_MOUNT_NAMESPACE, str(top), sources]
    lines = subprocess.run(command, capture_output=True, check=True, text=True).stdout.splitlines()

    assert lines[0] == "['a/b/mount of: mount point', 'file: mount point', 'top: mount point']"
    assert lines[1] == "['a', 'file', 'top'] ['b'] ['mount of'] ['kept']"


def test_a_path_is_never_followed_through_a_link(tmp_path: Path) -> None:
    """Neither the last component nor one before it, existing or to be created."""
    (tmp_path / "real/sub").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "dangling").symlink_to("real/made")
    for path in ("/link", "/link/sub", "/link/new", "/dangling", "/dangling/new"):
        for create in (False, True):
            with pytest.raises(NotADirectoryError):
                open_directory(str(tmp_path), path, create=create)

    assert os.listdir(tmp_path / "real") == ["sub"]


def test_directories_are_made_private(tmp_path: Path) -> None:
    """New ones are 0700, existing ones keep their mode."""
    (tmp_path / "old").mkdir(mode=0o755)

    os.close(open_directory(str(tmp_path), "/old/new/newer", create=True))

    modes = [oct((tmp_path / place).stat().st_mode & 0o777) for place in ("old", "old/new", "old/new/newer")]
    assert modes == ["0o755", "0o700", "0o700"]


def test_a_written_file_is_private_whole_and_never_written_through_a_link(tmp_path: Path) -> None:
    """A link in its place is replaced, its target untouched, and no temporary file is left."""
    target = tmp_path / "target"
    target.write_text("precious")
    (tmp_path / "d").mkdir()
    (tmp_path / "d/file").symlink_to(target)

    with opened(tmp_path / "d") as directory:
        write_file("file", directory, b"x" * 200_000)

    assert target.read_text() == "precious"
    assert [(e.name, e.stat(follow_symlinks=False).st_mode, e.stat().st_size) for e in os.scandir(tmp_path / "d")] == [
        ("file", 0o100600, 200_000)
    ]


def test_a_write_that_cannot_be_finished_leaves_nothing(tmp_path: Path) -> None:
    """A directory in the file's place is an error, and stays, alone."""
    (tmp_path / "file/in").mkdir(parents=True)

    with opened(tmp_path) as directory, pytest.raises(IsADirectoryError):
        write_file("file", directory, b"x")

    assert os.listdir(tmp_path) == ["file"]


def test_only_an_own_regular_file_is_read_below_a_directory(tmp_path: Path) -> None:
    """A link, a directory and a FIFO are refused at once, and a FIFO does not block."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "dir").mkdir()
    os.mkfifo(tmp_path / "fifo")

    with opened(tmp_path) as directory:
        assert read_file("file", directory=directory) == b"x"
        for name in ("link", "dir", "fifo", "none"):
            with pytest.raises(OSError, match=name):
                read_file(name, directory=directory)


def test_a_file_of_another_uid_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another user left in a tenant's place is not taken for the tenant's."""
    (tmp_path / "file").write_text("x")
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)

    with opened(tmp_path) as directory, pytest.raises(OSError, match="owned by uid"):
        read_file("file", directory=directory)
