"""Whether a container's process has its monitor, out of /proc, and its port somebody who listens."""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from claw_runtime.engine.seen import inspected, published, watched

CHILD = "sleep 60 & echo $!; wait"


@pytest.mark.spawns
def test_a_process_is_watched_while_its_conmon_lives(tmp_path: Path) -> None:
    """True while the parent is conmon, False after conmon was killed, None after the process has ended."""
    conmon = tmp_path / "conmon"
    shutil.copy("/bin/sh", conmon)
    conmon.chmod(0o700)
    with subprocess.Popen([conmon, "-c", CHILD], stdout=subprocess.PIPE, text=True) as monitor:
        assert monitor.stdout
        child = int(monitor.stdout.readline())
        try:
            assert watched(child) is True
            monitor.kill()
            monitor.wait()
            assert watched(child) is False
        finally:
            os.kill(child, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while watched(child) is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert watched(child) is None


@pytest.mark.parametrize("told", [{"OOMKilled": True}, {"OOMKilled": False}, {}])
def test_a_kill_at_the_memory_limit_is_seen(told: dict[str, bool]) -> None:
    """Podman's inspect tells it; a Podman that does not say so has not seen one."""
    found = inspected(
        {
            "Id": "1",
            "Name": "c",
            "Image": "i",
            "Config": {"Labels": {}},
            "NetworkSettings": {"Ports": {}},
            "State": {"Status": "exited", "Pid": 0, "ExitCode": 137, **told},
        }
    )
    assert (found.exit_code, found.oom_killed) == (137, told.get("OOMKilled", False))


def test_any_other_parent_is_no_monitor() -> None:
    """A process identifier that another program has by now shows no container."""
    assert watched(os.getpid()) is False


def test_a_port_is_published_while_a_process_listens() -> None:
    """As soon as nobody does, it is not."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert published(port)
    assert not published(port)
