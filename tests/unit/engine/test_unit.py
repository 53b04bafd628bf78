"""Podman's service as a unit: waited for, restarted when it hangs, never ended. Threads stand in for the unit."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from claw_runtime.engine import unit
from claw_runtime.engine.unit import PodmanUnit
from claw_runtime.errors import EngineUnavailable, UnitFailed


class Unit:
    """A service on a socket, in a thread; `restart` ends it and starts a new one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.restarts = 0
        self.silent = False
        self._server: socket.socket | None = None

    def start(self) -> None:
        self.path.unlink(missing_ok=True)
        server = self._server = socket.socket(socket.AF_UNIX)
        server.bind(str(self.path))
        server.listen()
        threading.Thread(target=self._serve, args=(server,), daemon=True).start()

    def die(self) -> None:
        """As SIGKILL: the name of the socket stays."""
        server, self._server = self._server, None
        if server:
            server.shutdown(socket.SHUT_RDWR)
            server.close()

    def restart(self) -> None:
        self.restarts += 1
        self.silent = False
        self.die()
        self.start()

    def _serve(self, server: socket.socket) -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection, suppress(OSError):  # a caller that only connects is gone by then
                connection.recv(1000)
                if not self.silent:
                    connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nOK")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Unit]:
    """A unit that runs."""
    made = Unit(tmp_path / "s")
    made.start()
    yield made
    made.die()


@pytest.fixture
def podman(served: Unit) -> PodmanUnit:
    """The daemon's view of it."""
    return PodmanUnit(served.path, served.restart, start_timeout=5)


def test_it_is_found_and_left_alone(podman: PodmanUnit, served: Unit) -> None:
    """A service that answers is used as it is; closing does not end it."""
    generation = podman.ensure()
    podman.close()
    assert (podman.ensure(), podman.pid, served.restarts) == (generation, None, 0)
    assert not podman.supervise()


def test_a_new_socket_makes_old_connections_stale(podman: PodmanUnit, served: Unit) -> None:
    """The service manager started it again: the generation tells, and nobody restarts it a second time."""
    generation = podman.ensure()
    served.die()
    served.start()
    assert podman.ensure() == generation + 1
    assert served.restarts == 0


def test_a_dead_one_is_waited_for(podman: PodmanUnit, served: Unit) -> None:
    """Between its end and its new start by the service manager a call waits instead of failing."""
    generation = podman.ensure()
    served.die()
    assert not podman.listens()
    threading.Timer(0.3, served.start).start()
    assert podman.ensure() == generation + 1
    assert served.restarts == 0


def test_one_that_stays_away_is_restarted(podman: PodmanUnit, served: Unit, monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit that was stopped by hand is started after seconds."""
    monkeypatch.setattr(unit, "_RESTART_AFTER", 0.1)
    generation = podman.ensure()
    served.die()
    assert podman.ensure() == generation + 1
    assert served.restarts == 1


def test_a_unit_that_cannot_be_started_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error has the service manager's reason, and the command that shows more."""
    monkeypatch.setattr(unit, "_RESTART_AFTER", 0.05)

    def refused() -> None:
        raise UnitFailed("systemctl --user restart claw-podman.service failed", why="not found")

    with pytest.raises(EngineUnavailable) as caught:
        PodmanUnit(tmp_path / "s", refused, start_timeout=0.2).ensure()
    assert caught.value.why.endswith("not found")
    assert "claw-podman" in caught.value.hint


def test_a_hung_one_is_restarted_at_the_second_missed_ping(
    podman: PodmanUnit, served: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It accepts connections and answers nothing."""
    podman.ensure()
    served.silent = True
    monkeypatch.setattr("claw_runtime.engine.service._PING_SECONDS", 0.1)
    assert not podman.supervise()
    assert podman.supervise()
    assert (served.restarts, podman.answers()) == (1, True)


def test_a_busy_one_counts_as_listening(tmp_path: Path) -> None:
    """Its queue of connections is full, which is no sign of death."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(0)
        waiting = [socket.socket(socket.AF_UNIX) for _ in range(2)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(str(path))
        assert PodmanUnit(path, lambda: None).listens()
        for one in waiting:
            one.close()


@pytest.mark.spawns
def test_the_unit_becomes_podman(tmp_path: Path) -> None:
    """The process of the unit executes Podman with the variables that the daemon's child gets, and no other. A stale
    socket is gone, and the directory is private."""
    program = tmp_path / "podman"
    program.write_text('#!/bin/sh\necho "$@"\nenv\n')
    program.chmod(0o755)
    path = tmp_path / "run" / "p.sock"
    path.parent.mkdir()
    path.touch()
    environment = {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "HOME": "/h",
        "CLAW_S3_SECRET_KEY": "canary",
        "NOTIFY_SOCKET": "n",
    }

    done = subprocess.run(
        [sys.executable, "-m", "claw_runtime.engine.unit", str(path)],
        env=environment | {"PYTHONPATH": os.pathsep.join(sys.path), "XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )

    first, *variables = done.stdout.splitlines()
    assert first == f"system service --time=0 unix://{path}"
    assert {line.partition("=")[0] for line in variables} - {"PWD", "SHLVL", "_", "OLDPWD", "LC_CTYPE"} == {
        "PATH",
        "HOME",
        "XDG_RUNTIME_DIR",
        "CONTAINERS_CONF_OVERRIDE",
    }
    assert not path.exists()


@pytest.mark.spawns
def test_the_unit_says_what_is_missing(tmp_path: Path) -> None:
    """Without Podman, the journal has what to install."""
    done = subprocess.run(
        [sys.executable, "-m", "claw_runtime.engine.unit", str(tmp_path / "p.sock")],
        env={"PATH": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path), "XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "apt-get install podman" in done.stderr) == (1, True), done.stderr


def test_waiting_has_an_end(tmp_path: Path) -> None:
    """A socket that nobody makes is reported after the time that a start may take."""
    began = time.monotonic()
    with pytest.raises(EngineUnavailable, match="does not answer"):
        PodmanUnit(tmp_path / "s", lambda: None, start_timeout=0.2).ensure()
    assert time.monotonic() - began < 5
