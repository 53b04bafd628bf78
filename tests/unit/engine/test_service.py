"""The service child: found, started, watched and ended. A small program stands in for Podman."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from claw_runtime.engine import volatile
from claw_runtime.engine.service import PodmanService
from claw_runtime.errors import EngineUnavailable
from fakes import processes

STAND_IN = f"""#!{sys.executable} -IS
import os, socket, sys
with open(os.path.dirname(os.path.abspath(__file__)) + "/environment", "w") as file:
    file.write("\\n".join(sorted(os.environ)))
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[-1].removeprefix("unix://"))
server.listen()
while True:
    connection, _ = server.accept()
    connection.recv(1000)
    connection.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\nOK")
    connection.close()
"""
pytestmark = pytest.mark.spawns


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A socket path; `podman` on PATH is the stand-in."""
    use_as_podman(tmp_path, monkeypatch, STAND_IN)
    return tmp_path / "s"


@pytest.fixture
def service(path: Path) -> Iterator[PodmanService]:
    """A service that is ended afterwards."""
    service = PodmanService(path, start_timeout=10)
    yield service
    service.close()


def use_as_podman(directory: Path, monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """Put a program named podman first on PATH."""
    (directory / "bin").mkdir()
    podman = directory / "bin" / "podman"
    podman.write_text(program)
    podman.chmod(0o755)
    monkeypatch.setenv("PATH", f"{podman.parent}:/usr/bin:/bin")


def test_an_end_in_another_thread_is_seen(service: PodmanService, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that is ended while somebody asks whether it lives is started again, which is no defect."""
    service.ensure()
    process = service._process
    reads = iter([process, None, None])

    class Ending(PodmanService):
        _process = property(lambda self: next(reads), lambda self, value: None)  # type: ignore[assignment]

    monkeypatch.setattr(service, "__class__", Ending)

    assert service._alive()
    monkeypatch.undo()


def test_it_is_started_once(service: PodmanService, path: Path) -> None:
    """The first `ensure` starts it, the next finds it; a stale socket does not keep it from starting."""
    path.touch()
    generation = service.ensure()
    pid = service.pid
    assert service.ensure() == generation
    assert service.pid == pid


@pytest.mark.parametrize("harm", ["killed", "socket removed"])
def test_it_is_started_again(service: PodmanService, path: Path, harm: str) -> None:
    """A service that died, or whose socket was taken away, is replaced, and the generation tells."""
    generation, pid = service.ensure(), service.pid
    assert pid is not None
    if harm == "killed":
        os.kill(pid, signal.SIGKILL)
        wait_until_gone(pid)
    else:
        path.unlink()
    assert service.ensure() != generation
    assert service.pid != pid
    wait_until_gone(pid)


def test_closing_leaves_neither_process_nor_socket(service: PodmanService, path: Path) -> None:
    """And it may be closed twice."""
    service.ensure()
    pid = service.pid
    assert pid is not None
    service.close()
    service.close()
    wait_until_gone(pid)
    assert not path.exists()


def test_it_never_outlives_its_owner(path: Path) -> None:
    """The owner is killed with SIGKILL, after the thread that asked for the service had already ended."""
    owner = (
        "import sys, threading, time, pathlib\n"
        "from claw_runtime.engine.service import PodmanService\n"
        f"service = PodmanService(pathlib.Path({str(path)!r}))\n"
        "asking = threading.Thread(target=service.ensure); asking.start(); asking.join(); time.sleep(0.3)\n"
        "service.ensure(); print(service.pid, flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", owner], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        pid = int(process.stdout.readline())
        os.kill(pid, 0)
        process.kill()
    wait_until_gone(pid)


def test_secrets_of_the_daemon_do_not_go_along(
    service: PodmanService, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service gets what Podman reads: no S3 key, no proxy, no CONTAINER_HOST, and nothing by its prefix alone."""
    secrets = {"AWS_SECRET_ACCESS_KEY", "HTTPS_PROXY", "CONTAINER_HOST", "CLAW_S3", "CONTAINERS_PASSWORD", "XDG_TOKEN"}
    for name in secrets:
        monkeypatch.setenv(name, "x")
    for name in ("XDG_RUNTIME_DIR", "CONTAINERS_CONF"):
        monkeypatch.setenv(name, "/x")
    service.ensure()
    names = set((path.parent / "bin" / "environment").read_text().split())
    assert {"PATH", "XDG_RUNTIME_DIR", "CONTAINERS_CONF"} <= names
    assert not names & secrets


def test_no_container_gets_a_keyring(service: PodmanService, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A configuration file beside the socket switches keyrings off."""
    monkeypatch.delenv("CONTAINERS_CONF", raising=False)
    monkeypatch.delenv("CONTAINERS_CONF_OVERRIDE", raising=False)
    service.ensure()
    assert "CONTAINERS_CONF_OVERRIDE" in (path.parent / "bin" / "environment").read_text().split()
    assert "keyring = false" in path.with_suffix(".conf").read_text()


def test_without_podman_the_hint_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """EngineUnavailable, before anything is started."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineUnavailable, match="not installed") as caught:
        PodmanService(tmp_path / "s").ensure()
    assert "install" in caught.value.hint


def test_a_service_that_ends_at_once_gives_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Podman wrote last is the reason."""
    use_as_podman(tmp_path, monkeypatch, "#!/bin/sh\necho 'Error: no subuid ranges' >&2\nexit 125\n")
    with pytest.raises(EngineUnavailable, match="no subuid ranges"):
        PodmanService(tmp_path / "s").ensure()


ONCE_REFUSING = f"""#!{sys.executable} -IS
import os, sys
mark = os.path.dirname(os.path.abspath(__file__)) + "/refused"
if not os.path.exists(mark):
    open(mark, "w").close()
    sys.exit('level=error msg="invalid internal status, try: podman system migrate"')
{STAND_IN.partition(chr(10))[2]}"""


@pytest.mark.parametrize("killed", [True, False], ids=["no process lives", "a process lives"])
def test_records_of_killed_containers_are_reset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, killed: bool
) -> None:
    """A Podman that refuses everything because all its processes were killed is reset and started again; if a process
    of a container may live, the error stands."""
    use_as_podman(tmp_path, monkeypatch, ONCE_REFUSING)
    monkeypatch.setattr(volatile, "reset_after_a_kill", lambda: killed)
    service = PodmanService(tmp_path / "s", start_timeout=10)
    try:
        with nullcontext() if killed else pytest.raises(EngineUnavailable, match="system migrate"):
            service.ensure()
    finally:
        service.close()


def test_a_service_that_never_answers_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the start timeout, with its process gone."""
    use_as_podman(tmp_path, monkeypatch, f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 60\n")
    with pytest.raises(EngineUnavailable, match="does not answer"):
        PodmanService(tmp_path / "s", start_timeout=0.5).ensure()
    wait_until_gone(int((tmp_path / "pid").read_text()))


def test_a_path_too_long_for_a_socket_is_refused_by_name(tmp_path: Path) -> None:
    """Before Podman fails with `invalid argument`."""
    with pytest.raises(EngineUnavailable, match="107 bytes") as caught:
        PodmanService(tmp_path / ("x" * 108)).ensure()
    assert "shorter" in caught.value.hint


def wait_until_gone(pid: int) -> None:
    """Up to 5 seconds; a zombie that nobody has fetched yet is gone too."""
    deadline = time.monotonic() + 5
    while True:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return
        if state == "Z":
            return
        assert time.monotonic() < deadline, f"{pid} is still there"
        time.sleep(0.02)


def test_the_last_words_of_the_one_before_are_kept(service: PodmanService, path: Path) -> None:
    """A service that crashed wrote why into its log, and a new one does not take that away."""
    service.ensure()
    path.with_suffix(".log").write_text("SIGSEGV\n")
    pid = service.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_until_gone(pid)
    service.ensure()
    assert path.with_suffix(".log.1").read_text() == "SIGSEGV\n"


def test_a_service_that_hangs_is_replaced(service: PodmanService, monkeypatch: pytest.MonkeyPatch) -> None:
    """One missed ping may be a busy host; after the second it is killed, and the next `ensure` finds the new one."""
    monkeypatch.setattr("claw_runtime.engine.service._PING_SECONDS", 0.2)
    generation, pid = service.ensure(), service.pid
    assert pid is not None
    assert not service.supervise()
    processes.harm(pid, signal.SIGSTOP)
    assert not service.supervise()
    assert service.pid == pid
    assert service.supervise()
    wait_until_gone(pid)
    assert service.ensure() != generation
    assert not service.supervise()


def test_what_does_not_run_is_not_supervised(service: PodmanService) -> None:
    """Before the first `ensure`, and after its end: the next call that needs it starts it."""
    assert not service.supervise()
    service.ensure()
    pid = service.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_until_gone(pid)
    for _ in range(3):
        assert not service.supervise()
