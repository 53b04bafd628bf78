"""The processes that publish a tenant's port are killed on real Podman: the tenant answers again, with its state."""

import os
import signal
import sqlite3
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from claw_runtime.engine.probe import HttpProber
from fakes import live_podman
from fakes.daemon import Daemon, on_small_image

pytestmark = pytest.mark.podman


@pytest.fixture(scope="module")
def daemon(session_home: Path, small_image: str) -> Iterator[Daemon]:
    """A daemon with a store in a directory."""
    with live_podman.directory_in(session_home) as home, on_small_image(home, small_image) as made:
        yield made


def listeners(port: int) -> list[int]:
    """Processes of this user that listen on a port of 127.0.0.1: the helpers of the one container that publishes it."""
    local = f"0100007F:{port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    sockets = {f"socket:[{row[9]}]" for row in rows if row[1] == local and row[3] == "0A"}
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if sockets & {os.readlink(descriptor) for descriptor in (process / "fd").iterdir()}:
                found.append(int(process.name))
    return found


def lose(port: int) -> None:
    """Kill them, and wait until they are gone."""
    helpers = listeners(port)
    assert helpers
    for pid in helpers:
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while not HttpProber().refusing([port]):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def fetch(port: int) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/colour", timeout=10) as answer:
        return answer.read()  # type: ignore[no-any-return]


def test_a_tenant_whose_port_helpers_died_answers_again(daemon: Daemon) -> None:
    """Its program runs on in vain, until the daemon moves its state to another container; a second tenant is left
    alone."""
    before = daemon.ok("claim", "alice", "-o", "json").json
    assert before["source"] == "created"  # a slot that waits has its listener
    beside = daemon.ok("claim", "bob", "-o", "json").json
    daemon.ok("exec", "alice", "--", "sh", "-c", "echo blue > /state/colour")
    port = before["endpoints"]["port"]
    assert fetch(port) == b"blue\n"

    lose(port)
    deadline = time.monotonic() + 120
    while (now := daemon.ok("status", "alice", "-o", "json").json)["restarted"] != "port-lost":
        assert time.monotonic() < deadline, daemon.log[-3000:]
        time.sleep(0.5)
    assert now["state"] == "active"
    assert now["containerId"] != before["containerId"]
    assert fetch(now["port"]) == b"blue\n"
    assert daemon.ok("status", "bob", "-o", "json").json["containerId"] == beside["containerId"]
    assert "port lost" in daemon.log
    for tenant in ("alice", "bob"):
        daemon.ok("release", tenant)


def test_a_waiting_slot_whose_port_helpers_died_is_replaced(daemon: Daemon) -> None:
    """A claim does not wait for a program that nobody can reach: it takes another slot, which answers."""
    deadline = time.monotonic() + 60
    while not (ports := waiting(daemon)):
        assert time.monotonic() < deadline, daemon.log[-3000:]
        time.sleep(0.2)
    for port in ports:
        lose(port)

    claim = daemon.ok("claim", "carol", "-o", "json").json

    assert claim["endpoints"]["port"] not in ports
    daemon.ok("exec", "carol", "--", "sh", "-c", "echo brown > /state/colour")
    assert fetch(claim["endpoints"]["port"]) == b"brown\n"
    daemon.ok("release", "carol")


def waiting(daemon: Daemon) -> list[int]:
    """Ports of the slots that wait."""
    with closing(sqlite3.connect(daemon.home / "ledger.sqlite")) as ledger:
        return [port for (port,) in ledger.execute("SELECT port FROM slot WHERE state = 'ready'")]
