"""A claim that was cut off between the announcement of the start and the start."""

from pathlib import Path

import pytest
from claw_runtime.tenancy import TenantId
from fakes.world import World

ALICE = TenantId("alice")


class Killed(BaseException):
    """SIGKILL: nothing of ours may catch it."""


def killed(*_: object) -> None:
    """The daemon dies here."""
    raise Killed


def test_what_never_ran_is_not_asked_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container that was not started hears no SIGTERM, and would be waited for as long as a workload may take to
    drain (330 s for OpenClaw): it is ended at once, and its tree committed as ever."""
    world = World(tmp_path)
    world.pools.keep()
    world.tenants.claim(ALICE, "small")
    world.write(ALICE, {"colour": "green"})
    world.tenants.release(ALICE)
    with monkeypatch.context() as patch:
        patch.setattr(world.engine, "start", killed)
        with pytest.raises(Killed):
            world.tenants.claim(ALICE, "small")
    timeouts: list[int] = []
    stop = world.engine.stop
    monkeypatch.setattr(world.engine, "stop", lambda name, timeout: (timeouts.append(timeout), stop(name, timeout))[1])
    world.restart()

    world.recover()

    assert timeouts == [0]
    assert world.row_state(ALICE) == "cold"
    assert world.saved(ALICE) == {"colour": "green"}
    world.close()
