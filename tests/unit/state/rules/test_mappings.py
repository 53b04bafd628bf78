"""Mappings from a claim to a release and back: what a tenant finds, what the store has, and that nothing is lost."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from claw_runtime.errors import StoreUnavailable, UploadFailed
from claw_runtime.objects.memory import MemoryStore
from claw_runtime.state.repository import CommitRequest, Repository
from claw_runtime.state.rules.selection import (
    COPIED,
    DOWNLOADED,
    IGNORED,
    SYNCED,
    UPLOADED,
    Rule,
    Selection,
)
from claw_runtime.tenancy import TenantId
from fakes.clock import FakeClock
from fakes.world import WORKLOAD, World
from hypothesis import given, settings
from hypothesis import strategies as st

ALICE = TenantId("alice")
Files = dict[str, str]


def workload(sync: str) -> str:
    """The small workload with this section `sync`."""
    return f"{WORKLOAD}sync: {sync}\n"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Makes a host of which tenants' files are governed by a section `sync`."""
    made: list[World] = []

    def make(sync: str, text: str = WORKLOAD) -> World:
        made.append(World(tmp_path, workload=f"{text}sync: {sync}\n"))
        made[-1].pools.keep()
        return made[-1]

    yield make
    for world in made:
        world.close()


def renew(world: World, sync: str) -> None:
    """The daemon starts again with another workload file."""
    world.text = workload(sync)
    world.restart()
    world.recover()


def found(world: World) -> Files:
    """What the tenant's program sees."""
    root = world.state(ALICE)
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}


def life(world: World, files: Files, *removed: str) -> Files:
    """A claim, some writes and deletions, and a release; what was there at the claim."""
    world.tenants.claim(ALICE, "small")
    before = found(world)
    world.write(ALICE, files)
    for name in removed:
        (world.state(ALICE) / name).unlink()
    world.tenants.release(ALICE)
    world.pools.keep()
    return before


def test_without_mappings_a_deletion_is_one(host: Callable[..., World]) -> None:
    """As ever."""
    world = host("{}")
    life(world, {"a": "1", "b": "1"})
    assert life(world, {}, "b") == {"a": "1", "b": "1"}
    assert life(world, {}) == world.saved(ALICE) == {"a": "1"}


def test_mode_copy_brings_back_what_was_deleted(host: Callable[..., World]) -> None:
    """At the next claim, as a copy both ways would; a change is stored."""
    world = host("{mappings: [{path: /state/d, mode: copy}], rest: store}")
    life(world, {"d/a": "1", "d/b": "1", "e": "1"})
    life(world, {"d/a": "2"}, "d/b", "e")
    assert life(world, {}) == world.saved(ALICE) == {"d/a": "2", "d/b": "1"}


def test_direction_upload_is_not_restored_and_not_lost(host: Callable[..., World]) -> None:
    """The store keeps what the program never sees again, through many lives; what it writes anew replaces."""
    world = host("{mappings: [{path: /state/d, direction: upload}], rest: store}")
    life(world, {"d/a": "1", "d/b": "1", "e": "1"})
    assert life(world, {"d/a": "2"}) == {"e": "1"}
    for _ in range(3):
        assert life(world, {}) == {"e": "1"}
    assert world.saved(ALICE) == {"d/a": "2", "d/b": "1", "e": "1"}


def test_direction_download_does_not_store_changes(host: Callable[..., World]) -> None:
    """Neither new files nor changes nor deletions."""
    world = host("{}")
    life(world, {"d/a": "1", "d/b": "1", "e": "1"})
    renew(world, "{mappings: [{path: /state/d, direction: download}], rest: store}")
    life(world, {"d/a": "2", "d/new": "2", "e": "2"}, "d/b")
    assert life(world, {}) == world.saved(ALICE) == {"d/a": "1", "d/b": "1", "e": "2"}


