"""Whole-file writes, renames that never replace, and finding out that a disk is full."""

import errno
import os
from pathlib import Path

import pytest
from claw_runtime import fsutil
from claw_runtime.errors import StoreUnavailable


def test_a_write_replaces_the_whole_file(tmp_path: Path) -> None:
    """Content and mode are new, and no temporary file is left."""
    path = tmp_path / "f"
    path.write_text("a much longer text than the new one")
    path.chmod(0o644)
    fsutil.write_atomic(path, b"new", mode=0o600)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"new", 0o600)
    assert os.listdir(tmp_path) == ["f"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk in the middle of the write: old content, nothing beside it."""
    path = tmp_path / "f"
    path.write_text("old")

    def full(*_args: object, **_kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fsutil, "write_all", full)
    with pytest.raises(OSError, match="No space"):
        fsutil.write_atomic(path, b"new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["f"]


def test_a_write_goes_where_a_link_is_not_to_where_it_points(tmp_path: Path) -> None:
    """The link is replaced; its target is untouched."""
    (tmp_path / "target").write_text("keep")
    (tmp_path / "f").symlink_to("target")
    fsutil.write_atomic(tmp_path / "f", b"new")
    assert (tmp_path / "target").read_text() == "keep"
    assert not (tmp_path / "f").is_symlink()


def test_a_rename_never_replaces(tmp_path: Path) -> None:
    """The name that is taken stays, the source stays, and a free name works."""
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(FileExistsError):
            fsutil.rename_new("a", "b", source_fd=fd, target_fd=fd)
        fsutil.rename_new("a", "c", source_fd=fd, target_fd=fd)
    finally:
        os.close(fd)
    assert sorted((path.name, path.read_text()) for path in tmp_path.iterdir()) == [("b", "b"), ("c", "a")]


def test_room_is_reported_in_bytes(tmp_path: Path) -> None:
    """What an unprivileged writer has, not what root has."""
    status = os.statvfs(tmp_path)
    assert abs(fsutil.room(tmp_path).size - status.f_bavail * status.f_frsize) < 2**32


def test_a_file_system_can_be_synced_through_any_directory(tmp_path: Path) -> None:
    """A closed descriptor is an error, an open one is not."""
    fd = os.open(tmp_path, os.O_RDONLY)
    fsutil.sync_file_system(fd)
    os.close(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        fsutil.sync_file_system(fd)


def test_a_file_can_be_written_back_anywhere(tmp_path: Path) -> None:
    """Also in memory, through a read-only descriptor; the file and its times stay as they are."""
    (tmp_path / "file").write_text("x")
    before = (tmp_path / "file").stat()
    with (tmp_path / "file").open() as file:
        fsutil.write_back(file.fileno())
    after = (tmp_path / "file").stat()
    assert (after.st_mtime_ns, after.st_ctime_ns, after.st_size) == (before.st_mtime_ns, before.st_ctime_ns, 1)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_seen_through_other_errors(number: int) -> None:
    """Also as the cause of the cause; another error number is none."""
    inner = OSError(number, "full")
    middle = StoreUnavailable("no")
    middle.__cause__ = inner
    outer = RuntimeError("no")
    outer.__context__ = middle
    assert fsutil.no_room(outer)
    assert not fsutil.no_room(OSError(errno.EIO, "broken"))
    assert not fsutil.no_room(None)


def test_chunks_are_of_one_size(tmp_path: Path) -> None:
    """The last one is shorter, an empty file has none, and the file position does not matter."""
    (tmp_path / "f").write_bytes(bytes(range(10)))
    (tmp_path / "e").touch()
    with (tmp_path / "f").open("rb") as file, (tmp_path / "e").open("rb") as empty:
        file.seek(5)
        assert [len(chunk) for chunk in fsutil.chunks(file.fileno(), 4)] == [4, 4, 2]
        assert list(fsutil.chunks(empty.fileno(), 4)) == []


def test_a_stamp_changes_with_the_content(tmp_path: Path) -> None:
    """Even when size and modification time are put back."""
    path = tmp_path / "f"
    path.write_bytes(b"one")
    with path.open("rb") as file:
        before, status = fsutil.stamp(file.fileno()), path.stat()
        while path.stat().st_ctime_ns == before.ctime_ns:
            path.write_bytes(b"two")
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert fsutil.stamp(file.fileno()) != before


def test_set_id_bits_are_never_carried(tmp_path: Path) -> None:
    """A tenant's setuid file is a file."""
    path = tmp_path / "f"
    path.touch()
    with path.open("rb") as file:
        fsutil.finish(file.fileno(), mode=0o7755, mtime_ns=1_500_000_000_000_000_001)
    assert (path.stat().st_mode & 0o7777, path.stat().st_mtime_ns) == (0o755, 1_500_000_000_000_000_001)
