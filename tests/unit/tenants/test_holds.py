"""A file that never rests is stored while its container is paused; no pause outlives the daemon that made it."""

import os
import threading
from collections.abc import Callable
from typing import Any

import pytest
from claw_runtime.errors import Conflict, EngineFailed, EngineUnavailable, NotClaimed, UploadFailed
from claw_runtime.ports import ContainerState
from claw_runtime.tenancy import TenantId
from claw_runtime.tenants.holds import ENTRY
from claw_runtime.tenants.lifecycle import Step
from fakes.world import WORKLOAD, World

ALICE = TenantId("alice")
SIZE = 200_000
pytestmark = pytest.mark.world(workload=f"{WORKLOAD}sync: {{policy: {{interval: 5s}}}}\n")


class Killed(BaseException):
    """SIGKILL: nothing of ours may catch it."""


class Program:
    """Alice's program, which writes to `model` whenever time is asked for and its container runs.

    Attributes:
        paused: Called at each turn that it does not get, because its container is paused.
    """

    def __init__(self, world: World, patch: pytest.MonkeyPatch) -> None:
        self._world, self._real, self._count, self._inside = world, world.clock.monotonic, 0, False
        self.paused: Callable[[], None] = lambda: None
        patch.setattr(world.clock, "monotonic", self.monotonic)

    def monotonic(self) -> float:
        if not self._inside:
            self._inside = True
            try:
                self._turn()
            finally:
                self._inside = False
        return self._real()

    def _turn(self) -> None:
        if (state := state_of(self._world)) == "paused":
            self.paused()
        if state != "running":
            return
        self._count += 1
        path = self._world.state("alice") / "model"
        with path.open("r+b") as file:
            for at in (0, SIZE - 8):
                file.seek(at)
                file.write(b"%08d" % self._count)
        os.utime(path, ns=(0, self._count * 10**9))


def state_of(world: World) -> ContainerState | None:
    row = world.ledger.tenant(ALICE)
    slot = world.ledger.slot(row.slot) if row and row.slot else None
    found = world.engine.inspect(slot.container) if slot and slot.container else None
    return found.state if found else None


@pytest.fixture
def world(world: World) -> World:
    world.tenants.claim(ALICE, "small")
    world.write("alice", {"word": "1", "model": "0" * SIZE})
    world.tenants.sync(ALICE)
    return world


@pytest.fixture
def program(world: World, monkeypatch: pytest.MonkeyPatch) -> Program:
    """It has been writing for one commit, which told that it left the file out."""
    program = Program(world, monkeypatch)
    world.engine.calls.clear()
    assert left_out(world) == 1
    assert "pause" not in world.engine.calls
    return program


def left_out(world: World) -> int:
    """How many names the next commit leaves out."""
    world.tenants.sync_unless_busy(ALICE)
    return world.commits.of(ALICE).left_out


def is_whole(world: World) -> bool:
    """Whether both ends of the stored file are of one moment, after the program began."""
    model = world.saved("alice")["model"]
    return len(model) == SIZE and model[:8] == model[-8:] != "0" * 8


def step(world: World) -> str:
    row = world.ledger.tenant(ALICE)
    assert row is not None
    return row.step


@pytest.mark.usefixtures("program")
def test_the_second_commit_pauses_the_container_for_a_moment(world: World) -> None:
    """Then it has the file, of one moment, and the program runs on."""
    assert left_out(world) == 0

    assert [call for call in world.engine.calls if "pause" in call] == ["pause", "unpause"]
    assert (state_of(world), step(world), is_whole(world)) == ("running", Step.NONE, True)


