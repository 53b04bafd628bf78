"""The start gate of a waiting container on real Podman: a FIFO in a directory that the container sees read-only."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from claw_runtime.engine.podman import PodmanEngine
from claw_runtime.errors import EngineFailed
from claw_runtime.pools import start_gate
from claw_runtime.ports import Bind, ContainerSpec
from fakes import live_podman

pytestmark = pytest.mark.podman


@pytest.fixture
def home(session_home: Path) -> Iterator[Path]:
    """Directories `state` and `values` of a slot, with a start gate."""
    with live_podman.directory_in(session_home) as own:
        for name in ("state", "values"):
            (own / name).mkdir()
        start_gate.make(own / "values")
        yield own


@pytest.fixture
def container(engine: PodmanEngine, small_image: str, home: Path) -> Iterator[str]:
    """A container whose process waits at that start gate."""
    binds = [
        Bind(source=home / "state", target="/state"),
        Bind(source=home / "values", target="/run/claw", read_only=True),
    ]
    spec = ContainerSpec(
        name=f"claw-test-gate-{os.getpid()}",
        image=small_image,
        command=["--park", "entrypoint"],
        binds=binds,
        network="none",
        stop_timeout=30,
    )
    made = engine.create(spec)
    try:
        engine.initialize(made)
        assert not start_gate.waits(home / "values")
        engine.start(made)
        until(lambda: start_gate.waits(home / "values"))
        yield made
    finally:
        engine.remove(made)


def until(look: Callable[[], bool]) -> float:
    """Seconds until it is so, up to 10."""
    begun = time.monotonic()
    while not look():
        assert time.monotonic() - begun < 10
        time.sleep(0.001)
    return time.monotonic() - begun


def test_an_opened_gate_lets_the_program_start(engine: PodmanEngine, container: str, home: Path) -> None:
    """Nothing has begun before it; after it the program runs, in milliseconds, and nobody is at the gate."""
    time.sleep(0.2)
    assert engine.logs(container) == b""
    assert list((home / "state").iterdir()) == []
    start_gate.open_gate(home / "values")
    assert until((home / "state" / "starts").exists) < 5
    assert not start_gate.waits(home / "values")
    with pytest.raises(EngineFailed, match="no process waits"):
        start_gate.open_gate(home / "values")


def test_a_frozen_process_starts_when_it_is_thawed(engine: PodmanEngine, container: str, home: Path) -> None:
    """The line waits in the FIFO: nothing is lost, and nothing runs before its time."""
    live_podman.need_freezing()
    engine.pause(container)
    assert start_gate.waits(home / "values")
    start_gate.open_gate(home / "values")
    time.sleep(0.2)
    assert list((home / "state").iterdir()) == []
    engine.unpause(container)
    until((home / "state" / "starts").exists)


def test_the_gate_closes_with_the_process(engine: PodmanEngine, container: str, home: Path) -> None:
    """SIGTERM ends who waits at once, with code 0, and then nobody waits."""
    begun = time.monotonic()
    engine.stop(container, 20)
    assert time.monotonic() - begun < 10
    assert [seen.exit_code for seen in [engine.inspect(container)] if seen] == [0]
    assert not start_gate.waits(home / "values")


def test_what_is_inside_cannot_change_the_gate(engine: PodmanEngine, container: str, home: Path) -> None:
    """Neither remove it nor put something in its place: the directory is read-only in there."""
    assert engine.execute(container, ["rm", "/run/claw/door"]).exit_code == 1
    assert engine.execute(container, ["sh", "-c", "echo x > /run/claw/other"]).exit_code != 0
    assert engine.execute(container, ["chmod", "666", "/run/claw/door"]).exit_code == 1
    assert sorted(path.name for path in (home / "values").iterdir()) == ["door"]
