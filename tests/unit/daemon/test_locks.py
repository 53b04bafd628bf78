"""One daemon a data directory, a run directory and a socket: a second one is refused before it changes anything."""

import os
import socket
from pathlib import Path

import pytest
from claw_runtime import settings
from claw_runtime.api import server
from claw_runtime.cli import output
from claw_runtime.daemon.home import locked, make_directories
from claw_runtime.errors import DaemonRunning, DaemonUnreachable
from claw_runtime.tenancy import Layout


@pytest.fixture
def alone(tmp_path: Path) -> Layout:
    return made(tmp_path, "a")


def made(place: Path, home: str, run: str = "run") -> Layout:
    """A layout with its directories; by default all share one run directory."""
    layout = Layout(home=place / home, run=place / run)
    make_directories(layout)
    return layout


def values(layout: Layout, slot: str = "5107") -> Path:
    """Values of a slot, as a claim leaves them."""
    file = layout.slot(slot).values / "values.json"
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    return file


def test_another_data_directory_does_not_get_a_run_directory_in_use(alone: Layout, tmp_path: Path) -> None:
    """The second learns the process and data directory of the first, and what to set; the first keeps its values."""
    other = made(tmp_path, "b")
    with locked(alone):
        kept = values(alone)
        with pytest.raises(DaemonRunning) as refused, locked(other):
            pytest.fail("two daemons in one run directory")

        assert f"process {os.getpid()} serves the data directory {alone.home} there" in refused.value.why
        assert "CLAW_RUN" in refused.value.hint
        assert kept.exists()
        assert not other.runtime_id.exists()
        with locked(made(tmp_path, "b", "run-b")):
            pass


def test_a_taken_data_directory_names_both_directories_that_a_second_daemon_needs(alone: Layout) -> None:
    """Advice that changes only the data directory would lead into the run directory of the first."""
    with locked(alone):
        with pytest.raises(DaemonRunning) as refused, locked(alone):
            pytest.fail("two daemons in one data directory")
        assert "--home" in refused.value.hint
        assert "CLAW_RUN" in refused.value.hint


def test_values_of_another_data_directory_outlive_its_daemon(alone: Layout, tmp_path: Path) -> None:
    """Its containers run without it: their values are not removed, and the error tells whose they are."""
    other = made(tmp_path, "b")
    with locked(alone):
        kept = values(alone)

    with pytest.raises(DaemonRunning, match=str(alone.home)), locked(other):
        pytest.fail("it would remove values of another's slots")

    assert kept.exists()
    with locked(alone):
        kept.unlink()
        kept.parent.rmdir()
    with locked(other):
        pass


def test_locks_of_a_start_that_was_refused_are_free(alone: Layout, tmp_path: Path) -> None:
    """A second daemon that got one of two locks leaves it."""
    other = made(tmp_path, "b")
    with locked(alone), pytest.raises(DaemonRunning), locked(other):
        pytest.fail("two daemons in one run directory")
    with locked(other):
        pass


def test_a_socket_is_not_taken_from_a_process_that_listens(alone: Layout) -> None:
    """Also from one that holds no lock, and from one that is too busy to accept."""
    path = alone.api_socket
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as waiting:
        listener.bind(str(path))
        listener.listen(0)
        waiting.connect(str(path))
        before = server.identity(path)
        with pytest.raises(DaemonRunning, match="another process listens"):
            server.listen_at(path)
        assert server.identity(path) == before
    with server.listen_at(path):  # nobody listens any more: it is stale
        assert server.identity(path) != before


def test_a_command_does_not_ask_the_daemon_of_another_data_directory(
    alone: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would answer with tenants of its own, or with none."""
    other = made(tmp_path, "b")
    for name in settings.ENVIRONMENT.values():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLAW_RUN", str(alone.run))
    with locked(alone):
        with pytest.raises(DaemonUnreachable, match=str(alone.home)):
            output.Context(home=other.home).client()
        output.Context(home=alone.home).client()
        link = tmp_path / "link"
        link.symlink_to(alone.home)
        output.Context(home=link).client()
        output.Context().client()
