"""Hooks run in order, within their time, and what their failure means is what the workload file says."""

from collections.abc import Iterator, Mapping, Sequence

import pytest
from claw_runtime.errors import EngineFailed, EngineUnavailable, HookFailed, NotClaimed
from claw_runtime.logs import MASK
from claw_runtime.ports import ContainerSpec, ExecResult
from claw_runtime.spec.plan import Hook
from claw_runtime.telemetry.redaction import Redactor
from claw_runtime.tenancy import TenantId, tenant_id
from claw_runtime.tenants.hooks import run_hooks
from fakes.clock import FakeClock
from fakes.engine import FakeEngine
from structlog.testing import capture_logs

ALICE: TenantId = tenant_id("alice")
FINE = ExecResult(exit_code=0, stdout=b"", stderr=b"")
SECRET = "the-secret-of-alice"


class HookHost:
    """A running container; `answers` are given first, one a command, then all is fine."""

    def __init__(self) -> None:
        self.answers: list[ExecResult] = []
        self.ran: list[tuple[Sequence[str], Mapping[str, str]]] = []
        self.clock = FakeClock()
        self.engine = FakeEngine(commands=self._answer)
        self.engine.add_image("i")
        self.container = self.engine.create(ContainerSpec(name="c", image="i"))
        self.engine.start(self.container)

    def _answer(self, spec: ContainerSpec, argv: Sequence[str], environment: Mapping[str, str]) -> ExecResult:
        self.ran.append((argv, environment))
        return self.answers.pop(0) if self.answers else FINE

    def run(self, *hooks: Hook) -> None:
        run_hooks(
            self.engine,
            self.container,
            hooks,
            tenant=ALICE,
            phase="post_claim",
            clock=self.clock,
            redact=Redactor([SECRET]).text,
        )


@pytest.fixture
def place() -> Iterator[HookHost]:
    """Where hooks run, and the log that they write."""
    with capture_logs():
        yield HookHost()


def failed(code: int = 3, stderr: bytes = b"", *, timed_out: bool = False) -> ExecResult:
    """A command that did not do."""
    return ExecResult(exit_code=code, stdout=b"", stderr=stderr, timed_out=timed_out)


def test_hooks_run_in_order_and_know_where_they_are(place: HookHost) -> None:
    """Each with the tenant and the moment in its environment."""
    place.run(Hook(command=("first", "a b")), Hook(command=("second",)))
    assert [argv for argv, _ in place.ran] == [("first", "a b"), ("second",)]
    assert all(environment == {"CLAW_TENANT": "alice", "CLAW_HOOK": "post_claim"} for _, environment in place.ran)


def test_a_failure_ends_the_rest(place: HookHost) -> None:
    """It is told with its code, its last words without the tenant's secrets, and how to try it by hand."""
    lines = "\n".join([f"line {n}" for n in range(40)] + [f"token was {SECRET}"])
    place.answers = [failed(3, lines.encode())]
    with pytest.raises(HookFailed) as caught:
        place.run(Hook(command=("first", "a b", SECRET)), Hook(command=("second",)))
    assert len(place.ran) == 1
    error = caught.value
    assert "'first'" in error.brief
    assert error.why.startswith("exit code 3: line 36 | ")
    assert error.why.endswith(f"token was {MASK}")
    assert "claw-runtime exec alice -- first 'a b'" in error.hint
    assert SECRET not in f"{error} {error.hint} {error.facts}"
    assert error.facts == {"phase": "post_claim", "exit_code": 3}


def test_one_that_may_fail_is_only_logged(place: HookHost) -> None:
    """The next one runs."""
    place.answers = [failed()]
    with capture_logs() as logged:
        place.run(Hook(command=("first",), on_error="continue"), Hook(command=("second",)))
    assert [argv[0] for argv, _ in place.ran] == ["first", "second"]
    assert [(line["log_level"], line["hook"]) for line in logged] == [("warning", "first")]


def test_one_that_is_retried_may_fail_so_often(place: HookHost) -> None:
    """With longer and longer waits; as soon as it succeeds, the rest goes on."""
    place.answers = [failed(), failed()]
    place.run(Hook(command=("first",), on_error="retry", retries=2), Hook(command=("second",)))
    assert [argv[0] for argv, _ in place.ran] == ["first", "first", "first", "second"]
    assert place.clock.slept == [0.5, 1.0]


def test_after_its_retries_it_has_failed(place: HookHost) -> None:
    """The waits do not grow without end."""
    place.answers = [failed()] * 6
    with pytest.raises(HookFailed, match="exit code 3"):
        place.run(Hook(command=("first",), on_error="retry", retries=5))
    assert len(place.ran) == 6
    assert place.clock.slept == [0.5, 1.0, 2.0, 4.0, 5.0]


def test_retries_count_for_retry_only(place: HookHost) -> None:
    """`fail` with a number of retries, as no workload file gives it, fails at once."""
    place.answers = [failed()]
    with pytest.raises(HookFailed):
        place.run(Hook(command=("first",), on_error="fail", retries=5))
    assert place.clock.slept == []


def test_one_that_takes_too_long_has_failed(place: HookHost) -> None:
    """Its time is the engine's to keep, and the message says how long it was."""
    with pytest.raises(HookFailed, match=r"longer than 2\.5 s"):
        place.run(Hook(command=("sleep", "60"), timeout=2.5))


def test_a_program_that_is_missing_is_reported(place: HookHost) -> None:
    """127 alone says little."""
    place.answers = [failed(127)]
    with pytest.raises(HookFailed, match="no such program"):
        place.run(Hook(command=("first",)))


def test_an_engine_that_refuses_is_a_failure_of_the_hook(place: HookHost) -> None:
    """As when the program has ended: `continue` goes on."""
    place.engine.fail("execute", EngineFailed("podman refused", why="improper"))
    place.run(Hook(command=("first",), on_error="continue"))
    place.engine.fail("execute", EngineFailed("podman refused", why="improper"))
    with pytest.raises(HookFailed, match="improper"):
        place.run(Hook(command=("first",)))


@pytest.mark.parametrize("error", [NotClaimed("gone"), EngineUnavailable("no answer")])
def test_without_a_container_no_further_hook_runs(place: HookHost, error: Exception) -> None:
    """What is gone is gone, also for hooks that may fail or are retried."""
    for on_error in ("continue", "retry"):
        place.engine.fail("execute", error)
        with pytest.raises(type(error)):
            place.run(Hook(command=("first",), on_error=on_error, retries=2))
    assert place.clock.slept == []
