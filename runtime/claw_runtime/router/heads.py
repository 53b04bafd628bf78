"""Heads of HTTP/1 messages: read strictly, and written anew, so that both sides of the router see the same message.

A head is accepted if two readers agree: the grammar here, without any of the tolerances of RFC 9112 (folded lines, bare
line feeds, several lengths), and llhttp. What one of them would refuse, or could read in another way, is refused.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import httptools

MOST: Final = 32 * 1024
"""Bytes of a head."""

Field = tuple[bytes, bytes]
Framing = int | Literal["chunked", "close"]
"""How the end of a body is found: its length in bytes, its last chunk, or (answers only) the end of the connection."""

HOP: Final = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade")
)
"""Fields about one connection, which no proxy passes on (RFC 9110, section 7.6.1)."""

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_FIELDS: Final = rb"((?:" + _TOKEN + rb":[\t -~\x80-\xff]*\r\n)*)\r\n"
_REQUEST: Final = re.compile(rb"(" + _TOKEN + rb") ([!-~]+) HTTP/1\.([01])\r\n" + _FIELDS)
_ANSWER: Final = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: ([\t -~\x80-\xff]*))?\r\n" + _FIELDS)
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
_HOST: Final = re.compile(rb"(?:[0-9A-Za-z._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_PROTOCOL: Final = re.compile(rb"websocket", re.IGNORECASE)


class BadHead(Exception):
    """A head that is not passed on. `status` answers it."""

    def __init__(self, why: str, status: int = 400) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True, slots=True)
class Request:
    """The head of a request.

    Attributes:
        fields: Names in lower case, in sequence, without those about the connection.
        keeps: Whether the client's connection may carry another request.
        websocket: Whether it asks for a WebSocket.
        expects: Whether the client waits for `100 Continue` before it sends the body.
        is_old: Whether it is HTTP/1.0, which has no chunks.
    """

    method: bytes
    target: bytes
    host: bytes
    fields: tuple[Field, ...]
    framing: Framing
    keeps: bool
    websocket: bool
    expects: bool
    is_old: bool

    def field(self, name: bytes) -> bytes | None:
        """The only field of this name; None without one, or with several."""
        found = [value for key, value in self.fields if key == name]
        return found[0] if len(found) == 1 else None


@dataclass(frozen=True, slots=True)
class Answer:
    """The head of an answer.

    Attributes:
        fields: As in `Request`; with the length of the body only if none follows.
        bodiless: Whether no body follows, whatever the fields say: to a HEAD, or by its status.
        keeps: Whether the connection may carry another answer.
    """

    status: int
    reason: bytes
    fields: tuple[Field, ...]
    framing: Framing
    bodiless: bool
    keeps: bool

    @property
    def is_final(self) -> bool:
        """Whether it ends the request, unlike `100 Continue`."""
        return self.status >= 200 or self.status == 101


def end(data: bytes | bytearray) -> int:
    """Where the body begins, or 0 while the head is not whole. Raises `BadHead` for one that is too long."""
    found = data.find(b"\r\n\r\n", 0, MOST)
    if found >= 0:
        return found + 4
    if len(data) >= MOST:
        raise BadHead("the head is longer than 32 kB", 431)
    return 0


def request(head: bytes) -> Request:
    """Read the head of a request. Raises `BadHead`."""
    whole = _REQUEST.fullmatch(head)
    if whole is None:
        raise BadHead("the head is not HTTP/1.1")
    method, target, minor, text = whole.groups()
    if method == b"CONNECT" or not (target.startswith(b"/") or (method, target) == (b"OPTIONS", b"*")):
        raise BadHead("the target is not a path")
    _agree(httptools.HttpRequestParser, head)
    given = _fields(text)
    hosts = [value for name, value in given if name == b"host"]
    if len(hosts) != 1 or not _HOST.fullmatch(hosts[0]):
        raise BadHead("there must be one host")
    options = _options(given)
    framing = _framing(given, minor)
    upgrade = [value for name, value in given if name == b"upgrade"]
    websocket = b"upgrade" in options and len(upgrade) == 1 and _PROTOCOL.fullmatch(upgrade[0]) is not None
    if websocket and (method != b"GET" or minor == b"0" or framing not in (None, 0)):
        raise BadHead("a WebSocket begins with a GET without a body")
    expect = [value.lower() for name, value in given if name == b"expect"]
    if expect not in ([], [b"100-continue"]):
        raise BadHead("nothing but 100-continue can be expected", 417)
    return Request(
        method=method,
        target=target,
        host=hosts[0].lower(),
        fields=_passed(given, options, {b"host", b"content-length", b"expect"}),
        framing=0 if framing is None else framing,
        keeps=_keeps(minor, options),
        websocket=websocket,
        expects=bool(expect) and framing not in (None, 0) and minor == b"1",
        is_old=minor == b"0",
    )


def answer(head: bytes, method: bytes) -> Answer:
    """Read the head of the answer to a request of this method. Raises `BadHead`."""
    whole = _ANSWER.fullmatch(head)
    if whole is None:
        raise BadHead("the answer is not HTTP/1.1", 502)
    minor, status, reason, text = whole.groups()
    try:
        _agree(httptools.HttpResponseParser, head)
        given = _fields(text)
        framing = _framing(given, minor)
    except BadHead as error:
        raise BadHead(str(error), 502) from error
    options, code = _options(given), int(status)
    bodiless = code < 200 or code in (204, 304) or method == b"HEAD"
    body: Framing = 0 if bodiless else "close" if framing is None else framing
    length = set[bytes]() if bodiless and code >= 200 and code != 204 else {b"content-length"}
    keeps = _keeps(minor, options) and body != "close"
    return Answer(code, reason or b"", _passed(given, options, length), body, bodiless, keeps)


def written(first: bytes, fields: Iterable[Field]) -> bytes:
    """The bytes of a head."""
    lines = [first, *(name + b": " + value for name, value in fields), b"", b""]
    return b"\r\n".join(lines)


def framed(framing: Framing) -> Sequence[Field]:
    """The field that says how a body of this framing ends; none for one that ends with the connection."""
    if framing == "chunked":
        return ((b"transfer-encoding", b"chunked"),)
    return () if framing == "close" else ((b"content-length", b"%d" % framing),)


def _fields(text: bytes) -> list[Field]:
    found = []
    for line in text.split(b"\r\n")[:-1]:
        name, _, value = line.partition(b":")
        found.append((name.lower(), value.strip(b" \t")))
    return found


def _options(fields: Iterable[Field]) -> frozenset[bytes]:
    """What the `Connection` fields name, in lower case."""
    named = (one for name, value in fields if name == b"connection" for one in value.split(b","))
    return frozenset(one.strip(b" \t").lower() for one in named)


def _keeps(minor: bytes, options: frozenset[bytes]) -> bool:
    return b"close" not in options and (minor == b"1" or b"keep-alive" in options)


def _framing(fields: Iterable[Field], minor: bytes) -> Framing | None:
    """How a body ends; None if no field says so. Only one field of one kind is accepted."""
    lengths = [value for name, value in fields if name == b"content-length"]
    codings = [value.lower() for name, value in fields if name == b"transfer-encoding"]
    if codings:
        if lengths or codings != [b"chunked"] or minor == b"0":
            raise BadHead("the end of the body is not clear")
        return "chunked"
    if not lengths:
        return None
    if len(lengths) > 1 or not _LENGTH.fullmatch(lengths[0]):
        raise BadHead("the length of the body is not clear")
    return int(lengths[0])


def _passed(fields: Iterable[Field], options: frozenset[bytes], besides: set[bytes]) -> tuple[Field, ...]:
    gone = HOP | options | besides
    return tuple(one for one in fields if one[0] not in gone)


class _Silent:
    """A listener of llhttp that keeps nothing."""


def _agree(reader: Any, head: bytes) -> None:
    try:
        reader(_Silent()).feed_data(head)
    except httptools.HttpParserUpgrade:
        return
    except httptools.HttpParserError as error:
        raise BadHead(f"the head is not HTTP/1.1: {error}") from error
