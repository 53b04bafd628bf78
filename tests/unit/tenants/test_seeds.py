"""Seeds on a real directory: what a new tenant begins with, and what never gets in."""

import os
from pathlib import Path

import pytest
from claw_runtime.errors import ClawError
from claw_runtime.spec.plan import Seed
from claw_runtime.tenants.seeds import plant


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A seed with a file, a program, an empty directory, and a link out of it."""
    root = tmp_path / "seed"
    (root / "empty").mkdir(parents=True)
    (root / "notes.txt").write_text("hello")
    os.utime(root / "notes.txt", ns=(5 * 10**9, 5 * 10**9))
    (root / "bin").mkdir()
    (root / "bin/run").write_text("#!/bin/sh\n")
    (root / "bin/run").chmod(0o755)
    (root / "link").symlink_to("/etc/passwd")
    return root


@pytest.fixture
def staging(tmp_path: Path) -> Path:
    """A new tree."""
    (tmp_path / "staging").mkdir()
    return tmp_path / "staging"


def test_files_come_with_modes_and_times(source: Path, staging: Path) -> None:
    """A seed's files and directories are copied as they are, each writable by its new owner."""
    plant(Seed(source=source, subdirectory=""), staging)
    assert (staging / "notes.txt").read_text() == "hello"
    assert (staging / "notes.txt").stat().st_mtime_ns == 5 * 10**9
    assert (staging / "bin/run").stat().st_mode & 0o777 == 0o755
    assert (staging / "empty").is_dir()


def test_links_stay_outside(source: Path, staging: Path) -> None:
    """What a link means on the host it does not mean in a container, so none is copied and none is followed."""
    plant(Seed(source=source, subdirectory=""), staging)
    assert sorted(path.name for path in staging.iterdir()) == ["bin", "empty", "notes.txt"]


def test_a_seed_lies_where_its_volume_is(source: Path, staging: Path) -> None:
    """A seed of a volume within the state goes into that volume's directory."""
    plant(Seed(source=source, subdirectory="volumes/comm"), staging)
    assert (staging / "volumes/comm/notes.txt").read_text() == "hello"


def test_the_first_seed_of_a_name_wins(source: Path, staging: Path, tmp_path: Path) -> None:
    """Two seeds may bring the same name; nothing is overwritten."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("late")
    plant(Seed(source=source, subdirectory=""), staging)
    plant(Seed(source=other, subdirectory=""), staging)
    assert (staging / "notes.txt").read_text() == "hello"


def test_a_seed_that_cannot_be_read_is_an_error(staging: Path, tmp_path: Path) -> None:
    """A tenant never begins with half of what it should, or with nothing, in silence."""
    with pytest.raises(ClawError, match="cannot be read") as refused:
        plant(Seed(source=tmp_path / "none", subdirectory=""), staging)
    assert "nothing was started" in refused.value.hint
