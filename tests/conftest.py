"""The fixture that most tests of the runtime begin with."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

import pytest
import structlog
from claw_runtime.ports import ObjectStore
from fakes.faces import serving
from fakes.world import WORKLOAD, World


@pytest.fixture(autouse=True, scope="session")
def plain_tracebacks() -> None:
    """The log of a test shows a traceback as Python prints it; one with all local variables takes half a second."""
    renderer = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*structlog.get_config()["processors"][:-1], renderer])


@pytest.fixture
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """A runtime in memory, as the mark `world` of the test, its class or its module describes it.

    A module that needs more in it, such as a tenant, extends this fixture by one of the same name.
    """
    mark = request.node.get_closest_marker("world")
    yield from _made(tmp_path, **(mark.kwargs if mark else {}))


def _made(
    home: Path,
    *,
    workload: str = WORKLOAD,
    store: Callable[[], ObjectStore] | None = None,
    operators: Sequence[bytes] = (),
    filled: bool = False,
    served: bool = False,
) -> Iterator[World]:
    """One world.

    Args:
        workload: Its workload file.
        store: Makes its object store; in memory without it.
        operators: Keys of the operator, 32 bytes each, that encrypt its states.
        filled: Whether its pool has its slots already.
        served: Whether its API is served, on its own Unix socket.
    """
    made = World(home, workload=workload, store=store() if store else None, operators=operators)
    try:
        if filled:
            made.pools.keep()
        with serving(made) if served else nullcontext():
            yield made
    finally:
        made.close()
