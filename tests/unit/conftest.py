"""Unit tests touch nothing outside: a test that starts a process or leaves the machine fails at that very call.

* A test that needs a child process carries `@pytest.mark.spawns`.
* Loopback (127.0.0.0/8, ::1, localhost) and Unix sockets are allowed, every other address is not, with any marker.

The guard is an interpreter audit hook, so that it sees calls of libraries and of modules that imported a function
early, and its failure is no `Exception`, so that no `except` of the code under test hides it.
"""

import ipaddress
import sys
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest

hypothesis.settings.register_profile("unit", deadline=None, database=None)  # a busy machine is not a failure
hypothesis.settings.load_profile("unit")

_SPAWNING = frozenset(
    {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "os.exec", "pty.spawn"}
)
_CONNECTING = frozenset({"socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg"})
_NAMING = frozenset({"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyname_ex", "socket.gethostbyaddr"})


class _Guard:
    """What is forbidden at the moment."""

    spawning = False
    networking = False


def _is_near(host: Any) -> bool:
    """Whether a host is this machine's loopback; anything but a host name or address is not a way out."""
    if isinstance(host, (bytes, bytearray)):
        host = bytes(host).decode("ascii", "replace")
    if not isinstance(host, str):
        return host is None
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if event in _SPAWNING and _Guard.spawning:
        pytest.fail(f"{event} {args[:2]!r}: a unit test that starts a process carries @pytest.mark.spawns")
    if not _Guard.networking:
        return
    # An address of AF_INET and AF_INET6 is a tuple whose first part is a text; Unix and netlink addresses are not.
    if event in _CONNECTING and len(args) > 1 and isinstance(args[1], tuple) and isinstance(args[1][0], str):
        near, what = _is_near(args[1][0]), args[1]
    elif event in _NAMING:
        near, what = _is_near(args[0]), args[0]
    else:
        return
    if not near:
        pytest.fail(f"{event} {what!r}: unit tests stay on loopback")


sys.addaudithook(_audit)


@pytest.fixture(autouse=True)
def mock_protection(request: pytest.FixtureRequest) -> Iterator[None]:
    """Forbid processes (unless the test is marked `spawns`) and every network but loopback, for one test."""
    _Guard.spawning = request.node.get_closest_marker("spawns") is None
    _Guard.networking = True
    yield
    _Guard.spawning = _Guard.networking = False
