"""Real Podman for integration tests, and a check that they leave nothing behind."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from claw_runtime.engine.podman import PodmanEngine
from claw_runtime.tenancy import Layout
from fakes import live_podman


@pytest.fixture(scope="session")
def session_home() -> Iterator[Path]:
    """Where every test of the session has its directories; afterwards no container, process or directory is left."""
    with live_podman.directory_in() as home:
        yield home
        left = {
            "containers": live_podman.left_containers(home),
            "processes": live_podman.left_processes(home),
            "directories": [path.name for path in home.iterdir()],
        }
    assert not any(left.values()), f"the tests left something behind: {left}"


@pytest.fixture(scope="session")
def small_image(session_home: Path) -> str:
    """Name of a 4 MB image whose program behaves like a tenant's (see fakes/live_podman.py)."""
    return live_podman.small_image()


@pytest.fixture
def layout(session_home: Path) -> Iterator[Layout]:
    """A home and a run directory of the test's own, with short paths; gone afterwards."""
    with live_podman.directory_in(session_home) as own:
        (own / "home").mkdir()
        (own / "run").mkdir(mode=0o700)
        yield Layout(own / "home", own / "run")


@pytest.fixture
def engine(layout: Layout) -> Iterator[PodmanEngine]:
    """Podman through a service of the test's own."""
    with live_podman.engine_at(layout.engine_socket) as engine:
        yield engine
