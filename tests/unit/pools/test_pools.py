"""Pools over a fake engine: a claim's way to its slot, what operators say, what a new daemon finds."""

import errno
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from claw_runtime.errors import EngineFailed, ImageMissing, InvalidSpec, PoolExhausted, UnknownPool
from claw_runtime.pools import allocation
from claw_runtime.pools.pools import FIRST_BACKOFF, Allocation, Pools
from claw_runtime.ports import Container, ContainerSpec, EngineInfo, SlotRow
from claw_runtime.spec import loader
from claw_runtime.tenancy import LABEL_CONTRACT, LABEL_OWNER, LABEL_SLOT, TenantId
from claw_runtime.workloads.watcher import WorkloadFiles
from fakes.waiters import Waiters, contract
from fakes.world import IMAGE, WORKLOAD, World, pools_of


def states(world: World) -> list[str]:
    return sorted(slot.state for slot in world.ledger.slots())


class TestKeep:
    def test_fills_to_min_size_with_initialised_containers(self, world: World) -> None:
        """A pass makes min_size slots, prepared and not started."""
        world.pools.keep()

        assert states(world) == ["ready", "ready"]
        assert {c.state for c in world.engine.list(world.pools.owner_labels)} == {"initialized"}
        assert "start" not in world.engine.calls

    def test_second_pass_changes_nothing(self, world: World) -> None:
        """A full pool is left alone."""
        world.pools.keep()
        before = world.ledger.slots()

        world.pools.keep()

        assert world.ledger.slots() == before

    def test_refills_after_a_claim_up_to_max_size(self, world: World) -> None:
        """Claimed slots count towards max_size, not towards min_size."""
        world.pools.keep()
        for tenant in ("a", "b"):
            world.tenants.claim(TenantId(tenant), "small")

        world.pools.keep()

        assert states(world) == ["claimed", "claimed", "ready"]

    def test_new_image_replaces_waiting_slots(self, world: World) -> None:
        """When the tag names another image, ready slots are made anew and claimed ones are left alone."""
        world.pools.keep()
        world.tenants.claim(TenantId("a"), "small")
        old = {slot.id for slot in world.ledger.slots() if slot.state == "ready"}
        world.engine.add_image("other")
        world.engine.add_image(IMAGE)

        world.pools.keep()

        ready = {slot.id for slot in world.ledger.slots() if slot.state == "ready"}
        assert len(ready) == 2
        assert not ready & old
        assert world.row_state("a") == "active"

    def test_failing_engine_backs_off_and_says_why(self, world: World) -> None:
        """A slot that cannot be made leaves nothing behind, waits before the next try, and shows in the status."""
        world.engine.fail("initialize", EngineFailed("no room for a network"))
        world.pools.keep()

        world.pools.keep()

        assert world.engine.calls.count("create") == 1
        assert world.pools.status()[0].error == "no room for a network"
        assert world.leftovers() == []
        world.clock.sleep(FIRST_BACKOFF + 0.1)
        world.pools.keep()
        assert states(world) == ["ready", "ready"]
        assert world.pools.status()[0].error == ""

    def test_missing_image_is_told(self, world: World) -> None:
        """A pool whose image is not there stays empty and says so."""
        world.engine.fail("image", ImageMissing("image localhost/small:dev is not there"))

        world.pools.keep()

        assert "is not there" in world.pools.status()[0].error

    def test_slot_that_is_being_replaced_is_not_taken(self, world: World) -> None:
        """A claim that planned with the old image finds no old slot once its removal has begun."""
        world.pools.keep()
        old = world.ledger.slots()[0].template
        world.ledger.begin_claim(TenantId("a"), "small", 0.0)
        world.engine.add_image("other")
        world.engine.add_image(IMAGE)
        taken, slots = [], {slot.id for slot in world.ledger.slots()}
        real = world.engine.remove

        def remove(container: str) -> None:
            found = world.ledger.take_slot("small", old, TenantId("a"))
            taken.append(found and found.id)
            real(container)

        world.engine.remove = remove  # type: ignore[method-assign]
        world.pools.keep()

        doomed = [slot for slot in slots if world.ledger.slot(slot) is None]
        assert not set(doomed) & set(taken)
        row = world.ledger.tenant(TenantId("a"))
        assert row is not None
        assert row.slot is None or row.slot not in doomed

    def test_claim_replaces_an_old_slot_when_there_is_no_room(self, world: World) -> None:
        """Waiting slots of an image that was replaced are not `in use`: a claim takes their place."""
        world.pools.keep()
        world.tenants.claim(TenantId("a"), "small")
        world.pools.keep()
        world.engine.add_image("other")
        world.engine.add_image(IMAGE)
        world.restart()  # a daemon that has not looked at its pools yet

        claim = world.tenants.claim(TenantId("b"), "small")

        assert claim.source == "cold"
        assert states(world) == ["claimed", "claimed", "ready"]
        assert world.leftovers() == []

    def test_full_disk_leaves_no_slot_and_says_why(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """A slot whose directories cannot be made is no slot, and the next pass makes it."""
        full = OSError(errno.ENOSPC, "No space left on device")
        with monkeypatch.context() as patch:
            patch.setattr(world.pools._slots, "_make_directories", _raise(full))
            world.pools.keep()

        assert states(world) == []
        assert "No space left" in world.pools.status()[0].error
        world.clock.sleep(FIRST_BACKOFF + 0.1)
        world.pools.keep()
        assert states(world) == ["ready", "ready"]

    def test_slot_that_could_not_be_removed_is_removed_later(self, world: World) -> None:
        """A slot that failed, and whose container could not be removed either, does not take a place for ever."""
        world.engine.fail("initialize", EngineFailed("no"))
        world.engine.fail("remove", EngineFailed("no"))
        world.pools.keep()
        assert states(world) == ["filling"]

        world.clock.sleep(FIRST_BACKOFF + 0.1)
        world.pools.keep()

        assert (states(world), world.leftovers()) == (["ready", "ready"], [])


def _raise(error: Exception) -> object:
    def fail(*_: object) -> None:
        raise error

    return fail


class TestLimits:
    def test_limit_that_cannot_be_enforced_is_refused(self, world: World) -> None:
        """Without the operator's word a limit is never dropped silently."""
        pools = limited(world, drop=False)

        pools.keep()

        assert "memory" in pools.status()[0].error

    def test_limit_is_dropped_when_told(self, world: World) -> None:
        """With `limits: drop` the slot is made without it."""
        pools = limited(world, drop=True)

        pools.keep()

        containers = world.engine.list(pools.owner_labels)
        assert [world.engine.spec(found.id).memory for found in containers] == [None, None]

    def test_dropping_includes_the_limit_of_the_engine(self, world: World) -> None:
        """Without the pids controller, Podman's own default limit would keep every slot from starting."""
        pools = limited(world, drop=True)

        pools.keep()

        containers = world.engine.list(pools.owner_labels)
        assert [world.engine.spec(found.id).pids for found in containers] == [0, 0]

    def test_a_host_with_controllers_keeps_the_limit_of_the_engine(self, world: World) -> None:
        """Where pids can be limited, `drop` changes nothing for a workload that sets no limit."""
        pools = pools_of(world, loader.parse(world.text, Path("small.yaml")), drop_limits=True)

        pools.keep()

        assert {world.engine.spec(found.id).pids for found in world.engine.list(pools.owner_labels)} == {None}


def limited(world: World, *, drop: bool) -> Pools:
    """Pools of a workload with a memory limit, on a host without controllers."""
    info = world.engine.info()
    world.engine.host = EngineInfo(
        version=info.version,
        rootless=True,
        storage_driver="overlay",
        cgroup_version="v2",
        cgroup_controllers=(),
        runtime="fake",
    )
    text = world.text + "deploy: {resources: {limits: {memory: 64m}}}\n"
    return pools_of(world, loader.parse(text, Path("small.yaml")), drop_limits=drop)


class TestRecover:
    def test_waiting_slots_survive_a_restart(self, world: World) -> None:
        """Initialised containers of the last daemon are used on."""
        world.pools.keep()
        before = {slot.id for slot in world.ledger.slots()}

        world.restart()
        world.recover()

        assert {slot.id for slot in world.ledger.slots()} == before

    def test_half_made_slot_is_removed(self, world: World) -> None:
        """A slot that was being filled is removed with its container and directories."""
        world.engine.fail("inspect", KeyboardInterrupt())  # type: ignore[arg-type]
        with pytest.raises(KeyboardInterrupt):
            world.pools.keep()
        assert states(world) == ["filling"]

        world.restart()
        world.recover()

        assert states(world) == []
        assert world.engine.list(world.pools.owner_labels) == []
        assert world.leftovers() == []

    def test_container_without_a_row_is_removed(self, world: World) -> None:
        """A container of ours that the ledger does not know is removed."""
        world.pools.keep()
        slot = world.ledger.slots()[0]
        world.ledger.drop_slot(slot.id)

        world.recover()

        assert len(world.engine.list(world.pools.owner_labels)) == 1

    def test_containers_without_a_slot_all_go(self, world: World) -> None:
        """Containers that carry our name and no slot, or the same one, are removed, however many they are."""
        for number in range(3):
            labels = {LABEL_OWNER: world.owner} | ({LABEL_SLOT: "twice"} if number else {})
            world.engine.create(ContainerSpec(name=f"stray-{number}", image=IMAGE, labels=labels))

        world.pools.recover()

        assert world.engine.list(world.pools.owner_labels) == []

    def test_containers_of_other_runtimes_are_left_alone(self, world: World, tmp_path: Path) -> None:
        """Two runtimes under one user do not touch each other's containers."""
        world.pools.keep()
        world.owner = "host-b"
        world.layout = type(world.layout)(home=tmp_path / "b", run=tmp_path / "b-run")
        world.ledger.close()
        del world.ledger
        world.restart()

        world.recover()

        assert len(world.engine.list({"io.claw.owner": "host-a"})) == 2

    def test_processes_at_their_gates_survive_a_restart(self, warm: World) -> None:
        """Slots whose process waits are used on by the next daemon, whatever their tier."""
        before = warm.ledger.slots()

        warm.restart()
        warm.recover()
        warm.pools.keep()

        assert warm.ledger.slots() == before
        assert take(warm, "a").source == "prewarmed"

    def test_process_that_left_its_gate_is_removed(self, warm: World) -> None:
        """A container that runs with no process at its start gate is not adopted."""
        waiters(warm).leave()

        warm.restart()
        warm.recover()

        assert [row.tier for row in warm.ledger.slots()] == ["created"]
        assert warm.leftovers() == []

    def test_after_a_reboot_all_slots_go(self, warm: World) -> None:
        """When all containers are gone, so are rows, directories, values and start gates."""
        for found in warm.engine.list(warm.pools.owner_labels):
            warm.engine.remove(found.id)

        warm.restart()
        warm.recover()

        assert (warm.ledger.slots(), warm.leftovers()) == ([], [])
        assert list((warm.layout.run / "slots").iterdir()) == []

    @pytest.mark.parametrize(
        "method", ["create", "initialize", "inspect", "start", "remove"], ids=lambda method: f"before {method}"
    )
    def test_killed_while_filling_or_removing(self, warm: World, method: str) -> None:
        """A kill at any step of making or removing a slot leaves nothing that the next daemon does not clear away."""
        warm.pools.recycle("small")
        if method == "remove":
            warm.pools.keep()
        warm.engine.fail(method, KeyboardInterrupt())  # type: ignore[arg-type]
        with pytest.raises(KeyboardInterrupt):
            warm.pools.recycle("small") if method == "remove" else warm.pools.keep()

        warm.restart()
        warm.recover()

        assert {row.state for row in warm.ledger.slots()} <= {"ready"}
        assert warm.leftovers() == []
        warm.pools.keep()
        assert sum(tiers(warm).values()) == 4

    def test_stray_directories_go_and_trees_stay(self, world: World) -> None:
        """A slot's directories without a row go, but never a tree with something in it: it may be the only copy."""
        for slot in ("aaa", "bbb"):
            (world.layout.slot(slot).state / "memory").mkdir(parents=True)
            world.layout.slot(slot).values.mkdir(parents=True)
        (world.layout.slot("bbb").state / "memory/note").write_text("mine")

        world.recover()

        assert not world.layout.slot_root("aaa").exists()
        assert (world.layout.slot("bbb").state / "memory/note").read_text() == "mine"
        assert list((world.layout.run / "slots").iterdir()) == []

    def test_drain_removes_waiting_slots_only(self, world: World) -> None:
        """What a clean stop leaves are the tenants' containers."""
        world.pools.keep()
        world.tenants.claim(TenantId("a"), "small")

        world.pools.drain()

        assert states(world) == ["claimed"]


# --- tiers ------------------------------------------------------------------------------------------------------------

WARM = (
    f"id: small\nimage: {IMAGE}\n"
    "pool: {max_size: 5, warmth: {created: 1, entrypoint: 1, interpreter: 1, prewarmed: 1}, fill_concurrency: 1}\n"
)


@pytest.fixture
def warm(tmp_path: Path) -> Iterator[World]:
    """A world whose pool has a slot of each tier."""
    made = World(tmp_path, workload=WARM)
    made.engine.add_image(IMAGE, labels={LABEL_CONTRACT: contract()})
    made.waiters = Waiters(made.engine)  # type: ignore[attr-defined]
    made.pools.keep()
    yield made
    made.waiters.leave()  # type: ignore[attr-defined]
    made.close()


def waiters(world: World) -> Waiters:
    return world.waiters  # type: ignore[attr-defined,no-any-return]


def take(world: World, tenant: str, *, wait: float = 0.0, image: str | None = None) -> Allocation:
    """A slot as a claim takes it."""
    world.ledger.begin_claim(TenantId(tenant), "small", 0.0)
    return world.pools.take("small", TenantId(tenant), wait=wait, image=image)


def wait_for(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class TestTake:
    def test_warmest_first(self, warm: World) -> None:
        """Claims take the warmest slot that waits, then colder ones, then one that is made for them."""
        sources = [take(warm, f"t{number}").source for number in range(5)]

        assert sources == ["prewarmed", "interpreter", "entrypoint", "created", "cold"]

    def test_begin_rings_or_starts(self, warm: World) -> None:
        """The gate of a waiting process is opened; a container that was only initialised is started."""
        waiting = take(warm, "a").slot
        (warm.layout.slot(waiting.id).values / "values.json").write_bytes(b"values")
        warm.pools.start(waiting)
        name = warm.engine.spec(waiting.container or "").name
        wait_for(lambda: warm.engine.opened.get(name) == b"values")
        for tenant in ("b", "c"):
            take(warm, tenant)
        initialised, starts = take(warm, "d").slot, warm.engine.calls.count("start")

        warm.pools.start(initialised)

        assert initialised.tier == "created"
        assert warm.engine.calls.count("start") == starts + 1

    def test_ringing_asks_the_engine_nothing(self, warm: World) -> None:
        """Taking a waiting slot and letting its tenant in costs no call of the engine."""
        before = len(warm.engine.calls)

        warm.pools.start(take(warm, "a").slot)

        assert warm.engine.calls[before:] == []

    def test_dead_slot_is_not_given(self, warm: World) -> None:
        """A slot whose process has ended goes, and the claim gets the next one."""
        [dead] = [row for row in warm.ledger.slots() if row.tier == "prewarmed"]
        warm.engine.crash(dead.container or "", 137)

        taken = take(warm, "a")

        assert taken.source == "interpreter"
        assert warm.ledger.slot(dead.id) is None
        row = warm.ledger.tenant(TenantId("a"))
        assert row is not None
        assert row.slot == taken.slot.id

    def test_process_that_ends_before_its_gate_is_opened(self, warm: World) -> None:
        """When who waited ends between take and begin, begin says that nobody is there."""
        taken = take(warm, "a")
        warm.engine.crash(taken.slot.container or "", 137)

        with pytest.raises(EngineFailed, match="no process waits"):
            warm.pools.start(taken.slot)

    def test_slot_made_for_a_claim_is_its_own(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """A slot that is made for one claim is never taken by another that comes at that moment."""
        real, stolen = world.ledger.slot_ready, []

        def ready(slot: str, *rest: object) -> SlotRow:
            row: SlotRow = real(slot, *rest)
            stolen.append(world.ledger.take_slot("small", template, TenantId("thief")))
            return row

        template = world.pools.template("small").digest
        world.ledger.begin_claim(TenantId("thief"), "small", 0.0)
        monkeypatch.setattr(world.ledger, "slot_ready", ready)

        taken = take(world, "a")

        assert (taken.source, stolen) == ("cold", [None])

    def test_slot_used_up_as_soon_as_it_is_ready(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """A claim may take a slot, and be done with it, before the thread that made it continues; that is no error."""
        real, used = world.ledger.slot_ready, list[str]()

        def ready(slot: str, *rest: object) -> SlotRow:
            row: SlotRow = real(slot, *rest)
            if not used:
                world.ledger.begin_claim(TenantId("quick"), "small", 0.0)
                taken = world.ledger.take_slot("small", row.template, TenantId("quick"))
                assert taken is not None
                world.pools.destroy(taken.id)
                used.append(taken.id)
            return row

        monkeypatch.setattr(world.ledger, "slot_ready", ready)

        world.pools.keep()

        assert len(used) == 1
        assert world.ledger.slot(used[0]) is None
        assert {slot.state for slot in world.ledger.slots("small")} == {"ready"}

    def test_another_image_for_one_claim(self, warm: World) -> None:
        """A claim of another image never gets a slot of the pool's; the pool's own stay as they are."""
        warm.engine.add_image("localhost/other:1", labels={LABEL_CONTRACT: contract()})

        taken = take(warm, "a", image="localhost/other:1")

        assert taken.source == "cold"
        found = warm.engine.inspect(taken.slot.container or "")
        assert found is not None
        assert found.image_id == warm.engine.image("localhost/other:1").id
        warm.pools.keep()
        assert len([row for row in warm.ledger.slots() if row.state == "ready"]) == 4

    def test_same_image_by_another_name_is_the_same(self, warm: World) -> None:
        """A claim that names the pool's image by its id takes the pool's slots."""
        assert take(warm, "a", image=warm.engine.image(IMAGE).id).source == "prewarmed"

    def test_claims_at_once_share_nothing(self, tmp_path: Path) -> None:
        """Twenty claims at the same moment get twenty slots, warm ones first, and no more than there may be exist."""
        world = World(tmp_path, workload=WORKLOAD.replace("min_size: 2, max_size: 3", "min_size: 8, max_size: 20"))
        world.pools.keep()
        taken: list[Allocation] = []

        def claim(number: int) -> None:
            taken.append(take(world, f"t{number}"))

        threads = [threading.Thread(target=claim, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)

        assert len({one.slot.id for one in taken}) == 20
        assert sorted(one.source for one in taken) == ["cold"] * 12 + ["created"] * 8
        assert len(world.ledger.slots()) == 20
        world.close()


class TestFull:
    @pytest.fixture
    def full(self, world: World) -> World:
        """All three places are tenants'."""
        for tenant in ("a", "b", "c"):
            take(world, tenant)
        return world

    def test_full_pool_refuses_at_once(self, full: World) -> None:
        """A claim that does not ask to wait is refused, with seconds after which to come again."""
        start = time.monotonic()

        with pytest.raises(PoolExhausted) as raised:
            take(full, "d")

        assert raised.value.facts["retry_after"] == allocation.RETRY_AFTER
        assert time.monotonic() - start < 1

    def test_waiting_claim_gets_the_next_place(self, full: World) -> None:
        """A claim that waits gets a slot as soon as a place is free."""
        taken: list[Allocation] = []
        thread = threading.Thread(target=lambda: taken.append(take(full, "d", wait=10)))
        thread.start()
        wait_for(lambda: full.pools.show("small").queue == 1)

        full.pools.destroy(full.ledger.slots()[0].id)
        thread.join(10)

        assert [one.source for one in taken] == ["cold"]
        assert full.pools.show("small").queue == 0

    def test_waiting_ends(self, full: World) -> None:
        """After the time that it gave, a claim is refused."""
        with pytest.raises(PoolExhausted, match="full"):
            take(full, "d", wait=0.05)

    def test_a_waiting_claim_is_served_before_a_new_one(self, full: World) -> None:
        """While somebody waits in line, a newcomer takes no place away, and one that would not wait is refused."""
        taken: list[str] = []
        threads = []
        for number, tenant in enumerate(("d", "e")):
            threads.append(
                threading.Thread(target=lambda name=tenant: taken.append(name + take(full, name, wait=10).source))
            )
            threads[-1].start()
            wait_for(lambda least=number: full.pools.show("small").queue > least)

        with pytest.raises(PoolExhausted):
            take(full, "f")
        first, second, _ = full.ledger.slots()
        full.pools.destroy(first.id)
        threads[0].join(10)
        assert taken == ["dcold"]
        full.pools.destroy(second.id)
        threads[1].join(10)

        assert taken == ["dcold", "ecold"]

    def test_line_that_is_too_long(self, full: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """More claims than the line holds are refused, however long they would wait."""
        monkeypatch.setattr("claw_runtime.pools.wait_queue.LONGEST", 0)

        with pytest.raises(PoolExhausted, match="already wait"):
            take(full, "d", wait=10)

    def test_claim_waits_for_a_slot_that_is_on_its_way(self, world: World) -> None:
        """When all places are taken by slots that are being made, any claim waits for them a little."""
        world.pools.scale("small", min_size=1, max_size=1)
        hold, held = threading.Event(), threading.Event()
        real = world.engine.initialize

        def slowly(container: str) -> None:
            held.set()
            assert hold.wait(10)
            real(container)

        world.engine.initialize = slowly  # type: ignore[method-assign]
        reconciler = threading.Thread(target=world.pools.keep)
        reconciler.start()
        assert held.wait(10)
        taken: list[Allocation] = []
        claim = threading.Thread(target=lambda: taken.append(take(world, "a")))
        claim.start()
        wait_for(lambda: world.pools.show("small").queue == 1)
        hold.set()
        claim.join(10)
        reconciler.join(10)

        assert [one.source for one in taken] == ["created"]


# --- what operators say -----------------------------------------------------------------------------------------------


def tiers(world: World) -> dict[str, int]:
    rows: list[SlotRow] = [row for row in world.ledger.slots() if row.state == "ready"]
    return {
        tier: count
        for tier in ("created", "entrypoint", "interpreter", "prewarmed")
        if (count := sum(row.tier == tier for row in rows))
    }


class TestScale:
    def test_more_and_fewer(self, warm: World) -> None:
        """The difference is made at the cold end: added as initialised slots, taken from the coldest tiers first."""
        warm.pools.scale("small", min_size=6, max_size=9)
        warm.pools.keep()
        assert tiers(warm) == {"created": 3, "entrypoint": 1, "interpreter": 1, "prewarmed": 1}

        warm.pools.scale("small", min_size=2)
        warm.pools.keep()

        assert tiers(warm) == {"interpreter": 1, "prewarmed": 1}

    def test_counts_by_tier(self, warm: World) -> None:
        """A tier's own count changes that tier, and no other."""
        before = {row.id for row in warm.ledger.slots() if row.tier != "interpreter"}

        status = warm.pools.scale("small", warmth={"interpreter": 2})
        warm.pools.keep()

        assert status.min_size == 5
        assert tiers(warm) == {"created": 1, "entrypoint": 1, "interpreter": 2, "prewarmed": 1}
        assert before <= {row.id for row in warm.ledger.slots()}

    def test_smaller_than_what_is_claimed(self, world: World) -> None:
        """A lower maximum removes what waits, and never a tenant."""
        world.pools.keep()
        for tenant in ("a", "b"):
            take(world, tenant)
        world.pools.keep()

        world.pools.scale("small", min_size=1, max_size=1)
        world.pools.keep()

        assert states(world) == ["claimed", "claimed"]
        with pytest.raises(PoolExhausted):
            take(world, "c")

    def test_it_survives_a_restart(self, world: World) -> None:
        """What an operator set holds in the next daemon, whatever the file says."""
        world.pools.scale("small", min_size=0, max_size=7)

        world.restart()
        world.pools.keep()

        status = world.pools.show("small")
        assert (status.min_size, status.max_size, states(world)) == (0, 7, [])

    def test_file_cannot_make_it_impossible(self, world: World) -> None:
        """When a changed file asks for more than an operator allowed at most, the most wins, and the status says so."""
        world.pools.scale("small", min_size=1, max_size=1)
        world.pools.scale("small", max_size=2)
        world.pools.scale("small", min_size=2)
        world.ledger.set_pool("small", max_size=1)
        world.restart()

        world.pools.keep()

        assert states(world) == ["ready"]
        assert world.pools.show("small").notes == ("1 slots wait, not 2: max_size is 1",)

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({"min_size": 4}, "more than max_size 3"),
            ({"max_size": 1}, "more than max_size 1"),
            ({"min_size": -1}, "min_size is -1"),
            ({"max_size": 0}, "max_size is 0"),
            ({"warmth": {"hot": 1}}, "no 'hot'"),
            ({"warmth": {"parked": 1}}, "no 'parked'.*called 'entrypoint' now"),
            ({"warmth": {"created": -1}}, "created is -1"),
            ({"warmth": {"entrypoint": 1}}, "can wait as entrypoint"),
            ({"min_size": 1, "warmth": {"created": 2}}, "not the sum"),
        ],
    )
    def test_what_cannot_be(self, world: World, change: dict[str, object], says: str) -> None:
        """Sizes that contradict are refused, and nothing changes."""
        before = world.pools.sizes("small")

        with pytest.raises(InvalidSpec, match=says):
            world.pools.scale("small", **change)  # type: ignore[arg-type]

        assert world.pools.sizes("small") == before

    def test_unknown_pool(self, world: World) -> None:
        """There is nothing to scale, drain or recycle in a pool that does not exist."""
        for call in (world.pools.scale, world.pools.drain_pool, world.pools.recycle, world.pools.metrics):
            with pytest.raises(UnknownPool):
                call("large")  # type: ignore[operator]


class TestDrainPool:
    def test_drained_pool_holds_tenants_only(self, world: World) -> None:
        """No slot waits, no claim is begun, and tenants keep what they have; also after a restart."""
        world.pools.keep()
        take(world, "a")

        world.pools.drain_pool("small")
        world.pools.keep()
        world.restart()
        world.pools.keep()

        assert states(world) == ["claimed"]
        with pytest.raises(PoolExhausted, match="drained"):
            take(world, "b")

    def test_undrained_pool_is_filled(self, world: World) -> None:
        """Taken into use again, it is as before."""
        world.pools.drain_pool("small")
        world.pools.keep()

        world.pools.undrain("small")
        world.pools.keep()

        assert states(world) == ["ready", "ready"]

    def test_a_drain_ends_the_wait_in_line(self, world: World) -> None:
        """Draining a pool ends the wait of those who stand in its line."""
        for tenant in ("a", "b", "c"):
            take(world, tenant)
        refused: list[str] = []

        def claim() -> None:
            try:
                take(world, "d", wait=30)
            except PoolExhausted as error:
                refused.append(str(error))

        thread = threading.Thread(target=claim)
        thread.start()
        wait_for(lambda: world.pools.show("small").queue == 1)
        world.pools.drain_pool("small")
        thread.join(10)

        assert "drained" in refused[0]


class TestRecycle:
    def test_all_waiting_slots_are_new(self, warm: World) -> None:
        """Recycling replaces what waits, and leaves tenants alone."""
        tenants = take(warm, "a").slot.id
        before = {row.id for row in warm.ledger.slots()} - {tenants}

        assert warm.pools.recycle("small") == 3
        warm.pools.keep()

        after = {row.id for row in warm.ledger.slots()}
        assert tenants in after
        assert not after & before
        assert sum(tiers(warm).values()) == 4

    def test_another_image(self, world: World) -> None:
        """An operator's image replaces the file's, in the next daemon too, until it is taken back."""
        world.pools.keep()
        own = world.pools.show("small").image_digest
        other = world.engine.add_image("localhost/other:1")

        world.pools.set_image("small", "localhost/other:1")
        world.restart()
        world.pools.keep()

        assert world.pools.show("small").image == "localhost/other:1"
        found = {found.image_id for found in world.engine.list(world.pools.owner_labels)}
        assert found == {other.id}
        world.pools.set_image("small", None)
        world.pools.keep()
        assert (world.pools.show("small").image, world.pools.show("small").image_digest) == (IMAGE, own)

    def test_image_that_is_not_there(self, world: World) -> None:
        """An image that is missing is refused, and the pool stays as it is."""
        with pytest.raises(ImageMissing):
            world.pools.set_image("small", "localhost/none:1")

        assert world.pools.show("small").image == IMAGE


class TestFiles:
    @pytest.fixture
    def directory(self, world: World, tmp_path: Path) -> Path:
        """A directory of workloads that the world's pools follow."""
        made = tmp_path / "workloads"
        made.mkdir()
        (made / "small.yaml").write_text(WORKLOAD)
        document = loader.load(made / "small.yaml")
        world.pools.put(document)
        world.files = WorkloadFiles(world.pools, made)
        world.keep()
        return made

    def test_changed_file_is_used(self, world: World, directory: Path) -> None:
        """What is written into a workload file acts at the next pass."""
        (directory / "small.yaml").write_text(WORKLOAD.replace("min_size: 2", "min_size: 1"))

        world.keep()

        assert states(world) == ["ready"]

    def test_file_that_became_wrong_changes_nothing(self, world: World, directory: Path) -> None:
        """A file that is not valid any more is told, line and all, and its pool goes on as before until then."""
        before = world.ledger.slots()
        (directory / "small.yaml").write_text(WORKLOAD + "imag: x\n")

        world.keep()

        assert world.ledger.slots() == before
        assert "unknown key 'imag'" in world.pools.show("small").error
        assert take(world, "a").source == "created"
        (directory / "small.yaml").write_text(WORKLOAD)
        world.keep()
        assert world.pools.show("small").error == ""

    def test_new_file_is_a_new_pool(self, world: World, directory: Path) -> None:
        """A file that appears is a pool; two with one id are not."""
        (directory / "other.yaml").write_text(WORKLOAD.replace("id: small", "id: other"))
        (directory / "twin.yaml").write_text(WORKLOAD)

        world.keep()

        assert list(world.pools.ids()) == ["small", "other"]
        assert len(world.ledger.slots("other")) == 2
        assert len(world.ledger.slots("small")) == 2

    def test_file_that_is_gone_drains_its_pool(self, world: World, directory: Path) -> None:
        """A file that stays away takes its slots with it; one that is only being replaced does not."""
        text = (directory / "small.yaml").read_text()
        before = world.ledger.slots()
        (directory / "small.yaml").unlink()
        world.keep()
        (directory / "small.yaml").write_text(text)
        world.keep()
        assert world.ledger.slots() == before

        (directory / "small.yaml").unlink()
        world.keep()
        world.keep()

        assert (list(world.pools.ids()), world.ledger.slots()) == ([], [])
        with pytest.raises(UnknownPool):
            take(world, "a")

    def test_id_that_changes_is_another_pool(self, world: World, directory: Path) -> None:
        """A file whose id is another one now is another pool, and the old one goes."""
        (directory / "small.yaml").write_text(WORKLOAD.replace("id: small", "id: other"))

        world.keep()
        world.keep()

        assert list(world.pools.ids()) == ["other"]
        assert {row.pool for row in world.ledger.slots()} == {"other"}

    def test_workload_that_does_not_fit_its_image_is_refused(self, world: World) -> None:
        """A change that the image contradicts is refused whole, and the pool goes on."""
        wrong = loader.parse(f"id: small\nimage: {IMAGE}\n", Path("small.yaml"))

        with pytest.raises(InvalidSpec):
            world.pools.put(wrong)

        assert world.pools.workload("small").port == 8080


class TestMetrics:
    def test_numbers_are_true(self, world: World) -> None:
        """What is counted is what happened."""
        world.keep()
        for tenant in ("a", "b", "c"):
            world.tenants.claim(TenantId(tenant), "small")
        for seconds in (0.1, 0.2, 0.9):
            world.pools.observe("small", "frozen", seconds)

        metrics = world.pools.metrics("small")

        assert metrics.slots == {"created": 0, "entrypoint": 0, "interpreter": 0, "prewarmed": 0}
        assert (metrics.claimed, metrics.queue) == (3, 0)
        assert metrics.claims == {"created": 2, "cold": 1, "frozen": 3}
        frozen = metrics.claim_seconds["frozen"]
        assert (frozen.count, frozen.p50, frozen.p95, frozen.last) == (3, 0.2, 0.9, 0.9)
        assert metrics.fill_seconds["created"].count == 2
        assert metrics.failures == {}


class TestRecoverBesideClaims:
    """Claims are served while a new daemon looks at what the last one left."""

    @pytest.mark.parametrize("when", ["before", "after"])
    def test_a_slot_made_meanwhile_is_left_alone(self, world: World, when: str) -> None:
        """Whether the engine lists it or not: its row is newer than the rows that were read."""
        world.pools.keep()
        real, claims = world.engine.list, list[str]()

        def listing(labels: Mapping[str, str]) -> Sequence[Container]:
            found = real(labels) if when == "after" else ()
            if not claims:
                for number in range(3):
                    claims.append(world.tenants.claim(TenantId(f"t{number}"), "small").container)
            return found or real(labels)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(world.engine, "list", listing)
            world.pools.recover()

        assert len(claims) == 3
        assert all(world.engine.inspect(container) for container in claims)
        assert world.leftovers() == []

    def test_a_slot_that_is_being_made_is_left_alone(self, world: World) -> None:
        """Its row is older than the look, and its container is in no list yet."""
        made, go, real = threading.Event(), threading.Event(), world.engine.create

        def slow(spec: ContainerSpec) -> str:
            made.set()
            assert go.wait(30)
            return real(spec)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(world.engine, "create", slow)
            claims = list[str]()
            thread = threading.Thread(
                target=lambda: claims.append(world.tenants.claim(TenantId("alice"), "small").container)
            )
            thread.start()
            assert made.wait(30)
            world.pools.recover()
            go.set()
            thread.join(30)

        assert [world.engine.inspect(container) is not None for container in claims] == [True]
