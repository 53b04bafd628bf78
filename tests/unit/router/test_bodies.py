"""Bodies end where their framing says, in whatever pieces they come, and chunks are written anew."""

import random

import pytest
from claw_runtime.router.bodies import BadBody, body


def pieces(data: bytes, dice: random.Random) -> list[bytes]:
    found = []
    while data:
        size = dice.randint(1, min(len(data), dice.choice((1, 3, 40, 400))))
        found.append(data[:size])
        data = data[size:]
    return found


def taken(framing: object, data: list[bytes], *, plain: bool = False) -> tuple[bytes, bytes]:
    one, sent, rest = body(framing, plain=plain), b"", b""  # type: ignore[arg-type]
    for piece in data:
        if one.ended:
            rest += piece
            continue
        mine, after = one.take(piece)
        sent, rest = sent + mine, rest + after
    assert one.ended
    return sent, rest


@pytest.mark.parametrize("seed", range(50))
def test_a_chunked_body_arrives_whole(seed: int) -> None:
    """However it is cut, its bytes and nothing after them are sent, in chunks that make the same body again."""
    dice = random.Random(seed)
    content = dice.randbytes(dice.randint(0, 3000))
    chunked = b"".join(b"%X\r\n" % len(piece) + piece + b"\r\n" for piece in pieces(content, dice))
    chunked += b"0\r\nX-Trailer: 1\r\n\r\n"
    sent, rest = taken("chunked", pieces(chunked + b"GET /next", dice))
    assert rest == b"GET /next"
    assert taken("chunked", [sent], plain=True) == (content, b"")
    assert b"X-Trailer" not in sent


def test_a_counted_body_ends_at_its_length() -> None:
    """What comes after it is not part of it."""
    assert taken(5, [b"ab", b"cdefg", b"h"]) == (b"abcde", b"fgh")
    assert body(0).ended


def test_a_body_without_length_ends_with_its_connection() -> None:
    """Everything that comes belongs to it."""
    one = body("close")
    assert one.take(b"abc") == (b"abc", b"")
    assert not one.ended


@pytest.mark.parametrize(
    "wrong",
    [
        b"g\r\n",
        b"\r\n",
        b"-1\r\n",
        b"0x1\r\n",
        b"1;name=value\r\na\r\n",
        b" 1\r\na\r\n",
        b"1\na\r\n",
        b"1\r\nab\r\n",
        b"1\r\na\n",
        b"ffffffffffffffffff\r\n",
        b"1\r\r\na\r\n",
        b"0" * 2000,
        b"0\r\n" + b"X: " + b"a" * 900 + b"\r\n" + (b"X: " + b"a" * 900 + b"\r\n") * 10,
    ],
)
def test_a_chunk_with_two_readings_is_refused(wrong: bytes) -> None:
    """Lengths that others read in another way, lines that end otherwise, and endless lines end the connection."""
    with pytest.raises(BadBody):
        body("chunked").take(wrong)
