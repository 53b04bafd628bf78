"""Snapshots: every generation is found and kept as a person says, and going back loses nothing."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest
from claw_runtime.errors import Conflict, InvalidSpec, RestoreFailed, StateMissing, TenantLocked, VerifyMismatch
from claw_runtime.formats import pack as packs
from claw_runtime.formats.envelope import Aes
from claw_runtime.formats.manifest import Entry, Manifest, hole
from claw_runtime.objects.memory import MemoryStore
from claw_runtime.state.commit.guards import Draft
from claw_runtime.state.commit.publisher import Publisher
from claw_runtime.state.keyring import Keyring
from claw_runtime.state.repository import CommitRequest, Repository
from claw_runtime.state.rules.selection import EVERYTHING
from claw_runtime.state.snapshots.diff import Change
from claw_runtime.state.snapshots.repack import Repack
from claw_runtime.state.snapshots.snapshots import Snapshots
from claw_runtime.tenancy import Keys, TenantId, tenant_id
from fakes.clock import FakeClock
from fakes.stores import Action, Crashed, Fault, FaultyStore
from fakes.world import WORKLOAD, World

ALICE, BOB = tenant_id("alice"), tenant_id("bob")
RESTS = WORKLOAD.replace("affinity_timeout: 0", "affinity_timeout: 10m, warmth: {frozen: 1}")
HOUR = 3600.0
pytestmark = pytest.mark.world(store=lambda: FaultyStore(MemoryStore()))


def seal(world: World, files: dict[str, str], *, tenant: TenantId = ALICE, gone: tuple[str, ...] = ()) -> None:
    """One claim in which the program writes these files and removes those."""
    world.tenants.claim(tenant, "small")
    world.write(tenant, files)
    for name in gone:
        (world.state(tenant) / name).unlink()
    world.tenants.release(tenant)
    world.clock.sleep(HOUR)


def has_no_state(world: World, tenant: TenantId) -> bool:
    """Whether a tenant has no generation and no owner; a copy that failed leaves a HEAD that says so."""
    head = world.repository.generations.head(tenant)
    return head is None or (head.generation, head.manifest, head.owner) == (0, None, None)


@pytest.fixture
def three(world: World) -> World:
    """Alice has three generations, an hour apart; it is three hours since the first one."""
    seal(world, {"a.txt": "blue", "work/plan.md": "one"})
    seal(world, {"a.txt": "red", "work/new.md": "two"})
    seal(world, {"work/late.md": "three"}, gone=("work/plan.md",))
    return world


def told(changes: tuple[Change, ...]) -> list[str]:
    return [f"{change.kind} {change.path}" for change in changes]


# --- finding ---


def test_every_generation_is_listed_with_what_it_held(three: World) -> None:
    """Number, counts and time, oldest first; HEAD's is the current one."""
    found = three.snapshots.list(ALICE)
    assert [(one.generation, one.past.files, one.past.size, one.current) for one in found] == [
        (1, 2, 7, False),
        (2, 3, 9, False),
        (3, 3, 11, True),
    ]
    assert found[0].past.created < found[1].past.created < found[2].past.created


def test_what_a_person_means_is_found(three: World) -> None:
    """A number, `latest`, a tag, a time that is told or so long ago; the newest that fits."""
    snapshots = three.snapshots
    snapshots.pin(ALICE, "1", "good")
    snapshots.pin(ALICE, "2", "good")
    sealed = {one.generation: one.past.created for one in snapshots.list(ALICE)}
    meant = {"1": 1, "02": 2, "latest": 3, "good": 2, "@0s": 3, "@1h": 3, "@61m": 2, "@150m": 1, "@2999-01-01": 3}
    meant |= {f"@{sealed[2]}": 2, f"@{sealed[3].replace('+00:00', '')}": 3}
    assert {wanted: snapshots.resolve(ALICE, wanted).generation for wanted in meant} == meant


@pytest.mark.parametrize("wanted", ["0", "4", "nothing", "@4h", "@1970-01-01T00:00+01:00", "", "-1", "²"])
def test_what_is_not_there_is_refused(three: World, wanted: str) -> None:
    """Also a time before the first one: nothing is guessed."""
    with pytest.raises(StateMissing, match="has no snapshot"):
        three.snapshots.resolve(ALICE, wanted)


