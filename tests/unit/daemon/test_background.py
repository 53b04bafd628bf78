"""The daemon does its background work again and again: what each part can do is worth nothing if nobody asks for it."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from claw_runtime.daemon import assembly, loops, stores
from claw_runtime.errors import StoreUnavailable
from fakes.faces import runtime_of
from fakes.world import World

TWICE = 2


@contextmanager
def kept(runtime: assembly.Runtime) -> Iterator[None]:
    """The background work in a thread, until the block ends."""
    thread = threading.Thread(target=runtime.keep)
    thread.start()
    try:
        yield
    finally:
        runtime.stopping.set()
        runtime.poked.set()
        thread.join(20)
    assert not thread.is_alive()


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("part", "method", "pause"),
    [
        ("engine", "supervise", "SUPERVISION_PAUSE"),
        ("recovery", "supervise", "TENDING_PAUSE"),
        ("recovery", "expire", "TENDING_PAUSE"),
        ("recovery", "retry", "RETRY_KEPT"),
        ("liveness", "look", "PROBE_PAUSE"),
        ("views", "work_off", "VIEW_PAUSE"),
        ("maintenance", "commit", "ROUTINE_PAUSE"),
        ("maintenance", "collect", "TIDY_PAUSE"),
        ("reserve", "refill", "REFILL_PAUSE"),
    ],
)
def test_work_of_every_kind_is_repeated(
    world: World, monkeypatch: pytest.MonkeyPatch, part: str, method: str, pause: str
) -> None:
    """Each is done a second time after its pause."""
    runtime, done = runtime_of(world), list[str]()
    monkeypatch.setattr(loops, pause, 0.01)
    monkeypatch.setattr(type(getattr(runtime, part)), method, lambda *_: done.append(method))
    with kept(runtime):
        wait_for(lambda: len(done) >= TWICE)


def test_both_services_are_looked_at(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Engine and store are asked all the time, so that the status names one that does not answer."""
    runtime, asked = runtime_of(world), list[str]()
    monkeypatch.setattr(loops, "ENGINE_PAUSE", 0.01)
    monkeypatch.setattr(loops, "STORE_PAUSE", 0.01)
    monkeypatch.setattr(type(runtime.services), "look", lambda _, name: asked.append(name))
    with kept(runtime):
        wait_for(lambda: min(asked.count("engine"), asked.count("store")) >= TWICE)


def test_the_heart_beats(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three times within the time after which other runtimes may take the tenants."""
    runtime, beats = runtime_of(world), list[float]()
    runtime = replace(runtime, settings=replace(runtime.settings, lease_ttl=0.06))
    monkeypatch.setattr(type(runtime.repository.heartbeats), "beat", lambda *_: beats.append(time.monotonic()))
    with kept(runtime):
        wait_for(lambda: len(beats) > TWICE)


class Server:
    """claw's own S3 server, whose first start fails."""

    endpoint = "http://127.0.0.1:1"

    def __init__(self) -> None:
        self.looks = 0

    def supervise(self) -> bool:
        self.looks += 1
        if self.looks == 1:
            raise StoreUnavailable("the S3 server that comes with claw did not start")
        return True


def test_the_s3_server_is_supervised(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked at until the daemon ends, also after a start that failed."""
    server: Any = Server()
    monkeypatch.setattr(stores, "SUPERVISION_PAUSE", 0.01)
    with stores._supervised(server):
        wait_for(lambda: server.looks > TWICE)
    looks = server.looks
    time.sleep(0.05)
    assert server.looks == looks
