"""The hosts on which tenants rest."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.world import FROZEN, PARKED, World


@pytest.fixture
def frozen(tmp_path: Path) -> Iterator[World]:
    """A host that freezes released tenants."""
    world = World(tmp_path / "frozen", workload=FROZEN)
    yield world
    world.close()


@pytest.fixture
def parked(tmp_path: Path) -> Iterator[World]:
    """A host that parks the trees of released tenants."""
    world = World(tmp_path / "parked", workload=PARKED)
    yield world
    world.close()
