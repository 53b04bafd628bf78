"""Files that another tool wrote to a bucket, one object each: all of them, at their places, and none elsewhere."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from claw_runtime.errors import Conflict, InvalidSpec, StateMissing
from claw_runtime.interchange.bucket_in import gather
from claw_runtime.ports import ObjectInfo


class Bucket:
    """Objects of any name, each with the time that its writer noted, or None."""

    url = "s3://other"

    def __init__(self, **objects: tuple[bytes, int | None]) -> None:
        self.objects = objects

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        for key, (data, _) in sorted(self.objects.items()):
            yield ObjectInfo(key=key, size=len(data), etag="", modified=50.0)

    def foreign(self, key: str) -> tuple[Iterator[bytes], int | None]:
        data, at = self.objects[key]
        return iter([data[:2], data[2:]]), at


def test_every_object_becomes_a_file(tmp_path: Path) -> None:
    """With the time that rclone noted, else that of the object; names may hold anything that a file's may."""
    names = {
        "sessions/a.jsonl": (b"blue", 7_500_000_000),
        "täglich/with space\n": (b"x", None),
        "empty/": (b"", None),
        "e": (b"", 1),
    }

    assert gather(Bucket(**names), tmp_path) == []

    assert (tmp_path / "sessions/a.jsonl").read_bytes() == b"blue"
    assert (tmp_path / "sessions/a.jsonl").stat().st_mtime == 7.5
    assert (tmp_path / "täglich/with space\n").stat().st_mtime == 50.0
    assert (tmp_path / "empty").is_dir()
    assert (tmp_path / "e").read_bytes() == b""


def test_no_name_leads_elsewhere(tmp_path: Path) -> None:
    """Steps up, double slashes, and a file where a directory must be are left out, and told."""
    target = tmp_path / "in"
    target.mkdir()
    names = ["../out", "/etc/x", "a//b", "a/./b", "a/../../out", "f", "f/below", "good"]

    skipped = gather(Bucket(**dict.fromkeys(names, (b"x", None))), target)

    assert sorted(one.path for one in skipped) == sorted({*names} - {"f", "good"})
    assert sorted(os.listdir(tmp_path)) == ["in"]
    assert {path.name for path in target.rglob("*") if path.is_file()} == {"f", "good"}


def test_an_object_that_changes_is_told(tmp_path: Path) -> None:
    """Half of one must not pass for the whole."""
    bucket = Bucket(a=(b"abc", None))
    bucket.foreign = lambda _key: (iter([b"ab"]), None)  # type: ignore[method-assign]

    with pytest.raises(Conflict, match="changed during the import"):
        gather(bucket, tmp_path)


def test_what_is_no_such_bucket_is_refused(tmp_path: Path) -> None:
    """Nothing at all, and a state as claw stores it."""
    with pytest.raises(StateMissing):
        gather(Bucket(), tmp_path)
    with pytest.raises(InvalidSpec, match="in claw's own format"):
        gather(Bucket(**{"HEAD": (b"", None), "gen/1": (b"", None)}), tmp_path)
