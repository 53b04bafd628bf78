"""The daemon keeps a router running that outlives it: it takes over the one that is there, or replaces it."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from claw_runtime.daemon import routers, tools
from claw_runtime.daemon.routers import Router
from claw_runtime.errors import ClawError, UnitFailed
from claw_runtime.router import presence, process
from claw_runtime.router.presence import Presence
from claw_runtime.settings import Settings
from claw_runtime.tenancy import Layout
from fakes.routing import there, until

ANY = ("127.0.0.1", 0)
spawns = pytest.mark.spawns


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[Layout]:
    """A run directory; its router ends with the test."""
    found = Layout(home=tmp_path, run=tmp_path)
    yield found
    if left := presence.present(found.router_lock):
        left.end(signal.SIGKILL, within=20)


def supervised(router: Router, layout: Layout, *, but: int = 0) -> Presence:
    """The router that answers after some calls of `supervise`, of another process than `but`."""

    def other() -> Presence | None:
        router.supervise()
        found = there(layout)
        return found if found is not None and found.pid != but else None

    found: Presence = until(other)
    return found


@spawns
def test_the_next_daemon_takes_over_the_router(layout: Layout) -> None:
    """It lives on without the one that started it, and is not started again."""
    first = supervised(Router(ANY, layout), layout)
    later = Router(ANY, layout)
    for _ in range(3):
        later.supervise()
        later.look()
    assert there(layout) == first


@spawns
def test_a_router_that_ended_is_started_again(layout: Layout) -> None:
    """Whatever ended it."""
    router = Router(ANY, layout)
    first = supervised(router, layout)
    first.end(signal.SIGKILL, within=20)
    with pytest.raises(ClawError, match="does not answer"):
        router.look()
    supervised(router, layout, but=first.pid)
    router.look()


@spawns
def test_a_router_that_hangs_is_replaced(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped process holds its lock and its port, and answers nothing."""
    monkeypatch.setattr(process.answers, "__defaults__", (0.3,))
    router = Router(ANY, layout)
    first = supervised(router, layout)
    first.end(signal.SIGSTOP)
    supervised(router, layout, but=first.pid)
    assert presence.born(first.pid) != first.born


@spawns
def test_a_router_of_another_address_is_replaced(layout: Layout) -> None:
    """A new setting counts from the daemon's next start; without one, the router ends."""
    first = supervised(Router(ANY, layout), layout)
    with socket.socket() as probe:
        probe.bind(ANY)
        address = probe.getsockname()
    second = supervised(Router(address, layout), layout, but=first.pid)
    assert second.address == process.shown(address)
    none = Router(None, layout)
    none.supervise()
    none.look()
    until(lambda: presence.present(layout.router_lock) is None)


def test_a_port_that_is_taken_is_named(layout: Layout) -> None:
    """No process is started for it; the status has the reason, and for how long."""
    with process.listening(ANY) as other:
        router = Router(other.getsockname(), layout)
        router.supervise()
        with pytest.raises(ClawError) as caught:
            router.look()
    assert "cannot listen on 127.0.0.1:" in caught.value.why
    assert caught.value.why.endswith("another process listens there, for 0 s")
    assert not layout.router_log.exists()


def test_another_server_at_the_address_is_no_router(layout: Layout) -> None:
    """Its answer lacks the name that the lock file has."""
    with process.listening(ANY) as other:
        shown = process.shown(other.getsockname())
        claimed = Presence(pid=1, born="", address=shown, version="", name="x", since=0.0)
        assert not process.answers(claimed, within=0.2)


def test_a_unit_is_restarted_by_its_manager(layout: Layout) -> None:
    """At the second missed question; a manager that refuses is no fault of the daemon's."""
    asked = []

    def restart() -> None:
        asked.append(1)
        raise UnitFailed("no such unit")

    router = Router(("127.0.0.1", 1), layout, restart)
    for _ in range(3):
        router.supervise()
    assert asked == [1]
    with pytest.raises(ClawError) as caught:
        router.look()
    assert "no such unit" in caught.value.why
    assert not layout.router_log.exists()


@spawns
def test_a_restart_of_its_unit_refuses_nobody(layout: Layout, tmp_path: Path) -> None:
    """The manager holds the socket: a client that connects meanwhile is served by the next router."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, process.listening(ANY) as held:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        shown = process.shown(held.getsockname())
        waiting = socket.create_connection(held.getsockname(), timeout=20)
        waiting.sendall(b"GET /_claw/healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        code = (
            "import os, sys; os.dup2(int(sys.argv.pop(1)), 3); os.environ['LISTEN_PID'] = str(os.getpid());"
            "from claw_runtime.daemon.routers import main; main()"
        )
        given = {"NOTIFY_SOCKET": manager.getsockname(), "LISTEN_FDS": "1", "LISTEN_FDNAMES": routers.KEPT}
        started = subprocess.Popen(
            [sys.executable, "-P", "-c", code, str(held.fileno()), shown, str(layout.run)],
            env={**os.environ, **given},
            pass_fds=[held.fileno()],
            stderr=subprocess.DEVNULL,
        )
        try:
            assert waiting.makefile("rb").readline() == b"HTTP/1.1 200 OK\r\n"
            assert b"READY=1" in manager.recv(4096)
        finally:
            waiting.close()
            started.kill()
            started.wait(20)


def test_the_doctor_looks_for_the_router(layout: Layout) -> None:
    """Where one is to be; the process is named by its lock."""
    given = Settings(home=layout.home, run=layout.run, workloads=layout.workloads)
    assert list(tools.router(given)) == []
    (none,) = tools.router(replace(given, ingress=("127.0.0.1", 8080)))
    assert none.verdict == "warn"
    with presence.claimed(layout.router_lock) as describe:
        describe("127.0.0.1:1", "1")
        (silent,) = tools.router(replace(given, ingress=("127.0.0.1", 8080)))
    assert silent.verdict == "fail"
    assert f"127.0.0.1:1, process {os.getpid()}, for 1" in silent.detail
