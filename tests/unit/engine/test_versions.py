"""Which Podman claw works with."""

import pytest
from claw_runtime.engine import versions
from claw_runtime.errors import EngineUnsupported


@pytest.mark.parametrize("text", ["4.3.0", "4.3.1", "4.10.0", "5.4.2", "5.8.0-dev", "5.99.1~rc2"])
def test_versions_between_the_bounds_pass(text: str) -> None:
    """With whatever follows the second number; another major version is refused."""
    versions.check(text)
    with pytest.raises(EngineUnsupported):
        versions.check(f"3.{text}")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("4.2.9", "too old"),
        ("3.4.4", "too old"),
        ("6.0.0-rc1", "too new"),
        ("10.0", "too new"),
        ("dev", "cannot be read"),
        ("", "cannot be read"),
    ],
)
def test_others_are_refused(text: str, word: str) -> None:
    """With both bounds in the hint, and a code of their own."""
    with pytest.raises(EngineUnsupported, match=word) as caught:
        versions.check(text)
    assert caught.value.exit_code == 45
    assert all(bound in caught.value.hint for bound in ("4.3", "6.0"))


def test_a_version_that_is_too_new_says_what_changed() -> None:
    """The operator learns why claw does not simply try."""
    with pytest.raises(EngineUnsupported) as caught:
        versions.check("6.1.0")
    assert "cgroup v1" in caught.value.why


def test_every_difference_has_a_source() -> None:
    """In the order of versions, so that the last one that applies is the newest."""
    since = [one.since for one in versions.DIFFERENCES]
    assert since == sorted(since)
    assert all(one.source for one in versions.DIFFERENCES)
