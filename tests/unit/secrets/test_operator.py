"""The operator's keys come out of a file that nobody else can read, or not at all."""

import base64
from pathlib import Path

import pytest
from claw_runtime.errors import InvalidSpec
from claw_runtime.secrets.operator import operator_keys

ONE, TWO = bytes(range(32)), b"\xff" * 32


def written(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_keys_come_in_their_order(tmp_path: Path) -> None:
    """Base64 or hex, between comments and empty lines."""
    text = f"# of 2026\n{base64.b64encode(TWO).decode()}\n\n  {ONE.hex().upper()}  \n"
    assert operator_keys(written(tmp_path / "key", text)) == (TWO, ONE)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("# none\n", "no key"),
        (f"{ONE.hex()}\n{base64.b64encode(ONE).decode()}", "one twice"),
        ("x" * 44, "32 random bytes"),
        (ONE.hex()[:-2], "32 random bytes"),
        (base64.b64encode(ONE[:16]).decode(), "32 random bytes"),
        ("00" * 32, "32 random bytes"),
    ],
)
def test_what_is_no_key_is_refused(tmp_path: Path, text: str, why: str) -> None:
    """And is not printed: it may be a key but for a letter."""
    path = written(tmp_path / "key", text)
    with pytest.raises(InvalidSpec, match=why) as caught:
        operator_keys(path)
    assert not text or text.strip() not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    """Whoever could read it may have read it."""
    with pytest.raises(InvalidSpec, match="others can read"):
        operator_keys(written(tmp_path / "key", ONE.hex(), mode))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """The hint says how one is made, and that a copy comes first."""
    with pytest.raises(InvalidSpec, match="no such file") as caught:
        operator_keys(tmp_path / "key")
    assert "put your copy back" in caught.value.hint
