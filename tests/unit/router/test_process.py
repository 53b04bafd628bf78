"""The router as a process: it serves without a daemon, ends in good order, and is one for a run directory."""

import http.client
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from claw_runtime.router import presence
from claw_runtime.tenancy import Layout
from fakes.routing import ARGV, FakeDaemon, Program, route, routing, table, there, until

pytestmark = pytest.mark.spawns
TOKENS = {"alice": "claw_a", "bob": "claw_b"}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(home=tmp_path, run=tmp_path)


@pytest.fixture
def alice() -> Iterator[Program]:
    program = Program("of-alice", pause=1.0)
    yield program
    program.close()


def connection(address: str) -> http.client.HTTPConnection:
    host, _, port = address.rpartition(":")
    return http.client.HTTPConnection(host, int(port), timeout=20)


def ask(address: str, path: str = "/", tenant: str = "alice") -> tuple[int, str]:
    """Status and body of one request with the tenant's token."""
    asking = connection(address)
    asking.request("GET", f"/~{tenant}{path}", headers={"Authorization": f"Bearer {TOKENS[tenant]}"})
    answer = asking.getresponse()
    found = answer.status, answer.read().decode()
    asking.close()
    return found


def test_it_serves_on_while_the_daemon_is_away(layout: Layout, alice: Program) -> None:
    """With the last table; what sleeps is woken by the daemon that comes next, and a held request gets its answer."""
    with routing(layout) as (_, address):
        daemon = FakeDaemon(layout.router_socket)
        daemon.say({"table": table(route("alice", alice.address), route("bob", None, "cold"), tokens=TOKENS)})
        daemon.settled()
        daemon.close()
        status, body = ask(address)
        assert (status, "of-alice" in body) == (200, True)
        held: list[tuple[int, str]] = []
        waiting = threading.Thread(target=lambda: held.append(ask(address, "/x", "bob")))
        waiting.start()
        time.sleep(0.2)
        daemon = FakeDaemon(layout.router_socket)
        assert daemon.hear() == {"wake": {"tenant": "bob", "trigger": "http"}}
        bob = Program("of-bob")
        daemon.say({"table": table(route("alice", alice.address), route("bob", bob.address), tokens=TOKENS)})
        waiting.join(20)
        daemon.close()
        bob.close()
    assert held[0][0] == 200
    assert '"canary": "of-bob", "path": "/x"' in held[0][1]


def test_it_ends_with_the_answers_under_way(layout: Layout, alice: Program) -> None:
    """SIGTERM: nothing new is accepted, a request under way gets its answer, and one that waits is refused."""
    with routing(layout) as (process, address):
        daemon = FakeDaemon(layout.router_socket)
        daemon.say({"table": table(route("alice", alice.address), route("bob", None, "cold"), tokens=TOKENS)})
        daemon.settled()
        idle = connection(address)
        idle.request("GET", "/_claw/healthz")
        idle.getresponse().read()
        got: dict[str, tuple[int, str]] = {}
        threads = [
            threading.Thread(target=lambda: got.update(slow=ask(address, "/slow"))),
            threading.Thread(target=lambda: got.update(held=ask(address, "/", "bob"))),
        ]
        for thread in threads:
            thread.start()
        until(lambda: sum(row["requests"] + row["held"] for row in daemon.settled()["activity"]) == 2)
        process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join(20)
        assert process.wait(20) == 0
        daemon.close()
        idle.close()
    assert got["slow"][0] == 200
    assert "of-alice" in got["slow"][1]
    assert got["held"][0] == 503
    assert not layout.router_socket.exists()


def test_a_successor_begins_before_the_last_answer(layout: Layout, alice: Program) -> None:
    """Address, socket and lock are given up first, so a restart refuses nobody for as long as a slow answer takes."""
    with routing(layout) as (first, address):
        daemon = FakeDaemon(layout.router_socket)
        daemon.say({"table": table(route("alice", alice.address), tokens=TOKENS)})
        daemon.settled()
        slow: list[tuple[int, str]] = []
        waiting = threading.Thread(target=lambda: slow.append(ask(address, "/slow")))
        waiting.start()
        until(lambda: daemon.settled()["activity"][0]["requests"] == 1)
        daemon.close()
        first.send_signal(signal.SIGTERM)
        with routing(layout, address) as (second, same):
            assert same == address
            assert second.poll() is None
            waiting.join(20)
            first.wait(20)
            found = there(layout)
            assert found is not None
            assert found.pid == second.pid
            assert layout.router_socket.exists()
    assert slow[0][0] == 200


