"""Waiting for readiness, in a test's own time."""

from collections.abc import Iterator

import pytest
from claw_runtime.errors import EngineUnavailable, NotReady
from claw_runtime.ports import SlotRow
from claw_runtime.spec.plan import Workload
from claw_runtime.tenants.readiness import FIRST_PAUSE, LAST_PAUSE, PROBE_TIMEOUT, is_ready, wait_ready
from fakes.clock import FakeClock
from fakes.engine import FakeEngine
from fakes.world import World

PORT = 4711


@pytest.fixture(scope="module")
def workload(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workload]:
    """Ready at /ready within 5 seconds; `optional` may fail."""
    world = World(tmp_path_factory.mktemp("health"))
    yield world.pools.workload("small")
    world.close()


class Answers:
    """A prober that answers from a list, the last one for ever; `asked` is what it was asked and when."""

    def __init__(self, clock: FakeClock, *answers: tuple[int, bytes] | None, slow: float = 0.0) -> None:
        self._clock, self._answers, self._slow = clock, list(answers), slow
        self.asked: list[tuple[int, str, float, str | None]] = []
        self.times: list[float] = []

    def get(self, port: int, path: str, timeout: float, bearer: str | None = None) -> tuple[int, bytes] | None:
        self.asked.append((port, path, timeout, bearer))
        self.times.append(self._clock.monotonic())
        self._clock.advance(self._slow)
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


def wait(
    workload: Workload, prober: Answers, clock: FakeClock, *, ended: str | None = None, port: int | None = PORT
) -> None:
    slot = SlotRow(id="s", pool="small", state="claimed", template="r", container="c", port=port, made_at=0.0)
    engine = FakeEngine()
    wait_ready(workload, slot, engine, prober, clock, bearer="token", ended=lambda: ended, hint="its log is there")


@pytest.mark.parametrize(
    ("status", "body", "ignored", "ready"),
    [
        (200, b"", (), True),
        (200, b"not json", ("whatsapp",), True),
        (204, b"", (), False),
        (301, b"", (), False),
        (404, b"", ("whatsapp",), False),
        (500, b'{"failing": ["whatsapp"]}', ("whatsapp",), False),
        (503, b'{"failing": ["whatsapp"]}', (), False),
        (503, b'{"failing": ["whatsapp"]}', ("whatsapp",), True),
        (503, b'{"failing": ["whatsapp"]}', ("whatsapp", "matrix"), True),
        (503, b'{"failing": ["whatsapp", "database"]}', ("whatsapp",), False),
        (503, b'{"failing": []}', ("whatsapp",), False),
        (503, b'{"failing": "whatsapp"}', ("whatsapp",), False),
        (503, b'{"failing": [["whatsapp"]]}', ("whatsapp",), False),
        (503, b'{"failing": null}', ("whatsapp",), False),
        (503, b"{}", ("whatsapp",), False),
        (503, b"[]", ("whatsapp",), False),
        (503, b"null", ("whatsapp",), False),
        (503, b"\xff\xfe", ("whatsapp",), False),
        (503, b"{", ("whatsapp",), False),
    ],
)
def test_ready_is_200_or_only_what_may_fail(status: int, body: bytes, ignored: tuple[str, ...], ready: bool) -> None:
    """Nothing but a 200, or a 503 that names only parts which the contract lets fail, counts as ready."""
    assert is_ready(status, body, ignored) is ready


