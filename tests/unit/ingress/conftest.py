"""One host with the daemon's side of ingress."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from fakes.ingress import Host


@pytest.fixture
def directory() -> Iterator[Path]:
    """A short one, since a socket's path is."""
    with TemporaryDirectory(prefix="i") as found:
        yield Path(found)


@pytest.fixture
def host(directory: Path) -> Iterator[Host]:
    made = Host(directory)
    yield made
    made.close()
