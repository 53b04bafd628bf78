"""The reconciler over a fake engine: tiers, replacement, trouble that stays where it is, and threads of its own."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from claw_runtime.errors import EngineFailed, InvalidSpec, PortTaken
from claw_runtime.pools.pools import Pools
from claw_runtime.pools.reconciler import CENSUS_AGE, FIRST_BACKOFF, LAST_BACKOFF, YOUNG
from claw_runtime.ports import Container, ContainerSpec, Image
from claw_runtime.spec import loader
from claw_runtime.tenancy import LABEL_CONTRACT, TenantId
from fakes.waiters import Waiters, contract
from fakes.world import IMAGE, WORKLOAD, World
from fakes.world import pools_of as pools_for


def text(pool: str, sizes: str, image: str = IMAGE) -> str:
    return f"id: {pool}\nimage: {image}\npool: {{{sizes}}}\n"


PARK = {"entrypoint": "parked", "interpreter": "waiting", "prewarmed": "prewarmed"}
"""Arguments of an image's entrypoint: words that every image knows, however old it is."""

WARM = text("small", "max_size: 8, warmth: {created: 1, entrypoint: 2, interpreter: 1, prewarmed: 1}")
pytestmark = pytest.mark.world(workload=WARM)


@pytest.fixture
def world(world: World) -> World:
    """The image has a contract, so that its pool may have every tier."""
    world.engine.add_image(IMAGE, labels={LABEL_CONTRACT: contract()})
    return world


@pytest.fixture
def waiters(world: World) -> Iterator[Waiters]:
    made = Waiters(world.engine)
    yield made
    made.leave()


def pools_of(world: World, *texts: str, drop_limits: bool = False) -> Pools:
    """Pools of these workloads in the world."""
    documents = [loader.parse(one, Path(f"{number}.yaml")) for number, one in enumerate(texts)]
    return pools_for(world, *documents, drop_limits=drop_limits)


def ready(world: World, pool: str = "small") -> Counter[str]:
    return Counter(row.tier for row in world.ledger.slots(pool) if row.state == "ready")


