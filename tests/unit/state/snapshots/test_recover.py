"""HEAD is made anew from what the store has: the newest whole generation, under an epoch above every other."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from claw_runtime.errors import Conflict, RestoreFailed, StateMissing, TenantLocked
from claw_runtime.formats import manifest as manifests
from claw_runtime.formats.head import Head, HeadRefused, decode, encode
from claw_runtime.state.snapshots.recover import HeadRecovery, Recovered
from claw_runtime.tenancy import Keys, TenantId
from fakes.stores import FaultyStore
from fakes.world import FROZEN, PARKED, World

ALICE = TenantId("alice")
HEAD = Keys(ALICE).head
KEY = b"k" * 32


def used(world: World, *words: str) -> None:
    """A generation for each word."""
    for word in words:
        world.tenants.claim(ALICE, "small")
        world.write(ALICE, {"word": word, f"of-{word}": word * 9})
        world.tenants.release(ALICE)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    used(made, "one", "two", "three")
    yield made
    made.close()


def head_of(world: World) -> Head:
    return decode(world.store.get(HEAD)[0], ALICE)


def manifest_key(world: World, number: int) -> str:
    start = Keys(ALICE).manifest(number, "")[:-4]
    return next(item.key for item in world.store.list(start))


def objects(world: World) -> dict[str, bytes]:
    return {item.key: world.store.get(item.key)[0] for item in world.store.list("")}


def restarted(world: World) -> World:
    """A host that remembers nothing of the store."""
    world.ledger.database.connection.execute("DELETE FROM head")
    return world


def recovered(world: World, *, accept_loss: bool = False) -> Recovered:
    """What a dry run announces is what is done, and a dry run writes nothing."""
    before = objects(world)
    plan = world.head_recovery.recover(ALICE, accept_loss=accept_loss, dry_run=True)
    assert objects(world) == before
    done = world.head_recovery.recover(ALICE, accept_loss=accept_loss)
    assert replace(plan, dry_run=False) == done
    assert set(objects(world)) == {*before, HEAD}
    return done


@pytest.mark.parametrize("knows", [True, False])
def test_a_missing_head_is_made_anew(world: World, *, knows: bool) -> None:
    """It names the newest generation under a new epoch, and the next claim restores its content."""
    lost = head_of(world)
    world.store.delete(HEAD)

    done = recovered(world if knows else restarted(world))

    head = head_of(world)
    assert (done.condition, done.loses, done.faulty) == ("missing", False, ())
    assert (head.generation, head.manifest, head.sha256) == (3, lost.manifest, lost.sha256)
    assert head.owner is None
    assert head.epoch == done.epoch
    assert head.epoch > lost.epoch if knows else head.epoch >= lost.epoch
    used(world, "four")
    assert world.saved(ALICE)["word"] == "four"
    assert [one.generation for one in world.snapshots.list(ALICE)] == [1, 2, 3, 4]


@pytest.mark.parametrize("harm", [lambda _: b"", lambda data: data[:-20], lambda data: data.replace(b"3", b"2")])
def test_a_damaged_head_is_replaced(world: World, harm: Callable[[bytes], bytes]) -> None:
    """Under the etag of the damaged one."""
    world.store.put(HEAD, harm(world.store.get(HEAD)[0]))
    assert recovered(world).condition == "damaged"
    assert world.saved(ALICE)["word"] == "three"


def test_a_head_that_went_back_goes_forward_again(world: World) -> None:
    """A bucket's earlier version of HEAD, while the newer generations are there."""
    newest, data = head_of(world), world.store.get(HEAD)[0]
    used(world, "four")
    world.store.put(HEAD, data)

    done = recovered(world)

    assert done.condition == "older"
    assert done.chosen is not None
    assert done.chosen.generation == newest.generation + 1
    assert world.saved(ALICE)["word"] == "four"


def test_a_host_without_memory_sees_it_by_the_generations(world: World) -> None:
    """Two generations above HEAD's are no left-over of a writer that died; a collection refuses for the same reason."""
    data = world.store.get(HEAD)[0]
    used(world, "four", "five")
    world.store.put(HEAD, data)
    restarted(world)
    before = objects(world)

    with pytest.raises(RestoreFailed, match="it names generation 3, but generation 5 is stored"):
        world.repository.collect_garbage(ALICE, grace=0)
    assert set(objects(world)) == set(before)
    assert recovered(world).condition == "older"
    assert world.saved(ALICE)["word"] == "five"


