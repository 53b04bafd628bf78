"""A tree is removed whatever its tenant made of it, and nothing else is."""

import os
from pathlib import Path

import pytest
from claw_runtime.safefs.removal import remove_tree
from fakes.trees import unprivileged


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
