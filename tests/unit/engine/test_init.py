"""The init of containers: which program it is, that containers get it, and the signal that goes past it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from claw_runtime.engine import init, options
from claw_runtime.ports import ContainerSpec


@pytest.fixture(autouse=True)
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host whose only helpers and configuration are below this directory."""
    for name in ("bin", "helpers", "config/containers"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setattr(init, "_HELPERS", (str(tmp_path / "helpers"),))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("CONTAINERS_CONF", raising=False)
    return tmp_path


def install(path: Path) -> Path:
    path.write_text("")
    path.chmod(0o755)
    return path


def test_a_helper_of_podman_is_found_before_a_program_on_path(host: Path) -> None:
    """Debian has it in both places; a file that cannot be executed is no program."""
    assert init.program() is None
    on_path = install(host / "bin/catatonit")
    assert init.program() == on_path
    helper = install(host / "helpers/catatonit")
    assert init.program() == helper
    helper.chmod(0o644)
    assert init.program() == on_path


def test_a_configured_init_wins(host: Path) -> None:
    """`init_path` of the user's containers.conf is used, in either section; a broken file counts as none."""
    install(host / "helpers/catatonit")
    mine = install(host / "tini")
    file = host / "config/containers/containers.conf"
    for section in ("containers", "engine"):
        file.write_text(f'[{section}]\ninit_path = "{mine}"\n')
        assert init.program() == mine
    file.write_text("[broken")
    assert init.program() == host / "helpers/catatonit"


def test_containers_get_the_init_unless_the_workload_refuses_it(host: Path) -> None:
    """Podman gets its path; where none was found, Podman looks for itself and names what is missing."""
    spec = ContainerSpec(name="c", image="i")
    given = options.of(spec, profile=Path("p"), cgroup_parent=None, log_driver="journald", helper="slirp4netns")
    assert given["init"] is True
    assert "init_path" not in given
    helper = install(host / "helpers/catatonit")
    assert options.of(spec, profile=Path("p"), cgroup_parent=None, log_driver="journald", helper="slirp4netns")[
        "init_path"
    ] == str(helper)
    plain = ContainerSpec(name="c", image="i", init=False)
    without = options.of(plain, profile=Path("p"), cgroup_parent=None, log_driver="journald", helper="slirp4netns")
    assert not {"init", "init_path"} & without.keys()


@pytest.fixture
def pair() -> Iterator[tuple[int, int]]:
    """Process ids of an init that ignores SIGTERM, and of its one child, which a signal ends."""
    code = (
        "import signal, subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print(child.pid, flush=True)\n"
        "sys.exit(128 - child.wait())\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as outer:
        assert outer.stdout is not None
        child = int(outer.stdout.readline())
        try:
            yield outer.pid, child
            assert outer.wait(20) == 128 + signal.SIGTERM
        finally:
            outer.kill()


@pytest.mark.spawns
def test_the_signal_goes_to_the_program(pair: tuple[int, int]) -> None:
    """The child of the init gets SIGTERM, and the init does not."""
    outer, _child = pair
    assert init.terminate_program({"State": {"Pid": outer}, "HostConfig": {"Init": True}})


def test_where_there_is_no_init_nothing_is_signalled() -> None:
    """Process 1 is the program then; a container that has ended has no process."""
    own = os.getpid()
    assert not init.terminate_program({"State": {"Pid": own}, "HostConfig": {"Init": False}})
    assert not init.terminate_program({"State": {"Pid": own}, "HostConfig": {}})
    assert not init.terminate_program({"State": {"Pid": 0}, "HostConfig": {"Init": True}})


def test_a_process_of_another_parent_is_left_alone(tmp_path: Path) -> None:
    """A number that was given to another process meanwhile is no program of the container."""
    place = tmp_path / "proc/7/task/7"
    place.mkdir(parents=True)
    (place / "children").write_text(f"{os.getpid()} ")
    own = tmp_path / f"proc/{os.getpid()}"
    own.mkdir()
    (own / "stat").write_text(f"{os.getpid()} (a) b) S 8 0 0")
    assert not init.terminate_program({"State": {"Pid": 7}, "HostConfig": {"Init": True}}, tmp_path / "proc")
