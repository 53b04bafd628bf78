"""A tenant's secrets are nowhere in what it printed, however it wrote them; the rest of the line stays."""

import base64
import json
from urllib.parse import quote

import pytest
from claw_runtime.logs import MASK
from claw_runtime.telemetry.redaction import SHORTEST, Redactor
from hypothesis import given
from hypothesis import strategies as st

SECRET = 's3cr3t-"7f3\\a9/b c+ü'


@pytest.mark.parametrize(
    "written",
    [
        SECRET,
        json.dumps(SECRET),
        json.dumps(SECRET, ensure_ascii=False),
        repr(SECRET),
        quote(SECRET),
        quote(SECRET, safe=""),
    ],
)
def test_a_secret_is_masked_however_it_is_written(written: str) -> None:
    """What stands before and after it stays."""
    masked = Redactor([SECRET]).line(f"before {written} after".encode()).decode()
    assert masked.startswith("before ")
    assert masked.endswith(" after")
    assert MASK in masked
    assert "7f3" not in masked


@pytest.mark.parametrize("before", ["", "a", "ab", "user:", "someone else:"])
@pytest.mark.parametrize("altchars", [b"+/", b"-_"])
def test_a_secret_inside_base64_is_masked(before: str, altchars: bytes) -> None:
    """Wherever it begins, as in a Basic header: but for a digit at each end, which holds bits of a neighbour too."""
    secret = "correct horse~?~?battery staple"
    text = base64.b64encode(f"{before}{secret}:after".encode(), altchars).decode()
    left, _, right = Redactor([secret]).text(text).partition(MASK)
    assert text.startswith(left)
    assert text.endswith(right)
    assert len(left) <= (len(before) * 8 + 5) // 6 + 1
    assert len(right) <= (len(":after") * 8 + 5) // 6 + 4


def test_overlapping_secrets_leave_nothing() -> None:
    """Where the end of one is the beginning of another, and where one is a part of another."""
    redactor = Redactor(["first-shared", "shared-second", "red-sec"])
    assert redactor.line(b"x first-shared-second y") == f"x {MASK} y".encode()


def test_a_secret_of_many_lines_is_masked_line_by_line() -> None:
    """As a key in PEM form comes."""
    key = "-----BEGIN KEY-----\nMIIEvQIBADANBgkq\nhkiG9w0BAQEFAASC\n-----END KEY-----\n"
    masked = b"\n".join(Redactor([key]).lines(key.encode().splitlines()))
    assert b"MIIE" not in masked
    assert b"hkiG" not in masked


def test_a_short_secret_is_not_looked_for() -> None:
    """Else every `true` of a log would go, and so tell what the secret is."""
    assert Redactor(["true", "x" * (SHORTEST - 1), ""]).text("it is true xxxxx") == "it is true xxxxx"


def test_what_looks_secret_is_masked_without_being_known() -> None:
    """A bearer header or a password in a URL, also somebody else's."""
    masked = Redactor([]).text("Authorization: Bearer abcdefghijkl and https://u:pa55@host/x")
    assert "abcdefghijkl" not in masked
    assert "pa55" not in masked


def test_bytes_that_are_no_text_stay() -> None:
    """A program may print anything."""
    assert Redactor(["secret-one"]).line(b"\xff\xfe secret-one \x80") == b"\xff\xfe " + MASK.encode() + b" \x80"


@given(
    st.text(min_size=SHORTEST, max_size=40).filter(lambda text: len(text.strip()) >= SHORTEST),
    st.binary(max_size=20),
    st.binary(max_size=20),
)
def test_any_secret_is_gone_from_any_line(secret: str, before: bytes, after: bytes) -> None:
    """Whatever it is made of, and whatever stands around it."""
    data = secret.encode()
    masked = Redactor([secret]).line(before + data + after)
    rest = masked.replace(MASK.encode(), b"")
    assert data not in rest or data in before + after or data in MASK.encode()
