"""Upgrades: one tenant first, then waves; at the first sign of trouble image and state go back together."""

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from claw_runtime.db.upgrades import SqliteUpgrades
from claw_runtime.errors import (
    ClawError,
    Conflict,
    EngineFailed,
    ImageMissing,
    InvalidSpec,
    StateMissing,
    StoreUnavailable,
    UnknownPool,
    UpgradeFailed,
)
from claw_runtime.ports import ContainerSpec
from claw_runtime.tenancy import LABEL_CONTRACT, TenantId
from claw_runtime.upgrades.upgrades import Upgrades
from fakes.world import IMAGE, WORKLOAD, World

NEW = "localhost/small:new"
DARK = (503, b'{"failing": ["all"]}')
NAMES = ("alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi")
POOL = "pool: {min_size: 2, max_size: 3, affinity_timeout: 0}"
ROOMY = WORKLOAD.replace(
    POOL, "pool: {min_size: 0, max_size: 12, affinity_timeout: 60s, warmth: {created: 0, tree: 4}}"
)


class Host(World):
    """A world with upgrades, where containers of the image `bad` scribble into their state and never get ready."""

    bad = ""
    victims: frozenset[str] = frozenset()

    def restart(self) -> None:
        super().restart()
        # A killed process loses nothing that the kernel has: no test here needs the disk.
        database, real = self.ledger.database, self.ledger.database.change
        database.change = lambda **durable: real()  # type: ignore[method-assign]
        self.upgrades = upgrades_of(self)
        self.engine.started = self._run

    def recover(self) -> None:
        super().recover()
        self.upgrades.recover()
        self.upgrades.bring_home()

    def _run(self, spec: ContainerSpec) -> None:
        """What a program does as it starts: it tells its image in the state, or breaks."""
        slot = spec.labels["io.claw.slot"]
        tenant = next(row.id for row in self.ledger.tenants() if row.slot == slot)
        fails = spec.image == self.bad and (not self.victims or tenant in self.victims)
        (self.layout.slot(slot).state / "schema").write_text("scribbled" if fails else spec.image)
        self.prober.always = DARK if fails else (200, b"{}")
        if fails:
            self.engine.say(spec.name, b"cannot read my own database\n")

    # --- what tests look at ---

    def up(self, *tenants: str) -> None:
        """Claim tenants one after another, each a minute later, and let each write its name."""
        for tenant in tenants:
            self.clock.advance(60)
            self.tenants.claim(TenantId(tenant), "small")
            self.write(tenant, {"name": tenant})

    def image_of(self, tenant: str) -> str | None:
        """Reference of the image that the tenant runs; None when it does not run."""
        row = self.ledger.tenant(TenantId(tenant))
        found = self.host.look(row).container if row and row.state == "active" else None
        return self.engine.image(found.image_id).names[0] if found and found.state == "running" else None

    def images(self) -> dict[str, str | None]:
        return {row.id: self.image_of(row.id) for row in self.ledger.tenants()}

    def words(self, tenant: str) -> dict[str, str]:
        return {path.name: path.read_text() for path in self.state(tenant).iterdir()}

    def id_of(self, reference: str) -> str:
        return self.engine.image(reference).id

    def upgrade(self, **options: object) -> None:
        """A whole upgrade, in this thread."""
        self.upgrades.begin("small", NEW, **options)  # type: ignore[arg-type]
        self.upgrades.run("small")

    def moves(self) -> dict[str, str]:
        return {move.tenant: move.state for move in self.upgrades.progress("small").moves}

    @property
    def outcome(self) -> str:
        return self.upgrades.progress("small").upgrade.state

    def break_image(self, *victims: str) -> None:
        self.bad, self.victims = self.id_of(NEW), frozenset(victims)