def test_an_ignored_rest_is_neither_stored_nor_restored_nor_lost(host: Callable[..., World]) -> None:
    """What the store had of it before the rule stays there, and comes back with the rule's end."""
    world = host("{}")
    life(world, {"d/a": "1", "old": "1"})
    renew(world, "{mappings: [{path: /state/d}], rest: ignore}")
    assert life(world, {"new": "2", "d/a": "2"}) == {"d/a": "1"}
    assert world.saved(ALICE) == {"d/a": "2", "old": "1"}
    renew(world, "{}")
    assert life(world, {}) == {"d/a": "2", "old": "1"}


def test_what_is_excluded_is_left_out(host: Callable[..., World]) -> None:
    """Of everything, and of one mapping."""
    world = host("{exclude: ['*.lock'], mappings: [{path: /state/d, exclude: [old/]}], rest: store}")
    life(world, {"a.lock": "1", "d/old/x": "1", "d/x": "1", "old/x": "1"})
    assert world.saved(ALICE) == {"d/x": "1", "old/x": "1"}


@pytest.mark.parametrize("sync", ["{}", "{mappings: [{path: /state/d}], rest: store}"])
def test_rules_that_change_while_a_tenant_runs_delete_nothing(host: Callable[..., World], sync: str) -> None:
    """What the claim withheld is absent in the tree, and the new rules would take that for a deletion."""
    world = host("{mappings: [{path: /state/d, direction: upload}], rest: ignore}")
    life(world, {"d/a": "1"})
    world.tenants.claim(ALICE, "small")
    assert found(world) == {}
    renew(world, sync)
    world.write(ALICE, {"e": "1"})
    world.tenants.release(ALICE)
    assert world.saved(ALICE) == {"d/a": "1", "e": "1"}
    world.tenants.claim(ALICE, "small")
    assert found(world) == {"d/a": "1", "e": "1"}
    (world.state(ALICE) / "d/a").unlink()  # and now it is one
    world.tenants.release(ALICE)
    assert world.saved(ALICE) == {"e": "1"}


def test_a_kept_tree_does_not_delete_what_its_claim_withheld(host: Callable[..., World]) -> None:
    """A release whose upload failed, a new daemon, other rules, a claim with the kept tree: nothing is lost."""
    world = host("{mappings: [{path: /state/d, direction: upload}], rest: store}")
    life(world, {"d/a": "1", "e": "1"})
    world.tenants.claim(ALICE, "small")
    world.write(ALICE, {"f": "1"})
    put = world.store.put
    world.store.put = lambda *_args, **_more: (_ for _ in ()).throw(StoreUnavailable("away"))  # type: ignore[method-assign]
    with pytest.raises(UploadFailed):
        world.tenants.release(ALICE)
    world.store.put = put  # type: ignore[method-assign]
    renew(world, "{}")
    world.tenants.claim(ALICE, "small")
    assert found(world) == {"e": "1", "f": "1"}
    world.tenants.release(ALICE)
    assert world.saved(ALICE) == {"d/a": "1", "e": "1", "f": "1"}


PARKING = WORKLOAD.replace("affinity_timeout: 0", "affinity_timeout: 5m, warmth: {tree: 2}")


def test_a_parked_tree_is_not_taken_for_a_restored_one(host: Callable[..., World]) -> None:
    """It has what was not stored, and lacks what was brought back: with such rules a claim restores."""
    world = host("{mappings: [{path: /state/d, direction: download}], rest: store}", PARKING)
    life(world, {"d/a": "1", "e": "1"})
    assert world.row_state(ALICE) == "parked"
    assert life(world, {}) == {"e": "1"}


def test_a_parked_tree_without_rules_is_as_good_as_restored(host: Callable[..., World]) -> None:
    """It is taken as it is."""
    world = host("{}", PARKING)
    life(world, {"d/a": "1"})
    assert world.row_state(ALICE) == "parked"
    assert world.tenants.claim(ALICE, "small").state == "tree"


def test_a_tenants_other_volume_has_a_path_of_its_own(host: Callable[..., World]) -> None:
    """A mapping of the state does not govern it."""
    text = WORKLOAD.replace("logs: {target: /logs}", "comm: {target: /store}")
    world = host("{mappings: [{path: /state, mode: copy}, {path: /store, direction: upload}], rest: store}", text)
    life(world, {"a": "1", ".claw-volumes/comm/b": "1"})
    assert life(world, {}, "a") == {"a": "1"}
    assert world.saved(ALICE) == {"a": "1", ".claw-volumes/comm/b": "1"}


