"""Podman's service is killed under the engine: containers go on, who only looks does not notice, the next call works.

Only the service that the test's own engine started is killed, by its process id.
"""

import gc
import os
import signal
import threading
import time
import urllib.request
from collections.abc import Iterator

import pytest
from claw_runtime.engine.podman import PodmanEngine
from claw_runtime.errors import EngineUnavailable, ImageMissing
from claw_runtime.ports import ContainerSpec

# podman-py 5.8.0 leaves the socket of a failed connect to the garbage collector.
pytestmark = [pytest.mark.podman, pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]
LABELS = {"io.claw.test": f"engine-restart-{os.getpid()}"}


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """So that it does so here, and not in somebody else's test."""
    yield
    gc.collect()


@pytest.fixture
def container(engine: PodmanEngine, small_image: str) -> Iterator[str]:
    """A running container with a port."""
    spec = ContainerSpec(
        name=LABELS["io.claw.test"], image=small_image, labels=LABELS, port=8080, tmpfs=("/state",), stop_timeout=2
    )
    made = engine.create(spec)
    try:
        engine.start(made)
        deadline = time.monotonic() + 10
        while not engine.logs(made):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield made
    finally:
        engine.remove(made)


def kill_service(engine: PodmanEngine) -> None:
    """SIGKILL, as an operator or the kernel without memory would."""
    pid = engine._service.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def answers(engine: PodmanEngine, container: str) -> bool:
    """Whether the container's program serves on its port."""
    seen = engine.inspect(container)
    assert seen is not None
    with urllib.request.urlopen(f"http://127.0.0.1:{seen.host_port}/healthz", timeout=5) as answer:
        return bool(answer.read() == b"ok\n")


def test_looking_does_not_notice(engine: PodmanEngine, container: str) -> None:
    """Time and again, right after the kill: the same container with the same process, and its port answers."""
    before = engine.inspect(container)
    for _ in range(3):
        kill_service(engine)
        assert engine.inspect(container) == before
        kill_service(engine)
        assert list(engine.list(LABELS)) == [before]
        assert answers(engine, container)


def test_what_may_be_done_twice_does_not_notice(engine: PodmanEngine, container: str, small_image: str) -> None:
    """A claim asks for its image, starts its container, and a release stops it: each right after the kill."""
    image = engine.image(small_image)
    for _ in range(3):
        kill_service(engine)
        assert engine.image(small_image) == image
        kill_service(engine)
        engine.start(container)  # it runs already
    kill_service(engine)
    engine.stop(container, 5)
    assert [seen.exit_code for seen in [engine.inspect(container)] if seen] == [0]
    with pytest.raises(ImageMissing):
        engine.image("localhost/claw-test-nothing:dev")


def test_what_was_under_way_fails_and_the_next_call_works(engine: PodmanEngine, container: str) -> None:
    """A command and a reader of the log are told that Podman went away; the tenant's program never knows."""
    lines = engine.lines(container, follow=True)
    assert next(lines) == b"started"
    killing = threading.Timer(0.5, kill_service, (engine,))
    killing.start()
    with pytest.raises(EngineUnavailable) as caught:
        engine.execute(container, ["sleep", "20"], timeout=10)
    assert caught.value.hint
    with pytest.raises(EngineUnavailable):
        next(lines)
    lines.close()
    killing.join()
    assert engine.execute(container, ["echo", "again"], timeout=10).stdout == b"again\n"
    assert answers(engine, container)
    engine.pause(container)
    kill_service(engine)
    assert [seen.state for seen in engine.list(LABELS)] == ["paused"]
    engine.stop(container, 5)
    assert [seen.exit_code for seen in [engine.inspect(container)] if seen] == [0]


def test_many_callers_start_it_once(engine: PodmanEngine, container: str) -> None:
    """Eight threads find it dead, and all of them look at the container through one new service."""
    kill_service(engine)
    generation = engine._service._generation
    states: list[str] = []
    threads = [threading.Thread(target=lambda: states.extend(s.state for s in engine.list(LABELS))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert states == ["running"] * 8
    assert engine._service._generation == generation + 1
