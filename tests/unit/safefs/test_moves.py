"""A tree's entries move as they are, and nothing of a neighbour moves along."""

import os
import stat
from pathlib import Path

import pytest
from claw_runtime.safefs.moves import move_entries
from fakes.trees import unprivileged


def test_entries_move_as_they_are(zoo: Path, tmp_path: Path, neighbour: Path) -> None:
    """Links stay links, nothing is copied, the source is left empty, and the inodes are the same."""
    inode = (zoo / "d" / "cred").stat().st_ino
    (tmp_path / "new").mkdir()
    assert move_entries(zoo, tmp_path / "new") == 9
    assert list(zoo.iterdir()) == []
    assert (tmp_path / "new" / "d" / "cred").stat().st_ino == inode
    assert os.readlink(tmp_path / "new" / "upwards") == "../bob"
    assert (neighbour / "cred").read_text() == "BOB"


def test_a_move_never_replaces(tmp_path: Path) -> None:
    """A name that is taken stops it; what is there stays; a second try moves the rest."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "same").write_text(name)
    with pytest.raises(FileExistsError):
        move_entries(tmp_path / "a", tmp_path / "b")
    assert [(tmp_path / name / "same").read_text() for name in ("a", "b")] == ["a", "b"]
    (tmp_path / "b" / "same").unlink()
    assert move_entries(tmp_path / "a", tmp_path / "b") == 1


@pytest.mark.parametrize("linked", ["source", "target"])
def test_a_move_does_not_follow_its_own_arguments(tmp_path: Path, neighbour: Path, linked: str) -> None:
    """Source and target must be directories, not links to some."""
    for name in ("source", "target"):
        if name == linked:
            (tmp_path / name).symlink_to(neighbour)
        else:
            (tmp_path / name).mkdir()
    with pytest.raises(OSError, match="Not a directory"):
        move_entries(tmp_path / "source", tmp_path / "target")
    assert (neighbour / "cred").exists()


@pytest.mark.spawns
def test_a_read_only_directory_moves_and_stays_read_only() -> None:
    """The kernel wants write permission on a directory that changes its parent; ours is lent for that long."""

    def check(root: Path) -> None:
        (root / "a" / "closed").mkdir(parents=True)
        (root / "b").mkdir()
        (root / "a" / "closed").chmod(0o555)
        assert move_entries(root / "a", root / "b") == 1
        assert stat.S_IMODE((root / "b" / "closed").stat().st_mode) == 0o555

    unprivileged(check)


def test_directories_that_are_mounted_are_joined(tmp_path: Path) -> None:
    """A directory that a container has mounted stays the same inode, and gets what the moved tree has in it."""
    old, new = tmp_path / "old", tmp_path / "new"
    (old / ".volumes/comm/deep").mkdir(parents=True)
    (old / ".volumes/comm/note").write_text("hello")
    (old / ".volumes/other").mkdir()
    (old / "plain").write_text("x")
    (new / ".volumes/comm").mkdir(parents=True)
    mounted = (new / ".volumes/comm").stat().st_ino

    assert move_entries(old, new, into={".volumes/comm"}) == 2

    assert (new / ".volumes/comm").stat().st_ino == mounted
    assert (new / ".volumes/comm/note").read_text() == "hello"
    assert (new / ".volumes/comm/deep").is_dir()
    assert (new / ".volumes/other").is_dir()
    assert list(old.iterdir()) == []


def test_a_link_in_the_place_of_a_mounted_directory_is_not_followed(tmp_path: Path) -> None:
    """What a tenant put where its mounted directory belongs is set aside as it is, and nothing outside is touched."""
    old, new, outside = tmp_path / "old", tmp_path / "new", tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("x")
    old.mkdir()
    (old / "comm").symlink_to(outside)
    (new / "comm").mkdir(parents=True)
    move_entries(old, new, into={"comm"})
    assert (outside / "secret").exists()
    assert list((new / "comm").iterdir()) == []
    assert [path.is_symlink() for path in sorted(new.iterdir())] == [False, True]
