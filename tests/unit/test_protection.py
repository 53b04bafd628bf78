"""The guard that keeps unit tests on this machine and in this process is itself tested."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

Failed = pytest.fail.Exception


@pytest.mark.parametrize(
    "spawn",
    [
        lambda: subprocess.run([sys.executable, "-c", "pass"], check=True),
        lambda: os.system("true"),
        lambda: os.posix_spawn("/bin/true", ["true"], {}),
        os.fork,
    ],
    ids=["subprocess", "system", "posix_spawn", "fork"],
)
def test_an_unmarked_test_cannot_start_a_process(spawn) -> None:
    """Every way to start a child fails, with a failure that no `except Exception` hides."""
    assert not issubclass(Failed, Exception)
    with pytest.raises(Failed, match="spawns"):
        spawn()


@pytest.mark.spawns
def test_a_marked_test_can_start_a_process() -> None:
    """The marker opens exactly that door."""
    assert subprocess.run([sys.executable, "-c", "print(7)"], check=True, capture_output=True).stdout == b"7\n"


@pytest.mark.spawns
@pytest.mark.parametrize("address", [("192.0.2.1", 9), ("0.0.0.0", 0), ("", 0), ("2001:db8::1", 9)])
def test_no_test_leaves_the_machine(address: tuple[str, int]) -> None:
    """A foreign address fails for connecting and binding, with any marker."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family) as sock:
        with pytest.raises(Failed, match="loopback"):
            sock.connect(address)
        with pytest.raises(Failed, match="loopback"):
            sock.bind(address)


def test_no_test_asks_for_a_foreign_name() -> None:
    """A name server is outside as well."""
    with pytest.raises(Failed, match="loopback"):
        socket.getaddrinfo("example.org", 443)


def test_loopback_and_unix_sockets_are_allowed(tmp_path: Path) -> None:
    """What stays on the machine works, by address and by name."""
    for family, address in ((socket.AF_INET, ("127.0.0.1", 0)), (socket.AF_UNIX, str(tmp_path / "s"))):
        with socket.socket(family) as server, socket.socket(family) as client:
            server.bind(address)
            server.listen()
            client.connect(server.getsockname())
    assert socket.getaddrinfo("localhost", 80)