class TestKilled:
    """A daemon that dies while the container is paused."""

    @pytest.fixture(params=["before the pause", "in the pause", "before the end", "after the end"])
    def world(
        self, world: World, program: Program, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
    ) -> World:
        """A daemon that was killed around a pause, and the next one, which has done nothing yet."""

        def die(*_: object) -> None:
            raise Killed

        real = world.engine.unpause

        def unpause_and_die(container: str) -> None:
            real(container)
            raise Killed

        with monkeypatch.context() as patch:
            match request.param:
                case "before the pause":
                    patch.setattr(world.engine, "pause", die)
                    patch.setattr(world.engine, "unpause", die)
                case "in the pause":
                    program.paused = die
                    patch.setattr(world.engine, "unpause", die)
                case "before the end":
                    patch.setattr(world.engine, "unpause", die)
                case _:
                    patch.setattr(world.engine, "unpause", unpause_and_die)
            with pytest.raises(Killed):
                world.tenants.sync_unless_busy(ALICE)
        program.paused = lambda: None
        assert step(world) == Step.HOLD
        world.restart()
        return world

    def test_the_next_start_resumes_it(self, world: World) -> None:
        """The program runs on, the tenant is active, and later commits pause it again."""
        world.recover()

        assert (state_of(world), world.row_state("alice")) == ("running", "active")
        left_out(world)
        assert left_out(world) == 0
        assert is_whole(world)

    def test_a_look_at_the_containers_resumes_it(self, world: World) -> None:
        """If the engine did not answer at the start, the next look does it."""
        world.engine.fail("unpause", EngineUnavailable("podman did not answer"))
        world.recover()

        world.recovery.supervise()

        assert (state_of(world), world.row_state("alice")) == ("running", "active")

    def test_a_commit_that_comes_first_resumes_it(self, world: World) -> None:
        """It does not wait for the recovery, and leaves nothing paused."""
        world.tenants.sync_unless_busy(ALICE)

        assert (state_of(world), step(world)) == ("running", Step.NONE)

    def test_a_claim_that_comes_first_resumes_it(self, world: World) -> None:
        """It gets the container that runs."""
        assert world.tenants.claim(ALICE, "small").already
        assert state_of(world) == "running"

    def test_a_release_that_comes_first_stores_all_of_it(self, world: World) -> None:
        """The program gets SIGTERM, and the store has what it wrote."""
        world.tenants.release(ALICE)

        assert (world.row_state("alice"), is_whole(world), world.leftovers()) == ("cold", True, [])

    def test_a_container_that_is_gone_is_settled(self, world: World) -> None:
        """As after a reboot: the tree is committed."""
        world.engine.lose()
        world.recover()

        assert (world.row_state("alice"), is_whole(world)) == ("cold", True)


def test_an_operators_pause_is_left_alone(world: World) -> None:
    """Only a pause that a commit announced is taken back at a start."""
    row = world.ledger.tenant(ALICE)
    assert row is not None
    slot = world.ledger.slot(row.slot or "")
    assert slot is not None
    world.engine.pause(slot.container or "")
    world.restart()

    world.recover()
    world.recovery.supervise()

    assert (state_of(world), world.row_state("alice")) == ("paused", "active")


def test_a_look_at_the_containers_leaves_a_pause_alone(world: World, program: Program) -> None:
    """A commit that is under way ends its own pause."""
    states = list[ContainerState | None]()

    def look() -> None:
        world.recovery.supervise()
        states.append(state_of(world))

    program.paused = look
    assert left_out(world) == 0

    assert set(states) == {"paused"}


def test_a_release_waits_for_the_pause(world: World, program: Program) -> None:
    """It begins when the commit is over, and finds a container that runs."""
    releases = list[threading.Thread]()

    def release() -> None:
        if not releases:
            releases.append(threading.Thread(target=world.tenants.release, args=(ALICE,)))
            releases[0].start()

    program.paused = release
    assert left_out(world) == 0
    releases[0].join()

    assert (world.row_state("alice"), is_whole(world), world.leftovers()) == ("cold", True, [])
    assert world.engine.calls.index("unpause") < world.engine.calls.index("stop")


def test_a_daemon_that_ends_leaves_nothing_paused(world: World, program: Program) -> None:
    """It waits for the pause that has begun, and commits that still run begin none."""
    waits = list[threading.Thread]()

    def end() -> None:
        if not waits:
            waits.append(threading.Thread(target=world.recovery.end_pauses, args=(60.0,)))
            waits[0].start()
        assert waits[0].is_alive()

    program.paused = end
    assert left_out(world) == 0
    waits[0].join()
    world.engine.calls.clear()

    assert [left_out(world) for _ in range(3)] == [1, 1, 1]
    assert (state_of(world), "pause" in world.engine.calls) == ("running", False)


@pytest.mark.usefixtures("program")
def test_a_host_that_cannot_pause_tells_as_before(world: World) -> None:
    """The commit stores everything else, and the container runs on."""
    world.engine.fail("pause", EngineFailed("podman refused to pause", why="no cgroup"))
    world.write("alice", {"word": "2"})

    assert left_out(world) == 1

    assert world.saved("alice")["word"] == "2"
    assert (state_of(world), step(world)) == ("running", Step.NONE)


