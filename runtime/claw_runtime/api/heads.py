"""Reads from the head of a request over TCP whose it is and which lane it needs, without parsing the request.

This only decides when a request begins. The guard checks the parsed request again, and its word counts.
"""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from claw_runtime.access.tokens import Tokens
from claw_runtime.api.lanes import LOOKS, Lane, lane_of

MOST: Final = 16 << 10
"""Bytes of a head. The parser refuses longer ones."""

_END = re.compile(rb"\n\r?\n")  # as the parser finds it
_LINE = re.compile(rb"\s*([A-Z]+) ([!-~]+) ")
_BEARER = re.compile(rb"\nauthorization:[ \t]*bearer[ \t]+([!-~]+)", re.IGNORECASE)
_CAPABILITY = re.compile(r"/t/([^/]*)(/.*)?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a head asks for.

    Attributes:
        holder: Whose share it takes: `tenant NAME`, or `token NAME` for a token of scope `admin`; empty without a valid
            token.
        lane: The lane of its route; probes count as looks here.
        limited: Whether it waits for its turn before it is parsed: requests of operators' tokens do not.
    """

    holder: str
    lane: Lane
    limited: bool = True


def whole(head: bytes) -> bytes | None:
    """The head of a request, out of what has come; None if more must come.

    What can be no head, as the beginning of TLS, is whole: the parser refuses it at once.
    """
    if len(head) > MOST or (head and head[0] <= ord(" ")):
        return head
    found = _END.search(head)
    return head[: found.end()] if found else None


class Heads:
    """Reads heads with the tokens of one host."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    def read(self, head: bytes) -> Asked:
        """What a whole head asks for; one that makes no sense is nobody's."""
        line = _LINE.match(head)
        if line is None:
            return Asked("", LOOKS)
        target, _, query = line[2].partition(b"?")
        path, text = unquote(target.decode("ascii")), None
        if found := _CAPABILITY.fullmatch(path):
            text, path = found[1], found[2] or "/"
        elif bearer := _BEARER.search(head):
            text = bearer[1].decode("ascii")
        grant = self._tokens.check(text) if text else None
        if grant is None:
            return Asked("", LOOKS)
        lane = lane_of(line[1].decode("ascii"), path, query) or LOOKS
        if grant.tenant is None:
            return Asked(f"token {grant.name}", lane, limited=False)
        return Asked(f"tenant {grant.tenant}", lane)
