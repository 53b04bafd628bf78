"""The directory store's own promises: private files, no half objects, errors in a store's words."""

import os
from pathlib import Path

import pytest
from claw_runtime.errors import BucketMissing, StoreDenied, StoreUnavailable
from claw_runtime.objects import directory
from claw_runtime.objects.directory import DirectoryStore
from claw_runtime.ports import ObjectMissing, PreconditionFailed


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path)


def raises(number: int):
    def fail(*_args: object, **_kwargs: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def test_objects_are_private_files(store: DirectoryStore, tmp_path: Path) -> None:
    """People can look at them, other users cannot, and no temporary file stays."""
    store.put("tenants/alice/HEAD", b"{}")
    path = tmp_path / "tenants" / "alice" / "HEAD"
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"{}", 0o600)
    assert (tmp_path / "tenants").stat().st_mode & 0o777 == 0o700
    assert list((tmp_path / "+tmp").iterdir()) == []


def test_a_refused_write_leaves_nothing(store: DirectoryStore, tmp_path: Path) -> None:
    """Neither a temporary file nor a changed object."""
    store.put("k", b"1", if_absent=True)
    for condition in ({"if_absent": True}, {"if_match": "other"}):
        with pytest.raises(PreconditionFailed):
            store.put("k", b"2", **condition)
    assert list((tmp_path / "+tmp").iterdir()) == []
    assert store.get("k")[0] == b"1"


def test_two_handles_see_one_store(store: DirectoryStore, tmp_path: Path) -> None:
    """Etags are of the content, so another process's handle knows them."""
    etag = store.put("k", b"1")
    assert DirectoryStore(tmp_path).put("k", b"2", if_match=etag) != etag


def test_a_listing_reads_no_content(store: DirectoryStore, tmp_path: Path) -> None:
    """A bucket of terabytes lists as fast as its names: an object that cannot be read is listed with its size."""
    store.put("packs/a", b"12345")
    (tmp_path / "packs" / "a").chmod(0)
    assert [(item.key, item.size) for item in store.list("packs/")] == [("packs/a", 5)]


def test_a_missing_directory_is_a_missing_bucket(tmp_path: Path) -> None:
    """At the start, and when it vanishes later."""
    with pytest.raises(BucketMissing, match="does not exist"):
        DirectoryStore(tmp_path / "none")
    (tmp_path / "gone").mkdir()
    store = DirectoryStore(tmp_path / "gone")
    (tmp_path / "gone" / "+tmp").rmdir()
    (tmp_path / "gone").rmdir()
    with pytest.raises(BucketMissing):
        store.put("k", b"")


@pytest.mark.parametrize(
    ("number", "error", "hint"),
    [(28, StoreUnavailable, "free space"), (5, StoreUnavailable, "check the disk"), (13, StoreDenied, "access")],
)
def test_the_disks_errors_become_the_stores(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch, number: int, error: type[StoreDenied], hint: str
) -> None:
    """ENOSPC, EIO and EACCES each with a hint of their own; the object is not there afterwards."""
    monkeypatch.setattr(directory, "write_new", raises(number))
    with pytest.raises(error) as told:
        store.put("k", b"")
    assert hint in told.value.hint
    with pytest.raises(ObjectMissing):
        store.get("k")


def test_files_of_others_are_no_objects(store: DirectoryStore, tmp_path: Path) -> None:
    """Our own lock and temporary directory never show in a listing."""
    store.put("a", b"")
    (tmp_path / "+tmp" / "left-over").write_bytes(b"x")
    assert [item.key for item in store.list("")] == ["a"]