@pytest.mark.usefixtures("program")
def test_a_container_that_is_not_resumed_fails_the_commit(world: World) -> None:
    """The status says so, and the next look at the containers resumes it."""
    world.engine.fail("unpause", EngineUnavailable("podman did not answer"))
    with pytest.raises(UploadFailed, match="did not answer"):
        world.tenants.sync_unless_busy(ALICE)
    assert (world.commits.of(ALICE).failures, state_of(world)) == (1, "paused")

    world.recovery.supervise()

    assert state_of(world) == "running"
    world.tenants.sync_unless_busy(ALICE)
    assert world.commits.of(ALICE).failures == 0


@pytest.mark.usefixtures("program")
def test_a_program_that_ends_in_the_pause_is_settled(world: World, program: Program) -> None:
    """Killed by the kernel while it was paused: the commit fails, and the tree is committed as after any end."""
    row = world.ledger.tenant(ALICE)
    assert row is not None
    slot = world.ledger.slot(row.slot or "")
    assert slot is not None

    def end() -> None:
        world.engine.crash(slot.container or "", 137)

    program.paused = end
    with pytest.raises(UploadFailed):
        world.tenants.sync_unless_busy(ALICE)

    world.recovery.supervise()

    assert (world.row_state("alice"), is_whole(world)) == ("cold", True)


class TestEntering:
    """A command of the host that is about to begin in the container, and a pause."""

    def test_a_command_that_comes_in_the_pause_is_refused_for_a_moment(self, world: World, program: Program) -> None:
        """The error says to retry at once; after the pause the answer is the container."""
        refused = list[Conflict]()

        def enter() -> None:
            with pytest.raises(Conflict, match="paused for a commit") as caught:
                world.tenants.enter(ALICE)
            refused.append(caught.value)

        program.paused = enter
        assert left_out(world) == 0

        assert refused[0].facts["retry_after"] == 1
        slot = world.tenants.find(ALICE)[1]
        assert slot
        assert world.tenants.enter(ALICE) == slot.container

    @pytest.mark.usefixtures("program")
    def test_a_pause_waits_for_a_command_that_is_about_to_begin(self, world: World) -> None:
        """Until two seconds after the command was told its container, and the commit has its file all the same."""
        world.tenants.enter(ALICE)
        world.clock.advance(0.5)
        world.clock.slept.clear()

        assert left_out(world) == 0

        assert sum(world.clock.slept) == pytest.approx(ENTRY - 0.5)
        assert [call for call in world.engine.calls if "pause" in call] == ["pause", "unpause"]

    def test_commands_without_end_delay_a_pause_once(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """While a pause waits for commands, those that come later wait for its end: no loop of them keeps a commit from
        its file, and none of them is refused by Podman."""
        Program(world, monkeypatch)
        assert left_out(world) == 1
        world.clock.slept.clear()
        real = world.clock.sleep

        def sleep(seconds: float) -> None:
            with pytest.raises(Conflict, match="paused for a commit"):
                world.tenants.enter(ALICE)
            real(seconds)

        monkeypatch.setattr(world.clock, "sleep", sleep)
        world.tenants.enter(ALICE)
        assert left_out(world) == 0

        assert sum(world.clock.slept) == pytest.approx(ENTRY)

    def test_what_a_killed_daemon_paused_is_refused_until_it_runs(self, world: World, program: Program) -> None:
        """The next daemon knows of the pause from its ledger."""

        def die(*_: object) -> None:
            raise Killed

        program.paused = die
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(world.engine, "unpause", die)
            with pytest.raises(Killed):
                world.tenants.sync_unless_busy(ALICE)
        program.paused = lambda: None
        world.restart()
        with pytest.raises(Conflict):
            world.tenants.enter(ALICE)

        world.recover()

        assert world.tenants.enter(ALICE)

    @pytest.mark.parametrize("state", ["claiming", "releasing"])
    def test_a_tenant_on_its_way_may_be_asked_for_again(self, world: World, state: Any) -> None:
        """While it is claimed or released, nobody knows yet whether it will run."""
        world.ledger.become(ALICE, state, 0.0)

        with pytest.raises(Conflict, match=f"it is {state}"):
            world.tenants.enter(ALICE)

    def test_only_a_tenant_that_runs_is_entered(self, world: World) -> None:
        """Of one that does not, the state is named: cold, kept, frozen or parked."""
        world.tenants.release(ALICE)
        with pytest.raises(NotClaimed, match="its state is cold"):
            world.tenants.enter(ALICE)
        with pytest.raises(NotClaimed, match="never claimed"):
            world.tenants.enter(TenantId("bob"))
