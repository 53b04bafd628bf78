"""Runs a command in a container: its output, its end, and the removal of processes that Podman leaves."""

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from claw_runtime.engine.wire import STDERR, STDOUT, Call
from claw_runtime.errors import ClawError
from claw_runtime.ports import ExecResult

KEPT = 1 << 20
"""Last bytes of each stream that are kept: a tenant's output must not fill the daemon's memory."""
_PATIENCE = 5.0  # seconds to find a command's process, and for it to end after a kill


class Execution:
    """One command in one container.

    Args:
        socket: Podman's.
        container: Its id or name, `path` its place in the API.
    """

    def __init__(self, socket: Path, container: str, path: str, argv: Sequence[str]) -> None:
        self._socket, self._container, self._path, self._argv = socket, container, path, argv
        self._operation = f"run {argv[0]!r} in"
        self._timed_out = False
        self._over = threading.Event()
        self.session = ""
        """Podman's id of the execution, once it runs."""

    def run(self, environment: Mapping[str, str], timeout: float | None) -> ExecResult:
        """Run it and wait; see `ports.Engine.execute`."""
        pairs = [f"{name}={value}" for name, value in environment.items()]
        request = {"AttachStdout": True, "AttachStderr": True, "Cmd": [*self._argv], "Env": pairs}
        with self._call() as call:
            self.session = str(call.send("POST", f"{self._path}/exec", request).json()["Id"])
        output = {STDOUT: _Tail(), STDERR: _Tail()}
        with self._call(None) as call:
            timer = threading.Timer(timeout, self._kill, (call,)) if timeout is not None else None
            if timer:
                timer.daemon = True
                timer.start()
            try:
                call.send("POST", f"/exec/{self.session}/start", {"Detach": False, "Tty": False})
                for stream, piece in call.frames():
                    output[stream].add(piece)
            finally:
                self._over.set()
                if timer:
                    timer.cancel()
        code = 128 + signal.SIGKILL if self._timed_out else int(self._look(f"/exec/{self.session}/json")["ExitCode"])
        return ExecResult(
            exit_code=code,
            stdout=output[STDOUT].bytes(),
            stderr=output[STDERR].bytes(),
            timed_out=self._timed_out,
        )

    def _call(self, timeout: float | None = 60.0) -> Call:
        return Call(self._socket, self._operation, self._container, timeout=timeout)

    def _look(self, path: str) -> Any:
        with self._call() as call:
            return call.send("GET", path).json()

    def _kill(self, output: Call) -> None:
        """Kill the command, in the timer's thread, and then stop reading its output."""
        if self._over.is_set():
            return
        self._timed_out = True
        deadline = time.monotonic() + _PATIENCE
        try:
            init = int(self._look(f"{self._path}/json")["State"]["Pid"])
            while not self._over.is_set() and time.monotonic() < deadline:
                found = self._look(f"/exec/{self.session}/json")
                if found["Running"] and found["Pid"]:
                    kill_group(int(found["Pid"]), init)
                    break
                time.sleep(0.02)
            self._over.wait(_PATIENCE)
        except ClawError:
            pass  # Podman or the container is gone; the reader of the output reports it
        finally:
            output.close()


class _Tail:
    """The last `KEPT` bytes of what is added."""

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()
        self._size = 0

    def add(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._size += len(piece)
        while self._size - len(self._pieces[0]) >= KEPT:
            self._size -= len(self._pieces.popleft())

    def bytes(self) -> bytes:
        return b"".join(self._pieces)[-KEPT:]


def kill_group(pid: int, init: int) -> None:
    """SIGKILL to a process of a container and to its group, from the host: they are this user's own processes.

    It must still be in the process namespace of `init`, since process ids are reused; otherwise nothing happens.
    """
    try:
        inside = Path(f"/proc/{pid}/ns/pid").readlink() == Path(f"/proc/{init}/ns/pid").readlink()
        group = os.getpgid(pid)
        if not inside:
            return
        if group in (os.getpgid(init), os.getpgrp()):
            os.kill(pid, signal.SIGKILL)
        else:
            os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, FileNotFoundError, PermissionError):
        return  # it ended meanwhile


def dismiss(sessions: Collection[str]) -> set[str]:
    """End the two processes that Podman keeps for five minutes after each command; returns those that are gone.

    A conmon waits for its own child, which sleeps until it runs `podman container cleanup`; on SIGTERM the child does
    so at once (measured on 4.3.1 with conmon 2.1.6). Before the child exists, nothing can be signalled.
    """
    found: dict[str, list[tuple[int, int]]] = {}
    wanted = set(sessions)
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            argv = (entry / "cmdline").read_bytes().split(b"\0")
            if not argv[0].endswith(b"conmon") or b"-u" not in argv:
                continue
            session = argv[argv.index(b"-u") + 1].decode(errors="replace")
            if session in wanted:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                found.setdefault(session, []).append((int(entry.name), parent))
        except (OSError, IndexError):
            continue  # it ended while we looked, or is somebody else's
    for processes in found.values():
        parents = {pid for pid, _ in processes}
        for pid, parent in processes:
            if parent in parents:
                _terminate(pid)
    return wanted - found.keys()


def _terminate(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGTERM)
    except OSError:
        return