# --- any tree, any rules ---

STEP = st.sampled_from(["a", "b", "x.db", "c"])
PATH = st.lists(STEP, min_size=1, max_size=3).map("/".join)
TREES = st.dictionaries(PATH, st.sampled_from(["1", "2"]), max_size=5)
RULES = st.builds(
    Rule,
    path=st.one_of(st.just(""), PATH),
    fate=st.sampled_from([SYNCED, COPIED, UPLOADED, DOWNLOADED, IGNORED]),
    pattern=st.one_of(st.none(), st.sampled_from(["*.db", "b/", "a/*"])),
)
SELECTIONS = st.builds(
    lambda rules, rest: Selection(rules, rest=rest), st.lists(RULES, max_size=3), st.sampled_from([SYNCED, IGNORED])
)


COMMIT: dict[str, Any] = {"image_digest": "", "application": "", "allow_empty": True}


def write(root: Path, files: Files) -> None:
    """Make files where no other file is in their way."""
    for name, text in files.items():
        place = root / name
        above = [parent for parent in place.parents if parent != root and root in parent.parents]
        if not place.is_dir() and all(parent.is_dir() or not parent.exists() for parent in above):
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)


def remove(root: Path, number: int) -> None:
    """Delete every so many-th file."""
    for path in [path for path in sorted(root.rglob("*")) if path.is_file()][:: number + 1]:
        path.unlink()


@settings(max_examples=80, deadline=None)
@given(
    trees=st.lists(TREES, min_size=2, max_size=4),
    selections=st.lists(SELECTIONS, min_size=2, max_size=4),
    removed=st.integers(min_value=0, max_value=3),
)
def test_claims_and_releases_lose_nothing_that_the_rules_keep(
    tmp_path_factory: pytest.TempPathFactory, trees: list[Files], selections: list[Selection], removed: int
) -> None:
    """Lives with rules that change between claim and release: a file goes only by a deletion that the rules obey."""
    home = tmp_path_factory.mktemp("home")
    repository = Repository(MemoryStore(), "host-a", FakeClock(), home / "scratch")
    for number, files in enumerate(trees):
        at_claim = selections[number % len(selections)]
        at_release = selections[(number + 1) % len(selections)]
        tree = home / f"tree-{number}"
        before = stored(repository)
        right = repository.restorer.restore(repository.leases.acquire(ALICE), tree, at_claim)
        there = {str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file()}
        assert there == {path for path in before if at_claim.restores(path)}
        remove(tree, removed)
        write(tree, files)
        rules = at_release.after(at_claim)
        now = {str(path.relative_to(tree)): path.read_text() for path in tree.rglob("*") if path.is_file()}
        first = repository.committer.commit(
            CommitRequest(right=right, tree=tree, selection=rules, release=False, **COMMIT)
        )
        assert first.right is not None
        again = repository.committer.commit(
            CommitRequest(right=first.right, tree=tree, selection=rules, release=True, **COMMIT)
        )
        assert (again.created, again.number) == (False, first.number)
        after = stored(repository)
        for path, text in before.items():
            may_be_gone = path in there and rules.stores(path, False) and not rules.keeps_deleted(path)
            is_dir = (tree / path).is_dir()
            replaced = (path in now or is_dir) and rules.stores(path, is_dir)
            if not may_be_gone and not replaced:
                assert after[path] == text
        for path, text in now.items():
            if rules.stores(path, False):
                assert text in {after.get(path), *(after.get(name) for name in after if ".aside" in name)}


def stored(repository: Repository) -> Files:
    """Files of the newest generation, with their content."""
    head = repository.generations.head(ALICE)
    if head is None or not head.generation:
        return {}
    names = [entry.path for entry in repository.generations.manifest(ALICE).entries if entry.type == "f"]
    return {name: b"".join(repository.generations.read(ALICE, name)).decode() for name in names}
