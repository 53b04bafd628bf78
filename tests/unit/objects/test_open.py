"""A store's URL is read strictly, and never holds a key."""

from pathlib import Path

import pytest
from claw_runtime.errors import BucketMissing, InvalidSpec
from claw_runtime.objects import open_store
from claw_runtime.objects.directory import DirectoryStore
from claw_runtime.objects.memory import MemoryStore
from claw_runtime.objects.s3 import S3Store


def test_each_scheme_has_its_driver(tmp_path: Path) -> None:
    """And the store tells where it is."""
    (tmp_path / "a b").mkdir()
    found = open_store(f"file://{tmp_path}/a%20b")
    assert isinstance(found, DirectoryStore)
    assert found.url == f"file://{tmp_path}/a%20b"
    assert isinstance(open_store("memory:"), MemoryStore)


def test_an_s3_url_is_bucket_prefix_endpoint_and_region() -> None:
    """What the URL does not say may be said beside it; the store's own URL has it all, and no key."""
    full = open_store(
        "s3://bucket/pre/fix?endpoint=http://127.0.0.1:1&region=eu-1", access_key="AK", secret_key="S3CRET"
    )
    assert isinstance(full, S3Store)
    assert full.url == "s3://bucket/pre/fix?endpoint=http://127.0.0.1:1&region=eu-1"
    beside = open_store("s3://bucket", endpoint="http://127.0.0.1:1", region="eu-1", access_key="A", secret_key="S")
    assert beside.url == "s3://bucket?endpoint=http://127.0.0.1:1&region=eu-1"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "scheme"),
        ("/srv/claw", "scheme"),
        ("http://bucket", "scheme"),
        ("memory:x", "scheme"),
        ("file://host/srv", "absolute path"),
        ("file:relative", "absolute path"),
        ("file:///srv/../etc", "absolute path"),
        ("s3://", "one bucket"),
        ("s3:///prefix", "one bucket"),
        ("s3://bucket?endpont=http://x", "unknown option 'endpont'"),
        ("s3://bucket?endpoint=http://x&endpoint=http://y", "each option once"),
        ("s3://bucket?endpoint=127.0.0.1:8333", "not an http URL"),
        ("s3://bucket?endpoint", "bad query field"),
        ("s3://bucket/../x", "cannot be used"),
    ],
)
def test_anything_else_is_refused(url: str, why: str) -> None:
    """With the reason."""
    with pytest.raises(InvalidSpec) as refused:
        open_store(url)
    assert why in refused.value.why
    assert refused.value.hint


def test_keys_in_a_url_are_refused_and_not_repeated() -> None:
    """The message may end in a log."""
    with pytest.raises(InvalidSpec) as refused:
        open_store("s3://AKIA:S3CRET@bucket")
    assert "S3CRET" not in f"{refused.value} {refused.value.hint}"


def test_a_directory_that_is_missing_is_said_so(tmp_path: Path) -> None:
    """A mistyped path is not created."""
    with pytest.raises(BucketMissing):
        open_store(f"file://{tmp_path}/none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("prefix", ["my states", "ä", "a//b", "../x", "a+b"])
def test_a_prefix_that_cannot_be_is_refused_with_what_can(prefix: str) -> None:
    """The message names the prefix and the characters that one may have."""
    with pytest.raises(InvalidSpec) as refused:
        open_store(f"s3://bucket/{prefix}")
    assert prefix in refused.value.why
    assert "letters" in refused.value.hint