@pytest.mark.parametrize("wanted", ["@", "@yesterday", "@-2h", "@2026-13-01", "@\x1b[2J"])
def test_what_is_no_time_is_refused(three: World, wanted: str) -> None:
    """The message says how a time is written."""
    with pytest.raises(InvalidSpec, match="not a time"):
        three.snapshots.resolve(ALICE, wanted)


def test_a_tenant_without_state_has_no_snapshots(world: World) -> None:
    """Neither a stranger, nor one that is claimed for the first time."""
    world.tenants.claim(BOB, "small")
    for tenant in (ALICE, BOB):
        with pytest.raises(StateMissing, match="no generation"):
            world.snapshots.list(tenant)


def test_a_removed_generation_is_not_listed_and_a_damaged_one_is_told(three: World) -> None:
    """What history does not name is gone; what it names and the store lost is an error, not an absence."""
    past = three.snapshots.list(ALICE)[0].past
    three.store.delete(Keys(ALICE).manifest(1, past.sha256))
    with pytest.raises(RestoreFailed, match="generation 1"):
        three.snapshots.show(ALICE, "1")


def test_one_is_shown_in_full(three: World) -> None:
    """Counts, the largest files, and what came before."""
    shown = three.snapshots.show(ALICE, "2")
    assert (shown.parent, shown.directories, shown.links, shown.databases) == (1, 1, 0, 0)
    assert [(entry.path, entry.size) for entry in shown.biggest] == [
        ("a.txt", 3),
        ("work/new.md", 3),
        ("work/plan.md", 3),
    ]
    assert shown.image.startswith("sha256:")
    assert shown.packs >= 1
    assert shown.stored > 9


def test_the_difference_of_two_is_told_both_ways(three: World) -> None:
    """From the first to the second, to HEAD by default."""
    there, back = three.snapshots.diff(ALICE, "1"), three.snapshots.diff(ALICE, "latest", "1")
    assert told(there.changes) == ["changed a.txt", "added work/late.md", "added work/new.md", "removed work/plan.md"]
    assert told(back.changes) == ["changed a.txt", "removed work/late.md", "removed work/new.md", "added work/plan.md"]
    assert (there.before.generation, there.after.generation) == (1, 3)


# --- keeping ---


def test_a_pin_is_set_named_and_taken_away(three: World) -> None:
    """A second pin keeps the tag that is there; taking away what is not pinned is fine."""
    snapshots = three.snapshots
    assert snapshots.pin(ALICE, "1").tag == ""
    assert snapshots.pin(ALICE, "1", "good").tag == "good"
    assert snapshots.pin(ALICE, "good").tag == "good"
    assert [(one.generation, one.tag) for one in snapshots.list(ALICE) if one.pin] == [(1, "good")]
    assert snapshots.unpin(ALICE, "good").pin is None
    assert snapshots.unpin(ALICE, "1").pin is None
    assert not any(one.pin for one in snapshots.list(ALICE))
    kinds = [event.kind for event in three.events.newest(10)]
    assert [kind for kind in kinds if "pin" in kind] == ["pinned"] * 3 + ["unpinned"]


def test_a_running_tenants_generation_can_be_pinned(three: World) -> None:
    """A pin needs no lease."""
    three.tenants.claim(ALICE, "small")
    assert three.snapshots.pin(ALICE, "2", "good").tag == "good"


