"""The status names services that do not answer, and waits for none of them."""

import threading

from claw_runtime.errors import EngineUnavailable
from claw_runtime.operations.services import WITHIN, Services
from fakes.clock import FakeClock
from fakes.faces import Api, runtime_of
from fakes.world import World


def test_a_service_that_fails_is_named_until_it_answers() -> None:
    """With the reason, also of a fault that nobody expected."""
    errors: list[Exception] = [EngineUnavailable("it is gone", why="no socket"), RuntimeError("odd")]

    def look() -> None:
        if errors:
            raise errors.pop(0)

    services = Services(FakeClock(), {"engine": look, "store": lambda: None})
    for said in ({"engine": "no socket"}, {"engine": "RuntimeError('odd')"}, {}):
        services.look("engine")
        services.look("store")
        assert services.silent() == said


def test_a_look_that_does_not_end_is_no_answer() -> None:
    """Once it has taken longer than it may; its end counts again."""
    clock, begun, over = FakeClock(), threading.Event(), threading.Event()

    def look() -> None:
        begun.set()
        over.wait(20)

    services = Services(clock, {"store": look})
    thread = threading.Thread(target=services.look, args=("store",))
    thread.start()
    begun.wait(20)
    assert services.silent() == {}
    clock.advance(WITHIN + 1)
    assert services.silent() == {"store": "no answer for 6 s"}
    over.set()
    thread.join()
    assert services.silent() == {}


def test_the_api_tells(world: World) -> None:
    """As of the last look, without another."""
    runtime = runtime_of(world)
    world.engine.silent = "it hangs"
    assert Api(runtime).get("/api/v1/services").json() == {"silent": {}}
    runtime.services.look("engine")
    runtime.services.look("store")
    assert Api(runtime).get("/api/v1/services").json() == {"silent": {"engine": "it hangs"}}
