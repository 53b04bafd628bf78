"""Bodies of HTTP/1 messages, taken out of what a connection brings and framed anew for the other side."""

import re
from typing import Final, Protocol

from claw_runtime.router.heads import Framing

_SIZE: Final = re.compile(rb"[0-9A-Fa-f]{1,15}")
_LINE: Final = 1024
"""Bytes of a chunk's line, and of a line after the last chunk."""
_TRAILERS: Final = 8 * 1024


class BadBody(Exception):
    """A body whose framing makes no sense. The connection can carry nothing after it."""


class Body(Protocol):
    """A body as it comes.

    Attributes:
        ended: Whether all of it was taken.
    """

    ended: bool

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """What to send on of these bytes, framed for the other side, and what comes after the body. Raises
        `BadBody`."""


def body(framing: Framing, *, plain: bool = False) -> Body:
    """Takes a body with this framing. `plain`: without chunks for the other side."""
    if framing == "chunked":
        return _Chunked(plain)
    return _Open() if framing == "close" else _Counted(framing)


class _Counted:
    def __init__(self, length: int) -> None:
        self._left, self.ended = length, not length

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        if len(data) < self._left:
            self._left -= len(data)
            return data, b""
        mine, after = data[: self._left], data[self._left :]
        self._left, self.ended = 0, True
        return mine, after


class _Open:
    """Ends with the connection."""

    ended = False

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        return data, b""


class _Chunked:
    """Chunks are read strictly and written anew, without extensions; fields after the last one are dropped."""

    def __init__(self, plain: bool) -> None:
        self.ended, self._plain = False, plain
        self._left = 0  # of the present chunk
        self._line = b""  # the beginning of one that is not whole
        self._next = self._size
        self._trailers = 0

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        sent = list[bytes]()
        data, self._line = self._line + data if self._line else data, b""
        at = 0
        while at < len(data) and not self.ended:
            if self._left:
                piece = data[at : at + self._left]
                at += len(piece)
                self._left -= len(piece)
                sent += (piece,) if self._plain else (b"%x\r\n" % len(piece), piece, b"\r\n")
                if not self._left:
                    self._next = self._after
                continue
            stop = data.find(b"\n", at, at + _LINE)
            if stop < 0:
                if len(data) - at >= _LINE:
                    raise BadBody("a line of a chunk is too long")
                self._line = data[at:]
                return b"".join(sent), b""
            line, at = data[at:stop], stop + 1
            if not line.endswith(b"\r") or b"\r" in line[:-1] or b"\0" in line:
                raise BadBody("a line of a chunk does not end as it must")
            self._next(line[:-1])
        if self.ended and not self._plain:
            sent.append(b"0\r\n\r\n")
        return b"".join(sent), data[at:]

    def _size(self, line: bytes) -> None:
        if not _SIZE.fullmatch(line):
            raise BadBody("the length of a chunk is not clear")
        self._left = int(line, 16)
        if not self._left:
            self._next = self._trailer

    def _after(self, line: bytes) -> None:
        if line:
            raise BadBody("a chunk is longer than its length")
        self._next = self._size

    def _trailer(self, line: bytes) -> None:
        self._trailers += len(line)
        if self._trailers > _TRAILERS:
            raise BadBody("the fields after the last chunk are too long")
        self.ended = not line
