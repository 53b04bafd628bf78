"""Counts the frames of a WebSocket in one direction, by kind, without touching what they carry (RFC 6455)."""

from typing import Final

DATA: Final = frozenset((0, 1, 2))
"""Continuation, text, binary. The others are about the connection: close, ping, pong."""


class Frames:
    """The frames of one direction.

    Attributes:
        data: Frames with data that have begun so far.
        control: Other frames, likewise.
    """

    __slots__ = ("_head", "_skip", "control", "data")

    def __init__(self) -> None:
        self.data = self.control = 0
        self._head = b""
        self._skip = 0

    @property
    def is_between(self) -> bool:
        """Whether the last frame is whole."""
        return not self._skip and not self._head

    def count(self, data: bytes) -> int:
        """Count the frames that begin in these bytes; how many of them carry data."""
        at, before, size = self._skip, self.data, len(data)
        if self._head:
            data, self._head = self._head + data, b""
            size = len(data)
        while at < size:
            head = data[at : at + 14]
            length = _length(head)
            if length < 0:
                self._head = head
                at = size
                break
            if head[0] & 0x0F in DATA:
                self.data += 1
            else:
                self.control += 1
            at += length
        self._skip = at - size
        return self.data - before


def _length(head: bytes) -> int:
    """Bytes of the frame that begins with these, its head included; -1 if they are too few to say."""
    if len(head) < 2:
        return -1
    short, mask = head[1] & 0x7F, 4 if head[1] & 0x80 else 0
    if short < 126:
        return 2 + mask + short
    more = 2 if short == 126 else 8
    if len(head) < 2 + more:
        return -1
    return 2 + more + mask + int.from_bytes(head[2 : 2 + more], "big")