def test_a_healthy_head_is_left_alone(world: World) -> None:
    """With and without a left-over of a writer that died; and where nothing was ever stored."""
    world.store.put(Keys(ALICE).manifest(4, "f" * 64), b"of a writer that died")
    for options in ({}, {"dry_run": True}, {"accept_loss": True}):
        with pytest.raises(Conflict, match="HEAD of tenant alice is there and healthy"):
            world.head_recovery.recover(ALICE, **options)
    with pytest.raises(StateMissing, match="tenant bob has no stored state"):
        world.head_recovery.recover(TenantId("bob"))


def test_a_tenant_of_a_living_runtime_is_refused(world: World, tmp_path: Path) -> None:
    """Its HEAD went back, but says that another runtime holds it."""
    other = World(tmp_path / "other", store=world.store, owner="host-b")
    other.repository.heartbeats.beat()
    other.tenants.claim(ALICE, "small")
    data = world.store.get(HEAD)[0]
    other.write(ALICE, {"word": "four"})
    other.tenants.sync(ALICE)
    world.repository.generations.head(ALICE)
    world.store.put(HEAD, data)
    with pytest.raises(TenantLocked, match="is held by another runtime"):
        world.head_recovery.recover(ALICE)
    other.close()


class TestChoice:
    def test_newer_generations_that_are_damaged_are_told(self, world: World) -> None:
        """A manifest that differs, and a pack that is missing; the loss must be accepted."""
        keys = Keys(ALICE)
        world.store.put(manifest_key(world, 3), b"damaged")
        second = world.repository.generations.manifest(ALICE, 2)
        first = {ref.sha256 for ref in world.repository.generations.manifest(ALICE, 1).packs}
        world.store.delete(keys.pack(next(ref.sha256 for ref in second.packs if ref.sha256 not in first)))
        world.store.delete(HEAD)
        before = objects(world)

        with pytest.raises(HeadRefused, match="the newest state of tenant alice is not in the store") as refused:
            world.head_recovery.recover(ALICE)
        assert refused.value.why == "the newest whole generation is generation 1, but this host has seen generation 3"
        assert "--accept-loss" in refused.value.hint
        assert objects(world) == before

        done = recovered(world, accept_loss=True)
        assert [(one.generation, one.fault.split(",")[0]) for one in done.faulty] == [
            (3, "its manifest is damaged"),
            (2, "1 of its 2 objects are missing or cut off"),
        ]
        assert done.loses
        assert head_of(world).given_up == 3
        assert restarted(world).tenants.claim(ALICE, "small").generation == 1
        assert (world.state(ALICE) / "word").read_text() == "one"

    def test_a_pack_that_is_cut_off_counts_as_missing(self, world: World) -> None:
        """Its size in the store is not the manifest's."""
        newest = world.repository.generations.manifest(ALICE)
        key = Keys(ALICE).pack(newest.packs[-1].sha256)
        world.store.put(key, world.store.get(key)[0][:-1])
        world.store.delete(HEAD)
        done = world.head_recovery.recover(ALICE, dry_run=True)
        assert done.chosen is None or done.chosen.generation < 3

    def test_a_delta_needs_its_base(self, tmp_path: Path) -> None:
        """A generation whose manifest is a delta is not whole without the manifest that it refers to."""
        world = World(tmp_path)
        world.tenants.claim(ALICE, "small")
        world.write(ALICE, {f"{number:04d}": "" for number in range(2000)})
        world.tenants.sync(ALICE)
        world.write(ALICE, {"word": "two"})
        world.tenants.release(ALICE)
        newest = world.repository.generations.manifest(ALICE)
        assert newest.base is not None
        world.store.delete(manifest_key(world, newest.base.document.generation))
        world.store.delete(HEAD)

        plan = world.head_recovery.recover(ALICE, dry_run=True)

        assert (plan.chosen, plan.loses) == (None, True)
        assert [one.fault.partition(":")[0] for one in plan.faulty] == ["unreadable"]
        world.close()

    def test_a_head_whose_generation_is_not_whole_can_be_replaced(self, world: World) -> None:
        """HEAD is healthy, but its manifest is gone; with the loss accepted, the one before is chosen."""
        world.store.delete(manifest_key(world, 3))
        with pytest.raises(HeadRefused, match="is not in the store"):
            world.head_recovery.recover(ALICE)
        done = recovered(world, accept_loss=True)
        assert done.condition == "incomplete"
        assert world.saved(ALICE)["word"] == "two"

    def test_the_generation_that_this_host_has_seen_wins(self, world: World) -> None:
        """Another writer's generation of the same number lost the race, whenever it was made."""
        mine = head_of(world)
        rival(world, 3, "2999-01-01T00:00:00+00:00")
        world.store.delete(HEAD)

        done = recovered(world)

        assert done.chosen is not None
        assert done.chosen.sha256 == mine.sha256
        assert [one.fault for one in done.faulty] == ["it did not grow from the generation 3 that this host has seen"]
        world.store.delete(HEAD)
        done = world.head_recovery.recover(ALICE, dry_run=True)
        assert done.chosen is not None
        assert done.chosen.sha256 == mine.sha256

    def test_of_two_unknown_ones_the_later_is_chosen(self, world: World) -> None:
        """The second caller gets an error."""
        sha256 = rival(world, 3, "2999-01-01T00:00:00+00:00")
        world.store.delete(HEAD)
        done = recovered(restarted(world))
        assert done.chosen is not None
        assert done.chosen.sha256 == sha256
        assert [one.fault for one in done.faulty] == ["another one of this number was chosen"]

    def test_another_lineage_needs_an_accepted_loss(self, world: World) -> None:
        """A generation 4 that did not grow from the known generation 3."""
        rival(world, 4, "2999-01-01T00:00:00+00:00", history=())
        world.store.delete(manifest_key(world, 3))
        world.store.delete(HEAD)
        with pytest.raises(HeadRefused, match="is not in the store"):
            world.head_recovery.recover(ALICE)
        done = recovered(world, accept_loss=True)
        assert done.chosen is not None
        assert done.chosen.generation == 4


