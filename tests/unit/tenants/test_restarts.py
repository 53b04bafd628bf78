"""Claims that the daemon makes by itself: after a reboot of the machine, and of a program that failed."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from claw_runtime.errors import Conflict, EngineFailed, NotClaimed, NotReady, StoreUnavailable
from claw_runtime.tenancy import TenantId
from claw_runtime.tenants.restarts import MOST_FAILURES, BootProgress
from fakes.world import FROZEN, WORKLOAD, World

ALICE, BOB, CAROL = TenantId("alice"), TenantId("bob"), TenantId("carol")
ALWAYS = f"{WORKLOAD}policy: {{on_boot: always}}\n"
ON_FAILURE = f"{WORKLOAD}policy: {{restart: on_failure}}\n"
NEVER = f"{WORKLOAD}policy: {{on_boot: never}}\n"


class Killed(BaseException):
    """SIGKILL: nothing of ours may catch it."""


def reboot(world: World) -> None:
    """The machine starts again: no container is left, and a new daemon finds what is on the disk."""
    world.boot += "+"
    world.engine.lose()
    world.restart()
    world.recover()


def running(world: World, *tenants: TenantId) -> None:
    """Tenants that were claimed one after another, in a daemon that has noted its boot."""
    world.restarts.note_boot()
    for tenant in tenants:
        world.tenants.claim(tenant, "small", metadata='{"who": 1}')
        world.write(tenant, {"word": tenant})
        world.clock.advance(1)


def kinds(world: World, tenant: TenantId | None = None) -> list[str]:
    return [event.kind for event in world.events.newest(100, tenant=tenant)]


@pytest.fixture
def other(tmp_path: Path, world: World) -> Iterator[World]:
    """Another host on the same store."""
    made = World(tmp_path / "other", store=world.store, owner="host-b")
    yield made
    made.close()


class TestBoot:
    def test_an_active_tenant_is_claimed_again(self, world: World) -> None:
        """A tenant that ran when the machine went down runs again, with what it had written and its metadata."""
        running(world, ALICE)

        reboot(world)
        before = world.row_state(ALICE)
        world.restarts.look()

        assert before in ("parked", "cold")
        row, _ = world.tenants.find(ALICE)
        assert (row.state, row.restarted, row.metadata, row.error) == ("active", "reboot", '{"who": 1}', "")
        assert (world.state(ALICE) / "word").read_text() == "alice"

    def test_a_released_tenant_is_not_claimed_again(self, world: World) -> None:
        """A release ends the wanted claim; the tenant is reachable by its next claim."""
        running(world, ALICE, BOB)
        world.tenants.release(BOB)

        reboot(world)
        world.restarts.look()

        assert (world.row_state(ALICE), world.row_state(BOB)) == ("active", "cold")
        assert world.tenants.claim(BOB, "small").state == "restored"

    @pytest.mark.world(workload=FROZEN)
    def test_a_tenant_at_rest_is_not(self, world: World) -> None:
        """One that was left frozen by its release was released."""
        running(world, ALICE)
        assert world.tenants.release(ALICE).affinity == "frozen"

        reboot(world)
        world.restarts.look()

        assert world.row_state(ALICE) == "cold"

    def test_the_oldest_claim_is_the_first(self, world: World) -> None:
        """Claims begin in the order in which persons made them."""
        running(world, CAROL, ALICE, BOB)

        reboot(world)
        world.restarts.look()

        claimed = [event.tenant for event in world.events.newest(100) if event.kind == "restarted"]
        assert claimed == [CAROL, ALICE, BOB]

    def test_only_a_few_begin_at_the_same_time(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of three workers one is left for quick tenants: two programs start while the third tenant waits."""
        running(world, ALICE, BOB, CAROL)
        world.threads = 3
        reboot(world)
        world.recovery.workers.wait()
        lock, two, go = threading.Lock(), threading.Event(), threading.Event()
        begun: list[str] = []
        real = world.engine.start

        def start(container: str) -> None:
            with lock:
                begun.append(container)
            if len(begun) == 2:
                two.set()
            assert go.wait(60)
            real(container)

        with monkeypatch.context() as patch:
            patch.setattr(world.engine, "start", start)
            world.restarts.look()
            assert two.wait(60)
            time.sleep(0.2)
            assert len(begun) == 2
            go.set()
            world.restarts.workers.wait()

        assert [world.row_state(one) for one in (ALICE, BOB, CAROL)] == ["active"] * 3

    def test_a_restart_of_the_daemon_is_no_reboot(self, world: World) -> None:
        """A container that is gone within one boot ended by itself: that is another matter."""
        running(world, ALICE)
        world.engine.lose()
        world.restart()
        world.recover()
        world.restarts.look()

        assert world.row_state(ALICE) == "cold"
        assert "rebooted" not in kinds(world)

    def test_a_container_that_still_runs_is_adopted(self, world: World) -> None:
        """Even if the boot looks like another one, no running container is touched."""
        running(world, ALICE)
        slot = world.tenants.find(ALICE)[0].slot
        world.boot = "other"
        world.restart()
        world.recover()
        world.restarts.look()

        row, _ = world.tenants.find(ALICE)
        assert (row.state, row.slot, row.restart) == ("active", slot, "")

    def test_a_ledger_without_a_boot_is_no_reboot(self, world: World) -> None:
        """The first start with a ledger of an earlier version notes the boot, and claims nobody."""
        running(world, ALICE)
        with world.ledger.database.change() as db:
            db.execute("DELETE FROM boot")

        reboot(world)
        world.restarts.look()

        assert (world.row_state(ALICE), world.ledger.boot()) == ("cold", world.boot)

    def test_a_claim_whose_end_was_lost_counts(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """A power failure may lose the last step of a claim that was answered: its program had begun."""
        world.restarts.note_boot()
        with monkeypatch.context() as patch:
            patch.setattr(world.ledger, "become", dying)
            with pytest.raises(Killed):
                world.tenants.claim(ALICE, "small")

        reboot(world)
        world.restarts.look()

        assert world.row_state(ALICE) == "active"

    def test_it_is_reported(self, world: World) -> None:
        """Events and the recovery's progress say what happened."""
        running(world, ALICE, BOB)

        reboot(world)
        before = world.restarts.progress()
        world.restarts.look()

        assert before == BootProgress(tenants=2, done=0, failing=0)
        assert world.restarts.progress() == BootProgress(tenants=2, done=2, failing=0)
        assert kinds(world).count("rebooted") == 1
        assert kinds(world, ALICE)[-2:] == ["claimed", "restarted"]


class TestPolicy:
    @pytest.mark.world(workload=NEVER)
    def test_never_claims_nobody(self, world: World) -> None:
        """With `on_boot: never`, tenants are settled and wait for their next claim."""
        running(world, ALICE)
        reboot(world)
        world.restarts.look()

        assert (world.row_state(ALICE), world.saved(ALICE)) == ("cold", {"word": "alice"})

    @pytest.mark.world(workload=ALWAYS)
    def test_always_claims_who_was_not_released(self, world: World) -> None:
        """With `on_boot: always`, a tenant whose program had ended runs again; one that was released does not."""
        running(world, ALICE, BOB)
        world.tenants.release(BOB)
        world.engine.lose()
        world.recovery.supervise()
        assert world.row_state(ALICE) == "cold"

        reboot(world)
        world.restarts.look()

        assert (world.row_state(ALICE), world.row_state(BOB)) == ("active", "cold")

    @pytest.mark.world(workload=ALWAYS)
    def test_a_release_that_came_too_late_counts(self, world: World) -> None:
        """A release of a tenant whose program had ended fails, and ends the wanted claim."""
        running(world, ALICE)
        world.engine.lose()
        world.recovery.supervise()
        with pytest.raises(NotClaimed):
            world.tenants.release(ALICE)

        reboot(world)
        world.restarts.look()

        assert world.row_state(ALICE) == "cold"


class TestKilled:
    def test_the_next_daemon_continues(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """A daemon that is killed in the middle of the claims of a boot leaves the rest to the next one."""
        running(world, ALICE, BOB, CAROL)
        reboot(world)
        real, count = world.engine.start, 0

        def start(container: str) -> None:
            nonlocal count
            count += 1
            if count == 2:
                raise Killed
            real(container)

        with monkeypatch.context() as patch:
            patch.setattr(world.engine, "start", start)
            with pytest.raises(Killed):
                world.restarts.look()
        assert [world.row_state(one) for one in (ALICE, BOB)] == ["active", "claiming"]
        world.restart()
        world.recover()
        world.restarts.look()

        assert [world.row_state(one) for one in (ALICE, BOB, CAROL)] == ["active"] * 3
        assert [(world.state(one) / "word").read_text() for one in (ALICE, BOB, CAROL)] == [ALICE, BOB, CAROL]
        assert world.tenants.find(BOB)[0].restarted == "reboot"

    def test_before_any_tenant_was_settled(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """The mark of a reboot and the new boot are noted together: a daemon that dies next loses neither."""
        running(world, ALICE)
        world.boot += "+"
        world.engine.lose()
        world.restart()
        with monkeypatch.context() as patch:
            patch.setattr(world.releaser, "finish_quietly", dying)
            with pytest.raises(Killed):
                world.recover()
        world.restart()
        world.recover()
        world.restarts.look()

        assert world.row_state(ALICE) == "active"


def dying(*_: object, **__: object) -> None:
    raise Killed


class TestFailure:
    def test_it_is_tried_again_later_each_time(self, world: World) -> None:
        """A claim that fails is repeated after 1 s, then 2 s; status says why and when."""
        running(world, ALICE)
        reboot(world)
        for pause in (1, 2):
            world.engine.fail("create", EngineFailed("no"))
            world.engine.fail("create", EngineFailed("no"), at=2)
            world.engine.fail("create", EngineFailed("no"), at=3)
            world.restarts.look()
            row, _ = world.tenants.find(ALICE)
            told = world.restarts.of(row)
            assert told is not None
            assert told.at == pytest.approx(world.clock.now() + pause)
            assert "no" in row.error
            world.engine.heal()
            world.clock.advance(pause - 0.5)
            world.restarts.look()
            assert world.row_state(ALICE) != "active"
            world.clock.advance(0.5)
        world.restarts.look()

        assert world.row_state(ALICE) == "active"
        assert kinds(world, ALICE).count("restart-failed") == 1

    def test_a_store_that_is_away_is_no_fault_of_the_program(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The daemon tries until the store is back, however often that fails."""
        running(world, ALICE)
        reboot(world)

        def away(*_: object, **__: object) -> None:
            raise StoreUnavailable("down")

        with monkeypatch.context() as patch:
            patch.setattr(world.repository.leases, "acquire", away)
            for _ in range(2 * MOST_FAILURES):
                world.restarts.look()
                world.clock.advance(300)
        assert world.restarts.progress().failing == 1
        world.restarts.look()

        assert world.row_state(ALICE) == "active"

    def test_a_program_that_never_becomes_ready_is_given_up(self, world: World) -> None:
        """After five failures in a row it stays down until a person claims it, and its status says so."""
        running(world, ALICE)
        reboot(world)
        world.prober.always = None
        for _ in range(2 * MOST_FAILURES):
            world.restarts.look()
            world.clock.advance(300)
        row, _ = world.tenants.find(ALICE)
        assert (row.restart, row.failures) == ("crash-loop", MOST_FAILURES)
        assert row.error.startswith("crash loop: it failed 5 times in a row")
        assert kinds(world, ALICE).count("crash-loop") == 1

        world.prober.always = (200, b"")
        world.tenants.claim(ALICE, "small")

        row, _ = world.tenants.find(ALICE)
        assert (row.state, row.restart, row.restarted, row.failures) == ("active", "", "", 0)

    def test_a_release_calls_it_off(self, world: World) -> None:
        """Whoever releases a tenant that waits for its restart does not find it running later."""
        running(world, ALICE)
        reboot(world)

        world.tenants.release(ALICE)
        world.restarts.look()

        assert world.row_state(ALICE) in ("cold", "parked")
        with pytest.raises(NotClaimed):
            world.tenants.release(ALICE)

    def test_its_state_is_not_moved_meanwhile(self, world: World) -> None:
        """An import or restore would race with the restart, so it is refused until a release calls that off."""
        running(world, ALICE)
        reboot(world)
        with pytest.raises(Conflict, match="cannot be changed now") as caught, world.tenants.still(ALICE):
            pass
        assert "claimed again by the daemon" in caught.value.why

        world.tenants.release(ALICE)

        with world.tenants.still(ALICE):
            pass

    def test_a_tenant_that_continued_elsewhere_is_left_there(self, world: World, other: World) -> None:
        """A tenant that another host claims after the commit is not taken back."""
        running(world, ALICE)
        reboot(world)
        other.tenants.claim(ALICE, "small")
        world.restarts.look()

        row, _ = world.tenants.find(ALICE)
        assert (row.restart, row.wanted) == ("", 0)
        assert "not claimed again" in row.error

    def test_a_tree_that_another_host_continued_is_left_to_a_person(self, world: World, other: World) -> None:
        """If another host committed a newer generation, a reboot keeps this host's tree and no claim of it is tried."""
        running(world, ALICE)
        other.tenants.claim(ALICE, "small", take_over=True)
        other.write(ALICE, {"word": "newer"})
        other.tenants.release(ALICE)
        reboot(world)
        world.restarts.look()

        row, _ = world.tenants.find(ALICE)
        assert (row.state, row.restart, row.wanted) == ("kept", "", 0)
        assert row.error.startswith("restore-failed: ")
        assert world.restarts.progress() == BootProgress(tenants=1, done=1, failing=0)

    def test_a_claim_waits_for_the_commit(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """What could not be committed is committed first, by the retries; until then nothing is claimed."""
        running(world, ALICE)

        def down(*_: object, **__: object) -> None:
            raise StoreUnavailable("down")

        with monkeypatch.context() as patch:
            patch.setattr(world.store, "put", down)
            reboot(world)
            world.restarts.look()
            assert world.row_state(ALICE) == "kept"
        world.restarts.look()
        assert world.row_state(ALICE) == "kept"
        world.recovery.retry()
        world.restarts.look()

        assert (world.row_state(ALICE), world.saved(ALICE)) == ("active", {"word": "alice"})


def crash(world: World, tenant: TenantId, exit_code: int = 1, *, oom: bool = False) -> None:
    """The tenant's program ends, and the daemon notices."""
    slot = world.tenants.find(tenant)[1]
    assert slot
    world.engine.crash(slot.container or "", exit_code, oom=oom)
    world.recovery.supervise()


@pytest.mark.world(workload=ON_FAILURE)
class TestPrograms:
    def test_one_that_failed_is_claimed_again_after_its_commit(self, world: World) -> None:
        """Its state is committed first; a second later it runs again with it."""
        running(world, ALICE)

        crash(world, ALICE)

        assert world.saved(ALICE) == {"word": "alice"}
        world.restarts.look()
        assert world.row_state(ALICE) == "parked"
        world.clock.advance(1)
        world.restarts.look()
        row, _ = world.tenants.find(ALICE)
        assert (row.state, row.restarted, row.failures, row.error) == ("active", "ended", 1, "")
        assert (world.state(ALICE) / "word").read_text() == "alice"
        assert kinds(world, ALICE) == ["claimed", "ended", "claimed", "restarted"]

    def test_one_that_ended_well_stays_down(self, world: World) -> None:
        """Exit code 0 is no failure."""
        running(world, ALICE)
        crash(world, ALICE, 0)
        world.clock.advance(10)
        world.restarts.look()

        assert world.row_state(ALICE) == "cold"

    @pytest.mark.world(workload=WORKLOAD)
    def test_the_default_is_to_stay_down(self, world: World) -> None:
        """Without a policy, a tenant whose program failed waits for its next claim."""
        running(world, ALICE)
        crash(world, ALICE)
        world.clock.advance(10)
        world.restarts.look()

        row, _ = world.tenants.find(ALICE)
        assert (row.state, row.restart) == ("cold", "")
        assert row.error.startswith("ended: exit code 1")

    def test_five_failures_in_a_row_are_the_end(self, world: World) -> None:
        """The pause doubles each time; the fifth failure leaves the tenant down with its state in the store."""
        running(world, ALICE)
        pauses = []
        for _ in range(MOST_FAILURES - 1):
            crash(world, ALICE)
            told = world.restarts.of(world.tenants.find(ALICE)[0])
            assert told is not None
            assert told.at is not None
            pauses.append(round(told.at - world.clock.now()))
            world.clock.advance(pauses[-1])
            world.restarts.look()
            assert world.row_state(ALICE) == "active"
        world.write(ALICE, {"word": "last"})
        crash(world, ALICE)
        world.clock.advance(1000)
        world.restarts.look()

        row, _ = world.tenants.find(ALICE)
        assert pauses == [1, 2, 4, 8]
        assert (row.state, row.restart, row.failures) == ("cold", "crash-loop", MOST_FAILURES)
        assert row.error.startswith("crash loop: it failed 5 times in a row")
        assert world.saved(ALICE) == {"word": "last"}
        assert world.tenants.claim(ALICE, "small").state == "restored"
        assert world.tenants.find(ALICE)[0].failures == 0

    def test_ten_minutes_of_health_are_a_new_beginning(self, world: World) -> None:
        """A program that ran for ten minutes since its last failure has failed once."""
        running(world, ALICE)
        for _ in range(2):
            crash(world, ALICE)
            world.clock.advance(2)
            world.restarts.look()
        assert world.tenants.find(ALICE)[0].failures == 2
        world.clock.advance(600)

        crash(world, ALICE)

        assert world.tenants.find(ALICE)[0].failures == 1

    def test_a_claim_does_not_wait_for_the_pause(self, world: World) -> None:
        """A person who claims the tenant meanwhile gets it at once, and the daemon leaves it to them."""
        running(world, ALICE)
        crash(world, ALICE)

        assert not world.tenants.claim(ALICE, "small").already
        world.clock.advance(10)
        world.restarts.look()

        row, _ = world.tenants.find(ALICE)
        assert (row.state, row.restart, row.restarted, row.failures) == ("active", "", "", 0)

    def test_an_end_while_the_daemon_was_away_counts(self, world: World) -> None:
        """The next daemon finds that the program failed, commits its state, and claims it again."""
        running(world, ALICE)
        slot = world.tenants.find(ALICE)[1]
        assert slot
        world.engine.crash(slot.container or "")
        world.restart()
        world.recover()
        world.clock.advance(1)
        world.restarts.look()

        row, _ = world.tenants.find(ALICE)
        assert (row.state, row.restarted, row.failures) == ("active", "ended", 1)

    def test_a_daemon_killed_before_the_commit_counts_once(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is to follow is noted before the commit; the next daemon commits, and claims."""
        running(world, ALICE)
        with monkeypatch.context() as patch:
            patch.setattr(world.releaser, "finish_quietly", dying)
            with pytest.raises(Killed):
                crash(world, ALICE)
        world.restart()
        world.recover()
        world.restarts.look()

        row, _ = world.tenants.find(ALICE)
        assert (row.state, row.failures, world.saved(ALICE)) == ("active", 1, {"word": "alice"})


class TestMemory:
    def test_a_kill_at_the_limit_is_named(self, world: World) -> None:
        """An OOM kill is named in the tenant's status and in the event; its state is committed."""
        running(world, ALICE)
        crash(world, ALICE, oom=True)

        row, _ = world.tenants.find(ALICE)
        assert row.error.startswith("ended: out of memory: the kernel killed it at its memory limit, exit code 137")
        event = next(event for event in world.events.newest(100) if event.kind == "ended")
        assert event.detail["oom"] is True
        assert world.saved(ALICE) == {"word": "alice"}

    @pytest.mark.world(workload=ON_FAILURE)
    def test_a_restart_after_it_keeps_the_reason(self, world: World) -> None:
        """With `restart: on_failure`, the status of the tenant that runs again still tells why, as does the event."""
        running(world, ALICE)
        crash(world, ALICE, oom=True)
        assert world.tenants.find(ALICE)[0].restart == "out-of-memory"
        world.clock.advance(1)
        world.restarts.look()

        row, _ = world.tenants.find(ALICE)
        assert (row.state, row.restarted) == ("active", "out-of-memory")
        event = next(event for event in world.events.newest(100) if event.kind == "restarted")
        assert event.detail["reason"] == "out-of-memory"

    @pytest.mark.world(workload=ON_FAILURE)
    def test_a_crash_loop_of_it_says_so(self, world: World) -> None:
        """Five times in a row: the error of the tenant that stays down names the limit."""
        running(world, ALICE)
        for _ in range(MOST_FAILURES):
            crash(world, ALICE, oom=True)
            world.clock.advance(20)
            world.restarts.look()

        row, _ = world.tenants.find(ALICE)
        assert row.restart == "crash-loop"
        assert "out of memory" in row.error

    def test_any_other_kill_is_not(self, world: World) -> None:
        """Exit code 137 alone may be anybody's SIGKILL."""
        running(world, ALICE)
        crash(world, ALICE, 137)

        row, _ = world.tenants.find(ALICE)
        assert row.error.startswith("ended: exit code 137")
        assert "oom" not in next(event for event in world.events.newest(100) if event.kind == "ended").detail

    def test_a_claim_that_needs_too_much_says_so(self, world: World) -> None:
        """A program that is killed at its limit before it is ready names the limit in the claim's error."""
        world.engine.started = lambda spec: world.engine.crash(spec.name, oom=True)
        world.prober.always = None

        with pytest.raises(NotReady) as caught:
            world.tenants.claim(ALICE, "small")

        assert "out of memory" in caught.value.why
        assert "deploy.resources.limits.memory" in caught.value.hint
