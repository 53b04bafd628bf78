"""HTTP probes of a container's loopback port, with the standard library's client: no pool, no redirects, no retries."""

import http.client
import socket
import sys
from collections.abc import Collection
from pathlib import Path

from claw_runtime.engine.seen import published

CONNECT_TIMEOUT = 0.5
"""Seconds that a connection may take to be refused."""

_SOCKETS = Path("/proc/net/tcp")
_ADDRESSES = frozenset({f"{int.from_bytes(socket.inet_aton('127.0.0.1'), sys.byteorder):08X}", "00000000"})


class HttpProber:
    """Implements `ports.Prober`."""

    def get(self, port: int, path: str, timeout: float, bearer: str | None = None) -> tuple[int, bytes] | None:
        """HTTP status and the first 64 KiB of the body; None when nothing answers in `timeout` seconds."""
        headers = {"Connection": "close"} | ({"Authorization": f"Bearer {bearer}"} if bearer else {})
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read(65_536)
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def refusing(self, ports: Collection[int]) -> frozenset[int]:
        """Those of these ports of 127.0.0.1 that refuse connections.

        The kernel's table of listeners answers for most. A connection is tried only for a port that is not in it.
        """
        return frozenset(port for port in set(ports) - _listening() if _refuses(port))

    def is_free(self, port: int) -> bool:
        """Whether the port can be bound now; a connection that ended a moment ago does not count."""
        return not published(port)


def _listening() -> set[int]:
    """Ports with an IPv4 listener on 127.0.0.1 or on every address; empty if the kernel does not tell."""
    try:
        lines = _SOCKETS.read_text().splitlines()[1:]
    except OSError:
        return set()
    # "  0: 0100007F:1F90 00000000:0000 0A …": local address in the order of bytes of the machine, state 0A is LISTEN
    fields = [line.split(maxsplit=4) for line in lines]
    locals_ = [field[1].split(":") for field in fields if len(field) > 4 and field[3] == "0A"]
    return {int(port, 16) for address, port in locals_ if address in _ADDRESSES}


def _refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=CONNECT_TIMEOUT).close()
    except ConnectionRefusedError:
        return True
    except OSError:  # a full backlog, for example: something listens
        return False
    return False
