"""An installed entrypoint and roots for it, for tests that start it."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.image_root import install


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory that every uid may enter; pytest's own are private."""
    with tempfile.TemporaryDirectory(prefix="claw-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def library(place: Path) -> Path:
    """The entrypoint, installed; its `/` is `place/root`, which each test furnishes."""
    return install(place / "lib", place / "root")


@pytest.fixture
def root(place: Path) -> Iterator[Path]:
    """An unfurnished root."""
    with tempfile.TemporaryDirectory(dir=place) as name:
        link = place / "root"
        link.symlink_to(name)
        Path(name).chmod(0o755)
        yield link
        link.unlink()
