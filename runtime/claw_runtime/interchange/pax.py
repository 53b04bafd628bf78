"""Members of a tar, as GNU tar writes them: a header, and PAX records for what does not fit into it.

Names, link targets, and the names and values of attributes are bytes in the records, whatever their encoding. In the
name of an attribute, `%` and `=` are `%25` and `%3D`. Times are decimal seconds. A file with holes has a map of its
data ("GNU.sparse", version 1.0).
"""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Final

from claw_runtime.formats.manifest import LATEST

BLOCK: Final = 512
FILE: Final = b"0"
LINK: Final = b"2"
DIRECTORY: Final = b"5"
_RECORDS: Final = b"x"
_XATTR: Final = "SCHILY.xattr."
_UTF8: Final = b"ISO-IR 10646 2000 UTF-8"
_NANO: Final = 10**9
_SECONDS: Final = 8**11  # what a header holds
_NAME: Final = 100

Attributes = Iterable[tuple[str, bytes]]
Segments = Sequence[tuple[int, int]]
"""Where a file has data: offset and length of each part, in order."""


def member(
    name: str, kind: bytes, *, mode: int, mtime_ns: int, size: int = 0, target: str = "", xattrs: Attributes = ()
) -> bytes:
    """The headers of a file without holes, of a directory or of a link; the content of a file follows, `padded`."""
    raw, link = _bytes(name), _bytes(target)
    records = _common(mtime_ns, xattrs)
    if not _fits(raw):
        records[b"path"] = raw
    if not _fits(link):
        records[b"linkpath"] = link
    if size >= _SECONDS:
        records[b"size"] = b"%d" % size
    return _records(raw, records) + _header(raw, kind, mode=mode, mtime_ns=mtime_ns, size=size, link=link)


def sparse(name: str, segments: Segments, *, mode: int, mtime_ns: int, size: int, xattrs: Attributes = ()) -> bytes:
    """The headers and the map of a file of `size` bytes with holes; the bytes of its segments follow, `padded`."""
    raw = _bytes(name)
    parts = [*segments, *([(size, 0)] if not segments or sum(segments[-1]) < size else [])]
    text = b"%d\n" % len(parts) + b"".join(b"%d\n%d\n" % part for part in parts)
    chart = text + bytes(-len(text) % BLOCK)
    records = {
        b"GNU.sparse.major": b"1",
        b"GNU.sparse.minor": b"0",
        b"GNU.sparse.name": raw,
        b"GNU.sparse.realsize": b"%d" % size,
        **_common(mtime_ns, xattrs),
    }
    above, _, last = raw.rpartition(b"/")
    shown = (above + b"/" if above else b"") + b"GNUSparseFile.0/" + last
    stored = len(chart) + sum(length for _, length in segments)
    return _records(raw, records) + _header(shown, FILE, mode=mode, mtime_ns=mtime_ns, size=stored) + chart


def padded(size: int) -> bytes:
    """What follows content of `size` bytes, so that the next header begins at a block."""
    return bytes(-size % BLOCK)


def xattrs_of(records: Mapping[str, str]) -> tuple[tuple[str, bytes], ...]:
    """The extended attributes of a member, from its PAX records as `tarfile` gives them."""
    return tuple(
        (key.removeprefix(_XATTR).replace("%3D", "=").replace("%25", "%"), value.encode("utf-8", "surrogateescape"))
        for key, value in records.items()
        if key.startswith(_XATTR)
    )


def mtime_of(records: Mapping[str, str], seconds: float) -> int:
    """The time of a member in ns, limited to what a manifest holds; `seconds` if its records have no valid time."""
    try:
        exact = Decimal(records["mtime"])
    except (KeyError, InvalidOperation):
        exact = Decimal(seconds)
    if exact.is_nan():
        return 0
    if abs(exact) > LATEST // _NANO:
        return LATEST if exact > 0 else -LATEST
    return int((exact * _NANO).to_integral_value(rounding="ROUND_FLOOR"))


def _common(mtime_ns: int, xattrs: Attributes) -> dict[bytes, bytes]:
    records = {_keyword(name): value for name, value in xattrs}
    if mtime_ns % _NANO or not 0 <= mtime_ns < _SECONDS * _NANO:
        records[b"mtime"] = _decimal(mtime_ns)
    return records


def _keyword(name: str) -> bytes:
    return _XATTR.encode() + _bytes(name).replace(b"%", b"%25").replace(b"=", b"%3D")


def _decimal(mtime_ns: int) -> bytes:
    seconds, rest = divmod(abs(mtime_ns), _NANO)
    text = f"{'-' if mtime_ns < 0 else ''}{seconds}.{rest:09}"
    return text.rstrip("0").rstrip(".").encode()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _fits(raw: bytes) -> bool:
    return len(raw) <= _NAME and raw.isascii()


def _records(name: bytes, records: Mapping[bytes, bytes]) -> bytes:
    """The header and content of a member that holds records for the next one; nothing without records."""
    if not records:
        return b""
    body = b"".join(_record(keyword, value) for keyword, value in records.items())
    if b"hdrcharset=" in body:  # some readers search for it anywhere: a first one that changes nothing ends the search
        body = _record(b"hdrcharset", _UTF8) + body
    shown = b"PaxHeaders/" + name.rpartition(b"/")[2]
    return _header(shown, _RECORDS, mode=0o644, mtime_ns=0, size=len(body)) + body + padded(len(body))


def _record(keyword: bytes, value: bytes) -> bytes:
    """`length keyword=value\\n`, where the length counts its own digits."""
    rest = len(keyword) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %b=%b\n" % (length, keyword, value)


def _header(name: bytes, kind: bytes, *, mode: int, mtime_ns: int, size: int, link: bytes = b"") -> bytes:
    """A block in POSIX's form. What does not fit is cut: a record has it."""
    seconds = min(max(mtime_ns // _NANO, 0), _SECONDS - 1)
    counted = b"%011o\0" % size if size < _SECONDS else b"\x80" + size.to_bytes(11, "big")
    start = name[:_NAME].ljust(_NAME, b"\0") + b"%07o\0%07o\0%07o\0" % (mode, 0, 0) + counted + b"%011o\0" % seconds
    end = kind + link[:_NAME].ljust(_NAME, b"\0") + b"ustar\x0000" + bytes(64) + b"%07o\0%07o\0" % (0, 0)
    end = end.ljust(BLOCK - len(start) - 8, b"\0")
    return start + b"%06o\0 " % (sum(start) + sum(end) + 8 * ord(" ")) + end