def wait_for(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class TestTiers:
    def test_each_tier_gets_its_count(self, world: World, waiters: Waiters) -> None:
        """A pass makes what `warmth` asks for: initialised containers, and processes that wait at their start gate."""
        world.pools.keep()

        assert ready(world) == {"created": 1, "entrypoint": 2, "interpreter": 1, "prewarmed": 1}
        assert Counter(waiters.tiers) == {"entrypoint": 2, "interpreter": 1, "prewarmed": 1}
        states = Counter(found.state for found in world.engine.list(world.pools.owner_labels))
        assert states == {"initialized": 1, "running": 4}

    def test_slot_without_a_process_has_no_gate(self, world: World, waiters: Waiters) -> None:
        """An initialised container runs no code of the image, and nobody looks for a start gate in it."""
        world.pools.keep()

        for row in world.ledger.slots():
            gate = world.layout.slot(row.id).values / "door"
            assert gate.exists() == (row.tier != "created")
            assert world.engine.spec(row.container or "").command == (
                () if row.tier == "created" else ("--park", PARK[row.tier])
            )

    def test_process_that_ends_early_says_why(self, world: World, waiters: Waiters) -> None:
        """A process that never comes to its gate leaves no slot, and its last words are in the status; other tiers are
        made."""

        def die(spec: ContainerSpec) -> None:
            if spec.command == ("--park", PARK["interpreter"]):
                world.engine.say(spec.name, b"no such module\n")
                world.engine.crash(spec.name, 3)

        waiters.before = die

        world.pools.keep()

        assert ready(world) == {"created": 1, "entrypoint": 2, "prewarmed": 1}
        status = world.pools.show("small")
        assert "exit code 3" in status.error
        assert "no such module" in status.error
        assert status.hint
        assert world.leftovers() == []

    def test_process_that_takes_too_long(self, world: World, waiters: Waiters) -> None:
        """One that runs and does not come in `ready_timeout` is removed."""
        waiters.late.add("prewarmed")

        world.pools.keep()

        assert ready(world)["prewarmed"] == 0
        assert "was not ready to be claimed within" in world.pools.show("small").error
        assert world.leftovers() == []

    def test_tier_that_the_image_does_not_offer(self, world: World, waiters: Waiters) -> None:
        """When an operator's counts ask for a tier that a newer image has not, it is told, and the others are made."""
        world.pools = pools_of(world, text("small", "max_size: 8"))
        world.pools.scale("small", warmth={"created": 1, "entrypoint": 1, "prewarmed": 1})
        world.engine.add_image(IMAGE, labels={LABEL_CONTRACT: contract(prewarm=False)})

        world.pools.keep()

        assert ready(world) == {"created": 1, "entrypoint": 1}
        assert world.pools.show("small").notes == ("no slot waits as prewarmed: the image offers created, entrypoint",)

    def test_port_that_was_lost_is_chosen_again(self, world: World, waiters: Waiters) -> None:
        """A port that somebody took between create and init costs a container, not a slot."""
        world.engine.fail("initialize", PortTaken("taken"))

        world.pools.keep()

        assert sum(ready(world).values()) == 5
        assert world.pools.show("small").error == ""
        assert world.leftovers() == []


class TestHealth:
    @pytest.mark.parametrize("tier", ["created", "entrypoint", "prewarmed"])
    def test_dead_slot_is_replaced(self, world: World, waiters: Waiters, tier: str) -> None:
        """A slot whose process ended, or whose container went away, is found by the next pass and made anew."""
        world.pools.keep()
        dead = next(row for row in world.ledger.slots() if row.tier == tier)
        if tier == "created":
            world.engine.remove(dead.container or "")
        else:
            world.engine.crash(dead.container or "", 137)

        world.pools.keep()

        assert ready(world) == {"created": 1, "entrypoint": 2, "interpreter": 1, "prewarmed": 1}
        assert world.ledger.slot(dead.id) is None
        assert world.pools.metrics("small").failures == {tier: 1}

    def test_process_that_left_its_gate(self, world: World, waiters: Waiters) -> None:
        """A container that runs without a process at the gate is no slot."""
        world.pools.keep()
        waiters.leave()

        world.pools.keep()

        assert ready(world) == {"created": 1, "entrypoint": 2, "interpreter": 1, "prewarmed": 1}
        assert len(waiters.tiers) == 8

    def test_health_of_all_is_one_question(self, world: World, waiters: Waiters) -> None:
        """A pass over a full pool asks the engine for its image and once for all containers."""
        world.pools.keep()
        before = len(world.engine.calls)

        world.pools.keep()

        assert world.engine.calls[before:] == ["image", "list"]

    def test_slot_that_became_ready_meanwhile_is_not_dead(self, world: World) -> None:
        """A slot that is younger than the list of containers is not judged by it, whichever pool asked for the list."""
        world.pools = pools_of(world, text("a", "min_size: 1"), text("b", "min_size: 1"))
        world.pools.keep()
        real = world.engine.list

        def then_one_more(labels: dict[str, str]) -> Sequence[Container]:
            found = real(labels)
            [row] = world.ledger.slots("b")
            world.ledger.begin_claim(TenantId("t"), "b", 0.0)
            world.ledger.take_slot("b", row.template, TenantId("t"))
            world.ledger.add_slot("new", "b", row.template, 0.0)
            world.ledger.slot_ready("new", "younger", None)
            return found

        world.engine.list = then_one_more  # type: ignore[method-assign]

        world.pools.keep()

        young = world.ledger.slot("new")
        assert young is not None
        assert young.state == "ready"


class TestTrouble:
    def test_pause_doubles_up_to_a_bound(self, world: World) -> None:
        """What fails is tried after 2, 4, 8… seconds and at last every two minutes; success forgets that."""
        world.pools = pools_of(world, text("small", "min_size: 1, max_size: 1"))
        pauses = []
        for _ in range(9):
            world.engine.fail("create", EngineFailed("no"))
            world.pools.keep()
            [trouble] = world.pools._reconciler.troubles("small")
            pauses.append(trouble.pause)
            world.clock.advance(trouble.pause)
        world.pools.keep()

        assert pauses == [2, 4, 8, 16, 32, 64, LAST_BACKOFF, LAST_BACKOFF, LAST_BACKOFF]
        assert world.pools._reconciler.troubles("small") == []
        assert ready(world) == {"created": 1}

    def test_image_that_fails_is_tried_once(self, world: World) -> None:
        """Of many missing slots one is tried; when it fails the others wait as well."""
        world.pools = pools_of(world, text("small", "min_size: 6, max_size: 8, fill_concurrency: 4"))
        world.engine.fail("create", EngineFailed("no"))

        world.pools.keep()
        assert world.engine.calls.count("create") == 1
        world.clock.advance(FIRST_BACKOFF)
        world.pools.keep()

        assert ready(world) == {"created": 6}

    def test_failing_pool_delays_no_other(self, world: World) -> None:
        """A pool without an image, between two others, changes nothing for them."""
        world.pools = pools_of(
            world, text("a", "min_size: 1"), text("b", "min_size: 1", "localhost/none:1"), text("c", "min_size: 1")
        )

        world.pools.keep()

        assert (ready(world, "a"), ready(world, "b"), ready(world, "c")) == ({"created": 1}, {}, {"created": 1})
        assert [bool(status.error) for status in world.pools.status()] == [False, True, False]

    def test_slots_that_die_young(self, world: World, waiters: Waiters) -> None:
        """One that dies is replaced at once; when its successors die as well they are made ever more slowly, until one
        has lived."""

        def die(tier: str) -> float:
            """Seconds until the reconciler has replaced it."""
            [row] = [row for row in world.ledger.slots() if row.tier == tier]
            world.engine.say(row.container or "", b"out of memory\n")
            world.engine.crash(row.container or "", 137)
            start = world.clock.monotonic()
            world.pools.keep()
            while not ready(world)[tier]:
                assert "out of memory" in world.pools.show("small").error
                world.clock.advance(1)
                world.pools.keep()
            return world.clock.monotonic() - start

        world.pools.keep()

        assert [die("prewarmed") for _ in range(5)] == [0, 2, 4, 8, 16]
        world.clock.advance(YOUNG)
        world.pools.keep()
        assert [die("prewarmed") for _ in range(2)] == [0, 2]
        assert die("interpreter") == 0

    def test_one_pause_for_one_tier(self, world: World, waiters: Waiters) -> None:
        """A tier that fails does not keep the others from being refilled."""
        waiters.late.add("prewarmed")
        world.pools.keep()
        world.ledger.begin_claim(TenantId("a"), "small", 0.0)
        taken = world.pools.take("small", TenantId("a"))

        world.pools.keep()

        assert taken.source == "interpreter"
        assert ready(world) == {"created": 1, "entrypoint": 2, "interpreter": 1}


class TestThreads:
    def test_slow_pool_delays_no_other(self, world: World, waiters: Waiters) -> None:
        """While one pool's slot takes as long as it likes, another is filled, refilled, and claimed from."""
        world.pools = pools_of(
            world, text("slow", "max_size: 2, warmth: {prewarmed: 1}"), text("quick", "min_size: 1, max_size: 4")
        )
        hold, held = threading.Event(), threading.Event()

        def slowly(spec: ContainerSpec) -> None:
            if spec.command == ("--park", "prewarmed"):
                held.set()
                assert hold.wait(10)

        waiters.before = slowly
        try:
            world.pools.tick()
            assert held.wait(10)
            wait_for(lambda: ready(world, "quick"))
            world.ledger.begin_claim(TenantId("a"), "quick", 0.0)
            assert world.pools.take("quick", TenantId("a")).source == "created"
            world.pools.tick()
            wait_for(lambda: ready(world, "quick"))
            assert ready(world, "slow") == {}
        finally:
            hold.set()
        wait_for(lambda: ready(world, "slow"))
        world.pools.rest()

    @pytest.mark.parametrize("concurrency", [1, 3])
    def test_so_many_are_made_at_once(self, world: World, concurrency: int) -> None:
        """`fill_concurrency` slots are made at the same time, after a first one has shown that it can be made."""
        world.pools = pools_of(world, text("small", f"min_size: 7, max_size: 9, fill_concurrency: {concurrency}"))
        lock, now, most = threading.Lock(), 0, 0
        real = world.engine.initialize

        def initialize(container: str) -> None:
            nonlocal now, most
            with lock:
                now += 1
                most = max(most, now)
            time.sleep(0.02)
            real(container)
            with lock:
                now -= 1

        world.engine.initialize = initialize  # type: ignore[method-assign]

        world.pools.keep()

        assert most == concurrency
        assert ready(world) == {"created": 7}

    def test_end_does_not_wait_for_a_gate(self, tmp_path: Path, waiters: Waiters, world: World) -> None:
        """When the daemon ends, a slot whose process is not at its gate yet is removed at once, and is no failure."""
        from claw_runtime.clock import SystemClock

        world.clock = SystemClock()  # type: ignore[assignment]
        world.pools = pools_of(world, text("small", "max_size: 2, warmth: {prewarmed: 1}"))
        waiters.late.add("prewarmed")
        world.pools.tick()
        wait_for(lambda: "start" in world.engine.calls)
        start = time.monotonic()

        world.pools.drain()

        assert time.monotonic() - start < 5
        assert (world.ledger.slots(), world.leftovers()) == ([], [])
        assert world.pools.show("small").error == ""

    def test_poke_asks_the_engine_nothing(self, world: World) -> None:
        """A full pool that is looked at again and again, as each claim makes it, costs the engine two questions."""
        world.pools = pools_of(world, text("small", "min_size: 1"))
        world.pools.tick()
        wait_for(lambda: ready(world) == {"created": 1})
        world.pools.rest()
        before = len(world.engine.calls)

        for _ in range(3):
            world.pools.tick()
            world.pools.rest()
        assert world.engine.calls[before:] == []
        world.clock.advance(CENSUS_AGE)
        world.pools.tick()
        world.pools.rest()
        assert world.engine.calls[before:] == ["image", "list"]

    def test_pass_that_was_asked_for_meanwhile_is_made(self, world: World) -> None:
        """A change during a pass is not lost: the pass is made again when it ends."""
        world.pools = pools_of(world, text("small", "min_size: 1, max_size: 9"))
        hold, held = threading.Event(), threading.Event()
        real = world.engine.map_image

        def slowly(reference: str) -> None:
            held.set()
            assert hold.wait(10)
            real(reference)

        world.engine.map_image = slowly  # type: ignore[method-assign]
        world.pools.tick()
        assert held.wait(10)
        world.pools.scale("small", min_size=3)
        world.pools.tick()
        hold.set()

        wait_for(lambda: ready(world) == {"created": 3})
        world.pools.rest()


class TestChange:
    def test_new_image_is_mapped_before_a_slot_is_made(self, world: World, waiters: Waiters) -> None:
        """The slow copy for keep-id is the reconciler's, once for each image that a pool sees."""
        world.pools.keep()
        world.pools.keep()
        assert world.engine.mapped == [IMAGE]
        world.engine.add_image(IMAGE, labels={LABEL_CONTRACT: contract()})
        before = len(world.engine.calls)

        world.pools.keep()

        calls = world.engine.calls[before:]
        assert world.engine.mapped == [IMAGE, IMAGE]
        assert calls.index("map_image") < calls.index("create")

    @pytest.mark.parametrize(
        ("change", "replaced"),
        [
            ("environment: {TZ: UTC}\n", True),
            ("read_only: false\n", True),
            ("network: none\n", True),
            ("seccomp: browser\n", True),
            ("volumes: {data: {source: /srv, target: /srv}}\n", True),
            ("name: another name\n", False),
            ("healthcheck: {timeout: 7s}\n", False),
            ("sync: {exclude: [cache]}\n", False),
        ],
    )
    def test_only_what_is_in_the_container_replaces_slots(
        self, world: World, waiters: Waiters, change: str, replaced: bool
    ) -> None:
        """A change of what goes into the container makes new slots; any other acts without."""
        world.pools.keep()
        before = {row.id for row in world.ledger.slots()}

        world.pools.put(loader.parse(WARM + change, Path("small.yaml")))
        world.pools.keep()

        after = {row.id for row in world.ledger.slots()}
        assert len(after) == 5
        assert not after & before if replaced else after == before

    @pytest.mark.parametrize(("said", "home"), [("", "/of/the/image"), ("environment: {HOME: /own}\n", "/own")])
    def test_home_is_the_workload_s_or_the_image_s(self, world: World, waiters: Waiters, said: str, home: str) -> None:
        """For the list of users in the container, as HOME is for its environment."""
        world.engine.add_image(IMAGE, labels={LABEL_CONTRACT: contract()}, home="/of/the/image")
        world.pools.put(loader.parse(WARM + said, Path("small.yaml")))
        world.pools.keep()
        assert {world.engine.spec(row.container or "").home for row in world.ledger.slots()} == {home}

    def test_profile_that_changes_replaces_slots(self, world: World, waiters: Waiters, tmp_path: Path) -> None:
        """Slots that wait are made anew under the rules that the profile's file has now, and under no others."""
        profile = tmp_path / "own.json"
        profile.write_text('{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": []}')
        world.pools.put(loader.parse(f"{WARM}seccomp: {profile}\n", Path("small.yaml")))
        world.pools.keep()
        before = {row.id for row in world.ledger.slots()}
        profile.write_text('{"defaultAction": "SCMP_ACT_KILL", "syscalls": []}')

        world.pools.keep()

        rows = world.ledger.slots()
        assert not {row.id for row in rows} & before
        assert {world.engine.spec(row.container or "").seccomp for row in rows} == {profile.read_text()}
        assert world.pools.show("small").seccomp == str(profile)

    def test_profile_that_is_gone_stops_the_pool_with_a_reason(
        self, world: World, waiters: Waiters, tmp_path: Path
    ) -> None:
        """No slot is made under other rules; slots that wait stay, and the pool's status names the file."""
        profile = tmp_path / "own.json"
        profile.write_text('{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": []}')
        world.pools.put(loader.parse(f"{WARM}seccomp: {profile}\n", Path("small.yaml")))
        world.pools.keep()
        before = {row.id for row in world.ledger.slots()}
        profile.unlink()

        world.pools.keep()

        assert {row.id for row in world.ledger.slots()} == before
        assert str(profile) in world.pools.show("small").error
        with pytest.raises(InvalidSpec, match=r"small.yaml.*cannot be used"):
            world.pools.put(loader.parse(f"{WARM}seccomp: {profile}\n", Path("small.yaml")))

    def test_pool_that_is_no_more(self, world: World, waiters: Waiters) -> None:
        """When a workload is taken away its waiting slots go; a tenant's stays, and can be released."""
        world.pools.keep()
        world.ledger.begin_claim(TenantId("a"), "small", 0.0)
        taken = world.pools.take("small", TenantId("a"))

        world.pools.remove("small")
        world.pools.keep()

        assert [row.id for row in world.ledger.slots()] == [taken.slot.id]
        assert world.pools.workload("small").id == "small"
        assert list(world.pools.ids()) == []

    def test_dropped_limits_are_shown(self, world: World) -> None:
        """What this host cannot enforce and was left out is in the pool's status, and the engine is not asked again
        for each slot."""
        world.engine.host = replace(world.engine.host, cgroup_controllers=("pids",))
        limits = "deploy: {resources: {limits: {memory: 64m, pids: 64}}}\n"
        world.pools = pools_of(world, text("small", "min_size: 3") + limits, drop_limits=True)

        world.pools.keep()

        assert world.pools.show("small").dropped == ("memory",)
        assert ready(world) == {"created": 3}
        assert {world.engine.spec(row.container or "").pids for row in world.ledger.slots()} == {64}


@pytest.mark.world(workload=WORKLOAD)
def test_a_workload_that_changes_in_a_look_is_not_hidden_by_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is put while the reconciler asks for the image of the old one is what the next claim runs."""
    world.pools.keep()
    new = loader.parse(WORKLOAD.replace("container: 8080", "container: 9090"), Path("small.yaml"))
    real = world.engine.image

    def asked(reference: str) -> Image:
        found = real(reference)
        monkeypatch.setattr(world.engine, "image", real)
        world.pools.put(new)
        return found

    monkeypatch.setattr(world.engine, "image", asked)
    world.pools._templates.now("small")

    world.tenants.claim(TenantId("alice"), "small")

    assert world.engine.spec(world.tenants.find(TenantId("alice"))[1].container).port == 9090  # type: ignore[union-attr, arg-type]
