"""What the next generation has although the tree lacks it."""

import os
from pathlib import Path

import pytest
from claw_runtime.formats.manifest import Entry, EntryType
from claw_runtime.objects.memory import MemoryStore
from claw_runtime.spec.parts import SyncLimits
from claw_runtime.state.commit.archiver import Archiver
from claw_runtime.state.commit.pack_upload import CommitUpload, UploadPool
from claw_runtime.state.rules.carry_over import carry
from claw_runtime.state.rules.selection import (
    COPIED,
    DOWNLOADED,
    EVERYTHING,
    IGNORED,
    SYNCED,
    UPLOADED,
    Rule,
    Selection,
)
from claw_runtime.tenancy import Keys, tenant_id
from fakes.clock import FakeClock
from hypothesis import given, settings
from hypothesis import strategies as st


def entry(path: str, mark: int = 0, *, is_a: EntryType = "f", kind: str = "plain") -> Entry:
    """A name; `mark` tells versions apart."""
    return Entry(path=path, type=is_a, mode=0o600, mtime_ns=mark, kind=kind, target="x" if is_a == "l" else None)  # type: ignore[arg-type]


def tree(*names: str, mark: int = 0) -> list[Entry]:
    """Entries in the order of a walk: a slash at the end is a directory, an `@` a link."""
    found: dict[str, Entry] = {}
    for name in names:
        steps = name.rstrip("/@").split("/")
        for number in range(1, len(steps)):
            above = "/".join(steps[:number])
            found.setdefault(above, entry(above, mark, is_a="d"))
        kind: EntryType = "d" if name.endswith("/") else "l" if name.endswith("@") else "f"
        found["/".join(steps)] = entry("/".join(steps), mark, is_a=kind)
    return sorted(found.values(), key=lambda item: [os.fsencode(step) for step in item.path.split("/")])


def carried(after: list[Entry], before: list[Entry], selection: Selection) -> dict[str, int]:
    """The paths that come of it, each with the mark of its version."""
    merged, _reported = carry(after, {item.path: item for item in before}, selection)
    assert merged == sorted(merged, key=lambda item: [os.fsencode(step) for step in item.path.split("/")])
    types = {item.path: item.type for item in merged}
    assert len(types) == len(merged)
    assert all(types.get(path.rpartition("/")[0], "d") == "d" for path in types)
    return {item.path: item.mtime_ns for item in merged}


def test_a_deletion_propagates_without_rules() -> None:
    """As ever: absence in the tree is absence in the generation."""
    assert carried(tree("a"), tree("a", "b/c"), EVERYTHING) == {"a": 0}


def test_a_deletion_does_not_propagate_in_mode_copy() -> None:
    """And a change does."""
    selection = Selection([Rule(path="d", fate=COPIED)])
    assert carried(tree("d/a", mark=1), tree("d/a", "d/b/c", "e"), selection) == {
        "d": 1,
        "d/a": 1,
        "d/b": 0,
        "d/b/c": 0,
    }


def test_what_is_only_uploaded_stays() -> None:
    """Its absence in the tree is no deletion: no claim brought it there."""
    selection = Selection([Rule(path="d", fate=UPLOADED)])
    assert carried(tree("d/new", mark=1), tree("d/old"), selection) == {"d": 1, "d/new": 1, "d/old": 0}


def test_what_is_only_downloaded_stays_as_it_was() -> None:
    """Nothing of the tree's own is in the entries, and all of the parent's is."""
    selection = Selection([Rule(path="d", fate=DOWNLOADED)])
    assert carried(tree("a", mark=1), tree("d/a", "d/e/"), selection) == {"a": 1, "d": 0, "d/a": 0, "d/e": 0}


def test_a_pattern_keeps_the_directories_on_the_way() -> None:
    """A kept file lies where it lay, and nothing else comes back with it."""
    selection = Selection([Rule(path="", fate=COPIED, pattern="*.db")])
    assert carried([], tree("a/b/x.db", "a/b/y", "a/z"), selection) == {"a": 0, "a/b": 0, "a/b/x.db": 0}


def test_what_a_restore_withheld_is_not_deleted() -> None:
    """Also when the rules that are in force at the commit would take its absence for a deletion."""
    before = Selection([Rule(path="d", fate=UPLOADED)])
    assert carried(tree("a"), tree("a", "d/b", "c"), EVERYTHING.after(before)) == {"a": 0, "d": 0, "d/b": 0}
    assert carried(tree("a"), tree("a", "d/b"), EVERYTHING.after(EVERYTHING)) == {"a": 0}
    assert carried(tree("a"), tree("a", "d/b"), Selection.everything(["d/"]).after(before)) == {"a": 0}


def test_a_file_where_a_kept_directory_is_goes_aside() -> None:
    """Both are in the generation, the commit reports it, and the next commit of the same tree is the same."""
    selection = Selection([Rule(path="d", fate=COPIED)])
    before = tree("d/a")
    merged, reported = carry(tree("d", mark=1), {item.path: item for item in before}, selection)
    assert {item.path: item.mtime_ns for item in merged} == {"d": 0, "d/a": 0, "d.aside": 1}
    assert [(skipped.path, skipped.reason) for skipped in reported] == [
        ("d", "stored as 'd.aside': a kept entry has its name")
    ]
    again, _ = carry(tree("d", mark=1), {item.path: item for item in merged}, selection)
    assert again == merged


