"""A tree is removed whatever its tenant made of it, and nothing else is."""

import os
from pathlib import Path

import pytest
from claw_runtime.safefs.removal import bound, prune, remove_tree
from claw_runtime.safefs.tree import MAX_DEPTH
from fakes.trees import deep, unprivileged


def test_removal_follows_no_link(zoo: Path, neighbour: Path) -> None:
    """The tree is gone, the neighbour is whole."""
    remove_tree(zoo)
    assert not zoo.exists()
    assert (neighbour / "cred").read_text() == "BOB"


def test_removal_of_nothing_is_fine_and_of_a_link_is_not(tmp_path: Path, neighbour: Path) -> None:
    """A missing path, also a missing parent; a link is left alone, and so is a file."""
    remove_tree(tmp_path / "none")
    remove_tree(tmp_path / "none" / "below")
    (tmp_path / "link").symlink_to(neighbour)
    for path in (tmp_path / "link", neighbour / "cred"):
        with pytest.raises(NotADirectoryError):
            remove_tree(path)
    assert (neighbour / "cred").read_text() == "BOB"


@pytest.mark.spawns
@pytest.mark.parametrize("mode", [0o000, 0o500])
def test_removal_minds_no_modes_in_the_depth(mode: int) -> None:
    """What is too deep is moved up first; a directory that may not be written to is no obstacle there either."""

    def check(root: Path) -> None:
        victim = root / "victim"
        victim.mkdir()
        bottom = deep(victim, MAX_DEPTH)
        os.mkdir("closed", dir_fd=bottom)
        os.mkdir("closed/below", dir_fd=bottom)
        os.chmod("closed", mode, dir_fd=bottom)
        os.close(bottom)
        remove_tree(victim)
        assert not victim.exists()

    unprivileged(check)


@pytest.mark.spawns
def test_removal_minds_no_modes() -> None:
    """Directories without any permission bit, files without, and names that are not text."""

    def check(root: Path) -> None:
        victim = root / "victim"
        (victim / "a" / "b").mkdir(parents=True)
        (victim / "a" / "b" / os.fsdecode(b"\xff\n")).touch(mode=0o000)
        (victim / "a" / "b").chmod(0o000)
        (victim / "a").chmod(0o111)
        victim.chmod(0o000)
        remove_tree(victim)
        assert not victim.exists()

    unprivileged(check)


def test_pruning_leaves_everything_else_as_it_was(zoo: Path, neighbour: Path) -> None:
    """Files, links and whole directories go; modes and times of the directories above them stay."""
    (zoo / "d" / "cache" / "deep").mkdir(parents=True)
    (zoo / "d" / "cache" / "deep" / "key").write_text("x")
    (zoo / "d" / "key").symlink_to(neighbour)
    before = {path.name: path.lstat().st_mtime_ns for path in (zoo, zoo / "d", zoo / "d" / "cred")}
    os.utime(zoo / "d", ns=(1, 2))
    (zoo / "d").chmod(0o500)

    def goes(path: str, is_dir: bool) -> bool:
        return path in ("d/key", "absolute") if not is_dir else path == "d/cache"

    assert prune(zoo, goes) == 3

    assert sorted(os.listdir(zoo / "d")) == ["cred"]
    status = (zoo / "d").stat()
    assert (status.st_mode & 0o777, status.st_mtime_ns) == (0o500, 2)
    assert [zoo.stat().st_mtime_ns, (zoo / "d" / "cred").stat().st_mtime_ns] == [before["alice"], before["cred"]]
    assert (neighbour / "cred").read_text() == "BOB"
    (zoo / "d").chmod(0o700)


def files_of(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def make(root: Path, *paths: str, size: int = 4096) -> None:
    """Files, each newer than the one before."""
    for at, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x" * size)
        os.utime(root / path, (at, at))


def test_the_newest_files_stay_within_a_bound(tmp_path: Path) -> None:
    """By disk and by number; a tree that fits is left alone, with its empty directories."""
    make(tmp_path, "a/old", "b/c/older-but-one", "new", "newest")
    (tmp_path / "empty").mkdir()
    everything = files_of(tmp_path)
    assert bound(tmp_path, size=4 * 4096, count=4) == 0
    assert files_of(tmp_path) == everything

    assert bound(tmp_path, size=3 * 4096, count=10) == 2
    assert files_of(tmp_path) == ["b", "b/c", "b/c/older-but-one", "new", "newest"]
    assert bound(tmp_path, size=1 << 20, count=2) == 1
    assert files_of(tmp_path) == ["new", "newest"]


def test_a_file_that_is_larger_than_the_bound_goes_alone(tmp_path: Path) -> None:
    """It costs no other file its place, and neither do holes."""
    make(tmp_path, "small", "large", size=4096)
    (tmp_path / "large").write_bytes(b"x" * 65536)
    (tmp_path / "hole").touch()
    os.truncate(tmp_path / "hole", 1 << 40)
    assert bound(tmp_path, size=8192, count=10) == 1
    assert files_of(tmp_path) == ["hole", "small"]


def test_a_bound_holds_for_what_is_no_file(tmp_path: Path, neighbour: Path) -> None:
    """Directories count, what lies too deep goes, no link is followed, and of very many names none stays."""
    for at in range(3):
        (tmp_path / "tree" / f"d{at}").mkdir(parents=True)
    assert bound(tmp_path / "tree", size=1 << 20, count=2) == 3
    os.close(deep(tmp_path / "tree", MAX_DEPTH + 3))
    (tmp_path / "tree/link").symlink_to(neighbour)
    assert bound(tmp_path / "tree", size=1 << 20, count=2 * MAX_DEPTH) > 0
    assert files_of(tmp_path / "tree") == ["link"]
    for at in range(21):
        (tmp_path / "tree" / f"f{at}").touch()
    assert bound(tmp_path / "tree", size=1 << 20, count=2) > 20
    assert files_of(tmp_path / "tree") == []
    assert (neighbour / "cred").read_text() == "BOB"