def upgrades_of(host: Host, parallel: int = 1) -> Upgrades:
    store = SqliteUpgrades(host.ledger.database)
    return Upgrades(host.host, tenants=host.tenants, store=store, prober=host.prober, parallel=parallel)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A host with a new image loaded, and room."""
    made = Host(tmp_path, workload=ROOMY)
    made.engine.add_image(NEW)
    yield made
    made.close()


def check_untouched(host: Host, *tenants: str) -> None:
    """These run the image from before with the state from before, and nothing is left of the attempt."""
    for tenant in tenants:
        assert host.image_of(tenant) == IMAGE, tenant
        assert host.words(tenant) == {"name": tenant, "schema": host.id_of(IMAGE)}, tenant
        row = host.ledger.tenant(TenantId(tenant))
        assert row is not None
        assert (row.image, row.trial, row.proven) == ("", 0, host.id_of(IMAGE))
    assert host.leftovers() == []


class TestPlan:
    def test_it_tells_who_goes_when_and_touches_nothing(self, host: Host) -> None:
        """The canary is who was active last; then waves of 1, 2, 4; who rests and who is away are counted."""
        host.up(*NAMES)
        host.tenants.touch(TenantId("carol"))
        host.tenants.release(TenantId("grace"))
        host.tenants.release(TenantId("heidi"), affinity=False)
        calls = len(host.engine.calls)

        plan = host.upgrades.plan("small", NEW)

        assert plan.canary == "carol"
        assert plan.waves == (("carol",), ("frank",), ("erin", "dave"), ("bob", "alice"))
        assert (plan.resting, plan.later, plan.already) == (("grace",), 1, ())
        assert (plan.now, plan.digest) == (IMAGE, host.engine.image(NEW).digest)
        assert list(plan.running.values()) == [6]
        assert set(host.engine.calls[calls:]) <= {"image", "list", "info"}
        with pytest.raises(StateMissing, match="never upgraded"):
            host.upgrades.progress("small")

    def test_waves_may_have_one_size(self, host: Host) -> None:
        """A batch makes all waves but the canary's of that size."""
        host.up(*NAMES[:6])
        plan = host.upgrades.plan("small", NEW, batch=2, canary="alice")
        assert [len(wave) for wave in plan.waves] == [1, 2, 2, 1]
        assert plan.waves[0] == ("alice",)

    def test_a_missing_image_is_refused_before_anything_is_touched(self, host: Host) -> None:
        """Nothing is pulled: what is not loaded is an error with the way to load it."""
        host.up("alice")
        for ask in (host.upgrades.plan, host.upgrades.start):
            with pytest.raises(ImageMissing) as caught:
                ask("small", "localhost/none:1")
            assert "image load" in caught.value.hint
        check_untouched(host, "alice")

    def test_an_image_that_does_not_fit_is_refused(self, host: Host) -> None:
        """A contract that the workload file contradicts is an error of the plan, not of the canary."""
        host.up("alice")
        host.engine.add_image("localhost/odd:1", labels={LABEL_CONTRACT: '{"contract": 99}'})
        with pytest.raises(InvalidSpec):
            host.upgrades.plan("small", "localhost/odd:1")
        check_untouched(host, "alice")

    def test_strangers_are_refused(self, host: Host) -> None:
        """An unknown pool, a canary that does not run, and a drained pool are told apart."""
        host.up("alice")
        with pytest.raises(UnknownPool):
            host.upgrades.plan("none", NEW)
        with pytest.raises(Conflict, match="cannot be the canary"):
            host.upgrades.plan("small", NEW, canary="nobody")
        host.pools.drain_pool("small")
        with pytest.raises(Conflict, match="drained"):
            host.upgrades.plan("small", NEW)