def rival(world: World, number: int, created: str, **changes: object) -> str:
    """Store another generation of this number, with the newest one's entries; its digest."""
    newest = world.repository.generations.manifest(ALICE)
    parent = newest.parent if "history" not in changes else None
    document = replace(newest, generation=number, created=created, parent=parent, **changes)  # type: ignore[arg-type]
    data = manifests.encode(document)
    sha256 = hashlib.sha256(data).hexdigest()
    world.store.put(Keys(ALICE).manifest(number, sha256), data)
    return sha256


class TestNothingLeft:
    def test_an_empty_prefix_is_given_up_on_demand(self, world: World) -> None:
        """HEAD then says that the state was removed, under a higher number and epoch, and the tenant begins anew."""
        lost = head_of(world)
        for item in list(world.store.list(Keys(ALICE).prefix)):
            world.store.delete(item.key)
        with pytest.raises(HeadRefused, match="the newest state of tenant alice is not in the store"):
            world.head_recovery.recover(ALICE)
        assert objects(world) == {}

        done = recovered(world, accept_loss=True)

        assert done.chosen is None
        head = head_of(world)
        assert (head.deleted, head.generation) == (True, lost.generation + 1)
        assert head.epoch > lost.epoch
        assert world.tenants.claim(ALICE, "small").state == "empty"

    def test_another_store_is_refused(self, world: World) -> None:
        """The store as a whole is another one: nothing of one tenant can be given up there."""
        world.repository.store_id.open()
        for item in list(world.store.list("")):
            world.store.delete(item.key)
        with pytest.raises(HeadRefused, match="is not the store that the tenants' states are in"):
            world.head_recovery.recover(ALICE, accept_loss=True)
        assert objects(world) == {}