def test_there_is_one_for_a_run_directory(layout: Layout, tmp_path: Path) -> None:
    """A second one is refused, as is one whose port is taken: each with its own exit code and one line."""
    with routing(layout) as (_, address):
        own = tmp_path / "other"
        own.mkdir()
        taken = subprocess.run([*ARGV, address, str(own)], capture_output=True, text=True, check=False, timeout=30)
        assert taken.returncode == 25
        assert taken.stderr.splitlines()[-1].startswith(f"claw-router: the router cannot listen on {address}")
        second = subprocess.run(
            [*ARGV, "127.0.0.1:0", str(tmp_path)], capture_output=True, text=True, check=False, timeout=30
        )
        assert (second.returncode, "holds the lock" in second.stderr) == (31, True)


def test_a_router_that_has_just_started_reports_all_tenants_as_active(layout: Layout, alice: Program) -> None:
    """It cannot know what their clients did before."""
    with routing(layout):
        daemon = FakeDaemon(layout.router_socket)
        daemon.say({"table": table(route("alice", alice.address), tokens=TOKENS)})
        said = daemon.settled()
        daemon.close()
    (row,) = said["activity"]
    assert row["tenant"] == "alice"
    assert row["request_age"] < 20
    assert said["counters"]["refusals"] == {"200": said["counters"]["refusals"]["200"]}


def test_counters_tell_answers_from_refusals(layout: Layout, alice: Program) -> None:
    """By the first digit of a tenant's answers, and by the status of the router's own."""
    with routing(layout) as (_, address):
        daemon = FakeDaemon(layout.router_socket)
        daemon.say({"table": table(route("alice", alice.address), tokens=TOKENS)})
        daemon.settled()
        assert ask(address)[0] == 200
        strange = connection(address)
        strange.request("GET", "/~alice/")
        assert strange.getresponse().status == 401
        strange.close()
        counters = daemon.settled()["counters"]
        daemon.close()
    assert counters["answers"] == {"2xx": 1}
    assert counters["refusals"]["401"] == 1
    assert (counters["requests"], counters["sockets"], counters["held"]) == (0, 0, 0)


def test_a_signal_reaches_no_other_process(tmp_path: Path) -> None:
    """A description whose process has ended names nobody, also when another process has its number now."""
    other = subprocess.Popen(["sleep", "60"])
    try:
        stale = presence.Presence(pid=other.pid, born="1", address="", version="", name="", since=0.0)
        assert stale.end(signal.SIGKILL)
        assert other.poll() is None
        path = tmp_path / "router.lock"
        path.write_text(f'{{"pid": {os.getpid()}}}')
        assert presence.present(path) is None
    finally:
        other.kill()
        other.wait(20)


def test_it_is_small(layout: Layout) -> None:
    """It imports nothing of tenants, state or Podman, and stays below 64 MB."""
    with routing(layout) as (process, _):
        status = Path(f"/proc/{process.pid}/status").read_text()
        maps = Path(f"/proc/{process.pid}/maps").read_text()
    resident = int(status.split("VmRSS:")[1].split()[0]) * 1024
    assert resident < 64 << 20
    assert "sqlite" not in maps
    code = "import sys, claw_runtime.daemon.routers; print(*[m for m in sys.modules if m.startswith('claw_runtime.')])"
    listed = subprocess.run([ARGV[0], "-P", "-c", code], capture_output=True, text=True, check=True, timeout=30)
    rooms = {name.split(".")[1] for name in listed.stdout.split()}
    assert rooms == {"router", "daemon", "systemd", "errors", "fsutil", "logs", "concurrency", "unix_http", "tenancy"}


def test_without_a_table_nobody_is_refused_for_good(layout: Layout) -> None:
    """A router that the daemon has told nothing cannot tell a wrong credential: all may come back."""
    with routing(layout) as (_, address):
        asking = connection(address)
        asking.request("GET", "/~alice/", headers={"Authorization": "Bearer claw_a"})
        answer = asking.getresponse()
        assert (answer.status, answer.headers["retry-after"]) == (503, "2")
        asking.close()