class TestWaiting:
    def test_without_a_port_there_is_nothing_to_ask(self, workload: Workload) -> None:
        """A workload that publishes no port is ready at once."""
        clock = FakeClock()
        prober = Answers(clock, None)

        wait(workload, prober, clock, port=None)

        assert (prober.asked, clock.slept) == ([], [])

    def test_ready_at_the_first_answer(self, workload: Workload) -> None:
        """A workload that is ready costs one question and no pause; the token goes with it."""
        clock = FakeClock()
        prober = Answers(clock, (200, b""))

        wait(workload, prober, clock)

        assert prober.asked == [(PORT, "/ready", PROBE_TIMEOUT, "token")]
        assert clock.slept == []

    def test_pauses_grow_and_stay_short(self, workload: Workload) -> None:
        """The first pauses are short, for workloads that start in milliseconds; later ones spare the host."""
        clock = FakeClock()

        wait(workload, Answers(clock, *[None] * 20, (200, b"")), clock)

        assert clock.slept[0] == FIRST_PAUSE
        assert clock.slept == sorted(clock.slept)
        assert clock.slept[-1] == LAST_PAUSE

    def test_what_may_fail_does_not_hold_it_up(self, workload: Workload) -> None:
        """Only the parts that the contract lets fail are failing: that is ready."""
        clock = FakeClock()

        wait(workload, Answers(clock, (503, b'{"failing": ["optional"]}')), clock)

        assert clock.slept == []

    def test_time_runs_out(self, workload: Workload) -> None:
        """After the time allowed it is an error with the last answer, the log and the setting that allows more."""
        clock = FakeClock()

        with pytest.raises(NotReady) as caught:
            wait(workload, Answers(clock, (503, b'{"failing": ["database"]}')), clock)

        assert workload.ready_timeout <= clock.monotonic() < workload.ready_timeout + LAST_PAUSE + 1e-6
        assert str(caught.value).startswith("small was not ready after 5.0 s: /ready: it answered 503")
        assert "database" in caught.value.why
        assert "its log is there" in caught.value.hint
        assert "healthcheck.ready_timeout" in caught.value.hint

    def test_nobody_ever_answered(self, workload: Workload) -> None:
        """Silence is told from a bad answer."""
        clock = FakeClock()

        with pytest.raises(NotReady, match="nothing answered"):
            wait(workload, Answers(clock, None), clock)

    def test_a_bad_answer_is_not_forgotten_in_silence(self, workload: Workload) -> None:
        """The last thing that was said is named, also when nothing answered after it."""
        clock = FakeClock()

        with pytest.raises(NotReady, match="it answered 500 oops"):
            wait(workload, Answers(clock, (500, b"oops"), None), clock)

    def test_slow_answers_count(self, workload: Workload) -> None:
        """Time spent in questions is time: a workload that lets each one wait is asked only a few times."""
        clock = FakeClock()
        prober = Answers(clock, None, slow=PROBE_TIMEOUT)

        with pytest.raises(NotReady):
            wait(workload, prober, clock)

        assert len(prober.asked) == 3

    def test_a_container_that_ended_is_not_waited_for(self, workload: Workload) -> None:
        """An ended container is an error at once, with how it ended."""
        clock = FakeClock()

        with pytest.raises(NotReady) as caught:
            wait(workload, Answers(clock, None), clock, ended="exit code 78")

        assert str(caught.value) == "small ended before it was ready: exit code 78"
        assert clock.slept == []

    def test_the_wall_clock_decides_nothing(self, workload: Workload) -> None:
        """A wall clock that jumps a year neither ends the waiting nor prolongs it."""
        clock = FakeClock()
        prober = Answers(clock, *[None] * 5, (200, b""))
        clock.jump(365 * 86400.0)

        wait(workload, prober, clock)

        assert len(prober.asked) == 6

    def test_a_long_answer_is_cut(self, workload: Workload) -> None:
        """A page of an answer does not become a page of an error; bytes that are no text are shown as such."""
        clock = FakeClock()

        with pytest.raises(NotReady) as caught:
            wait(workload, Answers(clock, (500, b"\xff" * 100_000)), clock)

        assert len(caught.value.why) < 300


class TestSilentEngine:
    """Podman's service hangs, or is replaced, while a workload boots."""

    def silent(self) -> str | None:
        raise EngineUnavailable("podman did not answer", why="test", hint="retry")

    def slot(self) -> SlotRow:
        return SlotRow(id="s", pool="small", state="claimed", template="r", container="c", port=PORT, made_at=0.0)

    def test_the_probe_decides(self, workload: Workload) -> None:
        """A workload that answers is ready, whatever the engine does."""
        clock = FakeClock()
        prober = Answers(clock, None, None, (200, b""))
        wait_ready(workload, self.slot(), FakeEngine(), prober, clock, bearer=None, ended=self.silent, hint="")
        assert len(prober.asked) == 3

    def test_the_error_is_the_engines_when_the_time_is_over(self, workload: Workload) -> None:
        """Nothing is known of the container then, and a program that never answered is not to blame for it."""
        clock = FakeClock()
        with pytest.raises(EngineUnavailable, match="podman did not answer"):
            wait_ready(
                workload,
                self.slot(),
                FakeEngine(),
                Answers(clock, None),
                clock,
                bearer=None,
                ended=self.silent,
                hint="",
            )
        assert clock.monotonic() >= workload.ready_timeout