class TestEpochs:
    def test_it_is_above_every_pack_and_blob(self, world: World) -> None:
        """On a host that remembers nothing: packs and blobs tell under which epoch they were written."""
        epoch = head_of(world).epoch
        world.store.delete(HEAD)
        restarted(world)
        assert world.head_recovery.recover(ALICE, dry_run=True).epoch == epoch + 1
        world.store.put(Keys(ALICE).blob(f"{'a' * 64}.77"), b"")
        assert world.head_recovery.recover(ALICE, dry_run=True).epoch == 78

    def test_a_damaged_pack_or_head_is_passed_over(self, world: World) -> None:
        """What cannot be read has no epoch; of a HEAD that is JSON still, the epoch counts."""
        restarted(world)
        world.store.put(Keys(ALICE).pack("a" * 64), b"no pack")
        head = replace(head_of(world), epoch=500)
        world.store.put(HEAD, encode(head).replace(b'"check": "', b'"check": "0'))
        assert recovered(world).epoch == 501

    def test_encrypted_packs_are_read_with_the_tenants_key(self, tmp_path: Path) -> None:
        """Their index is sealed."""
        world = World(tmp_path, operators=[KEY])
        used(world, "one", "two")
        epoch = head_of(world).epoch
        world.store.delete(HEAD)
        restarted(world)
        assert recovered(world).epoch == epoch + 1
        assert world.saved(ALICE)["word"] == "two"
        world.close()

    def test_a_long_index_is_fetched_whole(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """The first request fetches only the end of a pack."""
        monkeypatch.setattr("claw_runtime.state.snapshots.recover.TAIL", 16)
        epoch = head_of(world).epoch
        world.store.delete(HEAD)
        restarted(world)
        assert world.head_recovery.recover(ALICE, dry_run=True).epoch == epoch + 1


class TestThisHost:
    def test_a_running_tenant_goes_on(self, world: World) -> None:
        """Its next commit takes the new HEAD's lease, and nothing that it wrote is lost."""
        world.tenants.claim(ALICE, "small")
        world.write(ALICE, {"word": "four"})
        world.store.delete(HEAD)
        with pytest.raises(HeadRefused):
            world.tenants.sync(ALICE)
        world.head_recovery.recover(ALICE)
        world.tenants.sync(ALICE)
        assert world.saved(ALICE)["word"] == "four"
        world.write(ALICE, {"word": "five"})
        world.tenants.release(ALICE)
        assert world.saved(ALICE)["word"] == "five"

    def test_a_kept_tree_is_committed_by_the_next_retry(self, world: World) -> None:
        """It was kept because HEAD was lost, and grew from the generation that HEAD names again."""
        world.tenants.claim(ALICE, "small")
        world.write(ALICE, {"word": "four"})
        world.store.delete(HEAD)
        with pytest.raises(HeadRefused):
            world.tenants.release(ALICE)
        world.head_recovery.recover(ALICE)
        world.recovery.retry()
        assert world.row_state(ALICE) == "cold"
        assert world.saved(ALICE)["word"] == "four"

    @pytest.mark.parametrize(("workload", "rest"), [(PARKED, "parked"), (FROZEN, "frozen")])
    def test_what_rests_here_goes_on(self, tmp_path: Path, workload: str, rest: str) -> None:
        """Its generation is the one that HEAD names again."""
        world = World(tmp_path, workload=workload)
        used(world, "one", "two")
        world.store.delete(HEAD)
        assert recovered(world).chosen is not None
        assert world.row_state(ALICE) == rest
        assert world.tenants.claim(ALICE, "small").state == {"parked": "tree", "frozen": "frozen"}[rest]
        world.close()

    @pytest.mark.parametrize("workload", [PARKED, FROZEN])
    def test_what_rests_here_becomes_a_kept_tree_where_the_store_lost_it(self, tmp_path: Path, workload: str) -> None:
        """It is the newest copy: it stays until a person decides, and no retry touches it."""
        world = World(tmp_path, workload=workload)
        used(world, "one", "two")
        world.store.delete(manifest_key(world, 2))
        world.store.delete(HEAD)
        recovered(world, accept_loss=True)

        world.recovery.retry()
        world.clock.advance(600)
        world.standby.expire()
        world.restart()
        world.recover()
        assert world.row_state(ALICE) == "kept"
        assert world.kept(ALICE)["word"] == "two"
        with pytest.raises(RestoreFailed, match="the kept tree of tenant alice is older than its HEAD"):
            world.tenants.claim(ALICE, "small")
        assert world.kept(ALICE)["word"] == "two"
        world.close()


def test_a_rival_that_recovers_first_wins(world: World) -> None:
    """The swap has a condition: two recoveries never overwrite each other."""
    world.store.delete(HEAD)
    line = FaultyStore(world.store)

    def overtaken(operation: str, key: str) -> None:
        if (operation, key) == ("put", HEAD):
            line.before = lambda *_: None
            rescued.append(world.head_recovery.recover(ALICE))

    rescued: list[Recovered] = []
    line.before = overtaken
    repository = type(world.repository)(line, "late", world.clock, world.layout.scratch)
    late = HeadRecovery(repository, line, world.clock, _of_another_host)
    with pytest.raises((Conflict, HeadRefused)):
        late.recover(ALICE)
    assert head_of(world).epoch == rescued[0].epoch


def _of_another_host(_tenant: TenantId) -> AbstractContextManager[Callable[[str], None]]:
    return nullcontext(lambda _why: None)
