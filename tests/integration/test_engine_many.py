"""Many calls at once on one Podman service, which does not survive all of them (4.3.1)."""

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from claw_runtime.engine.podman import PodmanEngine
from claw_runtime.ports import ContainerSpec
from podman.api.client import APIClient

pytestmark = pytest.mark.podman
LABELS = {"io.claw.test": f"engine-many-{os.getpid()}"}


@pytest.fixture
def clean(engine: PodmanEngine) -> Iterator[None]:
    """Removes the containers that a test made."""
    yield
    for made in engine.list(LABELS):
        engine.remove(made.id)


@pytest.fixture
def overlaps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many creates were under way each time that one began."""
    found: list[int] = []
    under_way: list[int] = []
    post = APIClient.post

    def watched(self: APIClient, path: str, *args: Any, **options: Any) -> object:
        if path != "/containers/create":
            return post(self, path, *args, **options)
        under_way.append(1)
        found.append(len(under_way))
        time.sleep(0.005)
        try:
            return post(self, path, *args, **options)
        finally:
            under_way.pop()

    monkeypatch.setattr(APIClient, "post", watched)
    return found


def spec(number: int, image: str) -> ContainerSpec:
    return ContainerSpec(name=f"{LABELS['io.claw.test']}-{number}", image=image, labels=LABELS, tmpfs=("/state",))


@pytest.mark.usefixtures("clean")
def test_containers_are_created_one_at_a_time(engine: PodmanEngine, small_image: str, overlaps: list[int]) -> None:
    """Podman looks its user's ids up in a library that is not made for threads: two at once may end its service."""
    engine.map_image(small_image)
    overlaps.clear()
    pid = engine._service.pid
    with ThreadPoolExecutor(12) as threads:
        made = set(threads.map(lambda number: engine.create(spec(number, small_image)), range(24)))
    assert (len(made), len(engine.list(LABELS)), engine._service.pid) == (24, 24, pid)
    assert overlaps == [1] * 24


@pytest.mark.usefixtures("clean")
def test_a_new_image_keeps_nobody_waiting(engine: PodmanEngine, small_image: str) -> None:
    """An image is mapped, which may take a minute, by a service of its own: creates of other tenants go on."""
    mapped = threading.Thread(target=engine.map_image, args=(small_image,))
    with engine._creating:
        mapped.start()
        mapped.join(30)
        assert not mapped.is_alive()


@pytest.mark.usefixtures("clean")
def test_an_image_is_mapped_before_it_is_used(engine: PodmanEngine, small_image: str, overlaps: list[int]) -> None:
    """By whoever uses it first, so that its long copying never stands in the way of other tenants' creates."""
    image = engine.image(small_image).id
    engine.create(spec(0, image))
    engine.create(spec(1, image))
    assert (len(overlaps), image in engine._mapped) == (3, True)
