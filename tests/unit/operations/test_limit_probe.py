"""The container that proves limits: what it is made with, and that it is removed whatever happens."""

import os

import pytest
from claw_runtime.errors import ClawError, EngineFailed, EngineUnavailable
from claw_runtime.operations import limit_probe
from claw_runtime.ports import ContainerSpec, ExecResult
from claw_runtime.tenancy import LABEL_PROBE
from fakes.engine import FakeEngine

IMAGE = "localhost/small:1"
ALL = frozenset({"memory", "cpus", "pids"})


@pytest.fixture
def engine() -> FakeEngine:
    """One with an image."""
    made = FakeEngine()
    made.add_image(IMAGE)
    return made


def test_all_limits_are_proven(engine: FakeEngine) -> None:
    """Its control group has each of them, and the kernel refused processes over the limit."""
    proof = limit_probe.prove(engine, IMAGE, ALL)
    assert (proof.held, proof.missing) == (ALL, frozenset())


def test_only_what_the_engine_claims_is_asked_for(engine: FakeEngine) -> None:
    """A limit without its controller would keep the container from starting, also Podman's own of processes."""
    made: list[ContainerSpec] = []
    engine.commands = lambda spec, *_: made.append(spec) or ExecResult(exit_code=0, stdout=b"", stderr=b"")  # type: ignore[func-returns-value]
    limit_probe.prove(engine, IMAGE, frozenset({"memory"}))
    [spec] = made
    assert (spec.memory, spec.cpus, spec.pids) == (limit_probe.MEMORY, None, 0)
    assert (spec.network, spec.entrypoint) == ("none", ("sleep", "60"))


@pytest.mark.parametrize("count", [b"", b"pids.events max 0\n", b"pids.events max x\n"])
def test_a_limit_of_processes_must_have_refused_one(engine: FakeEngine, count: bytes) -> None:
    """The number in a file is not enough."""
    shown = f"{limit_probe.WANTED['pids']}\n".encode() + count
    engine.commands = lambda *_: ExecResult(exit_code=0, stdout=shown, stderr=b"")
    assert limit_probe.prove(engine, IMAGE, frozenset({"pids"})).missing == {"pids"}


@pytest.mark.parametrize("method", ["create", "start", "execute"])
def test_a_failure_leaves_no_container(engine: FakeEngine, method: str) -> None:
    """Whichever call failed; the engine's own words are the error."""
    engine.fail(method, EngineFailed("podman refused", why="reason"))
    with pytest.raises(EngineFailed, match="reason"):
        limit_probe.prove(engine, IMAGE, ALL)
    assert engine.list({}) == []


@pytest.mark.parametrize(
    "answer",
    [
        ExecResult(exit_code=127, stdout=b"", stderr=b"sh: not found\n"),
        ExecResult(exit_code=137, stdout=b"", stderr=b"", timed_out=True),
    ],
)
def test_an_image_without_a_shell_proves_nothing(engine: FakeEngine, answer: ExecResult) -> None:
    """Nor does one that does not answer: that is an error, and not a limit that does not hold."""
    engine.commands = lambda *_: answer
    with pytest.raises(ClawError, match="did not run"):
        limit_probe.prove(engine, IMAGE, ALL)
    assert engine.list({}) == []


def test_what_a_killed_doctor_left_is_removed(engine: FakeEngine) -> None:
    """By the next one. A container of a doctor that runs, and one of a tenant, stay."""
    gone = 2**22 + 1  # above every process id of Linux
    for name, doctor in (("left", str(gone)), ("beside", str(os.getpid()))):
        engine.create(ContainerSpec(name=name, image=IMAGE, labels={LABEL_PROBE: doctor}))
    engine.create(ContainerSpec(name="tenant", image=IMAGE))
    limit_probe.prove(engine, IMAGE, ALL)
    assert {one.name for one in engine.list({})} == {"beside", "tenant"}


def test_a_container_that_cannot_be_removed_is_no_failure(engine: FakeEngine) -> None:
    """The proof stands; the container ends by itself within a minute, and the next doctor removes it."""
    engine.fail("remove", EngineUnavailable("gone"))
    assert limit_probe.prove(engine, IMAGE, ALL).held == ALL