class TestGood:
    def test_everybody_moves_and_the_pool_switches(self, host: Host) -> None:
        """All run the new image with their state, nobody is held to it any more, and the pool makes its slots of it."""
        host.up(*NAMES[:5])
        host.tenants.sync(TenantId("alice"))

        host.upgrade()

        assert host.outcome == "done"
        assert set(host.images().values()) == {NEW}
        for tenant in NAMES[:5]:
            assert host.words(tenant) == {"name": tenant, "schema": host.id_of(NEW)}
            row = host.ledger.tenant(TenantId(tenant))
            assert row is not None
            assert (row.image, row.trial, row.proven, row.base) == ("", 0, host.id_of(NEW), 1)
        assert host.pools.show("small").image == NEW
        assert host.leftovers() == []
        kinds = [event.kind for event in host.events.newest() if event.kind.startswith("upgrade")]
        assert kinds == ["upgrade-began", *["upgraded"] * 5, "upgrade-done"]

    def test_it_outlives_the_daemon(self, host: Host) -> None:
        """After a restart the pool still makes its slots from the new image."""
        host.up("alice")
        host.upgrade()
        host.restart()
        host.recover()
        assert host.pools.show("small").image == NEW
        host.up("bob")
        assert host.image_of("bob") == NEW

    def test_each_is_watched(self, host: Host) -> None:
        """Nobody counts before the soak is over; a wave waits for the one before it."""
        host.up("alice", "bob")
        before = host.clock.monotonic()
        host.upgrade(soak=30.0)
        assert host.clock.monotonic() - before >= 60

    def test_tenants_away_meet_it_at_their_next_claim(self, host: Host) -> None:
        """Who rests is ended first, who is away is left alone; both try the new image when they come."""
        host.up("alice", "bob", "carol")
        host.tenants.release(TenantId("bob"))
        assert host.row_state("bob") == "parked"
        host.tenants.release(TenantId("carol"), affinity=False)
        host.upgrade()
        assert (host.row_state("bob"), host.row_state("carol")) == ("cold", "cold")
        host.break_image("carol")

        assert host.tenants.claim(TenantId("bob"), "small").fell_back == ""
        assert host.tenants.claim(TenantId("carol"), "small").fell_back != ""
        assert (host.image_of("bob"), host.image_of("carol")) == (NEW, IMAGE)

    def test_a_tenant_claimed_meanwhile_moves_too(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        """A tenant that is claimed during the upgrade gets the pool's image, and then a wave of its own."""
        host.up("alice")
        real = host.tenants.accept

        def accept(tenant: TenantId) -> bool:
            if not host.ledger.tenant(TenantId("late")):
                host.up("late")
                assert host.image_of("late") == IMAGE
            return real(tenant)

        monkeypatch.setattr(host.tenants, "accept", accept)
        host.upgrade()
        assert host.images() == {"alice": NEW, "late": NEW}
        assert [move.wave for move in host.upgrades.progress("small").moves] == [0, 1]

    def test_a_tenant_released_meanwhile_is_left(self, host: Host) -> None:
        """A tenant that does not run any more when its turn comes is not started."""
        host.up("alice", "bob")
        host.upgrades.begin("small", NEW, canary="bob")
        host.tenants.release(TenantId("alice"), affinity=False)
        host.upgrades.run("small")
        assert (host.outcome, host.moves()) == ("done", {"bob": "done", "alice": "left"})
        assert host.row_state("alice") == "cold"

    def test_a_tenant_released_while_it_is_watched_counts(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its program was ready and ended in good order: its state is the new image's."""
        host.up("alice")
        sleep = host.clock.sleep

        def nap(seconds: float) -> None:
            if host.row_state("alice") == "active":
                host.tenants.release(TenantId("alice"), affinity=False)
            sleep(seconds)

        monkeypatch.setattr(host.clock, "sleep", nap)
        host.upgrade()
        assert (host.outcome, host.moves()) == ("done", {"alice": "done"})
        assert host.saved("alice")["schema"] == host.id_of(NEW)

    def test_a_pool_without_tenants_only_switches(self, host: Host) -> None:
        """There is nobody to try it on."""
        host.upgrade()
        assert (host.outcome, host.moves()) == ("done", {})
        assert host.pools.show("small").image == NEW

    def test_a_name_that_moved_is_taken_as_it_is(self, host: Host) -> None:
        """The same name rebuilt is an upgrade like another, and needs no override of the file."""
        host.up("alice")
        host.engine.add_image(IMAGE)
        host.upgrades.begin("small", IMAGE)
        host.upgrades.run("small")
        row = host.ledger.tenant(TenantId("alice"))
        assert row is not None
        assert row.proven == host.id_of(IMAGE)
        assert host.ledger.pool("small").image is None

    def test_those_at_rest_end_side_by_side(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        """Three frozen programs that stop slowly delay an upgrade by one such stop, not by three."""
        host.text = ROOMY.replace("tree: 4", "frozen: 3")
        host.restart()
        host.upgrades = upgrades_of(host, parallel=3)
        host.up(*NAMES[:3])
        for tenant in NAMES[:3]:
            host.tenants.release(TenantId(tenant))
        together, stop = threading.Barrier(3, timeout=30), host.engine.stop

        def slowly(container: str, timeout: int) -> None:
            together.wait()
            stop(container, timeout)

        assert {host.row_state(tenant) for tenant in NAMES[:3]} == {"frozen"}
        monkeypatch.setattr(host.engine, "stop", slowly)
        host.upgrade()

        assert host.outcome == "done"
        assert [(host.row_state(tenant), host.saved(tenant)["name"]) for tenant in NAMES[:3]] == [
            ("cold", tenant) for tenant in NAMES[:3]
        ]

    def test_a_wave_moves_side_by_side(self, host: Host) -> None:
        """Tenants of one wave are watched at the same time."""
        host.up(*NAMES[:6])
        host.upgrades = upgrades_of(host, parallel=4)
        threads: set[int] = set()
        real = host.tenants.accept
        barrier = threading.Barrier(2, timeout=10)

        def accept(tenant: TenantId) -> bool:
            threads.add(threading.get_ident())
            if tenant in ("carol", "dave"):
                barrier.wait()
            return real(tenant)

        host.tenants.accept = accept  # type: ignore[method-assign]
        host.upgrade(batch=5, canary="alice")
        assert (host.outcome, set(host.images().values())) == ("done", {NEW})
        assert len(threads) > 1


class TestBad:
    def test_a_canary_that_fails_stops_it(self, host: Host) -> None:
        """The canary is up again with image and state from before, its ports are free, nobody else was touched."""
        host.up("alice", "bob")
        host.break_image()
        host.upgrade()

        progress = host.upgrades.progress("small")
        assert (progress.upgrade.state, host.moves()) == ("failed", {"bob": "returned", "alice": "waiting"})
        assert "'bob'" in progress.upgrade.error
        assert "cannot read my own database" in progress.upgrade.error
        assert "bob runs again" in progress.upgrade.hint
        assert str(host.layout.logs(TenantId("bob"))) in progress.upgrade.hint
        check_untouched(host, "alice", "bob")
        canary = progress.moves[0]
        assert len(canary.ports) == 2
        assert host.saved("bob") == {"name": "bob", "schema": host.id_of(IMAGE)}
        assert host.pools.show("small").image == IMAGE
        assert host.pools.show("small").notes[0].startswith(f"upgrade to {NEW}: failed")

    def test_a_third_wave_that_fails_leaves_the_others(self, host: Host) -> None:
        """Who moved before stays and is held to the new image; who failed is back; who waited was never touched."""
        host.up(*NAMES[:7])
        host.break_image("carol")
        host.upgrades.begin("small", NEW)
        wave = next(move.wave for move in host.upgrades.progress("small").moves if move.tenant == "carol")
        host.upgrades.run("small")

        assert wave == 3
        assert host.outcome == "failed"
        assert host.moves() == {
            "grace": "done", "frank": "done", "erin": "done", "dave": "done",
            "carol": "returned", "bob": "waiting", "alice": "waiting",
        }  # fmt: skip
        check_untouched(host, "carol", "bob", "alice")
        host.tenants.release(TenantId("grace"))
        host.up("grace")
        assert host.image_of("grace") == NEW

    def test_one_that_dies_while_it_is_watched_goes_back(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        """A container that ends during the soak is a failure, also when the tending thread sees it first."""
        host.up("alice")
        sleep = host.clock.sleep

        def nap(seconds: float) -> None:
            row = host.ledger.tenant(TenantId("alice"))
            slot = host.ledger.slot(row.slot) if row and row.slot else None
            if row and row.trial and slot and slot.container:
                host.engine.crash(slot.container, 9)
                host.recovery.supervise()
            sleep(seconds)

        monkeypatch.setattr(host.clock, "sleep", nap)
        host.upgrade()
        assert host.outcome == "failed"
        assert "exit code 9" in host.upgrades.progress("small").upgrade.error
        check_untouched(host, "alice")

    def test_one_that_is_not_ready_any_more_goes_back(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        """Ready once is not ready: the probe is asked again at the end of the soak, a few times."""
        host.up("alice")
        sleep = host.clock.sleep

        def nap(seconds: float) -> None:
            row = host.ledger.tenant(TenantId("alice"))
            if row and row.trial and row.state == "active":
                host.prober.always = DARK
            sleep(seconds)

        monkeypatch.setattr(host.clock, "sleep", nap)
        host.upgrade()
        assert "did not stay ready" in host.upgrades.progress("small").upgrade.error
        check_untouched(host, "alice")

    def test_a_port_that_stays_held_is_reported(self, host: Host) -> None:
        """A process that survives its container is named by its port; the tenant is up all the same."""
        host.up("alice")
        host.break_image()
        host.prober.free = lambda port: False
        host.upgrade()
        error = host.upgrades.progress("small").moves[0].error
        assert "is still held by a process" in error
        check_untouched(host, "alice")

    def test_a_state_that_cannot_be_sealed_stops_it(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without a sealed generation the new image is never started; the tenant comes up when the store does."""
        host.up("alice")
        with monkeypatch.context() as patch:
            patch.setattr(host.store, "put", _away)
            host.upgrade()
            assert (host.outcome, host.moves(), host.row_state("alice")) == ("failed", {"alice": "returning"}, "kept")
            assert "not running yet" in host.upgrades.progress("small").upgrade.hint
            host.upgrades.bring_home()
        host.upgrades.bring_home()
        assert host.moves() == {"alice": "returned"}
        assert "runs again" in host.upgrades.progress("small").upgrade.hint
        check_untouched(host, "alice")

    def test_a_name_that_moves_during_the_upgrade_does_not_switch_the_pool(
        self, host: Host, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What the canary did not try is not given to the rest."""
        host.up("alice")
        real = host.tenants.accept

        def accept(tenant: TenantId) -> bool:
            host.engine.add_image(NEW)
            return real(tenant)

        monkeypatch.setattr(host.tenants, "accept", accept)
        host.upgrade()
        assert host.outcome == "failed"
        assert "moved to another image" in host.upgrades.progress("small").upgrade.error
        assert host.pools.show("small").image == IMAGE

    def test_two_at_once_are_refused(self, host: Host) -> None:
        """Of one pool there is one upgrade, which is resumed or aborted."""
        host.up("alice")
        host.upgrades.begin("small", NEW)
        with pytest.raises(Conflict, match="already being upgraded"):
            host.upgrades.begin("small", NEW)


class TestAgain:
    def test_resume_tries_again(self, host: Host) -> None:
        """Who came back moves once the cause is gone, and the rest follow."""
        host.up(*NAMES[:4])
        host.break_image("carol")
        host.upgrade()
        assert host.outcome == "failed"
        host.bad = ""

        host.upgrades.reopen("small")
        host.upgrades.run("small")

        assert (host.outcome, set(host.images().values())) == ("done", {NEW})
        with pytest.raises(Conflict, match="is done"):
            host.upgrades.resume("small")

    def test_a_better_image_takes_its_place(self, host: Host) -> None:
        """After a failure another upgrade may begin, and moves those too that moved before."""
        host.up(*NAMES[:4])
        host.break_image("carol")
        host.upgrade()
        better = "localhost/small:better"
        host.engine.add_image(better)
        host.upgrades.begin("small", better)
        host.upgrades.run("small")
        assert (host.outcome, set(host.images().values())) == ("done", {better})

    def test_abort_says_who_stays(self, host: Host) -> None:
        """Nobody's new words are dropped: who has gone on with the new image keeps it, and that is said."""
        host.up(*NAMES[:4])
        host.break_image("bob")
        host.upgrade()
        host.upgrades.begin_abort("small")
        host.upgrades.run("small")

        upgrade = host.upgrades.progress("small").upgrade
        assert (upgrade.state, host.pools.show("small").image) == ("aborted", IMAGE)
        assert f"stay on {NEW}: dave, carol" in upgrade.error
        assert host.image_of("dave") == NEW
        check_untouched(host, "alice", "bob")
        assert host.pools.show("small").notes == ()

    def test_abort_takes_back_who_is_on_trial(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        """An abort during the soak brings that tenant back at once."""
        host.up("alice", "bob")
        sleep = host.clock.sleep

        def nap(seconds: float) -> None:
            row = host.ledger.tenant(TenantId("bob"))
            if row and row.trial and row.state == "active":
                host.upgrades.begin_abort("small")
            sleep(seconds)

        monkeypatch.setattr(host.clock, "sleep", nap)
        host.upgrade(soak=1000.0)
        assert (host.outcome, host.moves()) == ("aborted", {"bob": "returned", "alice": "waiting"})
        check_untouched(host, "alice", "bob")

    def test_what_is_over_cannot_be_aborted(self, host: Host) -> None:
        """Once the pool has switched, the way is another upgrade."""
        host.up("alice")
        host.upgrade()
        with pytest.raises(Conflict, match="can no longer be aborted"):
            host.upgrades.abort("small")

    def test_it_runs_in_a_thread(self, host: Host) -> None:
        """`start` answers at once; `stop` waits for what is under way."""
        host.up("alice")
        assert host.upgrades.start("small", NEW).upgrade.state == "running"
        for thread in list(host.upgrades._threads):
            thread.join(10)
        assert host.outcome == "done"
        host.upgrades.stop(1.0)

    def test_the_end_of_the_daemon_pauses_it(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        """A tenant that is watched stays up; the next daemon watches it to the end, and waits for a person."""
        host.up("alice", "bob")
        sleep = host.clock.sleep

        def nap(seconds: float) -> None:
            host.upgrades._stopping.set()
            sleep(seconds)

        with monkeypatch.context() as patch:
            patch.setattr(host.clock, "sleep", nap)
            host.upgrade()
        assert (host.outcome, host.moves()) == ("running", {"bob": "soaking", "alice": "waiting"})
        assert host.image_of("bob") == NEW

        host.restart()
        host.recover()
        assert (host.outcome, host.moves()) == ("paused", {"bob": "done", "alice": "waiting"})
        assert "--resume" in host.pools.show("small").notes[0]
        host.upgrades.reopen("small")
        host.upgrades.run("small")
        assert (host.outcome, set(host.images().values())) == ("done", {NEW})

    def test_a_return_that_is_repeated_after_a_crash_blames_nobody(
        self, host: Host, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A tenant that a dead daemon left on its way, and that comes up at the second attempt only, waits for its turn
        again: the image was never at fault, so the upgrade is paused and can be resumed."""
        host.up("alice")
        with monkeypatch.context() as patch:
            patch.setattr(host.tenants, "claim", killed)
            with pytest.raises(Killed):
                host.upgrade()
        host.engine.fail("create", EngineFailed("no"))

        host.restart()
        host.recover()
        assert host.moves() == {"alice": "returning"}
        host.upgrades.bring_home()
        assert host.moves() == {"alice": "waiting"}
        assert host.image_of("alice") == IMAGE

        host.upgrades.reopen("small")
        host.upgrades.run("small")
        assert (host.outcome, host.image_of("alice")) == ("done", NEW)

    def test_a_return_that_fails_does_not_stop_an_upgrade_that_was_resumed_meanwhile(
        self, host: Host, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The thread that continues the upgrade waits for the return, and repeats it."""
        host.up("alice")
        with monkeypatch.context() as patch:
            patch.setattr(host.tenants, "claim", killed)
            with pytest.raises(Killed):
                host.upgrade()

        def resumed(*_: object, **__: object) -> None:
            host.upgrades.reopen("small")
            raise EngineFailed("no")

        host.restart()
        World.recover(host)
        host.upgrades.recover()
        with monkeypatch.context() as patch:
            patch.setattr(host.tenants, "claim", resumed)
            host.upgrades.bring_home()
        assert host.outcome == "running"

        host.upgrades.run("small")
        assert (host.outcome, host.image_of("alice")) == ("done", NEW)


def killed(*_: object, **__: object) -> None:
    """What a SIGKILL leaves of a call."""
    raise Killed


class Killed(BaseException):
    """SIGKILL: nothing of ours may catch it."""


JOURNAL = "begin note plan note_move"
LEDGER = "begin_claim take_slot note become drop_slot add_slot slot_ready retire_slot set_pool"
ENGINE = "create initialize start stop remove"


class Life:
    """Counts the calls that change something and kills the daemon before or after one of them."""

    def __init__(self, patch: pytest.MonkeyPatch, host: Host, end: int, *, after: bool) -> None:
        self._patch, self._end, self._after, self._calls = patch, end, after, 0
        for where, names in (
            (host.engine, ENGINE),
            (host.store, "put"),
            (host.ledger, LEDGER),
            (host.upgrades._store, JOURNAL),
        ):
            for name in names.split():
                self._watch(where, name)

    def _watch(self, where: object, name: str) -> None:
        real = getattr(where, name)

        def call(*args: object, **options: object) -> object:
            number = self._calls
            self._calls += 1
            if number == self._end and not self._after:
                raise Killed(name)
            result = real(*args, **options)
            if number == self._end:
                raise Killed(name)
            return result

        self._patch.setattr(where, name, call)


def all_up(host: Host, where: object) -> None:
    """Both tenants run, each on the state that its image wrote, with its own words; nothing else is left."""
    for tenant in ("alice", "bob"):
        image = host.image_of(tenant)
        assert image is not None, where
        assert host.words(tenant) == {"name": tenant, "schema": host.id_of(image)}, where
    assert host.leftovers() == [], where


def killed_at(host: Host, end: int, story: Callable[[], None], *, after: bool) -> bool:
    """Whether the story was over before the daemon died."""
    with suppress(Killed), pytest.MonkeyPatch.context() as lethal:
        Life(lethal, host, end, after=after)
        story()
        return True
    return False


@pytest.mark.parametrize("second", [None, 4, 13], ids=lambda second: f"second-{second}")
@pytest.mark.parametrize("bad", [False, True], ids=["good", "bad"])
def test_a_kill_anywhere_is_undone_or_finished(tmp_path: Path, bad: bool, second: int | None) -> None:
    """Wherever the daemon dies, and dies again while it recovers, all who were up are up again after its restart, and a
    resume ends the upgrade.

    No state is lost or scribbled on; with a bad image whoever met it has the image from before.
    """
    for end in itertools.count(0, 1 if second is None else 5):
        host = Host(tmp_path / str(end), workload=ROOMY)
        host.engine.add_image(NEW)
        host.up("alice", "bob")
        if bad:
            host.break_image("alice")
        over = killed_at(host, end, host.upgrade, after=bool(end % 2))
        if second is not None:
            host.restart()
            killed_at(host, second, host.recover, after=bool(end % 2))
        host.restart()
        host.recover()
        where = (end, host.moves() if host.upgrades._store.upgrade("small") else {})
        all_up(host, where)
        with suppress(StateMissing, Conflict):
            host.upgrades.reopen("small")
            host.upgrades.run("small")
        if host.upgrades._store.upgrade("small") is None:
            host.upgrade()
        assert host.outcome == ("failed" if bad else "done"), where
        assert host.images() == {"alice": IMAGE if bad else NEW, "bob": NEW}, where
        all_up(host, where)
        if bad:
            check_untouched(host, "alice")
        host.close()
        if over:
            return


def test_a_kill_during_an_abort_does_not_lose_the_abort(tmp_path: Path) -> None:
    """Wherever the daemon dies while it brings a tenant back, the next one ends the abort by itself."""
    for end in itertools.count():
        host = Host(tmp_path / str(end), workload=ROOMY)
        host.engine.add_image(NEW)
        host.up("alice", "bob")
        sleep = host.clock.sleep

        def nap(seconds: float, host: Host = host, sleep: Callable[[float], None] = sleep) -> None:
            row = host.ledger.tenant(TenantId("bob"))
            if row and row.trial and row.state == "active":
                host.upgrades._stopping.set()
            sleep(seconds)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(host.clock, "sleep", nap)
            host.upgrade(soak=1000.0)
        assert host.moves()["bob"] == "soaking"
        host.upgrades = upgrades_of(host)

        def abort(host: Host = host) -> None:
            host.upgrades.begin_abort("small")
            host.upgrades.run("small")

        over = killed_at(host, end, abort, after=bool(end % 2))
        host.restart()
        host.recover()
        all_up(host, end)
        if end > 1:  # else it died before the abort was written down
            assert host.outcome == "aborted", end
            check_untouched(host, "alice", "bob")
        host.close()
        if over:
            return


def _away(*args: object, **options: object) -> str:
    raise StoreUnavailable("down")


def test_the_error_has_a_code_of_its_own() -> None:
    """A script can tell a failed upgrade from every other failure."""
    assert (UpgradeFailed.exit_code, UpgradeFailed.slug) == (39, "upgrade-failed")
    assert issubclass(UpgradeFailed, ClawError)
