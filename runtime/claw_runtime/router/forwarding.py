"""What a tenant learns of its client's address: from the connection, or from a proxy in front that is known.

What a client says of itself counts for nothing. A program may trust an address of this host more than others, so a
proxy on this host must not make all clients look like it.
"""

import re
from collections.abc import Collection, Sequence
from typing import Final

from claw_runtime.router.heads import Field, Request

CLAIMED: Final = re.compile(rb"(?:forwarded|x-forwarded-.*|x-real-ip|tailscale-user-.*|x-remote-user)")
"""Names of fields by which proxies describe a client; a tenant gets none of those that came."""

UNKNOWN: Final = b"unknown"
_ADDRESS: Final = re.compile(rb"[0-9]{1,3}(?:\.[0-9]{1,3}){3}|[0-9A-Fa-f:]+(?::[0-9]{1,3}(?:\.[0-9]{1,3}){3})?")


def forwarded(peer: bytes, request: Request, proxies: Collection[bytes]) -> Sequence[Field]:
    """The fields that the tenant gets.

    Args:
        peer: The address of the other end of the connection.
        proxies: Addresses of proxies, each of which adds the address of its own client at the end of the list.
    """
    address, scheme = peer, b"http"
    if peer in proxies:
        found = [value for name, value in request.fields if name == b"x-forwarded-for"]
        if found:
            last = found[-1].rpartition(b",")[2].strip()
            address = last if _ADDRESS.fullmatch(last) else UNKNOWN
        if request.field(b"x-forwarded-proto") == b"https":
            scheme = b"https"
    return (
        (b"x-forwarded-for", address),
        (b"x-forwarded-proto", scheme),
        (b"x-forwarded-host", request.host),
    )