def test_a_pin_leads_to_what_history_dropped_in_the_same_moment(three: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is listed, read and gone back to like every other one."""
    three.snapshots.pin(ALICE, "1", "good")
    monkeypatch.setattr(Publisher, "_history", lambda _self, parent, head, *_: (parent.past(head.sha256),))
    seal(three, {"a.txt": "green"})
    assert [one.generation for one in three.snapshots.list(ALICE)] == [1, 3, 4]
    assert three.repository.generations.manifest(ALICE, 1).generation == 1
    three.snapshots.restore(ALICE, "good")
    assert three.saved(ALICE) == {"a.txt": "blue", "work/plan.md": "one"}


# --- going back ---


def test_going_back_makes_the_next_generation(three: World) -> None:
    """The old files are the state, the ones between are still there, and so is the way forth."""
    done = three.snapshots.restore(ALICE, "1")
    assert (done.generation, done.onto, done.source.generation) == (4, 3, 1)
    assert three.saved(ALICE) == {"a.txt": "blue", "work/plan.md": "one"}
    assert [one.generation for one in three.snapshots.list(ALICE)] == [1, 2, 3, 4]
    again = three.snapshots.restore(ALICE, "3")
    assert again.generation == 5
    assert "work/late.md" in three.saved(ALICE)


def test_the_next_claim_has_what_was_gone_back_to(three: World) -> None:
    """Also a program that goes on from there, whose commit is one more generation."""
    three.snapshots.restore(ALICE, "1")
    claim = three.tenants.claim(ALICE, "small")
    assert (claim.generation, (three.state(ALICE) / "a.txt").read_text()) == (4, "blue")
    three.write(ALICE, {"a.txt": "green"})
    release = three.tenants.release(ALICE)
    assert release.generation is not None
    assert release.generation.number == 5


def test_nothing_is_sent_and_nobody_holds_the_tenant(three: World) -> None:
    """A manifest and HEAD are written, under an epoch of its own; whoever comes next finds the tenant free."""
    store, before = three.store, three.repository.generations.head(ALICE)
    assert isinstance(store, FaultyStore)
    assert before is not None
    store.calls.clear()
    three.snapshots.restore(ALICE, "1")
    assert [key.split("/")[2] for operation, key in store.calls if operation == "put"] == ["gen", "HEAD"]
    after = three.repository.generations.head(ALICE)
    assert after is not None
    assert (after.owner, after.lease, after.epoch) == (None, None, before.epoch + 1)


def test_a_dry_run_tells_and_does_nothing(three: World) -> None:
    """It tells what would come and go; it may be asked of a tenant that runs."""
    three.tenants.claim(ALICE, "small")
    plan = three.snapshots.restore(ALICE, "1", dry_run=True)
    assert told(plan.changes) == ["changed a.txt", "removed work/late.md", "removed work/new.md", "added work/plan.md"]
    assert (plan.generation, plan.onto) == (None, 3)
    assert three.repository.generations.manifest(ALICE).generation == 3


def test_some_paths_go_back_alone(three: World) -> None:
    """Everything else stays as it is, and no empty difference makes a generation."""
    done = three.snapshots.restore(ALICE, "1", paths=["work/plan.md"])
    assert told(done.changes) == ["added work/plan.md"]
    assert three.saved(ALICE) == {
        "a.txt": "red",
        "work/late.md": "three",
        "work/new.md": "two",
        "work/plan.md": "one",
    }
    assert three.snapshots.restore(ALICE, "1", paths=["work/plan.md"]).generation is None


def test_going_to_where_one_is_does_nothing(three: World) -> None:
    """No generation, and no event."""
    assert three.snapshots.restore(ALICE, "latest").generation is None
    assert three.repository.generations.manifest(ALICE).generation == 3


def test_a_tenant_that_runs_here_is_refused(three: World) -> None:
    """What it writes would be lost; the hint says how to go on."""
    three.tenants.claim(ALICE, "small")
    with pytest.raises(Conflict, match="it runs here") as refused:
        three.snapshots.restore(ALICE, "1")
    assert refused.value.hint == "release it first: claw-runtime release alice"
    assert three.saved(ALICE)["a.txt"] == "red"


def test_a_tenant_of_another_runtime_is_refused(three: World) -> None:
    """Its holder's next commit would be fenced."""
    Repository(three.store, "other", FakeClock(), three.layout.home / "scratch").leases.acquire(ALICE)
    with pytest.raises(TenantLocked, match="held by another runtime"):
        three.snapshots.restore(ALICE, "1")


def test_a_kept_tree_is_not_left_behind(three: World) -> None:
    """It is newer than the store: going on without it would lose it."""
    assert isinstance(three.store, FaultyStore)
    three.tenants.claim(ALICE, "small")
    three.write(ALICE, {"a.txt": "newest"})
    three.store.faults.append(Fault(operation="put", action="unavailable", times=99))
    with pytest.raises(Exception, match="not committed"):
        three.tenants.release(ALICE)
    three.store.faults.clear()
    with pytest.raises(Conflict, match="keeps a tree"):
        three.snapshots.restore(ALICE, "1")
    three.tenants.release(ALICE)
    assert three.snapshots.restore(ALICE, "1").generation == 5


@pytest.mark.parametrize("warmth", ["{frozen: 1}", "{tree: 1}"])
def test_what_rests_here_is_of_the_past(tmp_path: Path, warmth: str) -> None:
    """A frozen container or parked tree is not what the next claim gets."""
    world = World(tmp_path, workload=RESTS.replace("{frozen: 1}", warmth))
    seal(world, {"a.txt": "blue"})
    seal(world, {"a.txt": "red"})
    assert world.row_state(ALICE) in ("frozen", "parked")
    world.snapshots.restore(ALICE, "1")
    assert world.row_state(ALICE) == "cold"
    claim = world.tenants.claim(ALICE, "small")
    assert claim.state == "restored"
    assert (world.state(ALICE) / "a.txt").read_text() == "blue"
    world.close()


def test_a_mistyped_name_ends_no_rest(tmp_path: Path) -> None:
    """What rests here stays, since nothing is done."""
    world = World(tmp_path, workload=RESTS)
    seal(world, {"a.txt": "blue"})
    with pytest.raises(StateMissing):
        world.snapshots.restore(ALICE, "7")
    assert world.row_state(ALICE) == "frozen"
    world.close()


def test_a_snapshot_that_is_not_whole_is_refused(three: World) -> None:
    """HEAD never names what is not there."""
    document = three.repository.generations.manifest(ALICE, 1)
    newest = {pack.sha256 for pack in three.repository.generations.manifest(ALICE).packs}
    (lost,) = [pack.sha256 for pack in document.packs if pack.sha256 not in newest] or [document.packs[0].sha256]
    three.store.delete(Keys(ALICE).pack(lost))
    with pytest.raises(RestoreFailed, match="generation 1 of tenant alice is not whole"):
        three.snapshots.restore(ALICE, "1")
    assert three.repository.generations.manifest(ALICE).generation == 3


def test_a_claim_elsewhere_in_the_same_moment_wins(three: World) -> None:
    """The swap of HEAD fails, and nothing that anybody sees was changed."""
    assert isinstance(three.store, FaultyStore)
    inner = three.store.inner
    other = Repository(inner, "other", FakeClock(), three.layout.home / "scratch")

    def claimed(operation: str, key: str) -> None:
        if (operation, key) == ("put", Keys(ALICE).head):
            three.store.before = lambda *_: None  # type: ignore[union-attr]
            other.leases.acquire(ALICE)

    three.store.before = claimed
    with pytest.raises(Conflict, match="changed meanwhile"):
        three.snapshots.restore(ALICE, "1")
    head = three.repository.generations.head(ALICE)
    assert head is not None
    assert (head.owner, head.generation) == ("other", 3)


@pytest.mark.parametrize("put", [1, 2])
def test_a_crash_in_the_middle_leaves_nothing_to_undo(three: World, put: int) -> None:
    """The tenant is where it was, free for every host."""
    assert isinstance(three.store, FaultyStore)
    three.store.faults.append(Fault(operation="put", action="crash", first=put))
    with pytest.raises(Crashed):
        three.snapshots.restore(ALICE, "1")
    three.restart()
    three.recover()
    head = three.repository.generations.head(ALICE)
    assert head is not None
    assert (head.owner, head.generation, three.row_state(ALICE)) == (None, 3, "cold")


def test_a_lost_answer_to_the_swap_is_found_out(three: World) -> None:
    """It is not made twice."""
    assert isinstance(three.store, FaultyStore)
    three.store.faults.append(Fault(operation="put", key="HEAD", action="applied, answer lost"))
    assert three.snapshots.restore(ALICE, "1").generation == 4
    assert three.repository.generations.manifest(ALICE).generation == 4


def test_another_program_than_now_is_warned_of(world: World) -> None:
    """Whose databases the present one may not read."""
    for application in ("openclaw 2026.6.11", "openclaw 2026.9.2"):
        lease = world.repository.leases.acquire(ALICE)
        tree = world.layout.home / application.replace(" ", "-")
        right = world.repository.restorer.restore(lease, tree)
        (tree / "a.txt").write_text(application)
        world.repository.committer.commit(
            CommitRequest(
                right=right,
                tree=tree,
                selection=EVERYTHING,
                image_digest="sha256:1",
                application=application,
                release=True,
            )
        )
    (warning,) = world.snapshots.restore(ALICE, "1", dry_run=True).warnings
    assert warning.startswith("generation 1 was written by openclaw 2026.6.11, generation 2 by openclaw 2026.9.2: ")
    assert world.snapshots.restore(ALICE, "1").generation == 3
    assert world.repository.generations.manifest(ALICE).application == "openclaw 2026.6.11"
    assert world.snapshots.restore(ALICE, "2", paths=["a.txt"], dry_run=True).warnings


# --- into another tenant ---


def keys_of(world: World, tenant: TenantId) -> set[str]:
    return {item.key for item in world.store.list(Keys(tenant).prefix)}


def test_another_tenant_gets_a_state_of_its_own(three: World) -> None:
    """It holds what the snapshot held, and goes on when everything of the first tenant is gone."""
    before = keys_of(three, ALICE)
    done = three.snapshots.copy_into(ALICE, "1", BOB)
    assert (done.tenant, done.of, done.onto, done.generation) == (BOB, ALICE, 0, 1)
    assert told(done.changes) == ["added a.txt", "added work", "added work/plan.md"]
    assert keys_of(three, ALICE) == before
    for key in before:
        three.store.delete(key)
    assert three.saved(BOB) == {"a.txt": "blue", "work/plan.md": "one"}
    claim = three.tenants.claim(BOB, "small")
    assert (claim.generation, (three.state(BOB) / "work/plan.md").read_text()) == (1, "one")


def test_only_what_the_snapshot_needs_is_packed(three: World) -> None:
    """Content that a later generation added to the same tenant stays with that tenant."""
    document = three.repository.generations.manifest(ALICE, 1)
    three.snapshots.copy_into(ALICE, "1", BOB)
    copied = three.repository.generations.manifest(BOB)
    assert [entry.same_as(other) for entry, other in zip(document.entries, copied.entries, strict=True)] == [True] * 3
    frames = {(extent.pack, extent.offset) for entry in copied.entries for extent in entry.extents}
    assert (len(copied.packs), len(frames)) == (1, 2)
    assert (copied.application, copied.image) == (document.application, document.image)


def test_large_files_and_odd_names_come_along(world: World) -> None:
    """Several frames and several packs, links, empty and equal files, modes, and names that are no UTF-8."""
    world.tenants.claim(ALICE, "small")
    tree = world.state(ALICE)
    (tree / "big").write_bytes(os.urandom(20 << 20))
    (tree / "same").write_bytes(b"x")
    (tree / "again").write_bytes(b"x")
    (tree / "none").touch(0o600)
    (tree / os.fsdecode(b"\xff")).write_bytes(b"odd")
    (tree / "link").symlink_to("../../etc/passwd")
    world.tenants.release(ALICE)
    world.snapshots.copy_into(ALICE, "latest", BOB)
    copied = world.repository.generations.manifest(BOB)
    assert len(copied.packs) > 1
    assert all(
        a.same_as(b) for a, b in zip(copied.entries, world.repository.generations.manifest(ALICE).entries, strict=True)
    )
    for entry in copied.entries:
        if entry.type == "f":
            assert (
                hashlib.sha256(b"".join(world.repository.generations.read(BOB, entry.path))).hexdigest() == entry.sha256
            )


def test_a_hole_stays_a_hole_and_a_blob_becomes_frames(world: World) -> None:
    """A hole lies nowhere; an object of its own is read in ranges, and checked."""
    content = os.urandom(packs.CHUNK * 2 + 5)
    digest = hashlib.sha256(content).hexdigest()
    zeros = hashlib.sha256(bytes(9)).hexdigest()
    blob = f"{digest}.1"
    free = world.repository.leases.free(ALICE, create=True)
    world.store.put(Keys(ALICE).blob(blob), content)
    common = {"type": "f", "mode": 0o644, "mtime_ns": 1}
    entries = (
        Entry(path="blob", size=len(content), sha256=digest, blob=blob, **common),  # type: ignore[arg-type]
        Entry(path="hole", size=9, sha256=zeros, extents=(hole(9),), **common),  # type: ignore[arg-type]
    )
    draft = Draft(entries=entries, packs=(), image="sha256:1", application="")
    world.repository.publisher.reseal(ALICE, *free, draft)
    world.snapshots.copy_into(ALICE, "1", BOB)
    first, second = world.repository.generations.manifest(BOB).entries
    assert (first.blob, len(first.extents), all(extent.sha256 for extent in first.extents)) == (None, 3, True)
    assert b"".join(world.repository.generations.read(BOB, "blob")) == content
    assert second.extents == (hole(9),)
    world.store.put(Keys(ALICE).blob(blob), content[:-1] + b"?")
    with pytest.raises(VerifyMismatch):
        world.snapshots.copy_into(ALICE, "1", tenant_id("carol"))
    assert has_no_state(world, tenant_id("carol"))


def test_what_is_sealed_for_one_is_sealed_anew_for_the_other(three: World) -> None:
    """Sealed frames are opened with the one key and sealed with the other; what was plain is sealed too."""
    keys = {ALICE: Aes(bytes(32), ALICE), BOB: Aes(b"k" * 32, BOB)}
    document = three.repository.generations.manifest(ALICE, 1)

    def copied(document: Manifest, opens: TenantId, target: TenantId, epoch: int) -> Draft:
        done = Repack(
            three.store, three.clock, document, target, epoch=epoch, opens=keys[opens], seals=keys[target]
        ).copy()
        assert [pack.sealed for pack in done.packs] == [True]
        for entry in done.entries:
            for extent in entry.extents:
                frame = three.store.get_range(Keys(target).pack(extent.pack), extent.offset, extent.stored)
                raw = packs.inflate(frame, extent, keys[target])
                assert hashlib.sha256(raw).hexdigest() == entry.sha256
                assert raw not in frame
        return done

    sealed = copied(document, ALICE, BOB, 1)
    owned = replace(document, tenant=BOB, entries=sealed.entries, packs=sealed.packs)
    copied(owned, BOB, ALICE, 1)
    assert not {pack.sha256 for pack in sealed.packs} & {pack.sha256 for pack in document.packs}


def test_a_copy_is_sealed_where_the_operator_has_a_key(three: World) -> None:
    """Also of a generation from before there was one."""
    keyring = Keyring(three.store, [b"o" * 32])
    three.snapshots = Snapshots(
        repository=Repository(three.store, three.owner, three.clock, three.layout.home / "scratch", keyring),
        store=three.store,
        clock=three.clock,
        still=three.tenants.still,
    )
    three.snapshots.copy_into(ALICE, "1", BOB)
    assert [pack.sealed for pack in three.snapshots._repository.generations.manifest(BOB).packs] == [True]
    assert b"".join(three.snapshots._repository.generations.read(BOB, "a.txt")) == b"blue"
    three.snapshots.copy_into(BOB, "1", tenant_id("carol"))
    assert b"".join(three.snapshots._repository.generations.read(tenant_id("carol"), "a.txt")) == b"blue"


def test_each_epoch_has_packs_of_its_own(three: World) -> None:
    """Whoever lost the lease, and still removes what he knows, does not know them."""
    three.snapshots.copy_into(ALICE, "1", BOB)
    first = three.repository.generations.manifest(BOB).packs
    three.snapshots.copy_into(ALICE, "2", BOB, replace_state=True)
    three.snapshots.copy_into(ALICE, "1", BOB, replace_state=True)
    assert not set(first) & set(three.repository.generations.manifest(BOB).packs)


def test_a_tenant_with_a_state_is_refused_unless_it_is_meant(three: World) -> None:
    """What it had is then the generation before, and can be gone back to."""
    seal(three, {"mine.txt": "bob"}, tenant=BOB)
    for dry_run in (True, False):
        with pytest.raises(Conflict, match="tenant bob has a state"):
            three.snapshots.copy_into(ALICE, "1", BOB, dry_run=dry_run)
    done = three.snapshots.copy_into(ALICE, "1", BOB, replace_state=True)
    assert (done.generation, done.onto) == (2, 1)
    assert three.saved(BOB) == {"a.txt": "blue", "work/plan.md": "one"}
    assert three.snapshots.copy_into(ALICE, "1", BOB, replace_state=True).generation is None
    three.snapshots.restore(BOB, "1")
    assert three.saved(BOB) == {"mine.txt": "bob"}


def test_a_tenant_whose_state_was_removed_has_none(three: World) -> None:
    """Numbers go on: no tree of before is taken for one of after."""
    seal(three, {"mine.txt": "bob"}, tenant=BOB)
    three.repository.bury(BOB)
    with pytest.raises(StateMissing):
        three.snapshots.restore(BOB, "1")
    done = three.snapshots.copy_into(ALICE, "1", BOB)
    assert (done.onto, done.generation) == (0, 3)
    assert [one.generation for one in three.snapshots.list(BOB)] == [3]
    assert three.saved(BOB) == {"a.txt": "blue", "work/plan.md": "one"}


def test_a_dry_copy_writes_nothing(three: World) -> None:
    """Not even below the other tenant's prefix."""
    plan = three.snapshots.copy_into(ALICE, "latest", BOB, dry_run=True)
    assert (plan.generation, plan.tenant, len(plan.changes)) == (None, BOB, 4)
    assert keys_of(three, BOB) == set()


def test_a_copy_needs_the_other_tenant_still_and_not_the_first_one(three: World) -> None:
    """The first may run meanwhile: its generations do not change."""
    three.tenants.claim(ALICE, "small")
    assert three.snapshots.copy_into(ALICE, "1", BOB).generation == 1
    three.tenants.claim(BOB, "small")
    with pytest.raises(Conflict, match="it runs here"):
        three.snapshots.copy_into(ALICE, "2", BOB, replace_state=True)
    with pytest.raises(InvalidSpec, match="the same tenant"):
        three.snapshots.copy_into(ALICE, "1", ALICE)
    carol = tenant_id("carol")
    Repository(three.store, "other", FakeClock(), three.layout.home / "scratch").leases.acquire(carol)
    with pytest.raises(TenantLocked):
        three.snapshots.copy_into(ALICE, "1", carol)


@pytest.mark.parametrize("action", ["flipped", "truncated"])
def test_damage_is_not_copied(three: World, action: Action) -> None:
    """The other tenant is where it was, which is nowhere."""
    assert isinstance(three.store, FaultyStore)
    three.store.faults.append(Fault(operation="get", key="/packs/", action=action, times=9))
    with pytest.raises(VerifyMismatch):
        three.snapshots.copy_into(ALICE, "1", BOB)
    assert has_no_state(three, BOB)


def test_a_lost_pack_is_told_as_such(three: World) -> None:
    """And nothing is made of the rest."""
    for item in list(three.store.list(Keys(ALICE).packs)):
        three.store.delete(item.key)
    with pytest.raises(RestoreFailed, match="an object is missing"):
        three.snapshots.copy_into(ALICE, "1", BOB)
    assert has_no_state(three, BOB)


def test_a_copy_that_died_is_no_lost_state(three: World) -> None:
    """The new tenant has a HEAD before it has objects: it can be claimed, and the copy can be repeated."""
    assert isinstance(three.store, FaultyStore)
    three.store.faults.append(Fault(operation="put", key=Keys(BOB).head, action="crash", first=2))
    with pytest.raises(Crashed):
        three.snapshots.copy_into(ALICE, "1", BOB)
    three.store.faults.clear()
    assert next(three.store.list(Keys(BOB).packs))
    three.restart()
    assert three.tenants.claim(BOB, "small").state == "empty"
    three.tenants.release(BOB)
    assert three.snapshots.copy_into(ALICE, "1", BOB, replace_state=True).generation
