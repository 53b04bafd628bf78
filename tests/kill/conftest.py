"""Real Podman for the kill tests, and a check that they leave nothing behind."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import live_podman
from kill import beside, image


@pytest.fixture(scope="session")
def gate_image() -> str:
    """Name of the image that waits at a start gate."""
    return image.made()


@pytest.fixture
def place(gate_image: str) -> Iterator[Path]:
    """A directory of the test's own, with a short path; afterwards no process that a daemon there began is left."""
    with live_podman.directory_in() as directory:
        yield directory
        left = [str(process) for process in beside.processes(directory)]
    assert left == [], "the test left processes behind"
