"""What services are known for: looked up by host, never without a public source."""

import pytest
from claw_runtime.objects.quirks import KNOWN, NONE, is_loopback, quirks_of


@pytest.mark.parametrize(
    ("endpoint", "unlike"),
    [
        ("https://fsn1.your-objectstorage.com", {"quoted_etags", "conditional_delete"}),
        ("https://nyc3.digitaloceanspaces.com/", {"quoted_etags"}),
        ("https://s3.us-west-004.backblazeb2.com", {"checksums"}),
        ("https://0123.r2.cloudflarestorage.com:443", {"checksums"}),
        ("https://storage.googleapis.com", {"checksums"}),
        ("https://gateway.storjshare.io", {"checksums"}),
        ("https://ns.compat.objectstorage.eu-frankfurt-1.oraclecloud.com", {"checksums"}),
        ("https://evil.example/x.backblazeb2.com", set()),
        ("https://s3.backblazeb2.com.example", set()),
        ("http://127.0.0.1:8333", set()),
        (None, set()),
    ],
)
def test_a_host_is_known_by_its_whole_name(endpoint: str | None, unlike: set[str]) -> None:
    """A name that only looks like one of them is a stranger, who is taken at its word."""
    found = quirks_of(endpoint)
    assert {name for name in NONE.__slots__ if getattr(found, name) != getattr(NONE, name)} == unlike


def test_every_quirk_was_seen_by_somebody() -> None:
    """An address to read about it, and a quirk that differs from what everybody does."""
    for known in KNOWN:
        assert known.quirks != NONE
        assert known.sources
        assert all(source.startswith("https://github.com/") for source in known.sources)


@pytest.mark.parametrize(
    ("endpoint", "is_so"),
    [
        ("http://127.0.0.1:8333", True),
        ("http://127.8.0.1", True),
        ("http://[::1]:8333", True),
        ("http://LocalHost:9000", True),
        ("http://s3.localhost", True),
        ("http://localhost.example.org", False),
        ("http://10.0.0.1", False),
        (None, False),
    ],
)
def test_loopback_is_known_by_name_and_number(endpoint: str | None, is_so: bool) -> None:
    """Of any address of this host's loopback, and of no name that only begins like it."""
    assert is_loopback(endpoint) is is_so