def test_a_directory_where_a_kept_file_is_goes_aside_with_all_in_it() -> None:
    """Unless it replaces the file in its own right."""
    selection = Selection([Rule(path="d/e", fate=SYNCED), Rule(path="d", fate=DOWNLOADED)])
    assert carried(tree("d/e/f", mark=1), tree("d"), selection) == {
        "d": 0,
        "d.aside": 1,
        "d.aside/e": 1,
        "d.aside/e/f": 1,
    }
    assert carried(tree("d/f", mark=1), tree("d"), Selection([Rule(path="d", fate=COPIED)])) == {"d": 1, "d/f": 1}


def test_a_name_that_is_taken_is_not_taken_twice() -> None:
    """What goes aside replaces nothing."""
    selection = Selection([Rule(path="", fate=COPIED)])
    assert carried(tree("d", "d.aside", mark=1), tree("d/a"), selection) == {
        "d": 0,
        "d/a": 0,
        "d.aside": 1,
        "d.aside-2": 1,
    }


def test_a_database_has_no_sidecars_of_another_time() -> None:
    """They would be played into it when it is opened."""
    selection = Selection([Rule(path="", fate=COPIED)])
    before = tree("x.db", "x.db-wal", "x.db-journal")
    assert carried([entry("x.db", 1, kind="sqlite")], before, selection) == {"x.db": 1}


def test_a_sidecar_is_governed_as_its_database_is() -> None:
    """Whatever the pattern says of its own name."""
    selection = Selection([Rule(path="", fate=DOWNLOADED, pattern="*.db")])
    assert selection.fate("a/x.db-wal", is_dir=False) is DOWNLOADED
    assert selection.fate("a/x.db-journal", is_dir=False) is DOWNLOADED
    assert selection.fate("a/x.db-new", is_dir=False) is SYNCED


STEP = st.sampled_from(["a", "b", "x.db", "c"])
NAME = st.builds(
    lambda steps, end: "/".join(steps) + end, st.lists(STEP, min_size=1, max_size=3), st.sampled_from(["", "/", "@"])
)
FATES = st.sampled_from([SYNCED, COPIED, UPLOADED, DOWNLOADED, IGNORED])
RULES = st.lists(
    st.builds(
        Rule,
        path=st.one_of(st.just(""), st.lists(STEP, min_size=1, max_size=2).map("/".join)),
        fate=FATES,
        pattern=st.one_of(st.none(), st.sampled_from(["*.db", "b/", "a/*"])),
        exclude=st.sampled_from([(), ("c",), ("/a/b/",)]),
    ),
    max_size=3,
)
SELECTIONS = st.builds(
    lambda rules, exclude, rest: Selection(rules, exclude=exclude, rest=rest),
    RULES,
    st.sampled_from([(), ("c/",)]),
    st.sampled_from([SYNCED, IGNORED]),
)


def whole(names: list[str]) -> list[str]:
    """Those of the names that can be in one tree."""
    found: dict[str, str] = {}
    for name in names:
        path = name.rstrip("/@")
        steps = path.split("/")
        above = ["/".join(steps[:number]) for number in range(1, len(steps))]
        if path in found or any(found.get(step, "/") != "/" for step in above):
            continue
        found |= dict.fromkeys(above, "/")
        found[path] = name[len(path) :]
    return [f"{path}{end}" for path, end in found.items()]


NAMES = st.lists(NAME, max_size=8).map(whole)


def make(root: Path, entries: list[Entry]) -> None:
    """Put a generation's names on disk."""
    for item in entries:
        place = root / item.path
        match item.type:
            case "d":
                place.mkdir()
            case "l":
                place.symlink_to("x")
            case _:
                place.touch()


def walked(root: Path, selection: Selection, mark: int) -> list[Entry]:
    """What a commit finds in a tree."""
    upload = CommitUpload(MemoryStore(), FakeClock(), Keys(tenant_id("alice")), UploadPool(), epoch=1)
    archiver = Archiver(
        upload,
        FakeClock(),
        parent=None,
        cached=None,
        selection=selection,
        limits=SyncLimits(),
        scratch=root,
        still=True,
    )
    return [entry(item.path, mark, is_a=item.type) for item in archiver.archive(root).entries]


@settings(max_examples=150, deadline=None)
@given(before=NAMES, after=NAMES, selection=SELECTIONS, restored=SELECTIONS, adopted=st.booleans())
def test_no_entry_that_the_rules_keep_is_lost(
    tmp_path_factory: pytest.TempPathFactory,
    before: list[str],
    after: list[str],
    selection: Selection,
    restored: Selection,
    adopted: bool,
) -> None:
    """Whatever the trees and the rules: what is stored is there, what is kept is there, and nothing else is."""
    root = tmp_path_factory.mktemp("tree")
    make(root, tree(*after))
    rules = selection.after(restored) if adopted else selection
    parent = tree(*before)
    found = walked(root, rules, 1)
    merged, reported = carry(found, {item.path: item for item in parent}, rules)
    names = carried(found, parent, rules)
    aside = {skipped.path for skipped in reported}
    for item in tree(*after):
        if rules.stores(item.path, item.type == "d") and not any(
            f"{item.path}/".startswith(f"{path}/") for path in aside
        ):
            assert names[item.path] == 1
    assert sum(mark == 1 for mark in names.values()) >= sum(item.type != "d" for item in found)
    for item in parent:
        fate = rules.fate(item.path, is_dir=item.type == "d")
        replaced = any(new.path == item.path and rules.stores(new.path, new.type == "d") for new in found)
        if fate.kept and not replaced:
            assert item in merged
    kept = {item.path for item in parent if rules.fate(item.path, is_dir=item.type == "d").kept}
    for item in merged:
        own = item.mtime_ns == 1 or item.path in kept
        assert own or any(path.startswith(f"{item.path}/") for path in kept)
    again, _ = carry(found, {item.path: item for item in merged}, rules)
    assert [item.path for item in again] == [item.path for item in merged]
